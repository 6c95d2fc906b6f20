// Native kernels, which XLA calls on a CPU: delivery of spikes, noise, and recursive least squares.
//
// The same is computed in JAX, in a simpler form, by simulation/delivery.py, model/rng.py and learning/deferred.py. build.py compiles it,
// calls.py calls it.
// Dimension letters as everywhere: N neurons, G groups of S neurons with L plastic inputs each, Q pending updates.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <type_traits>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

// Calls f(begin, end) on ranges that cover 0..n, on all threads of XLA's pool. The caller works too, and waits only for
// threads that have taken a range, so it does not matter when, or whether, the pool gets round to it.
template <typename F>
void Parallel(ffi::ThreadPool& pool, int64_t n, int64_t grain, const F& f) {
  const int64_t threads = std::min<int64_t>(pool.num_threads(), (n + grain - 1) / grain);
  if (threads <= 1) return f(0, n);
  struct Shared {
    std::atomic<int64_t> next{0};
    int64_t done = 0;
    std::mutex mutex;
    std::condition_variable finished;
  };
  auto shared = std::make_shared<Shared>();
  auto work = [shared, n, grain, &f] {
    int64_t done = 0;
    for (int64_t begin; (begin = shared->next.fetch_add(grain)) < n;) {
      const int64_t end = std::min(n, begin + grain);
      f(begin, end);
      done += end - begin;
    }
    if (done == 0) return;  // f may no longer exist
    std::lock_guard<std::mutex> lock(shared->mutex);
    if ((shared->done += done) == n) shared->finished.notify_all();
  };
  for (int64_t t = 1; t < threads; ++t) pool.Schedule(std::function<void()>(work));
  work();
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->finished.wait(lock, [&] { return shared->done == n; });
}

// x / d for x < 2^31, without a division.
struct Divider {
  uint64_t inverse;
  explicit Divider(uint64_t d) : inverse((uint64_t{1} << 63) / d + 1) {}
  int64_t operator()(uint64_t x) const { return static_cast<int64_t>((static_cast<unsigned __int128>(x) * inverse) >> 63); }
};

// --- Spikes -----------------------------------------------------------------------------------------------------------

// Calls f(j) for each neuron that spiked, in order.
template <typename F>
void ForEachSpike(const bool* spiked, int64_t n, const F& f) {
  int64_t j = 0;
  for (; j + 64 <= n; j += 64) {
    uint64_t any[8];
    std::memcpy(any, spiked + j, 64);
    if (any[0] | any[1] | any[2] | any[3] | any[4] | any[5] | any[6] | any[7])
      for (int64_t i = j; i < j + 64; ++i)
        if (spiked[i]) f(i);
  }
  for (; j < n; ++j)
    if (spiked[j]) f(j);
}

inline uint32_t Mix(uint32_t x) {  // rng.mix
  x = (x ^ (x >> 16)) * 0x7FEB352Du;
  x = (x ^ (x >> 15)) * 0x846CA68Bu;
  return x ^ (x >> 16);
}

// Procedural synapses: postsynaptic neurons of a spike, drawn again at each spike as in connectivity.targets_of.
class Draw {
 public:
  Draw(int64_t n, const uint32_t* stream) : n_(n) {
    if (stream == nullptr) return;
    stream_[0] = stream[0], stream_[1] = stream[1];
    a_ = static_cast<uint32_t>(std::sqrt(static_cast<double>(n - 2))) + 1;
    b_ = (n - 1 + a_ - 1) / a_;
  }
  template <typename F>
  void ForEachTarget(int64_t j, int64_t degree, const F& f) const {
    const uint32_t s0 = Mix(stream_[0] ^ Mix(static_cast<uint32_t>(j) + 0x9E3779B9u));  // rng.fold
    const uint32_t s1 = Mix(stream_[1] + s0 * 0x85EBCA6Bu + 1u);
    for (int64_t k = 0; k < degree; ++k) {
      uint32_t x = k;
      do x = Walk(x, s0, s1);
      while (x >= n_ - 1);
      const int64_t i = j + 1 + x;
      f(i < n_ ? i : i - n_);
    }
  }

