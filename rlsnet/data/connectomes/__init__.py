"""Import of connectomes: wiring from tables, sparse matrices and SONATA, as a network.zarr."""
