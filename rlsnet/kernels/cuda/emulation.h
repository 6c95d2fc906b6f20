// What kernels.cu takes from CUDA, for a CPU: every CUDA thread is a fibre, and one fibre runs at a time until it waits at a barrier or
// in an operation of its warp. Between two barriers the order of the fibres is drawn anew each time, and shared memory is filled with
// numbers that mean nothing, so that a missing barrier shows. Missing memory fences do not show.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>
#include <vector>

#define CUDA_EMULATION
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)

namespace emulation {

struct Index {
  unsigned x;
};
struct Barrier {
  unsigned arrived = 0, generation = 0;
  bool any = false, was = false;  // of the threads' flags, at the present and at the last meeting
};
struct Warp {
  Barrier barrier;
  unsigned size = 0;
  uint64_t slots[2][32];  // in turn, so that a fast lane does not write over what a slow one has yet to read
  uint64_t* Slot() { return slots[barrier.generation % 2]; }
};
struct Block {
  Barrier barrier;
  std::vector<char> shared;
  std::vector<Warp> warps;
};

// The fibre that runs.
extern thread_local Index thread, block, threads, blocks;
extern thread_local Block* own;
extern thread_local Barrier grid;

// Waits until `size` fibres have come to a barrier; returns whether the flag of any was true. `line`: of the source, or 0.
bool Wait(Barrier& barrier, unsigned size, int line, bool flag = false);

// Runs f as a kernel; together: all blocks at the same time, as in a cooperative launch.
void Launch(unsigned blocks, unsigned threads, size_t shared, bool together, const std::function<void()>& f);

inline Warp& warp() { return own->warps[thread.x / 32]; }

// The value that lane `from` of the warp gives.
template <typename T>
T Exchange(T value, unsigned from) {
  Warp& w = warp();
  uint64_t* slot = w.Slot();
  std::memcpy(&slot[thread.x % 32], &value, sizeof value);
  Wait(w.barrier, w.size, 0);
  if (from < w.size) std::memcpy(&value, &slot[from], sizeof value);
  return value;
}

}  // namespace emulation

#define threadIdx emulation::thread
#define blockIdx emulation::block
#define blockDim emulation::threads
#define gridDim emulation::blocks
#define __syncthreads() emulation::Wait(emulation::own->barrier, blockDim.x, __LINE__)
#define __syncthreads_or(flag) emulation::Wait(emulation::own->barrier, blockDim.x, __LINE__, flag)
#define grid_barrier(counter, wanted) ((void)wanted, emulation::Wait(emulation::grid, gridDim.x * blockDim.x, __LINE__))
#define SHARED(T, name) T* name = reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(emulation::own->shared.data()) + 15) & ~uintptr_t{15})

template <typename T>
T __shfl_xor_sync(unsigned, T value, unsigned mask) {
  return emulation::Exchange(value, (threadIdx.x % 32) ^ mask);
}
inline unsigned __ballot_sync(unsigned, bool flag) {
  unsigned bits = 0;
  emulation::Warp& w = emulation::warp();
  uint64_t* slot = w.Slot();
  slot[threadIdx.x % 32] = flag;
  emulation::Wait(w.barrier, w.size, 0);
  for (unsigned lane = 0; lane < w.size; ++lane) bits |= static_cast<unsigned>(slot[lane]) << lane;
  return bits;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
template <typename T>
T atomicAdd(T* to, T value) {
  const T old = *to;
  *to += value;
  return old;
}
inline void atomicMax(unsigned* to, unsigned value) { *to = *to > value ? *to : value; }
inline void atomicOr(unsigned* to, unsigned value) { *to |= value; }
template <typename T>
T __ldcg(const T* from) {
  return *from;
}
template <typename T>
T fma(T a, T b, T c) {
  return a * b + c;
}

// The standard normal quantile, by Halley's method from a rough start; accurate in relative terms in both tails.
inline double normcdfinv(double u) {
  if (u > 0.5) return -normcdfinv(1 - u);
  const double t = std::sqrt(-2 * std::log(u));
  double x = -(t - (2.30753 + 0.27061 * t) / (1 + t * (0.99229 + 0.04481 * t)));
  for (int i = 0; i < 4; ++i) {
    const double e = (0.5 * std::erfc(-x * M_SQRT1_2) - u) * std::sqrt(2 * M_PI) * std::exp(x * x / 2);
    x -= e / (1 + x * e / 2);
  }
  return x;
}
