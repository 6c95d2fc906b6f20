// Stored forms of P: in full or packed, in the numbers of the engine or in 16 bits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#if defined(__F16C__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "simd.h"

enum class NumberType { ENGINE, BFLOAT16, FLOAT16, INT16 };  // ENGINE: T

// Vectors of float, of integers as wide, and half as long ones of 16 bits.
using Floats = V<float>;
typedef uint32_t Words __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
typedef int32_t Integers __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
typedef uint16_t Halves __attribute__((vector_size(VECTOR_BYTES / 2), aligned(2), may_alias));
typedef int16_t Shorts __attribute__((vector_size(VECTOR_BYTES / 2), aligned(2), may_alias));

// Conversion of vectors to stored numbers, rounded to the nearest, and back.
template <typename S>
struct Stored {
  static V<S> Get(const S* p) { return Load(p); }
  static V<S> Rounded(V<S> v) { return v; }
  static void Put(S* p, V<S> v) { Store(p, v); }
};

struct Bfloat16 {
  uint16_t bits;
};
template <>
struct Stored<Bfloat16> {
  static Floats Get(const Bfloat16* p) {
    return (Floats)(__builtin_convertvector(*reinterpret_cast<const Halves*>(p), Words) << 16);
  }
  static Words Nearest(Floats v) { return (Words)v + 0x7FFF + (((Words)v >> 16) & 1); }
  static Floats Rounded(Floats v) { return (Floats)(Nearest(v) & 0xFFFF0000); }
  static void Put(Bfloat16* p, Floats v) { *reinterpret_cast<Halves*>(p) = __builtin_convertvector(Nearest(v) >> 16, Halves); }
};

// Integers: the scale of P is applied outside.
template <>
struct Stored<int16_t> {
  static constexpr float MAGIC = 0x1.8p23f;  // a float of this size has no fraction
  static Floats Get(const int16_t* p) {
    return __builtin_convertvector(__builtin_convertvector(*reinterpret_cast<const Shorts*>(p), Integers), Floats);
  }
  static Floats Rounded(Floats v) { return (v + MAGIC) - MAGIC; }
  static void Put(int16_t* p, Floats v) {  // the low 16 bits of the sum are those of the integer
    *reinterpret_cast<Halves*>(p) = __builtin_convertvector((Words)(v + MAGIC), Halves);
  }
};

struct Float16 {
  uint16_t bits;
};
template <>
struct Stored<Float16> {
  static Floats Rounded(Floats v) {
    Float16 rounded[Simd<float>::N];
    Put(rounded, v);
    return Get(rounded);
  }
#if defined(__AVX512F__)
  static Floats Get(const Float16* p) {
    return (Floats)_mm512_maskz_cvtph_ps(0xFFFF, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static void Put(Float16* p, Floats v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_maskz_cvtps_ph(0xFFFF, (__m512)v, 0)); }
#elif defined(__F16C__)
  static Floats Get(const Float16* p) { return (Floats)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  static void Put(Float16* p, Floats v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph((__m256)v, 0)); }
#elif defined(__aarch64__)
  static Floats Get(const Float16* p) { return (Floats)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&p->bits))); }
  static void Put(Float16* p, Floats v) { vst1_u16(&p->bits, vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)v))); }
#else
  static Floats Get(const Float16* p) {
    const Words all = __builtin_convertvector(*reinterpret_cast<const Halves*>(p), Words), sign = (all & 0x8000) << 16;
    const Words normal = ((all & 0x7FFF) << 13) + (112u << 23);
    const Words small = (Words)(__builtin_convertvector((Integers)(all & 0x3FF), Floats) * 0x1p-24f), exponent = all & 0x7C00;
    return (Floats)(sign | (exponent == 0x7C00 ? normal + (112u << 23) : exponent != 0 ? normal : small));
  }
  static void Put(Float16* p, Floats v) {
    const Words sign = ((Words)v >> 16) & 0x8000, size = (Words)v & 0x7FFFFFFF;
    const Words normal = ((size + 0xFFF + ((size >> 13) & 1)) >> 13) - (112 << 10);
    const Words small = (Words)((Floats)size + 0.5f) - (126u << 23);  // the sum has a last digit of 2^-24
    const Words rounded = size >= 0x477FF000 ? (normal & 0) + 0x7C00 : size < 0x38800000 ? small : normal;
    *reinterpret_cast<Halves*>(p) = __builtin_convertvector(sign | rounded, Halves);
  }
#endif
};

