// Vectors of numbers, as wide as the processor's registers.
#pragma once

#include <cstdint>
#include <type_traits>

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
