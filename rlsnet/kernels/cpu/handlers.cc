// Native kernels, which XLA calls on a CPU: time steps, delivery and packing of spikes, noise, and recursive least squares.
//
// The same is computed in JAX, in a simpler form, by simulation/step.py, simulation/delivery.py, model/rng.py and learning/deferred.py.
// This file knows XLA, and calls.py calls it; what is computed is compiled in simulation.cc and learning.cc, at the same time (build.py).
// Dimension letters as everywhere: N neurons, G groups of S neurons with L plastic inputs each, Q pending updates.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

#include "../arguments.h"
#include "../ffi_arrays.h"
#include "learning.h"
#include "steps.h"
#include "threads.h"

// In simulation.cc and learning.cc.
#define COMPILED_ELSEWHERE(T)                                                      \
  extern template void Deliver<T>(const Pool&, const Delivery<T>&);                \
  extern template void RunSteps<T>(const Pool&, const Steps<T>&);                  \
  extern template void Update<T>(const Pool&, const Learn<T>&, const StoredP<T>&); \
  extern template void Flush<T>(const Pool&, const Learn<T>&, const StoredP<T>&);
COMPILED_ELSEWHERE(float)
COMPILED_ELSEWHERE(double)
void AllNormals(const Pool& pool, const uint32_t* keys, int64_t first, int64_t rows, int64_t n, float* to);

namespace {

Pool Threads(ffi::ThreadPool& pool) {
  return {pool.num_threads(), [&pool](std::function<void()> work) { pool.Schedule(std::move(work)); }};
}

// The answer of a handler that calls f(pool, inputs, outputs).
template <typename F>
ffi::Error Answer(ffi::ThreadPool& threads, ffi::RemainingArgs arguments, ffi::RemainingRets results, const F& f) {
  try {
    Inputs in(arguments);
    Outputs out(results);
    f(Threads(threads), in, out);
    return ffi::Error::Success();
  } catch (const std::string& error) {
    return ffi::Error::Internal(error);
  } catch (const std::exception& error) {  // XLA expects none
    return ffi::Error::Internal(error.what());
  }
}

// Arguments and results as in calls.deliver.
template <typename T>
ffi::Error RunDeliver(ffi::ThreadPool threads, ffi::RemainingArgs arguments, ffi::RemainingRets results, ffi::Dictionary) {
  return Answer(threads, arguments, results, [&](const Pool& pool, Inputs& in, Outputs& out) {
    unsigned char* spiked = in.Next<unsigned char>();
    const int64_t all = in.count();
    const T* gain = in.Next<const T>();
    Delivery<T> a = Connectivity<T>(in);
    a.spiked = spiked, a.gain = gain, a.trials = all / a.sources;
    Changed(a, out);
    Deliver(pool, a);
  });
}

// Arguments and results as in calls.steps.
template <typename T>
ffi::Error RunAllSteps(ffi::ThreadPool threads, ffi::RemainingArgs arguments, ffi::RemainingRets results, ffi::Dictionary attributes) {
  return Answer(threads, arguments, results, [&](const Pool& pool, Inputs& in, Outputs& out) {
    Steps<T> a = {};
    TimeSteps(a, in, out, attributes);
    std::memset(a.words, 0, a.words ? out.bytes() : 0);
    RunSteps(pool, a);
  });
}

// Arguments and results as in calls.normal.
ffi::Error RunNormal(ffi::ThreadPool threads, ffi::RemainingArgs arguments, ffi::RemainingRets results, ffi::Dictionary) {
  return Answer(threads, arguments, results, [&](const Pool& pool, Inputs& in, Outputs& out) {
    const uint32_t* key = in.Next<const uint32_t>();
    const uint32_t first = *in.Next<const uint32_t>();
    float* to = out.Next<float>();
    if (to) AllNormals(pool, key, first, out.count() / out.dimension(-1), out.dimension(-1), to);
  });
}

// Arguments and results as in calls.pack.
ffi::Error RunPack(ffi::ThreadPool threads, ffi::RemainingArgs arguments, ffi::RemainingRets results, ffi::Dictionary) {
  return Answer(threads, arguments, results, [&](const Pool&, Inputs& in, Outputs& out) {
    const unsigned char* flags = in.Next<const unsigned char>();
    const int64_t n = in.dimension(-1), rows = in.count() / n;
    uint32_t* words = out.Next<uint32_t>();
    for (int64_t row = 0; row < rows; ++row) PackFlags(flags + row * n, n, words + row * out.dimension(-1));
  });
}

// Arguments and results as in calls.unpack.
ffi::Error RunUnpack(ffi::ThreadPool threads, ffi::RemainingArgs arguments, ffi::RemainingRets results, ffi::Dictionary attributes) {
  return Answer(threads, arguments, results, [&](const Pool&, Inputs& in, Outputs& out) {
    const uint32_t* words = in.Next<const uint32_t>();
    const int64_t width = in.dimension(-1), devices = in.dimension(-2), each = Attribute<int64_t>(attributes, "each");
    unsigned char* flags = out.Next<unsigned char>();
    const int64_t all = out.dimension(-1), rows = out.count() / all;
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t device = 0; device < devices; ++device, words += width) {
        const int64_t begin = std::min(device * each, all), end = std::min(begin + each, all);
        UnpackFlags(words, end - begin, width, flags + row * all + begin);
      }
  });
}