// P[i..i+ROWS, j..] = factor*(P - sum_q u_q u_q^T) in columns `first`..row of a matrix with rows of that length, and k += P[i.., ]^T x;
// u [n_u, row]. Products of two numbers are exact within a fused multiply-add, so that P stays symmetric to the last bit.
template <typename T, int ROWS>
inline void DowndateRows(T* P, const T* u, int64_t n_u, T factor, int64_t row, int64_t i, int64_t first, const T* x, T* k) {
  const bool changed = n_u > 0 || factor != 1;
  ForEachTile<T, REGISTERS == 32 ? 4 : 2>(  // at most half of the registers
      row,
      [&](int64_t j, auto vectors) {
        constexpr int VECTORS = decltype(vectors)::value;
        V<T> acc[ROWS][VECTORS];
        for (int a = 0; a < ROWS; ++a)
          for (int b = 0; b < VECTORS; ++b) acc[a][b] = Load(P + (i + a) * row + j + b * Simd<T>::N);
        for (const T* uq = u; uq < u + n_u * row; uq += row)
          for (int b = 0; b < VECTORS; ++b) {
            const V<T> column = Load(uq + j + b * Simd<T>::N);
            for (int a = 0; a < ROWS; ++a) acc[a][b] -= uq[i + a] * column;
          }
        for (int b = 0; b < VECTORS; ++b)
          for (int a = 0; a < ROWS; ++a) {
            acc[a][b] *= factor;
            if (changed) Store(P + (i + a) * row + j + b * Simd<T>::N, acc[a][b]);
          }
        if (k == nullptr) return;
        for (int b = 0; b < VECTORS; ++b) {
          V<T> product = Load(k + j + b * Simd<T>::N);
          for (int a = 0; a < ROWS; ++a) product += x[i + a] * acc[a][b];
          Store(k + j + b * Simd<T>::N, product);
        }
      },
      first);
}

// Calls f(i, number of rows) for four rows of n at a time, then for one.
template <typename F>
void ForRows(int64_t n, const F& f) {
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) f(i, std::integral_constant<int, 4>());
  for (; i < n; ++i) f(i, std::integral_constant<int, 1>());
}

// P = factor*(P - sum_q u_q u_q^T) and k += P^T x for a matrix [L, row]; with `upper`, only in the blocks on and above the diagonal.
// k may be null: then it is not computed. Meanwhile, memory is fetched that is needed next.
template <typename T>
void Downdate(T* P, const T* u, int64_t n_u, T factor, int64_t inputs, bool upper, const T* x, T* k, const Ahead (&next)[2]) {
  ForRows(inputs, [&](int64_t i, auto rows) {
    DowndateRows<T, decltype(rows)::value>(P, u, n_u, factor, Padded<T>(inputs), i, upper ? i / LINE<T> * LINE<T> : 0, x, k);
    for (const Ahead& ahead : next) ahead.FetchPart(i, i + rows, inputs);
  });
}

// L of a triangle with so many numbers.
inline int64_t InputsOf(int64_t triangle) {
  int64_t inputs = 0;
  while (inputs * (inputs + 1) / 2 < triangle) ++inputs;
  return inputs;
}

// P of all groups as learning/covariance_forms.py stores it: in full or as upper triangles by rows, in T or in numbers of 16 bits.
// Full rows in T are padded; all other numbers are decoded into rows that are.
template <typename T>
class StoredP {
 public:
  StoredP(void* numbers, NumberType type, bool packed, T* scale, int64_t inputs, int64_t row)
      : numbers_(numbers),
        type_(type),
        packed_(packed),
        scale_(scale),
        inputs_(inputs),
        row_(row),
        stride_(packed ? inputs * (inputs + 1) / 2 : inputs * row) {
    if (type != NumberType::ENGINE && sizeof(T) != 4) throw std::string("P in 16 bits is decoded into 32 bits only");
    if (plain() && row != Padded<T>(inputs)) throw std::string("the rows of P are not padded");
  }

  // Whether P can be read and written in place.
  bool plain() const { return !packed_ && type_ == NumberType::ENGINE; }
  int64_t inputs() const { return inputs_; }
  T* At(int64_t group) const { return static_cast<T*>(numbers_) + group * stride_; }
  int64_t room() const { return plain() ? 0 : inputs_ * Padded<T>(inputs_); }  // numbers of a buffer for P of a group

  // Fetches what the product with some inputs reads.
  void FetchRows(int64_t group, const int32_t* rows, int64_t n_rows) const {
    const int64_t size = number_bytes();
    const char* from = static_cast<const char*>(numbers_) + group * stride_ * size;
    if (packed_) return Fetch(from, stride_ * size);
    for (int64_t c = 0; c < n_rows; ++c) Fetch(from + rows[c] * row_ * size, row_ * size);
  }

