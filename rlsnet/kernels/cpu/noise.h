// Counter-based random numbers, as in model/rng.py.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

inline uint32_t Mix(uint32_t x) {  // rng.mix
  x = (x ^ (x >> 16)) * 0x7FEB352Du;
  x = (x ^ (x >> 15)) * 0x846CA68Bu;
  return x ^ (x >> 16);
}

struct Key {
  uint32_t a, b;
  static Key Fold(const uint32_t* stream, uint32_t counter) {  // rng.fold
    const uint32_t a = Mix(stream[0] ^ Mix(counter + 0x9E3779B9u));
    return {a, Mix(stream[1] + a * 0x85EBCA6Bu + 1u)};
  }
  uint32_t Bits(uint32_t counter) const { return Mix(Mix(counter ^ a) + b); }  // rng.bits
};

// Uniform in (0, 1): the middle of one of 2^23 or 2^32 cells.
inline float Uniform(uint32_t bits, float) { return (static_cast<float>(bits >> 9) + 0.5f) * 0x1p-23f; }
inline double Uniform(uint32_t bits, double) { return (bits + 0.5) * 0x1p-32; }

// Uniform numbers of the counters begin..end.
template <typename T>
void Uniforms(T* to, const Key key, uint32_t begin, uint32_t end) {
  for (uint32_t i = begin; i < end; ++i) to[i - begin] = Uniform(key.Bits(i), T());
}

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
// erfinv function", GPU Computing Gems, Jade edition (2012): one for the middle, where -log(4*u*(1 - u)) < 5, and one for the tails.
constexpr float TAIL = 5;
inline float QuantileOfMiddle(float u, float minus_log) {
  const float s = minus_log - 2.5f;
  float p = 2.81022636e-08f;
  for (float c : {3.43273939e-07f, -3.5233877e-06f, -4.39150654e-06f, 0.00021858087f, -0.00125372503f, -0.00417768164f, 0.246640727f,
                  1.50140941f})
    p = p * s + c;
  return p * (2 * u - 1) * 1.41421356237f;
}
inline float QuantileOfTail(float u, float minus_log) {
  const float s = std::sqrt(minus_log) - 3;
  float p = -0.000200214257f;
  for (float c : {0.000100950558f, 0.00134934322f, -0.00367342844f, 0.00573950773f, -0.0076224613f, 0.00943887047f, 1.00167406f,
                  2.83297682f})
    p = p * s + c;
  return p * (2 * u - 1) * 1.41421356237f;
}

// The same for double: from the value for float, by one step of Halley's method.
inline double Quantile(double u) {
  const double tail = u < 0.5 ? u : 1 - u;
  const float single = std::max(static_cast<float>(tail), 1e-30f), minus_log = -Log(4 * single * (1 - single));
  double z = minus_log < TAIL ? QuantileOfMiddle(single, minus_log) : QuantileOfTail(single, minus_log);
  for (int again = 0; again < 2; ++again) {
    const double error = (0.5 * std::erfc(-z * 0.70710678118654752440) - tail) * 2.50662827463100050242 * std::exp(0.5 * z * z);
    z -= error / (1 + 0.5 * z * error);
  }
  return u < 0.5 ? z : -z;
}

// Normal numbers of the counters begin..end. A function of its own, so that it is compiled into vector instructions; the few numbers in the
// tails are computed again.
__attribute__((noinline)) inline void Normals(float* to, const Key key, uint32_t begin, uint32_t end) {
  constexpr uint32_t BLOCK = 256;
  float u[BLOCK], minus_log[BLOCK];
  for (; begin < end; begin += BLOCK, to += BLOCK) {
    unsigned char tail[BLOCK] = {};
    const uint32_t n = std::min(end - begin, BLOCK);
    for (uint32_t i = 0; i < n; ++i) u[i] = Uniform(key.Bits(begin + i), 0.0f);
    for (uint32_t i = 0; i < n; ++i) minus_log[i] = -Log(4 * u[i] * (1 - u[i]));
    for (uint32_t i = 0; i < n; ++i) to[i] = QuantileOfMiddle(u[i], minus_log[i]);
    for (uint32_t i = 0; i < n; ++i) tail[i] = minus_log[i] >= TAIL;
    for (uint32_t first = 0; first < n; first += 8) {
      uint64_t any;
      std::memcpy(&any, tail + first, 8);
      for (; any; any &= any - 1) {  // each of its bytes that is 1
        const uint32_t i = first + __builtin_ctzll(any) / 8;
        to[i] = QuantileOfTail(u[i], minus_log[i]);
      }
    }
  }
}
inline void Normals(double* to, const Key key, uint32_t begin, uint32_t end) {
  for (uint32_t i = begin; i < end; ++i) to[i - begin] = Quantile(Uniform(key.Bits(i), 0.0));
}
