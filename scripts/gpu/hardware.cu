// Speeds of a GPU that an iteration's time depends on: copy, random atomic adds, barrier of all blocks, launch, graph node.
//   nvcc -O3 -std=c++17 -arch=native hardware.cu -o hardware && ./hardware
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include "../../rlsnet/kernels/cuda/grid_barrier.h"

#define CHECK(call)                                                              \
  do {                                                                           \
    const cudaError_t error = (call);                                            \
    if (error != cudaSuccess) {                                                  \
      printf("%s:%d %s\n", __FILE__, __LINE__, cudaGetErrorString(error));       \
      exit(1);                                                                   \
    }                                                                            \
  } while (0)

__global__ void barriers(unsigned* arrived, int times) {
  unsigned target = 0;
  for (int i = 0; i < times; ++i) grid_barrier(arrived, target);
}

__global__ void nothing() {}

__global__ void copy(const float4* from, float4* to, size_t n) {
  const size_t stride = size_t(gridDim.x) * blockDim.x;
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < n; i += stride) to[i] = from[i];
}

// `n` adds of 1 at pseudo-random places among `size` numbers (a power of two), as spikes arrive at neurons.
__global__ void scatter(float* at, unsigned size, unsigned n) {
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    unsigned x = (i ^ (i >> 16)) * 0x7FEB352Du;
    x = (x ^ (x >> 15)) * 0x846CA68Bu;
    atomicAdd(&at[(x ^ (x >> 16)) & (size - 1)], 1.0f);
  }
}

static double seconds(const std::function<void()>& run, int times = 5) {  // median, after one run that is not counted
  std::vector<double> taken;
  cudaEvent_t begin, end;
  CHECK(cudaEventCreate(&begin));
  CHECK(cudaEventCreate(&end));
  for (int i = 0; i <= times; ++i) {
    CHECK(cudaEventRecord(begin));
    run();
    CHECK(cudaEventRecord(end));
    CHECK(cudaEventSynchronize(end));
    CHECK(cudaGetLastError());
    float ms;
    CHECK(cudaEventElapsedTime(&ms, begin, end));
    if (i) taken.push_back(ms * 1e-3);
  }
  std::sort(taken.begin(), taken.end());
  return taken[times / 2];
}

template <typename T>
static T* zeros(size_t n) {
  T* p;
  CHECK(cudaMalloc(&p, n * sizeof(T)));
  CHECK(cudaMemset(p, 0, n * sizeof(T)));
  return p;
}

static void time_copy(int processors) {
  const size_t n = size_t(1) << 26;  // 1 GiB each
  float4 *from = zeros<float4>(n), *to = zeros<float4>(n);
  const double s = seconds([&] { copy<<<processors * 16, 512>>>(from, to, n); });
  printf("copy: %.2f TB/s, read and written\n", 2.0 * n * sizeof(float4) / s * 1e-12);
  CHECK(cudaFree(from));
  CHECK(cudaFree(to));
}

static void time_atomics(int processors) {
  for (unsigned size : {1u << 16, 1u << 20, 1u << 23, 1u << 27}) {
    const unsigned n = 1u << 26;
    float* at = zeros<float>(size);
    const double s = seconds([&] { scatter<<<processors * 8, 256>>>(at, size, n); });
    printf("atomic adds at random in %.3g MB: %.1f G/s\n", size * 4e-6, n / s * 1e-9);
    CHECK(cudaFree(at));
  }
}

static void time_barriers(int processors) {
  unsigned* arrived = zeros<unsigned>(1);
  int times = 2000;
  void* arguments[] = {&arrived, &times};
  for (int per_processor : {1, 2, 4})
    for (int threads : {128, 256, 512}) {
      int fit;  // blocks that a processor can hold: all have to be resident
      CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&fit, barriers, threads, 0));
      if (fit < per_processor) continue;
      const double s = seconds([&] {
        CHECK(cudaMemsetAsync(arrived, 0, sizeof(unsigned)));
        CHECK(cudaLaunchCooperativeKernel((void*)barriers, per_processor * processors, threads, arguments, 0, 0));
      });
      printf("barrier of %d blocks of %d threads: %.2f us\n", per_processor * processors, threads, s / times * 1e6);
    }
}

static void time_launches(int processors) {
  const int times = 1000;
  double s = seconds([&] { for (int i = 0; i < times; ++i) nothing<<<processors, 256>>>(); });
  printf("empty launch: %.2f us\n", s / times * 1e6);
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t program;
  CHECK(cudaStreamCreate(&stream));
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  for (int i = 0; i < times; ++i) nothing<<<processors, 256, 0, stream>>>();
  CHECK(cudaStreamEndCapture(stream, &graph));
  CHECK(cudaGraphInstantiate(&program, graph, 0));
  s = seconds([&] { CHECK(cudaGraphLaunch(program, 0)); });
  printf("empty node of a graph: %.2f us\n", s / times * 1e6);
}

int main() {
  cudaDeviceProp card;
  CHECK(cudaGetDeviceProperties(&card, 0));
  const int processors = card.multiProcessorCount;
  printf("%s, %d processors, L2 %.0f MB, %.0f GB\n", card.name, processors, card.l2CacheSize * 1e-6, card.totalGlobalMem * 1e-9);
  time_copy(processors);
  time_atomics(processors);
  time_barriers(processors);
  time_launches(processors);
  return 0;
}