  // sum = sum_c s[c] P[rows[c]] of a group that is not plain; sum [padded L + LINE].
  void Product(int64_t group, const int32_t* rows, const T* s, int64_t n_rows, T* sum) const {
    std::fill(sum, sum + Padded<T>(inputs_) + LINE<T>, T(0));
    Visit([&](auto* all) {
      auto* p = all + group * stride_;
      using S = std::remove_pointer_t<decltype(p)>;
      S* const end = p + stride_;
      S column[MOST_IN_COLUMN + LINE<T>];
      for (int64_t c = 0; c < n_rows; ++c) {
        const T factor = s[c] * Unit(group);
        const int64_t l = rows[c];
        const auto add = [&](int64_t j, const S* from) { Store(sum + j, Load(sum + j) + factor * Stored<S>::Get(from)); };
        int64_t j = packed_ ? l : 0;
        for (const S* from = p + (packed_ ? Place(l) : l * row_); j < inputs_; j += Simd<T>::N, from += Simd<T>::N) {
          if (from + Simd<T>::N <= end) add(j, from);  // beyond L these are numbers of the next row
          else {
            S last[Simd<T>::N] = {};
            std::memcpy(static_cast<void*>(last), from, (end - from) * sizeof(S));
            add(j, last);
          }
        }
        for (int64_t begin = 0, place = l; packed_ && begin < l; begin += MOST_IN_COLUMN) {
          const int64_t n = std::min(l - begin, MOST_IN_COLUMN);
          for (int64_t i = 0; i < n; ++i, place += inputs_ - begin - i) column[i] = p[place];
          std::fill(column + n, column + n + LINE<T>, S());
          for (int64_t i = 0; i < n; i += Simd<T>::N) add(begin + i, column + i);
        }
      }
    });
    std::fill(sum + inputs_, sum + Padded<T>(inputs_) + LINE<T>, T(0));
  }

  // P = factor*(P - sum_q u_q u_q^T), and k = P x, for one group; buffer has `room` numbers. P and the vectors `next_u` of the next group
  // are fetched meanwhile.
  void Apply(int64_t group, const T* u, int64_t n_u, T factor, const T* x, T* k, T* buffer, const T* next_u) const {
    const int64_t row = Padded<T>(inputs_), bytes = stride_ * number_bytes();
    const bool changed = n_u > 0 || factor != 1;
    const char* const own = static_cast<const char*>(numbers_) + group * bytes;
    const Ahead next[] = {{own + (plain() ? ROWS_AHEAD * row * number_bytes() : bytes), bytes}, {next_u, n_u * row * int64_t{sizeof(T)}}};
    std::fill(k, k + row, T(0));
    if (plain()) return Downdate(At(group), u, n_u, factor, inputs_, false, x, k, next);
    Visit([&](auto* all) {
      auto* const p = all + group * stride_;
      using S = std::remove_pointer_t<decltype(p)>;
      const T unit = changed ? Unit(group) : 1;
      EachRow([&](int64_t l, int64_t first, int64_t place) { GetRow(p + place, inputs_ - first, unit, buffer + l * row + first); });
      T inverse = 1;
      if (changed) {
        Downdate<T>(buffer, u, n_u, factor, inputs_, packed_, x, nullptr, next);
        if constexpr (std::is_same_v<S, int16_t>) inverse = Rescale(group, reinterpret_cast<const float*>(buffer));
      }
      RoundAndMultiply<S>(buffer, inverse, Unit(group), x, k);
      if (changed)
        EachRow([&](int64_t l, int64_t first, int64_t place) { PutRow(p + place, p + stride_, inputs_ - first, buffer + l * row + first); });
    });
  }

 private:
  static constexpr int64_t MOST_IN_COLUMN = 256;  // numbers of a column of packed P that are collected at a time
  static constexpr int64_t ROWS_AHEAD = 32;       // rows of full P that are fetched before they are needed

  int64_t number_bytes() const { return type_ == NumberType::ENGINE ? sizeof(T) : 2; }

  int64_t Place(int64_t l) const { return l * inputs_ - l * (l - 1) / 2; }  // of P[l, l] in the upper triangle
  T Unit(int64_t group) const { return type_ == NumberType::INT16 ? scale_[group] : 1; }

  // Calls f(l, first column that is stored, its place) for the rows of a group.
  template <typename F>
  void EachRow(const F& f) const {
    for (int64_t l = 0, place = 0; l < inputs_; place += packed_ ? inputs_ - l : row_, ++l) f(l, packed_ ? l : 0, place);
  }

