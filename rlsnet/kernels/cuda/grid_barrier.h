// A barrier of all blocks of a grid on a GPU, for kernels.cu, and for scripts/gpu/hardware.cu, which times it.
#pragma once

// All blocks run at the same time (cooperative launch). Each adds 1 to a counter, and waits until it has grown by the number of blocks.
// Writes before the barrier are seen after it by reads that bypass the first-level cache (__ldcg). The fence empties that cache, so it
// comes once, after the wait.
static __device__ void grid_barrier(unsigned* counter, unsigned& wanted) {
  __syncthreads();
  wanted += gridDim.x;
  if (threadIdx.x == 0) {
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
    unsigned seen;
    do asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(counter) : "memory");
    while (static_cast<int>(seen - wanted) < 0);
    asm volatile("fence.acq_rel.gpu;" ::: "memory");
  }
  __syncthreads();
}
