// Elementary functions that compilers turn into vector code.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace tercet {

inline double exponential(double x) { return std::exp(x); }

// Within 2 units in the last place of exp(x); 0 below -87, where exp(x) is no normal number; x <= 88.
inline float exponential(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 2^23: adding it rounds to an integer
  const float n = (x * 1.44269504f + kRound) - kRound;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float power = (p * r * r + r) + 1.0f;
  const float bounded = n > -126.0f ? n : -126.0f;  // of NaN too, which no integer is
  const float scale = std::bit_cast<float>((static_cast<int32_t>(bounded) + 127) << 23);
  return x < -87.0f ? 0.0f : power * scale;
}

inline double gelu(double x) { return 0.5 * x * (1 + std::erf(x * 0.70710678118654752)); }

// x times the normal distribution function, by Abramowitz and Stegun 7.1.26: erf within 2e-7.
inline float gelu(float x) {
  const float z = std::fabs(x) * 0.70710678f, t = 1 / (1 + 0.3275911f * z);
  const float series =
      t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
  const float erf = 1 - series * exponential(-z * z);
  return 0.5f * x * (1 + (x < 0 ? -erf : erf));
}

// log(1 + e) for 0 <= e <= 1: 2 artanh(e / (2 + e)).
template <class T>
inline T log_one_plus(T e) {
  const T z = e / (2 + e), square = z * z;
  T series = T{2} / 27;
  for (int odd = 25; odd > 0; odd -= 2) series = series * square + T{2} / odd;
  return series * z;
}

}  // namespace tercet
