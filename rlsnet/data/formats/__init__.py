"""Readers of file formats, a module each."""
