// FFI handlers that launch the kernels of kernels.cu. Nothing of CUDA is included or linked: the functions of the driver are found in
// its library at run time, and the kernels come from a file that NVRTC has made. With CUDA_EMULATION the handlers are for XLA on a CPU,
// and the driver is emulation.cc.

#include <dlfcn.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "../arguments.h"
#include "../ffi_arrays.h"

namespace {

using Stream = struct CUstream_st*;
using Handle = void*;

// The CUDA driver, and the kernels in it: one module for each context.
class Driver {
 public:
  static Driver& Get() {
    static Driver driver;
    return driver;
  }

  void Configure(const char* library, const char* kernels) {
    std::lock_guard<std::mutex> lock(mutex_);
    library_path_ = library, kernels_path_ = kernels;
  }

  // Why the kernels cannot be used on a device; empty: they can.
  std::string Refusal(int ordinal) {
    std::lock_guard<std::mutex> lock(mutex_);
    try {
      Open();
      int device = 0, together = 0;
      Handle context = nullptr, module = nullptr;
      Check(init_(0), "cuInit");
      Check(device_of_(&device, ordinal), "cuDeviceGet");
      Check(attribute_(&together, 95, device), "cuDeviceGetAttribute");  // COOPERATIVE_LAUNCH
      if (!together) return "CUDA: this GPU cannot start all blocks of a kernel together";
      Check(retain_(&context, device), "cuDevicePrimaryCtxRetain");
      push_(context);
      const int status = load_(&module, kernels_path_.c_str());
      if (status == 0) unload_(module);
      pop_(&context);
      release_(device);
      Check(status, "cuModuleLoad of " + kernels_path_);
      return "";
    } catch (const std::string& error) {
      return error;
    }
  }

  // Calls f(*this), during which the context of the stream is the current one.
  template <typename F>
  ffi::Error With(Stream stream, const F& f) {
    std::lock_guard<std::mutex> lock(mutex_);
    Handle context = nullptr;
    try {
      Open();
      Check(stream_context_(stream, &context), "cuStreamGetCtx");
      Check(push_(context), "cuCtxPushCurrent");
    } catch (const std::string& error) {
      return ffi::Error::Internal(error);
    }
    ffi::Error result = ffi::Error::Success();
    try {
      module_ = &modules_[context];
      if (module_->handle == nullptr) LoadModule();
      f(*this);
    } catch (const std::string& error) {
      result = ffi::Error::Internal(error);
    } catch (const std::exception& error) {  // XLA expects none
      result = ffi::Error::Internal(error.what());
    }
    pop_(&context);
    return result;
  }

  // Starts a kernel with a struct of arguments. threads: at most the limit of the device; together: all blocks at the same time, and no more
  // than fit on the device.
  void Launch(const std::string& name, unsigned blocks, unsigned threads, size_t shared, bool together, Stream stream, void* arguments) {
    Handle& function = module_->functions[name];
    if (function == nullptr) Check(function_(&function, module_->handle, name.c_str()), "cuModuleGetFunction of " + name);
    if (shared > 48 * 1024) Check(set_attribute_(function, 8, static_cast<int>(shared)), "shared memory of " + name);
    void* parameters[] = {arguments};
    if (!together) {
      Check(launch_(function, blocks, 1, 1, threads, 1, 1, shared, stream, parameters, nullptr), "launch of " + name);
      return;
    }
    int fit = 0;
    Check(occupancy_(&fit, function, static_cast<int>(threads), shared), "cuOccupancyMaxActiveBlocksPerMultiprocessor");
    if (fit < 1) throw std::string("CUDA: a block of " + name + " does not fit on this GPU");
    const unsigned most = fit * processors();
    Check(launch_together_(function, std::min(blocks, most), 1, 1, threads, 1, 1, shared, stream, parameters), "launch of " + name);
  }

  void Zero(void* to, size_t bytes, Stream stream) {
    if (bytes) Check(zero_(reinterpret_cast<unsigned long long>(to), 0, bytes, stream), "cuMemsetD8Async");
  }

  unsigned processors() const { return module_->processors; }
  unsigned threads(unsigned wanted) const { return std::min(wanted, module_->threads); }

 private:
  struct Module {
    Handle handle = nullptr;
    unsigned processors = 0, threads = 0;  // of the device; threads: most in a block
    std::map<std::string, Handle> functions;
  };

  void Check(int status, const std::string& what) const {
    if (status == 0) return;
    const char* words = nullptr;
    words_(status, &words);
    throw std::string("CUDA: " + what + " failed with error " + std::to_string(status) + (words ? std::string(", ") + words : ""));
  }

  template <typename F>
  void Find(F& f, const char* name) {
    f = reinterpret_cast<F>(dlsym(library_, name));
    if (f == nullptr) throw std::string("CUDA: " + library_path_ + " has no " + name);
  }

