// Vectors of numbers, as wide as the processor's registers.
#pragma once

#include <cstdint>
#include <type_traits>
#include <vector>

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

// Sum of the numbers of a vector: the same order for each.
template <typename T>
T Sum(V<T> v) {
  constexpr int N = Simd<T>::N;
  T part[N];
  Store(part, v);
  for (int n = N / 2; n; n /= 2)
    for (int c = 0; c < n; ++c) part[c] += part[c + n];
  return part[0];
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