// The next result: P of all groups, and its scale.
template <typename T>
StoredP<T> NextP(Outputs& out) {
  const ffi::DataType type = out.next_type();
  const NumberType numbers = type == ffi::BF16  ? NumberType::BFLOAT16
                             : type == ffi::F16 ? NumberType::FLOAT16
                             : type == ffi::S16 ? NumberType::INT16
                                                : NumberType::ENGINE;
  void* P = numbers == NumberType::ENGINE ? static_cast<void*>(out.Next<T>()) : out.Next<uint16_t>();
  const bool packed = out.dimensions() == 2;
  const int64_t row = out.dimension(-1), inputs = packed ? InputsOf(row) : out.dimension(-2);
  return {P, numbers, packed, out.Next<T>(), inputs, row};
}

// Arguments and results as in calls.learn.
template <typename T>
ffi::Error RunLearn(ffi::ThreadPool threads, ffi::RemainingArgs arguments, ffi::RemainingRets results, ffi::Dictionary) {
  return Answer(threads, arguments, results, [&](const Pool& pool, Inputs& in, Outputs& out) {
    Learn<T> a = {};
    Learning(a, in);
    const StoredP<T> P = NextP<T>(out);
    Learned(a, out);
    if (out.dimension(-1) != Padded<T>(a.inputs)) throw std::string("the rows of g are not padded");
    Update(pool, a, P);
  });
}

// Arguments and results as in calls.apply_pending.
template <typename T>
ffi::Error RunFlush(ffi::ThreadPool threads, ffi::RemainingArgs arguments, ffi::RemainingRets results, ffi::Dictionary) {
  return Answer(threads, arguments, results, [&](const Pool& pool, Inputs& in, Outputs& out) {
    Learn<T> a = {};
    PendingUpdates(a, in);
    const StoredP<T> P = NextP<T>(out);
    if (a.inputs != Padded<T>(P.inputs())) throw std::string("the rows of u are not padded");
    a.inputs = P.inputs();
    Flush(pool, a, P);
  });
}

}  // namespace

template <>
struct ffi::CtxBinding<ffi::ThreadPool> {
  using Ctx = ffi::ThreadPool;
};

#define HANDLER(name, F) \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(name, F, ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().RemainingArgs().RemainingRets().Attrs())

// RLSNET_F32 and RLSNET_F64 select the handlers, as a program needs those of one precision. build.py has the list of their names.
#ifdef RLSNET_F32
HANDLER(steps_f32, RunAllSteps<float>);
HANDLER(deliver_f32, RunDeliver<float>);
HANDLER(normal_f32, RunNormal);
HANDLER(pack_f32, RunPack);
HANDLER(unpack_f32, RunUnpack);
HANDLER(learn_f32, RunLearn<float>);
HANDLER(flush_f32, RunFlush<float>);
#endif
#ifdef RLSNET_F64
HANDLER(steps_f64, RunAllSteps<double>);
HANDLER(deliver_f64, RunDeliver<double>);
HANDLER(pack_f64, RunPack);
HANDLER(unpack_f64, RunUnpack);
HANDLER(learn_f64, RunLearn<double>);
HANDLER(flush_f64, RunFlush<double>);
#endif
