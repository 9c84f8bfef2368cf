// Half-precision numbers as kernels read and write them: stored in 16 bits, computed with in float.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "steps.h"

#ifdef __CUDACC__
#include <cuda_fp16.h>
#endif

namespace tercet::cuda {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

template <class T>
using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class To, class From>
TERCET_HOST_DEVICE inline To same_bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}

TERCET_HOST_DEVICE inline float widen(float value) { return value; }
TERCET_HOST_DEVICE inline double widen(double value) { return value; }
TERCET_HOST_DEVICE inline float widen(BFloat16 value) { return same_bits_as<float>(uint32_t{value.bits} << 16); }
TERCET_HOST_DEVICE inline float widen(Float16 value) {
#ifdef __CUDA_ARCH__
  return __half2float(__ushort_as_half(value.bits));
#else
  const uint32_t sign = (value.bits & 0x8000u) << 16, size = value.bits & 0x7fffu;
  if (size >= 0x7c00u) return same_bits_as<float>(sign | 0x7f800000u | size << 13);  // infinity or NaN
  const float scaled = same_bits_as<float>(size << 13) * 0x1p112f;  // the exponents' biases differ by 112
  return sign ? -scaled : scaled;
#endif
}

// To the nearest number of type T, ties to even.
template <class T>
TERCET_HOST_DEVICE inline T narrow(Wide<T> value) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    const uint32_t bits = same_bits_as<uint32_t>(value);
    if (value != value) return {static_cast<uint16_t>(bits >> 16 | 0x40u)};  // rounding could make it an infinity
    return {static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
  } else if constexpr (std::is_same_v<T, Float16>) {
#ifdef __CUDA_ARCH__
    return {__half_as_ushort(__float2half_rn(value))};
#else
    const uint32_t bits = same_bits_as<uint32_t>(value), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
    uint32_t half;
    if (size > 0x7f800000u) {
      half = 0x7e00u;  // NaN
    } else if (size >= 0x477ff000u) {
      half = 0x7c00u;  // nearer to infinity than to the largest number
    } else if (size >= 0x38800000u) {
      half = (size - 0x38000000u + 0xfffu + (size >> 13 & 1u)) >> 13;
    } else {  // below 2^-14 steps are 2^-24, as those of floats from 1/2 on
      half = same_bits_as<uint32_t>(same_bits_as<float>(size) + 0.5f) - 0x3f000000u;
    }
    return {static_cast<uint16_t>(sign | half)};
#endif
  } else {
    return value;
  }
}

}  // namespace tercet::cuda
