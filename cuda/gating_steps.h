// The steps of gating over a Device (steps.h); gating.h says what each function gives.
#pragma once

#include <cmath>
#include <stdexcept>
#include <type_traits>

#include "gating.h"
#include "gating_attention.h"
#include "halves.h"
#include "warp_sums.h"

namespace tercet::cuda {

// A warp computes a row's logit: a sum for the mean, one for the variance, one for the product.
template <class T>
struct ArbiterRows {
  using Sum = Wide<T>;
  using Sums = WarpSums<Sum>;
  static constexpr int kAtOnce = 8;   // values of a thread that are on their way together
  static constexpr int kBatches = 4;  // of so many values each, which a thread keeps

  struct Shared {
    Sums totals, squares, products;
  };
  struct Own {
    Sum values[kBatches][kAtOnce];
    Sum mean, scale;
  };

  const T* rows;  // [num_rows, dim]
  LayerNorm norm;
  const T *weight, *bias;  // [dim], [1]
  Sum* logits;             // [num_rows]
  int64_t num_rows, dim;
  int64_t num_steps;  // 1

  TERCET_HOST_DEVICE void start(int64_t block, int thread, Shared& shared, Own& own) const {
    own.mean = 0, own.scale = 1;
    const int64_t row = Sums::item_of(block, thread);
    if (row >= num_rows) return;
    TERCET_UNROLL
    for (int batch = 0; batch < kBatches; ++batch) {
      if (dim_of(thread, batch, 0) - Sums::lane_of(thread) >= dim) break;
      TERCET_UNROLL
      for (int i = 0; i < kAtOnce; ++i) {
        const int64_t d = dim_of(thread, batch, i);
        own.values[batch][i] = d < dim ? widen(rows[row * dim + d]) : 0;
      }
    }
    if (norm.weight == nullptr) return;
    Sum total = 0;
    each_value(row, thread, own, [&](Sum value, int64_t) { total += value; });
    shared.totals.put(thread, total);
  }

  TERCET_HOST_DEVICE void step(int64_t block, int64_t, int thread, Shared& shared, Own& own) const {
    const int64_t row = Sums::item_of(block, thread);
    if (row >= num_rows || norm.weight == nullptr) return;
    own.mean = shared.totals.sum(thread) / static_cast<Sum>(dim);
    Sum squares = 0;
    each_value(row, thread, own, [&](Sum value, int64_t) {
      const Sum centred = value - own.mean;
      squares = std::fma(centred, centred, squares);
    });
    shared.squares.put(thread, squares);
  }

  TERCET_HOST_DEVICE void finish(int64_t block, int thread, Shared& shared, Own& own) const {
    const int64_t row = Sums::item_of(block, thread);
    if (row >= num_rows) return;
    const auto* norm_weight = static_cast<const T*>(norm.weight);
    const auto* norm_bias = static_cast<const T*>(norm.bias);
    if (norm_weight != nullptr) {
      const Sum variance = shared.squares.sum(thread) / static_cast<Sum>(dim);
      own.scale = 1 / std::sqrt(variance + static_cast<Sum>(norm.epsilon));
    }
    Sum product = 0;
    each_value(row, thread, own, [&](Sum value, int64_t d) {
      if (norm_weight != nullptr) {
        value = (value - own.mean) * own.scale * widen(norm_weight[d]);
        if (norm_bias != nullptr) value += widen(norm_bias[d]);
      }
      product = std::fma(value, widen(weight[d]), product);
    });
    shared.products.put(thread, product);
  }

  TERCET_HOST_DEVICE void settle(int64_t block, int thread, Shared& shared, Own&) const {
    const int64_t row = Sums::item_of(block, thread);
    if (row >= num_rows || Sums::lane_of(thread) != 0) return;
    logits[row] = shared.products.sum(thread) + widen(*bias);
  }

 private:
  TERCET_HOST_DEVICE static int64_t dim_of(int thread, int64_t batch, int i) {
    return Sums::lane_of(thread) + (batch * kAtOnce + i) * Sums::kLanes;
  }

  // Calls body(value, d) for the thread's values of its row, in order; those that it does not keep are read again.
  template <class Body>
  TERCET_HOST_DEVICE void each_value(int64_t row, int thread, const Own& own, const Body& body) const {
    TERCET_UNROLL
    for (int batch = 0; batch < kBatches; ++batch) {
      if (dim_of(thread, batch, 0) - Sums::lane_of(thread) >= dim) return;
      TERCET_UNROLL
      for (int i = 0; i < kAtOnce; ++i) {
        const int64_t d = dim_of(thread, batch, i);
        if (d < dim) body(own.values[batch][i], d);
      }
    }
    for (int64_t d = dim_of(thread, kBatches, 0); d < dim; d += Sums::kLanes) body(widen(rows[row * dim + d]), d);
  }
};

template <class T, class Device>
void arbiter_steps(const Device& device, const T* rows, LayerNorm norm, const T* weight, const T* bias, Wide<T>* logits,
                   int64_t num_rows, int64_t dim) {
  const ArbiterRows<T> work{rows, norm, weight, bias, logits, num_rows, dim, 1};
  device.for_each_block("arbiter_logits", WarpSums<Wide<T>>::num_blocks(num_rows), work);
}

template <class T, class Device>
void kept_attention_steps(const Device& device, Frames<T> queries, Frames<T> keys, Frames<T> values, KeyRanges ranges,
                          T* out, int64_t num_queries, int64_t num_heads, int64_t head_dim, double scale) {
  constexpr double kLog2E = 1.4426950408889634;
  const auto run = [&](auto dim) {
    const KeptAttention<T, decltype(dim)::value> work{
        queries, keys, values, ranges, out, num_queries, num_heads, head_dim, static_cast<Wide<T>>(scale * kLog2E)};
    device.for_each_block("kept_attention", work.num_blocks(), work);
  };
  if (head_dim <= 32) {
    run(std::integral_constant<int, 32>());
  } else if (head_dim <= 64) {
    run(std::integral_constant<int, 64>());
  } else if (head_dim <= 128) {
    run(std::integral_constant<int, 128>());
  } else if (head_dim <= kMaxHeadDim) {
    run(std::integral_constant<int, 256>());
  } else {
    throw std::invalid_argument("head_dim must be at most 256");
  }
}

}  // namespace tercet::cuda