 private:
  uint32_t Walk(uint32_t x, uint32_t s0, uint32_t s1) const {  // one pass of rng.permute
    uint32_t left = x / b_, right = x % b_;
    auto draw = [&](uint32_t round, uint32_t side, uint32_t size) {
      return ((Mix(Mix((side + round * 0x9E3779B9u) ^ s0) + s1) >> 16) * size) >> 16;
    };
    for (uint32_t round = 0; round < 4; ++round) {
      left += draw(2 * round, right, a_);
      left -= left < a_ ? 0 : a_;
      right += draw(2 * round + 1, left, b_);
      right -= right < b_ ? 0 : b_;
    }
    return left * b_ + right;
  }
  int64_t n_;
  uint32_t stream_[2] = {0, 0}, a_ = 1, b_ = 1;
};

constexpr int64_t AHEAD = 32;  // weights to prefetch, as they are far apart in memory
constexpr int64_t WORTH_A_THREAD = 12000;  // targets of spikes in a step from which on several threads are faster than one

// Delivery of the spikes of a step in place, one neuron after the other; trials side by side by several threads.
template <ffi::DataType D>
ffi::Error Deliver(ffi::ThreadPool threads, ffi::Buffer<ffi::PRED> spiked, ffi::Buffer<D> gain, ffi::Buffer<ffi::PRED> excitatory, ffi::Buffer<ffi::S32> indptr,
                   ffi::Buffer<ffi::U32> stream, ffi::Buffer<ffi::S32> post, ffi::Buffer<D> weight, ffi::Buffer<ffi::S32> out_indptr, ffi::Buffer<ffi::S32> out_slot,
                   ffi::Buffer<ffi::S32> channels, ffi::Buffer<D> w, ffi::Buffer<D>, ffi::Buffer<D>, ffi::Buffer<ffi::S32>, ffi::ResultBuffer<D> pool_out,
                   ffi::ResultBuffer<D> r_out, ffi::ResultBuffer<ffi::S32> counts_out) {
  using T = ffi::NativeType<D>;
  const int64_t n = excitatory.element_count(), n_weights = weight.element_count();
  const bool drawn = stream.element_count() > 0, any_static = drawn || post.element_count() > 0;
  const Draw draw(n, drawn ? stream.typed_data() : nullptr);
  const int64_t inputs = w.dimensions()[1], size = w.dimensions()[2];
  const int32_t *start = indptr.typed_data(), *to = post.typed_data(), *out = out_indptr.typed_data(), *slot = out_slot.typed_data();
  const T *g = gain.typed_data(), *wt = w.typed_data(), *ws = weight.typed_data();
  const int64_t sources = spiked.dimensions().back(), trials = spiked.element_count() / sources;
  const int32_t* plastic = channels.element_count() ? channels.typed_data() : nullptr;
  const Divider by_inputs(std::max<int64_t>(inputs, 1));
  const auto trial = [&](int64_t b) {
    T *pool = pool_out->typed_data() + b * gain.element_count() * n, *r = r_out->typed_data() + b * sources;
    int32_t* counts = counts_out->typed_data() + b * sources;
    ForEachSpike(spiked.typed_data() + b * sources, sources, [&](int64_t j) {
      const int64_t filter = 2 + (plastic ? plastic[j] : 0);
      const T unit = g[filter];
      r[j] += unit;
      counts[j] += 1;
      if (any_static && j < n) {
        const int channel = excitatory.typed_data()[j] ? 0 : 1;
        T* into = pool + channel * n;
        const T one = g[channel];
        if (drawn)
          draw.ForEachTarget(j, start[j + 1] - start[j], [&](int64_t i) { into[i] += one; });
        else if (n_weights)
          for (int64_t e = start[j]; e < start[j + 1]; ++e) into[to[e]] += one * ws[e];
        else
          for (int64_t e = start[j]; e < start[j + 1]; ++e) into[to[e]] += one;
      }
      if (inputs) {
        T* into = pool + filter * n;
        if (size == 1) {
          for (int64_t o = out[j]; o < out[j + 1]; ++o) {
            __builtin_prefetch(wt + slot[std::min<int64_t>(o + AHEAD, out[j + 1] - 1)]);
            into[by_inputs(slot[o])] += unit * wt[slot[o]];
          }
        } else {
          for (int64_t o = out[j]; o < out[j + 1]; ++o) {
            const int64_t first = by_inputs(slot[o]) * size, end = std::min(size, n - first);
            const T* from = wt + slot[o] * size;
            for (int64_t s = 0; s < end; ++s) into[first + s] += unit * from[s];
          }
        }
      }
    });
  };
  const int64_t targets = trials * (start[sources] + (inputs ? out[sources] * size : 0)) / 2000;  // of a step of 0.1 ms at 5 Hz
  Parallel(threads, trials, targets < WORTH_A_THREAD ? trials : 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) trial(b);
  });
  return ffi::Error::Success();
}

