"""CUDA kernels of the hot loops: source, build, and an emulation on a CPU, with which tests run the same source without a GPU."""
