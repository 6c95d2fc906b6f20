"""Recordings: reading, writing, making a synthetic one, and importing sessions of spikes and trials."""