// --- Noise ------------------------------------------------------------------------------------------------------------

// log(x) for normal x > 0, to 2e-7: the exponent, and a fitted polynomial where sqrt(1/2) <= x < sqrt(2).
inline float Log(float x) {
  int32_t bits;
  std::memcpy(&bits, &x, 4);
  const int32_t exponent = (bits - 0x3F3504F3) >> 23;
  bits -= exponent * (1 << 23);
  float t;
  std::memcpy(&t, &bits, 4);
  t -= 1;
  float p = 0.08743945509f;
  for (float c : {-0.1437733024f, 0.1494909525f, -0.1656069607f, 0.1995697767f, -0.2500215471f, 0.3333418369f, -0.4999998807f, 1.0f})
    p = p * t + c;
  return p * t + 0.69314718056f * static_cast<float>(exponent);
}

// The standard normal quantile of u in (0, 1): sqrt(2)*erfinv(2*u - 1), by the polynomials of M. Giles, "Approximating the
// erfinv function", GPU Computing Gems, Jade edition (2012).
inline float Quantile(float u) {
  const float w = -Log(4 * u * (1 - u));
  const bool inner = w < 5;
  const float s = inner ? w - 2.5f : std::sqrt(w) - 3;
  constexpr float in[] = {2.81022636e-08f, 3.43273939e-07f, -3.5233877e-06f, -4.39150654e-06f, 0.00021858087f,
                          -0.00125372503f, -0.00417768164f, 0.246640727f, 1.50140941f};
  constexpr float out[] = {-0.000200214257f, 0.000100950558f, 0.00134934322f, -0.00367342844f, 0.00573950773f,
                           -0.0076224613f, 0.00943887047f, 1.00167406f, 2.83297682f};
  float p = inner ? in[0] : out[0];
  for (int c = 1; c < 9; ++c) p = p * s + (inner ? in[c] : out[c]);
  return p * (2 * u - 1) * 1.41421356237f;
}

// A function of its own, so that it is compiled into vector instructions.
__attribute__((noinline)) void Normals(float* to, uint32_t a, uint32_t b, uint32_t begin, uint32_t end) {
  for (uint32_t i = begin; i < end; ++i) to[i] = Quantile((static_cast<float>(Mix(Mix(i ^ a) + b) >> 9) + 0.5f) * 0x1p-23f);
}

ffi::Error Normal(ffi::ThreadPool threads, ffi::Buffer<ffi::U32> stream, ffi::ResultBuffer<ffi::F32> out) {
  const int64_t n = out->dimensions().back();
  const uint32_t* key = stream.typed_data();
  float* to = out->typed_data();
  Parallel(threads, out->element_count(), 16384, [=](int64_t begin, int64_t end) {
    for (int64_t b = begin / n; b * n < end; ++b)
      Normals(to + b * n, key[2 * b], key[2 * b + 1], std::max(begin - b * n, int64_t{0}), std::min(end - b * n, n));
  });
  return ffi::Error::Success();
}

// --- Recursive least squares ------------------------------------------------------------------------------------------

// A vector register of numbers, from any address. Compilers put wider vectors than the processor has on the stack.
#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64;
#elif defined(__AVX__)
constexpr int VECTOR_BYTES = 32;
#else
constexpr int VECTOR_BYTES = 16;
#endif
template <typename T>
struct Simd {
  static constexpr int64_t N = VECTOR_BYTES / sizeof(T);
  typedef T V __attribute__((vector_size(VECTOR_BYTES), aligned(alignof(T)), may_alias));
};
template <typename T>
using V = typename Simd<T>::V;