  void Open() {
    if (opened_) return;
    if (library_ == nullptr) library_ = dlopen(library_path_.c_str(), RTLD_NOW);
    if (library_ == nullptr) throw std::string("CUDA: " + library_path_ + " cannot be loaded");
    Find(load_, "cuModuleLoad"), Find(function_, "cuModuleGetFunction"), Find(launch_, "cuLaunchKernel");
    Find(launch_together_, "cuLaunchCooperativeKernel"), Find(occupancy_, "cuOccupancyMaxActiveBlocksPerMultiprocessor");
    Find(set_attribute_, "cuFuncSetAttribute"), Find(zero_, "cuMemsetD8Async"), Find(stream_context_, "cuStreamGetCtx");
    Find(push_, "cuCtxPushCurrent_v2"), Find(pop_, "cuCtxPopCurrent_v2"), Find(device_, "cuCtxGetDevice");
    Find(attribute_, "cuDeviceGetAttribute"), Find(init_, "cuInit"), Find(device_of_, "cuDeviceGet"), Find(unload_, "cuModuleUnload");
    Find(retain_, "cuDevicePrimaryCtxRetain"), Find(release_, "cuDevicePrimaryCtxRelease_v2"), Find(words_, "cuGetErrorString");
    opened_ = true;
  }

  void LoadModule() {
    int device = 0, threads = 0, processors = 0;
    Check(device_(&device), "cuCtxGetDevice");
    Check(attribute_(&threads, 1, device), "cuDeviceGetAttribute");
    Check(attribute_(&processors, 16, device), "cuDeviceGetAttribute");
    module_->threads = threads, module_->processors = processors;
    Check(load_(&module_->handle, kernels_path_.c_str()), "cuModuleLoad of " + kernels_path_);
  }

