// What the sanitizer driver's checks share: random numbers, thread counts, CHECK.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>

// Prints the expression and its place, then aborts; stays on whatever NDEBUG says.
#define CHECK(expression)                                                                 \
  do {                                                                                    \
    if (!(expression)) {                                                                  \
      std::fprintf(stderr, "%s:%d: CHECK(%s) failed\n", __FILE__, __LINE__, #expression); \
      std::abort();                                                                       \
    }                                                                                     \
  } while (false)

// Each check runs its kernel with all of these and compares the results: they must be the same bits.
inline constexpr int kThreadCounts[] = {1, 2, 3, 8};

// splitmix64: a seed gives the same numbers on every platform, which the standard distributions do not promise.
// Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t bits() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

  // From 0 up to but without limit; limit must be positive.
  int64_t below(int64_t limit) {
    CHECK(limit > 0);
    return static_cast<int64_t>(bits() % static_cast<uint64_t>(limit));
  }

  // From low to high, both included.
  int64_t between(int64_t low, int64_t high) { return low + below(high - low + 1); }

  // In [0, 1).
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }

  bool chance(double probability) { return uniform() < probability; }

 private:
  uint64_t state_;
};
