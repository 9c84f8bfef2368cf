// Vectors of the machine's registers, for loops whose sums must stay in registers: arithmetic and comparison operators
// are the compiler's own; here is what they lack.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace tercet {

#if defined(__AVX512F__)
constexpr int kLaneBytes = 64;
constexpr int kRegisters = 32;
#elif defined(__AVX__)
constexpr int kLaneBytes = 32;
constexpr int kRegisters = 16;
#else
constexpr int kLaneBytes = 16;
constexpr int kRegisters = 16;
#endif

namespace detail {

template <class T>
struct LaneTypes;
template <>
struct LaneTypes<float> {
  typedef float Values __attribute__((vector_size(kLaneBytes)));
  typedef int32_t Bits __attribute__((vector_size(kLaneBytes)));
  static constexpr int32_t kMagnitude = INT32_MAX;
};
template <>
struct LaneTypes<double> {
  typedef double Values __attribute__((vector_size(kLaneBytes)));
  typedef int64_t Bits __attribute__((vector_size(kLaneBytes)));
  static constexpr int64_t kMagnitude = INT64_MAX;
};

}  // namespace detail

template <class T>
using Lanes = typename detail::LaneTypes<T>::Values;
template <class T>
using LaneBits = typename detail::LaneTypes<T>::Bits;  // what comparisons give: -1 or 0 in each lane
template <class T>
constexpr int kLanes = kLaneBytes / static_cast<int>(sizeof(T));

template <class T>
inline Lanes<T> load(const T* values) {
  Lanes<T> lanes;
  std::memcpy(&lanes, values, sizeof(lanes));
  return lanes;
}

template <class T>
inline void store(T* values, Lanes<T> lanes) {
  std::memcpy(values, &lanes, sizeof(lanes));
}

// The first `count` < kLanes values, 0 beyond; nothing beyond is read, or written by store_first.
template <class T>
inline Lanes<T> load_first(const T* values, int64_t count) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), values);
  if constexpr (sizeof(T) == 8) return _mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << count) - 1), values);
#else
  Lanes<T> lanes = {};
  for (int i = 0; i < kLanes<T>; ++i) lanes[i] = i < count ? values[i] : T{0};
  return lanes;
#endif
}

template <class T>
inline void store_first(T* values, Lanes<T> lanes, int64_t count) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) _mm512_mask_storeu_ps(values, static_cast<__mmask16>((1u << count) - 1), lanes);
  if constexpr (sizeof(T) == 8) _mm512_mask_storeu_pd(values, static_cast<__mmask8>((1u << count) - 1), lanes);
#else
  for (int i = 0; i < count; ++i) values[i] = lanes[i];
#endif
}

template <class T>
inline Lanes<T> all(T value) {
  return value - Lanes<T>{};
}

template <class T>
inline Lanes<T> magnitude(Lanes<T> lanes) {
  return reinterpret_cast<Lanes<T>>(reinterpret_cast<LaneBits<T>>(lanes) & detail::LaneTypes<T>::kMagnitude);
}

// `size` where `of` is positive, -size where it is negative, 0 where it is 0.
template <class T>
inline Lanes<T> with_sign(Lanes<T> size, Lanes<T> of) {
  const LaneBits<T> sign = reinterpret_cast<LaneBits<T>>(of) & ~detail::LaneTypes<T>::kMagnitude;
  const LaneBits<T> bits = reinterpret_cast<LaneBits<T>>(size) ^ sign;
  return reinterpret_cast<Lanes<T>>(bits & (of != 0));
}

// a b + c, rounded once where the machine can.
template <class T>
inline Lanes<T> multiply_add(Lanes<T> a, Lanes<T> b, Lanes<T> c) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return _mm512_fmadd_ps(a, b, c);
  if constexpr (sizeof(T) == 8) return _mm512_fmadd_pd(a, b, c);
#elif defined(__FMA__)
  if constexpr (sizeof(T) == 4) return _mm256_fmadd_ps(a, b, c);
  if constexpr (sizeof(T) == 8) return _mm256_fmadd_pd(a, b, c);
#else
  return a * b + c;
#endif
}

// a - b by the units that multiply, `ones` being 1 in each lane: sums of differences then keep both kinds of unit busy.
template <class T>
inline Lanes<T> subtract(Lanes<T> a, Lanes<T> b, [[maybe_unused]] Lanes<T> ones) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return _mm512_fmsub_ps(a, ones, b);
  if constexpr (sizeof(T) == 8) return _mm512_fmsub_pd(a, ones, b);
#elif defined(__FMA__)
  if constexpr (sizeof(T) == 4) return _mm256_fmsub_ps(a, ones, b);
  if constexpr (sizeof(T) == 8) return _mm256_fmsub_pd(a, ones, b);
#else
  return a - b;
#endif
}

// The lanes added up, halves to halves.
template <class T>
inline T sum(Lanes<T> lanes) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return _mm512_reduce_add_ps(lanes);
  if constexpr (sizeof(T) == 8) return _mm512_reduce_add_pd(lanes);
#else
  T part[kLanes<T>];
  store<T>(part, lanes);
  for (int half = kLanes<T> / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) part[i] += part[i + half];
  }
  return part[0];
#endif
}

}  // namespace tercet