template <typename T>
V<T> Load(const T* p) {
  return *reinterpret_cast<const V<T>*>(p);
}
template <typename T>
void Store(T* p, V<T> v) {
  *reinterpret_cast<V<T>*>(p) = v;
}

// Calls f with the first of each run of columns to work on, VECTORS vectors wide, then half of that, down to 1, such that all of
// 0..n is covered: the last run may overlap the one before. n is at least a vector's length, VECTORS a power of 2.
template <typename T, int VECTORS, typename F, typename Last>
void ForEachTile(int64_t n, const F& f, const Last& last, int64_t l = 0) {
  for (; l + VECTORS * Simd<T>::N <= n; l += VECTORS * Simd<T>::N) f(l, std::integral_constant<int, VECTORS>());
  if constexpr (VECTORS > 1) ForEachTile<T, VECTORS / 2>(n, f, last, l);
  else if (l < n) last(n - Simd<T>::N);
}

// P[i..i+ROWS] -= sum_q u_q[i..i+ROWS] u_q^T. Products of two numbers are exact within a fused multiply-add, so that P stays
// symmetric to the last bit.
template <typename T, int ROWS>
inline void DowndateRows(T* P, const T* u, int64_t n_u, int64_t inputs, int64_t i) {
  auto tile = [&](const V<T>* old, int64_t j, auto vectors) {
    constexpr int VECTORS = decltype(vectors)::value;
    V<T> acc[ROWS][VECTORS];
    for (int a = 0; a < ROWS; ++a)
      for (int b = 0; b < VECTORS; ++b) acc[a][b] = old ? old[a] : Load(P + (i + a) * inputs + j + b * Simd<T>::N);
    for (const T* uq = u; uq < u + n_u * inputs; uq += inputs)
      for (int b = 0; b < VECTORS; ++b) {
        const V<T> column = Load(uq + j + b * Simd<T>::N);
        for (int a = 0; a < ROWS; ++a) acc[a][b] -= uq[i + a] * column;
      }
    for (int a = 0; a < ROWS; ++a)
      for (int b = 0; b < VECTORS; ++b) Store(P + (i + a) * inputs + j + b * Simd<T>::N, acc[a][b]);
  };
  V<T> end[ROWS];
  for (int a = 0; a < ROWS; ++a) end[a] = Load(P + (i + a + 1) * inputs - Simd<T>::N);
  ForEachTile<T, VECTOR_BYTES == 64 ? 4 : 2>(  // at most half of the registers
      inputs, [&](int64_t j, auto vectors) { tile(nullptr, j, vectors); },
      [&](int64_t j) { tile(end, j, std::integral_constant<int, 1>()); });
}

// P -= sum_q u_q u_q^T.
template <typename T>
void Downdate(T* P, const T* u, int64_t n_u, int64_t inputs) {
  int64_t i = 0;
  if (inputs < Simd<T>::N) {
    for (int64_t q = 0; q < n_u; ++q)
      for (i = 0; i < inputs; ++i)
        for (int64_t j = 0; j < inputs; ++j)
          P[i * inputs + j] = std::fma(-u[q * inputs + i], u[q * inputs + j], P[i * inputs + j]);
    return;
  }
  for (; i + 4 <= inputs; i += 4) DowndateRows<T, 4>(P, u, n_u, inputs, i);
  for (; i < inputs; ++i) DowndateRows<T, 1>(P, u, n_u, inputs, i);
}

// Sum of a[l]*b[l] in a fixed order.
template <typename T>
T Dot(const T* a, const T* b, int64_t n) {
  V<T> lanes = {};
  int64_t l = 0;
  for (; l + Simd<T>::N <= n; l += Simd<T>::N) lanes += Load(a + l) * Load(b + l);
  T sum = 0;
  for (; l < n; ++l) sum += a[l] * b[l];
  for (int c = 0; c < Simd<T>::N; ++c) sum += lanes[c];
  return sum;
}

