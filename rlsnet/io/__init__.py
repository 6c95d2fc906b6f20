"""Zarr stores, files replaced as a whole, and texts of numbers and sizes."""