  std::mutex mutex_;
  std::string library_path_, kernels_path_;
  void* library_ = nullptr;
  bool opened_ = false;  // and all functions found
  std::map<Handle, Module> modules_;
  Module* module_ = nullptr;
  int (*load_)(Handle*, const char*);
  int (*function_)(Handle*, Handle, const char*);
  int (*launch_)(Handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Stream, void**, void**);
  int (*launch_together_)(Handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Stream, void**);
  int (*occupancy_)(int*, Handle, int, size_t);
  int (*set_attribute_)(Handle, int, int);
  int (*zero_)(unsigned long long, unsigned char, size_t, Stream);
  int (*stream_context_)(Stream, Handle*);
  int (*push_)(Handle);
  int (*pop_)(Handle*);
  int (*device_)(int*);
  int (*attribute_)(int*, int, int);
  int (*init_)(unsigned);
  int (*device_of_)(int*, int);
  int (*unload_)(Handle);
  int (*retain_)(Handle*, int);
  int (*release_)(int);
  int (*words_)(int, const char**);
};

// The answer of a handler that calls f(driver, inputs, outputs).
template <typename F>
ffi::Error Answer(Stream stream, ffi::RemainingArgs arguments, ffi::RemainingRets results, const F& f) {
  return Driver::Get().With(stream, [&](Driver& driver) {
    Inputs in(arguments);
    Outputs out(results);
    f(driver, in, out);
  });
}

template <typename T>
std::string Named(const char* kernel) {
  return std::string(kernel) + (sizeof(T) == 4 ? "_f32" : "_f64");
}

unsigned Blocks(long long threads, unsigned block) { return static_cast<unsigned>((threads + block - 1) / block); }

template <typename T>
void Listed(Delivery<T>& a, Outputs& out) {
  a.list = out.Next<int>();
  a.trials = out.dimension(0) / (2 * a.sources);
  a.count = reinterpret_cast<SpikeCount*>(out.Next<int>());
}
constexpr size_t BARRIER = 128, COUNTERS = BARRIER + sizeof(unsigned);  // bytes; the barrier of `steps` has a cache line of its own

// Arguments and results as in calls.deliver.
template <typename T>
ffi::Error RunDeliver(Stream stream, ffi::RemainingArgs arguments, ffi::RemainingRets results, ffi::Dictionary) {
  return Answer(stream, arguments, results, [&](Driver& driver, Inputs& in, Outputs& out) {
    unsigned char* spiked = in.Next<unsigned char>();
    const T* gain = in.Next<const T>();
    Delivery<T> a = Connectivity<T>(in);
    a.spiked = spiked, a.gain = gain;
    Changed(a, out);
    Listed(a, out);
    driver.Zero(a.count, COUNTERS, stream);
    const unsigned threads = driver.threads(512), most = 4 * driver.processors();
    driver.Launch(Named<T>("enlist"), std::min(most, Blocks(static_cast<long long>(a.trials) * a.sources, threads)), threads, 0, false, stream, &a);
    driver.Launch(Named<T>("deliver"), most, threads, 0, false, stream, &a);
  });
}

// Arguments and results as in calls.steps.
template <typename T>
ffi::Error RunSteps(Stream stream, ffi::RemainingArgs arguments, ffi::RemainingRets results, ffi::Dictionary attributes) {
  return Answer(stream, arguments, results, [&](Driver& driver, Inputs& in, Outputs& out) {
    Steps<T> a = {};
    TimeSteps(a, in, out, attributes);
    const size_t words = out.bytes();
    Listed(a.delivery, out);
    a.barrier = reinterpret_cast<unsigned*>(a.delivery.count) + BARRIER / sizeof(unsigned);
    driver.Zero(a.delivery.count, COUNTERS, stream);
    driver.Zero(a.words, words, stream);
    const unsigned threads = driver.threads(512);
    driver.Launch(Named<T>("steps"), Blocks(static_cast<long long>(a.delivery.trials) * a.delivery.sources, threads), threads, 0, true, stream, &a);
  });
}

// The name of a kernel for L inputs: its last number is how many of them it reads at once.
template <typename T>
std::string ForInputs(const char* kernel, int inputs) {
  int vector = 16 / sizeof(T);
  while (inputs % vector) vector /= 2;
  return Named<T>(kernel) + "_" + std::to_string(vector);
}

// Bytes of a block's room in shared memory; `Room` in kernels.cu.
template <typename T>
size_t SharedBytes(int vectors, int inputs, int most, unsigned threads) {
  const size_t stride = padded(inputs);
  return sizeof(T) * ((vectors + 3) * stride + 4 * threads + 64 + padded(most)) + sizeof(int) * (stride + 32);
}

unsigned GroupBlocks(const Driver& driver, int groups) { return std::min<unsigned>(groups, 64 * driver.processors()); }

// Arguments and results as in calls.learn.
template <typename T>
ffi::Error RunLearn(Stream stream, ffi::RemainingArgs arguments, ffi::RemainingRets results, ffi::Dictionary) {
  return Answer(stream, arguments, results, [&](Driver& driver, Inputs& in, Outputs& out) {
    Learn<T> a = {};
    Learning(a, in);
    a.P = out.Next<T>();
    out.Next<T>();  // no scale
    Learned(a, out);
    for (const bool dense : {true, false}) {  // each looks whether it is its turn
      const unsigned threads = driver.threads(dense ? 256 : 128);
      const size_t shared = SharedBytes<T>(dense ? a.most : 0, a.inputs, a.most, threads);
      driver.Launch(ForInputs<T>(dense ? "learn_dense" : "learn_sparse", a.inputs), GroupBlocks(driver, a.groups), threads, shared, false, stream, &a);
    }
  });
}

// Arguments and results as in calls.apply_pending.
template <typename T>
ffi::Error RunFlush(Stream stream, ffi::RemainingArgs arguments, ffi::RemainingRets results, ffi::Dictionary) {
  return Answer(stream, arguments, results, [&](Driver& driver, Inputs& in, Outputs& out) {
    Learn<T> a = {};
    PendingUpdates(a, in);
    a.P = out.Next<T>();
    const size_t shared = sizeof(T) * a.most * padded(a.inputs);
    driver.Launch(ForInputs<T>("flush", a.inputs), GroupBlocks(driver, a.groups), driver.threads(256), shared, false, stream, &a);
  });
}

}  // namespace

// The library of the driver, and the file with the kernels; before the first call of a handler.
extern "C" void configure(const char* driver, const char* kernels) { Driver::Get().Configure(driver, kernels); }

// Why the kernels cannot be used on a device; empty: they can.
extern "C" const char* refusal(int device) {
  static std::string text;
  text = Driver::Get().Refusal(device);
  return text.c_str();
}

// Not marked as compatible with XLA's command buffers: kernels are loaded at the first call, which is not allowed while a CUDA graph is made.
#ifdef CUDA_EMULATION
#define HANDLER(name, F)                                                                                     \
  static ffi::Error name##_on_cpu(ffi::RemainingArgs arguments, ffi::RemainingRets results, ffi::Dictionary attributes) { \
    return F(nullptr, arguments, results, attributes);                                                      \
  }                                                                                                          \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(name, name##_on_cpu, ffi::Ffi::Bind().RemainingArgs().RemainingRets().Attrs())
#else
#define HANDLER(name, F) \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(name, F, ffi::Ffi::Bind().Ctx<ffi::PlatformStream<Stream>>().RemainingArgs().RemainingRets().Attrs())
#endif
HANDLER(steps_f32, RunSteps<float>);
HANDLER(steps_f64, RunSteps<double>);
HANDLER(deliver_f32, RunDeliver<float>);
HANDLER(deliver_f64, RunDeliver<double>);
HANDLER(learn_f32, RunLearn<float>);
HANDLER(learn_f64, RunLearn<double>);
HANDLER(flush_f32, RunFlush<float>);
HANDLER(flush_f64, RunFlush<double>);
