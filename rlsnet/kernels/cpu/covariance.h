// Stored forms of P: in full or packed, in the numbers of the engine or in 16 bits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

enum class NumberType { ENGINE, BFLOAT16, FLOAT16, INT16 };  // ENGINE: T

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
  StoredP(void* numbers, NumberType type, bool packed, T* scale, int64_t inputs)
      : numbers_(numbers),
        type_(type),
        packed_(packed),
        scale_(scale),
        inputs_(inputs),
        stride_(packed_ ? inputs * (inputs + 1) / 2 : inputs * inputs) {}

  // Whether P can be read and written in place.
  bool plain() const { return !packed_ && type_ == NumberType::ENGINE; }
  int64_t inputs() const { return inputs_; }
  T* At(int64_t group) const { return static_cast<T*>(numbers_) + group * stride_; }

  // Fetches row l of a group into the cache.
  void Fetch(int64_t group, int64_t l) const {
    const int64_t size = type_ == NumberType::ENGINE ? sizeof(T) : 2, first = packed_ ? Place(l, l) : l * inputs_;
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
    if (type_ == NumberType::INT16) {
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
      case NumberType::BFLOAT16:
        return f(static_cast<Bfloat16*>(numbers_), one);
      case NumberType::FLOAT16:
        return f(static_cast<Float16*>(numbers_), one);
      case NumberType::INT16:
        return f(static_cast<int16_t*>(numbers_), [&](int64_t group) { return scale_[group]; });
      default:
        return f(static_cast<T*>(numbers_), one);
    }
  }

  void* numbers_;
  NumberType type_;
  bool packed_;
  T* scale_;
  int64_t inputs_, stride_;
};
