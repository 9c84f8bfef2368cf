// Spreads the bits of an integer over 64 bits (Vigna's SplitMix64 finalizer).
#pragma once

#include <cstdint>

namespace tercet {

inline uint64_t mix(uint64_t value) {
  value += 0x9E3779B97F4A7C15u;
  value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9u;
  value = (value ^ value >> 27) * 0x94D049BB133111EBu;
  return value ^ value >> 31;
}

}  // namespace tercet