  // n numbers of a row. If there are few, those before them are read too, and written before `to`, where nothing is that counts.
  template <typename S>
  void GetRow(const S* from, int64_t n, T unit, T* to) const {
    constexpr int64_t N = Simd<T>::N;
    int64_t j = 0;
    for (; j + N <= n; j += N) Store(to + j, Stored<S>::Get(from + j) * unit);
    if (j == n) return;
    if (inputs_ >= N) return Store(to + n - N, Stored<S>::Get(from + n - N) * unit);
    S few[N] = {};
    T decoded[N];
    std::memcpy(static_cast<void*>(few), from, n * sizeof(S));
    Store(decoded, Stored<S>::Get(few) * unit);
    std::memcpy(to, decoded, n * sizeof(T));
  }
  // The last vector may also write what follows, which is the next row; `end`: of the group.
  template <typename S>
  static void PutRow(S* to, const S* end, int64_t n, const T* from) {
    constexpr int64_t N = Simd<T>::N;
    for (int64_t j = 0; j < n; j += N) {
      if (to + j + N <= end) {
        Stored<S>::Put(to + j, Load(from + j));
      } else {
        S few[N];
        Stored<S>::Put(few, Load(from + j));
        std::memcpy(static_cast<void*>(to + j), few, (n - j) * sizeof(S));
      }
    }
  }

  // Columns of the block on the diagonal that row l crosses, or all columns.
  int64_t First(int64_t l) const { return packed_ ? l / LINE<T> * LINE<T> : 0; }

  // A vector of row l from column j, with zeros below the diagonal if P is packed, where it has no numbers.
  V<T> Upper(int64_t l, int64_t j, V<T> v) const {
    if (!packed_ || j >= l) return v;
    return (V<T>)((Lanes<T>)v & (Counted<T>() >= static_cast<Lane<T>>(l - j)));
  }

  // The scale for P of a group in integers; returns its inverse.
  float Rescale(int64_t group, const float* P) const {
    const int64_t row = Padded<T>(inputs_);
    Words largest = {};  // floats without a sign are in the order of their bits
    for (int64_t l = 0; l < inputs_; ++l)
      for (int64_t j = First(l); j < row; j += Simd<T>::N) {
        const Words size = (Words)Upper(l, j, Load(P + l * row + j)) & 0x7FFFFFFF;
        largest = size > largest ? size : largest;
      }
    float most = std::numeric_limits<float>::min();
    for (int c = 0; c < Simd<T>::N; ++c) most = std::max<float>(most, ((Floats)largest)[c]);
    scale_[group] = most / 32767;
    return std::min(32767 / most, std::numeric_limits<float>::max());
  }

  // P = inverse*P rounded to stored numbers, in place, and k += unit*P x; of packed P the upper triangle alone is known.
  template <typename S>
  void RoundAndMultiply(T* P, T inverse, T unit, const T* x, T* k) const {
    const int64_t row = Padded<T>(inputs_);
    const bool packed = packed_;
    ForRows(inputs_, [&](int64_t i, auto rows) {
      V<T> sum[rows] = {};
      const auto columns = [&](int64_t j, const auto& known) {
        V<T> product = Load(k + j);
        for (int a = 0; a < rows; ++a) {
          T* const at = P + (i + a) * row + j;
          const V<T> rounded = Stored<S>::Rounded(Load(at) * inverse), value = known(i + a, rounded * unit);
          Store(at, rounded);
          product += x[i + a] * value;
          if (packed) sum[a] += value * Load(x + j);
        }
        Store(k + j, product);
      };
      int64_t j = First(i);
      for (const int64_t end = packed ? j + LINE<T> : 0; j < end; j += Simd<T>::N)
        columns(j, [&](int64_t l, V<T> value) { return Upper(l, j, value); });
      for (; j < row; j += Simd<T>::N) columns(j, [](int64_t, V<T> value) { return value; });
      for (int a = 0; packed && a < rows; ++a) k[i + a] += Sum<T>(sum[a]) - x[i + a] * (P[(i + a) * row + i + a] * unit);
    });
  }

  // Calls f with a typed pointer to the numbers.
  template <typename F>
  void Visit(const F& f) const {
    if constexpr (sizeof(T) == 4) {
      if (type_ == NumberType::BFLOAT16) return f(static_cast<Bfloat16*>(numbers_));
      if (type_ == NumberType::FLOAT16) return f(static_cast<Float16*>(numbers_));
      if (type_ == NumberType::INT16) return f(static_cast<int16_t*>(numbers_));
    }
    f(static_cast<T*>(numbers_));
  }

  void* numbers_;
  NumberType type_;
  bool packed_;
  T* scale_;
  int64_t inputs_, row_, stride_;
};