// Sum of vectors, each times a number: the product with a few rows of a matrix.
template <typename T>
struct Terms {
  std::vector<const T*> vector;
  std::vector<T> factor;
  int64_t count = 0;
  explicit Terms(int64_t most) : vector(most), factor(most) {}
  void Add(const T* v, T f) {
    vector[count] = v;
    factor[count++] = f;
  }
  // sum[l] = sum_t factor[t]*vector[t][l], l < n.
  void Sum(T* sum, int64_t n) const {
    const T *const *v = vector.data(), *f = factor.data();
    const int64_t terms = count;
    if (n < Simd<T>::N) {
      std::fill(sum, sum + n, T(0));
      for (int64_t t = 0; t < terms; ++t)
        for (int64_t l = 0; l < n; ++l) sum[l] += f[t] * v[t][l];
      return;
    }
    auto tile = [&](int64_t l, auto vectors) {
      constexpr int VECTORS = decltype(vectors)::value;
      V<T> acc[VECTORS] = {};
      for (int64_t t = 0; t < terms; ++t)
        for (int b = 0; b < VECTORS; ++b) acc[b] += f[t] * Load(v[t] + l + b * Simd<T>::N);
      for (int b = 0; b < VECTORS; ++b) Store(sum + l + b * Simd<T>::N, acc[b]);
    };
    ForEachTile<T, 8>(n, tile, [&](int64_t l) { tile(l, std::integral_constant<int, 1>()); });
  }
};

// Conversion to numbers of 16 bits, rounded to the nearest, and back. (Not all compilers have half-precision types, and subnormal
// floats may be flushed to zero.)
struct Bfloat16 {
  uint16_t bits;
  static uint32_t Of(float x) {
    uint32_t u;
    std::memcpy(&u, &x, 4);
    return u;
  }
  static float From(uint32_t u) {
    float x;
    std::memcpy(&x, &u, 4);
    return x;
  }
  explicit operator float() const { return From(static_cast<uint32_t>(bits) << 16); }
  static Bfloat16 Nearest(float x) {
    const uint32_t u = Of(x);
    return {static_cast<uint16_t>((u + 0x7FFF + ((u >> 16) & 1)) >> 16)};
  }
};

struct Float16 {
  uint16_t bits;
  explicit operator float() const {
    const uint32_t exponent = (bits >> 10) & 31, mantissa = bits & 0x3FF;
    const float normal = Bfloat16::From(((exponent + 112) << 23) | (mantissa << 13)), small = static_cast<float>(mantissa) * 0x1p-24f;
    const float size = exponent ? normal : small;
    return bits & 0x8000 ? -size : size;
  }
  static Float16 Nearest(float x) {
    const uint32_t sign = (Bfloat16::Of(x) >> 16) & 0x8000, u = Bfloat16::Of(x) & 0x7FFFFFFF;
    const float size = Bfloat16::From(u);
    const uint32_t normal = ((u + 0xFFF + ((u >> 13) & 1)) >> 13) - (112 << 10), small = static_cast<uint32_t>(std::rint(size * 0x1p24f));
    const uint32_t rounded = size >= 65520.0f ? 0x7C00 : size < 0x1p-14f ? small : normal;
    return {static_cast<uint16_t>(sign | rounded)};
  }
};

// P of all groups as learning/covariance_forms.py stores it: in full or as upper triangles by rows, in T or in numbers of 16 bits.
template <typename T>
class StoredP {
 public:
  StoredP(ffi::AnyBuffer numbers, T* scale, int64_t inputs)
      : numbers_(numbers.untyped_data()),
        type_(numbers.element_type()),
        packed_(numbers.dimensions().size() == 2),
        scale_(scale),
        inputs_(inputs),
        stride_(packed_ ? inputs * (inputs + 1) / 2 : inputs * inputs) {}

  // Whether P can be read and written in place.
  bool plain() const { return !packed_ && type_ == (sizeof(T) == 4 ? ffi::F32 : ffi::F64); }
  int64_t inputs() const { return inputs_; }
  T* At(int64_t group) const { return static_cast<T*>(numbers_) + group * stride_; }

  // Fetches row l of a group into the cache.
  void Fetch(int64_t group, int64_t l) const {
    const int64_t size = type_ == ffi::F64 ? 8 : type_ == ffi::F32 ? 4 : 2, first = packed_ ? Place(l, l) : l * inputs_;
    const char* from = static_cast<const char*>(numbers_) + (group * stride_ + first) * size;
    for (int64_t byte = 0; byte < (packed_ ? inputs_ - l : inputs_) * size; byte += 64) __builtin_prefetch(from + byte);
  }

