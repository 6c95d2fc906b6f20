// Vectors of numbers, as wide as the processor's registers.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

// A vector register of numbers, from any address. Compilers put wider vectors than the processor has on the stack.
#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64;
#elif defined(__AVX__)
constexpr int VECTOR_BYTES = 32;
#else
constexpr int VECTOR_BYTES = 16;
#endif
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int REGISTERS = 32;
#else
constexpr int REGISTERS = 16;
#endif
template <typename T>
struct Simd {
  static constexpr int64_t N = VECTOR_BYTES / sizeof(T);
  typedef T V __attribute__((vector_size(VECTOR_BYTES), aligned(alignof(T)), may_alias));
};
template <typename T>
using V = typename Simd<T>::V;

// Integers as wide as T: one, and a vector of them.
template <typename T>
using Lane = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
template <typename T>
struct LanesOf {
  typedef Lane<T> V __attribute__((vector_size(VECTOR_BYTES)));
};
template <typename T>
using Lanes = typename LanesOf<T>::V;
template <typename T, int... C>
Lanes<T> Counted(std::integer_sequence<int, C...>) {
  return Lanes<T>{C...};
}
template <typename T>
Lanes<T> Counted() {  // 0, 1, 2, ...
  return Counted<T>(std::make_integer_sequence<int, Simd<T>::N>());
}

template <typename T>
V<T> Load(const T* p) {
  return *reinterpret_cast<const V<T>*>(p);
}
template <typename T>
void Store(T* p, V<T> v) {
  *reinterpret_cast<V<T>*>(p) = v;
}

// Numbers in a line of the cache. Rows of arrays are padded with zeros to a multiple of it, so that no vector is incomplete.
template <typename T>
constexpr int64_t LINE = 64 / sizeof(T);
template <typename T>
constexpr int64_t Padded(int64_t n) {
  return (n + LINE<T> - 1) / LINE<T> * LINE<T>;
}

// Calls f(l, number of vectors) for runs of VECTORS vectors, then for half of that, down to 1, which cover columns l..n; n - l is a
// multiple of a vector's length, VECTORS a power of 2.
template <typename T, int VECTORS, typename F>
void ForEachTile(int64_t n, const F& f, int64_t l = 0) {
  for (; l + VECTORS * Simd<T>::N <= n; l += VECTORS * Simd<T>::N) f(l, std::integral_constant<int, VECTORS>());
  if constexpr (VECTORS > 1) ForEachTile<T, VECTORS / 2>(n, f, l);
}

// Sum of the numbers of a vector: halves are added, in the same order for each.
template <typename T, int HALF, int... C>
V<T> Halved(V<T> v, std::integer_sequence<int, C...>) {
#if defined(__clang__)
  return v + __builtin_shufflevector(v, v, (C ^ HALF)...);
#else
  return v + __builtin_shuffle(v, Lanes<T>{(C ^ HALF)...});
#endif
}
template <typename T, int HALF = Simd<T>::N / 2>
T Sum(V<T> v) {
  if constexpr (HALF == 0) return v[0];
  else return Sum<T, HALF / 2>(Halved<T, HALF>(v, std::make_integer_sequence<int, Simd<T>::N>()));
}

#if defined(__AVX512F__)
// Mask of the first n lanes, or of all.
template <typename T>
unsigned FirstLanes(int64_t n) {
  return n < Simd<T>::N ? (1u << n) - 1 : (1u << Simd<T>::N) - 1;
}
#endif

// The first n numbers from an address, or a full vector if there are more; the others are 0. And back.
template <typename T>
V<T> LoadFew(const T* p, int64_t n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return (V<T>)_mm512_maskz_loadu_ps(FirstLanes<T>(n), p);
  else return (V<T>)_mm512_maskz_loadu_pd(FirstLanes<T>(n), p);
#else
  if (n >= Simd<T>::N) return Load(p);
  T few[Simd<T>::N] = {};
  for (int64_t i = 0; i < n; ++i) few[i] = p[i];
  return Load(few);
#endif
}
template <typename T>
void StoreFew(T* p, V<T> v, int64_t n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) _mm512_mask_storeu_ps(p, FirstLanes<T>(n), (__m512)v);
  else _mm512_mask_storeu_pd(p, FirstLanes<T>(n), (__m512d)v);
#else
  if (n >= Simd<T>::N) return Store(p, v);
  for (int64_t i = 0; i < n; ++i) p[i] = v[i];
#endif
}

// Memory for n numbers, all zero, that starts at a line of the cache.
template <typename T>
class Room {
 public:
  T* Of(int64_t n) {
    numbers_.assign(n + LINE<T>, T(0));
    return reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(numbers_.data()) + 63) / 64 * 64);
  }

 private:
  std::vector<T> numbers_;
};

inline void Fetch(const void* from, int64_t bytes) {
  for (int64_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(static_cast<const char*>(from) + byte, 0, 2);
}

// Memory that is fetched in parts while something else is computed.
struct Ahead {
  const void* from;
  int64_t bytes;
  // The lines of the cache that begin in the part for steps begin..end of `steps`.
  void FetchPart(int64_t begin, int64_t end, int64_t steps) const {
    const int64_t first = (bytes * begin / steps + 63) / 64 * 64;
    Fetch(static_cast<const char*>(from) + first, bytes * end / steps - first);
  }
};
