"""Device and backend of the hot loops, chosen once for a run; native kernels for the CPU."""