  // to[j] = P[l, j].
  void Row(int64_t group, int64_t l, T* to) const {
    Visit([&](auto* all, auto scale) {
      auto* p = all + group * stride_;
      if (!packed_) {
        for (int64_t j = 0; j < inputs_; ++j) to[j] = Value(p[l * inputs_ + j]) * scale(group);
        return;
      }
      for (int64_t j = 0, place = l; j < l; place += inputs_ - ++j) to[j] = Value(p[place]) * scale(group);
      for (int64_t j = l, place = Place(l, l); j < inputs_; ++j) to[j] = Value(p[place++]) * scale(group);
    });
  }

  // P of a group in full, [L, L].
  void Get(int64_t group, T* to) const {
    for (int64_t l = 0; l < inputs_; ++l) Row(group, l, to + l * inputs_);
  }
  void Put(int64_t group, const T* from) const {
    if (type_ == ffi::S16) {
      T most = std::numeric_limits<T>::min();
      for (int64_t l = 0; l < inputs_ * inputs_; ++l) most = std::max(most, std::abs(from[l]));
      scale_[group] = most / 32767;
    }
    Visit([&](auto* all, auto scale) {
      auto* p = all + group * stride_;
      using S = std::remove_pointer_t<decltype(p)>;
      for (int64_t l = 0; l < inputs_; ++l)
        for (int64_t j = packed_ ? l : 0; j < inputs_; ++j) *p++ = Nearest<S>(from[l * inputs_ + j] / scale(group));
    });
  }

 private:
  int64_t Place(int64_t l, int64_t j) const { return l * inputs_ - l * (l - 1) / 2 + j - l; }

  template <typename S>
  static T Value(S x) {
    if constexpr (std::is_arithmetic_v<S>) return static_cast<T>(x);
    else return static_cast<T>(static_cast<float>(x));
  }
  template <typename S>
  static S Nearest(T x) {
    if constexpr (std::is_same_v<S, int16_t>) return static_cast<S>(std::rint(x));
    else if constexpr (std::is_same_v<S, T>) return x;
    else return S::Nearest(static_cast<float>(x));
  }

  // Calls f with a typed pointer to the numbers, and their scale.
  template <typename F>
  void Visit(const F& f) const {
    const auto one = [](int64_t) { return T(1); };
    switch (type_) {
      case ffi::BF16:
        return f(static_cast<Bfloat16*>(numbers_), one);
      case ffi::F16:
        return f(static_cast<Float16*>(numbers_), one);
      case ffi::S16:
        return f(static_cast<int16_t*>(numbers_), [&](int64_t group) { return scale_[group]; });
      default:
        return f(static_cast<T*>(numbers_), one);
    }
  }

  void* numbers_;
  ffi::DataType type_;
  bool packed_;
  T* scale_;
  int64_t inputs_, stride_;
};

// P = factor*(P - sum_q u_q u_q^T) for one group; P is in place, or an array for it.
template <typename T>
void ApplyPending(const StoredP<T>& all, int64_t group, T* P, const T* u, int64_t n_u, T factor) {
  const int64_t inputs = all.inputs();
  if (n_u == 0 && factor == 1) return;
  if (!all.plain()) all.Get(group, P);
  Downdate(P, u, n_u, inputs);
  if (factor != 1)
    for (int64_t l = 0; l < inputs * inputs; ++l) P[l] *= factor;
  if (!all.plain()) all.Put(group, P);
}

// Inputs of a group before its update: filtered spikes x, and the inputs that spiked with the increase of x.
template <typename T>
struct Gathered {
  std::vector<T> x, s;
  std::vector<int32_t> rows;
  int64_t n_rows = 0;
  explicit Gathered(int64_t inputs) : x(inputs), s(inputs), rows(inputs) {}
};

