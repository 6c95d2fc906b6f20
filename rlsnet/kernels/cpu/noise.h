// Counter-based random numbers, as in model/rng.py.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

inline uint32_t Mix(uint32_t x) {  // rng.mix
  x = (x ^ (x >> 16)) * 0x7FEB352Du;
  x = (x ^ (x >> 15)) * 0x846CA68Bu;
  return x ^ (x >> 16);
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
