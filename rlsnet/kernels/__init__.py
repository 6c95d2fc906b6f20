"""Device and implementation of the hot loops, chosen once; and the compiled kernels for a CPU."""