// One update of all groups, in place: each group by one thread, in a fixed order, so that the result does not depend on threads.
template <ffi::DataType D>
ffi::Error Learn(ffi::ThreadPool threads, ffi::Buffer<ffi::PRED> flags, ffi::Buffer<D> forgetting, ffi::Buffer<ffi::S32> pending,
                 ffi::Buffer<ffi::PRED> refresh, ffi::Buffer<D> decay, ffi::Buffer<D> r, ffi::Buffer<D> arrived, ffi::Buffer<ffi::S32> pre,
                 ffi::Buffer<D> residual_input, ffi::AnyBuffer, ffi::Buffer<D>, ffi::Buffer<D>, ffi::Buffer<D>, ffi::Buffer<D>, ffi::Buffer<D>,
                 ffi::Result<ffi::AnyBuffer> P_out, ffi::ResultBuffer<D> scale_out, ffi::ResultBuffer<D> w_out,
                 ffi::ResultBuffer<D> u_out, ffi::ResultBuffer<D> factor_out, ffi::ResultBuffer<D> g_out) {
  using T = ffi::NativeType<D>;
  const int64_t groups = w_out->dimensions()[0], inputs = w_out->dimensions()[1], size = w_out->dimensions()[2];
  const int64_t most = u_out->dimensions()[1], n = residual_input.element_count(), n_u = pending.typed_data()[0];
  const bool textbook = flags.typed_data()[0], apply = flags.typed_data()[1];
  const bool dense = refresh.typed_data()[0];
  const T a = decay.typed_data()[0], lambda = forgetting.typed_data()[0];
  const int64_t now = dense ? 0 : n_u;  // index of the u of this update
  const StoredP<T> all(*P_out, scale_out->typed_data(), inputs);
  auto range = [&](int64_t begin, int64_t end) {
    Gathered<T> both[2] = {Gathered<T>(inputs), Gathered<T>(inputs)};
    std::vector<T> k(inputs), e(size);
    Terms<T> terms(inputs + most + 1);
    std::vector<T> buffer(all.plain() ? 0 : inputs * inputs);  // for P of a group, or the rows of P that are needed
    // One group ahead of the update, so that the rows of P are prefetched.
    auto gather = [&](int64_t i) {
      Gathered<T>& at = both[i & 1];
      const int32_t* from = pre.typed_data() + i * inputs;
      const T *rr = r.typed_data(), *ss = arrived.typed_data();
      for (int64_t l = 0; l < inputs; ++l) at.x[l] = from[l] < 0 ? 0 : rr[from[l]];
      if (dense) return;
      int64_t count = 0;
      for (int64_t l = 0; l < inputs; ++l) {
        const T s = from[l] < 0 ? 0 : ss[from[l]];
        at.rows[count] = l;
        at.s[count] = s;
        count += s != 0;
      }
      at.n_rows = count;
      auto fetch = [](const T* from, int64_t n) {
        for (int64_t l = 0; l < n; l += 64 / sizeof(T)) __builtin_prefetch(from + l);
      };
      for (int64_t c = 0; c < count; ++c) all.Fetch(i, at.rows[c]);
      fetch(u_out->typed_data() + i * most * inputs, n_u * inputs);
      fetch(g_out->typed_data() + i * inputs, inputs);
      if (size == 1) fetch(w_out->typed_data() + i * inputs, inputs);
    };
    gather(begin);
    for (int64_t i = begin; i < end; ++i) {
      if (i + 1 < end) gather(i + 1);
      const Gathered<T>& at = both[i & 1];
      T* P = all.plain() ? all.At(i) : buffer.data();
      T* u = u_out->typed_data() + i * most * inputs;
      T* g = g_out->typed_data() + i * inputs;
      T* w = w_out->typed_data() + i * inputs * size;
      T& factor = factor_out->typed_data()[i];
      const int64_t first = i * size, members = std::min(size, n - first);
      const T* wanting = residual_input.typed_data() + first;
      bool on = false;  // whether any neuron of the group is trained
      for (int64_t s = 0; s < members; ++s) on |= wanting[s] == wanting[s];
      on &= apply;
      terms.count = 0;
      if (dense) {
        ApplyPending(all, i, P, u, n_u, factor);
        factor = 1;
        if (!all.plain()) all.Get(i, P);
        for (int64_t l = 0; l < inputs; ++l) terms.Add(P + l * inputs, at.x[l]);
      } else {
        terms.Add(g, a);
        for (int64_t c = 0; c < at.n_rows; ++c) {
          if (!all.plain()) all.Row(i, at.rows[c], P + c * inputs);
          terms.Add(P + (all.plain() ? at.rows[c] : c) * inputs, factor * at.s[c]);
        }
        for (int64_t q = 0; q < n_u; ++q) {
          T sum = 0;
          if (at.n_rows == inputs) sum = Dot(u + q * inputs, at.s.data(), inputs);
          else for (int64_t c = 0; c < at.n_rows; ++c) sum += u[q * inputs + at.rows[c]] * at.s[c];
          terms.Add(u + q * inputs, -factor * sum);
        }
      }
      terms.Sum(k.data(), inputs);
      const T den = 1 / (lambda + Dot(at.x.data(), k.data(), inputs)), root = on ? std::sqrt(den / factor) : 0;
      const T kept = on ? den : 1, step = on ? (textbook ? den : 1) : 0;
      for (int64_t l = 0; l < inputs; ++l) {
        g[l] = kept * k[l];
        u[now * inputs + l] = root * k[l];
      }
      if (on) factor /= lambda;
      if (size == 1) {
        const T error = on ? step * (Dot(w, at.x.data(), inputs) + wanting[0]) : 0;
        for (int64_t l = 0; l < inputs; ++l) w[l] -= k[l] * error;
      } else {
        std::fill(e.begin(), e.end(), T(0));
        for (int64_t s = 0; s < members; ++s) e[s] = wanting[s];
        for (int64_t l = 0; l < inputs; ++l)
          for (int64_t s = 0; s < members; ++s) e[s] += w[l * size + s] * at.x[l];
        for (int64_t s = 0; s < members; ++s) e[s] = e[s] == e[s] ? e[s] : 0;
        for (int64_t l = 0; l < inputs; ++l)
          for (int64_t s = 0; s < members; ++s) w[l * size + s] -= step * k[l] * e[s];
      }
    }
  };
  Parallel(threads, groups, std::max<int64_t>(16, std::min<int64_t>(512, groups / 16)), range);
  return ffi::Error::Success();
}

