"""Input and output: Zarr stores, files that appear when they are complete, and numbers and sizes as text."""
