// Sums by a warp: partial sums of the dimensions modulo 32, added in order.
#pragma once

#include "steps.h"

namespace tercet::cuda {

template <class T>
struct WarpSums {
  static constexpr int kLanes = 32, kWarps = kBlock / kLanes;
  T parts[kWarps][kLanes];

  TERCET_HOST_DEVICE static int64_t item_of(int64_t block, int thread) { return block * kWarps + thread / kLanes; }
  TERCET_HOST_DEVICE static int lane_of(int thread) { return thread % kLanes; }
  static int64_t num_blocks(int64_t num_items) { return ceil_div(num_items, kWarps); }

  TERCET_HOST_DEVICE void put(int thread, T part) { parts[thread / kLanes][thread % kLanes] = part; }
  TERCET_HOST_DEVICE T sum(int thread) const {
    T total = 0;
    for (int lane = 0; lane < kLanes; ++lane) total += parts[thread / kLanes][lane];
    return total;
  }
};

}  // namespace tercet::cuda