// P after all pending updates.
template <ffi::DataType D>
ffi::Error Flush(ffi::ThreadPool threads, ffi::Buffer<ffi::S32> pending, ffi::Buffer<D> u, ffi::Buffer<D> factor, ffi::AnyBuffer,
                 ffi::Buffer<D>, ffi::Result<ffi::AnyBuffer> P_out, ffi::ResultBuffer<D> scale_out) {
  using T = ffi::NativeType<D>;
  const int64_t groups = u.dimensions()[0], most = u.dimensions()[1], inputs = u.dimensions()[2], n_u = pending.typed_data()[0];
  const StoredP<T> all(*P_out, scale_out->typed_data(), inputs);
  Parallel(threads, groups, std::max<int64_t>(16, std::min<int64_t>(512, groups / 16)), [&](int64_t begin, int64_t end) {
    std::vector<T> buffer(all.plain() ? 0 : inputs * inputs);
    for (int64_t i = begin; i < end; ++i) {
      T* P = all.plain() ? all.At(i) : buffer.data();
      ApplyPending(all, i, P, u.typed_data() + i * most * inputs, n_u, factor.typed_data()[i]);
    }
  });
  return ffi::Error::Success();
}

}  // namespace

template <>
struct ffi::CtxBinding<ffi::ThreadPool> {
  using Ctx = ffi::ThreadPool;
};

XLA_FFI_DEFINE_HANDLER_SYMBOL(deliver_f32, Deliver<ffi::F32>);
XLA_FFI_DEFINE_HANDLER_SYMBOL(deliver_f64, Deliver<ffi::F64>);
XLA_FFI_DEFINE_HANDLER_SYMBOL(normal_f32, Normal);
XLA_FFI_DEFINE_HANDLER_SYMBOL(learn_f32, Learn<ffi::F32>);
XLA_FFI_DEFINE_HANDLER_SYMBOL(learn_f64, Learn<ffi::F64>);
XLA_FFI_DEFINE_HANDLER_SYMBOL(flush_f32, Flush<ffi::F32>);
XLA_FFI_DEFINE_HANDLER_SYMBOL(flush_f64, Flush<ffi::F64>);
