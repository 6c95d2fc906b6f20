// A CUDA driver that runs kernels.cu on a CPU: the functions of libcuda that handlers.cc calls. For tests.
#include "emulation.h"

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>

#include "kernels.cu"

namespace emulation {

thread_local Index thread, block, threads, blocks;
thread_local Block* own;
thread_local Barrier grid;

namespace {

int skipped_line = 0;  // of a barrier that does nothing
thread_local uint64_t passed = 0;  // barriers that fibres have passed together, and ends of fibres

struct Fibre {
  jmp_buf at;
  bool started = false, done = false;
  Index thread, block;
  Block* own;
};
thread_local Fibre* now;
thread_local jmp_buf scheduler;
thread_local const std::function<void()>* body;

// A fibre lives on, and runs the next kernel when it is resumed after the end of one: to make a new one takes longer.
void Entry() {
  while (true) {
    (*body)();
    now->done = true, ++passed;
    if (!_setjmp(now->at)) _longjmp(scheduler, 1);
  }
}

void Resume(Fibre& fibre, char* stack, size_t size) {
  now = &fibre;
  thread = fibre.thread, block = fibre.block, own = fibre.own;
  if (_setjmp(scheduler)) return;
  if (fibre.started) _longjmp(fibre.at, 1);
  fibre.started = true;
  ucontext_t start;
  getcontext(&start);
  start.uc_stack.ss_sp = stack, start.uc_stack.ss_size = size, start.uc_link = nullptr;
  makecontext(&start, Entry, 0);
  setcontext(&start);
}

// The fibres of a thread of the CPU, and their stacks.
class Fibres {
 public:
  static constexpr size_t MOST = 4096, STACK = 64 * 1024;
  Fibres() : all_(MOST) {
    void* got = mmap(nullptr, STACK * MOST, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (got == MAP_FAILED) throw std::runtime_error("no memory for stacks");
    stacks_ = static_cast<char*>(got);
  }
  ~Fibres() { munmap(stacks_, STACK * MOST); }
  Fibre& operator[](unsigned f) { return all_[f]; }
  void Run(unsigned f) { Resume(all_[f], stacks_ + STACK * f, STACK); }

 private:
  std::vector<Fibre> all_;
  char* stacks_;
};

}  // namespace

bool Wait(Barrier& barrier, unsigned size, int line, bool flag) {
  if (line != 0 && line == skipped_line) return flag;
  const unsigned generation = barrier.generation;
  barrier.any |= flag;
  if (++barrier.arrived == size) {
    barrier.arrived = 0, barrier.was = barrier.any, barrier.any = false;
    ++barrier.generation, ++passed;
  } else {
    while (barrier.generation == generation)
      if (!_setjmp(now->at)) _longjmp(scheduler, 1);
  }
  return barrier.was;
}

void Launch(unsigned n_blocks, unsigned n_threads, size_t shared, bool together, const std::function<void()>& f) {
  static thread_local Fibres fibres;
  static thread_local std::mt19937 random(1);
  const unsigned live = together ? n_blocks : 1;
  if (live * n_threads > Fibres::MOST) throw std::runtime_error("more threads than fibres");
  body = &f, threads = {n_threads}, blocks = {n_blocks}, grid = {};
  std::vector<unsigned> order(live * n_threads);
  std::iota(order.begin(), order.end(), 0u);
  for (unsigned first = 0; first < n_blocks; first += live) {
    std::vector<Block> all(live);
    for (unsigned f : order) {
      Block& home = all[f / n_threads];
      if (home.warps.empty()) home.shared.assign(shared + 16, char(0xAB)), home.warps.resize((n_threads + 31) / 32);
      Fibre& fibre = fibres[f];
      fibre.done = false, fibre.thread = {f % n_threads}, fibre.block = {first + f / n_threads}, fibre.own = &home;
      ++home.warps[f % n_threads / 32].size;
    }
    for (bool any = true; any;) {
      const uint64_t before = passed;
      any = false;
      std::shuffle(order.begin(), order.end(), random);
      for (unsigned f : order)
        if (!fibres[f].done) fibres.Run(f), any |= !fibres[f].done;
      if (passed == before) throw std::runtime_error("the threads wait for each other");
    }
  }
}

}  // namespace emulation

// --- The driver -------------------------------------------------------------------------------------------------------

namespace {

using Kernel = void (*)(void**);
template <typename Arguments, void (*F)(Arguments)>
void Call(void** arguments) {
  F(*static_cast<Arguments*>(arguments[0]));
}
#define KERNEL(name, Arguments) {#name, Call<Arguments, name>}
#define KERNELS_OF_LEARNING(suffix, T, V) \
  KERNEL(learn_dense_##suffix##_##V, Learn<T>), KERNEL(learn_sparse_##suffix##_##V, Learn<T>), KERNEL(flush_##suffix##_##V, Learn<T>)
#define KERNELS(suffix, T)                                                                                                  \
  KERNEL(steps_##suffix, Steps<T>), KERNEL(enlist_##suffix, Delivery<T>), KERNEL(deliver_##suffix, Delivery<T>), KERNELS_OF_LEARNING(suffix, T, 1), \
      KERNELS_OF_LEARNING(suffix, T, 2)
const std::map<std::string, Kernel> kernels = {KERNELS(f32, float), KERNELS(f64, double), KERNELS_OF_LEARNING(f32, float, 4)};

constexpr int PROCESSORS = 3, THREADS = 64;

int Run(void* function, unsigned blocks, unsigned threads, unsigned shared, bool together, void** arguments) {
  const Kernel kernel = reinterpret_cast<Kernel>(function);
  if (threads > THREADS || (together && blocks > PROCESSORS)) return 720;  // CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE
  emulation::Launch(blocks, threads, shared, together, [=] { kernel(arguments); });
  return 0;
}

}  // namespace

extern "C" {

void skip_barrier(int line) { emulation::skipped_line = line; }

int cuInit(unsigned) { return 0; }
int cuDeviceGet(int* device, int ordinal) { return *device = ordinal, 0; }
int cuDevicePrimaryCtxRetain(void** context, int) { return *context = context, 0; }
int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
int cuGetErrorString(int, const char**) { return 1; }
int cuModuleUnload(void*) { return 0; }
int cuModuleLoad(void** module, const char* path) {
  if (access(path, R_OK)) return 301;  // CUDA_ERROR_FILE_NOT_FOUND
  *module = module;
  return 0;
}
int cuModuleGetFunction(void** function, void*, const char* name) {
  const auto found = kernels.find(name);
  if (found == kernels.end()) return 500;  // CUDA_ERROR_NOT_FOUND
  *function = reinterpret_cast<void*>(found->second);
  return 0;
}
int cuLaunchKernel(void* f, unsigned blocks, unsigned, unsigned, unsigned threads, unsigned, unsigned, unsigned shared, void*, void** arguments,
                   void**) {
  return Run(f, blocks, threads, shared, false, arguments);
}
int cuLaunchCooperativeKernel(void* f, unsigned blocks, unsigned, unsigned, unsigned threads, unsigned, unsigned, unsigned shared, void*,
                              void** arguments) {
  return Run(f, blocks, threads, shared, true, arguments);
}
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void*, int, size_t) { return *blocks = 1, 0; }
int cuFuncSetAttribute(void*, int, int) { return 0; }
int cuMemsetD8Async(unsigned long long to, unsigned char value, size_t bytes, void*) {
  std::memset(reinterpret_cast<void*>(to), value, bytes);
  return 0;
}
int cuStreamGetCtx(void*, void** context) { return *context = context, 0; }
int cuCtxPushCurrent_v2(void*) { return 0; }
int cuCtxPopCurrent_v2(void**) { return 0; }
int cuCtxGetDevice(int* device) { return *device = 0, 0; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
  *value = attribute == 1 ? THREADS : attribute == 16 ? PROCESSORS : 1;  // MAX_THREADS_PER_BLOCK, MULTIPROCESSOR_COUNT
  return 0;
}
}
