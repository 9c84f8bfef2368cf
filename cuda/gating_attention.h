// The inner loop of kept_attention: a block's queries and one head of at most kDim values. Each warp has kRows queries.
// The keys go by in tiles of kKeys, in stages: the scores by slabs of kSlab dimensions (a thread has a key), their
// maxima, the weights, the weighted values by slabs (a thread has every 32nd dimension). While a stage computes, the
// next one's slab is on its way into the buffer that no thread has read since the stage before.
//
// With scores in powers of two, a weight is 2^(score - shift). The shift is the largest score so far, rounded to an
// integer: when it rises, weights and sums change by whole powers of two, which rounds nothing but what vanishes beside
// the largest weight. So each sum is what it would be had its keys come in other tiles.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "gating.h"
#include "halves.h"

namespace tercet::cuda {

// 2^exponent of an integer that is not positive; 0 where it is no normal number, and of NaN.
TERCET_HOST_DEVICE inline float power_of_two(float exponent) {
  return exponent > -127 ? same_bits_as<float>((static_cast<int32_t>(exponent) + 127) << 23) : 0;
}
TERCET_HOST_DEVICE inline double power_of_two(double exponent) {
  return exponent > -1023 ? same_bits_as<double>((static_cast<int64_t>(exponent) + 1023) << 52) : 0;
}

// Keys first .. last - 1.
struct KeySpan {
  int64_t first, last;
  TERCET_HOST_DEVICE void include(int64_t start, int64_t end) {
    if (start >= end) return;
    first = smaller(first, start), last = larger(last, end);
  }
  TERCET_HOST_DEVICE bool meets(int64_t start, int64_t end) const { return first < end && start < last; }
};

template <class T, int kDim>
struct KeptAttention {
  using Sum = Wide<T>;
  static constexpr int kBytes = sizeof(Sum), kLanes = 32, kWarps = kBlock / kLanes;
  static constexpr int kWide = 16 / kBytes;  // values that one load from shared memory brings
  static constexpr int kRows = std::min(32 / kBytes, 2048 / (kDim * kBytes));
  static constexpr int kQueries = kWarps * kRows;
  static constexpr int kKeys = kLanes;
  static constexpr int kSlab = std::min(kDim, 256 / kBytes), kSlabs = kDim / kSlab;
  static constexpr int kMaxima = kSlabs, kWeights = kSlabs + 1, kValues = kSlabs + 2, kStages = 2 * kSlabs + 2;
  static constexpr int kMoved = kKeys * kSlab / kBlock, kMovedRows = kBlock / kSlab;
  static constexpr int kOwnDims = kDim / kLanes;
  static constexpr Sum kNone = -std::numeric_limits<Sum>::infinity();

  // Rows of kWide more values than are used, so that threads that read different rows use different banks.
  struct alignas(16) Shared {
    Sum queries[kQueries][kDim];
    Sum slabs[2][kKeys][kSlab + kWide];
    Sum scores[kQueries][kKeys + kWide];  // then weights
    Sum shifts[kQueries], factors[kQueries], totals[kQueries];
    int64_t starts[kQueries], ends[kQueries];
    KeySpan spans[kWarps];  // of each warp's queries
  };
  static_assert(sizeof(Shared) <= 48 * 1024);

  struct Own {
    KeySpan keys, seen;  // of the block's queries, of the warp's
    Sum scores[kRows];   // of the thread's key
    Sum sums[kRows][kOwnDims];
    Sum shift, total;  // of the warp's row that the thread looks after
    T moved[kMoved];   // on their way
  };

  Frames<T> queries, keys, values;
  KeyRanges ranges;
  T* out;  // [num_queries, num_heads * head_dim]
  int64_t num_queries, num_heads, head_dim;
  Sum scale;  // of products, to powers of two

  int64_t num_blocks() const { return ceil_div(num_queries, kQueries) * num_heads; }
  TERCET_HOST_DEVICE int64_t num_steps(const Shared& shared) const {
    const KeySpan span = span_of(shared);
    return span.first < span.last ? ceil_div(span.last - span.first, kKeys) * kStages + 1 : 0;
  }

  TERCET_HOST_DEVICE void start(int64_t block, int thread, Shared& shared, Own& own) const {
    own.seen = {INT64_MAX, 0};
    own.shift = kNone, own.total = 0;
    TERCET_UNROLL
    for (int r = 0; r < kRows; ++r) {
      TERCET_UNROLL
      for (int i = 0; i < kOwnDims; ++i) own.sums[r][i] = 0;
      const int row = first_row(thread) + r;
      const int64_t query = first_query(block) + row;
      const int64_t start = query < num_queries ? ranges.starts[query] : 0;
      const int64_t end = query < num_queries ? ranges.ends[query] : 0;
      own.seen.include(start, end);
      if (lane_of(thread) == 0) shared.starts[row] = start, shared.ends[row] = end;
    }
    if (lane_of(thread) == 0) shared.spans[thread / kLanes] = own.seen;
    for (int i = thread; i < kQueries * kDim; i += kBlock) {
      const int64_t query = first_query(block) + i / kDim, d = i % kDim;
      const bool exists = query < num_queries && d < head_dim;
      shared.queries[i / kDim][d] = exists ? widen(queries.values[query * queries.stride + first_dim(block) + d]) : 0;
    }
  }

  // Brings the slab of stage `step`, computes the stage before.
  TERCET_HOST_DEVICE void step(int64_t block, int64_t step, int thread, Shared& shared, Own& own) const {
    if (step == 0) own.keys = span_of(shared);
    const int part = static_cast<int>(step % kStages);
    const bool of_keys = part < kSlabs, moves = of_keys || part >= kValues;
    const int slab = of_keys ? part : part - kValues;
    const Frames<T> frames{of_keys ? keys.values : values.values, of_keys ? keys.stride : values.stride};
    if (moves) fetch(frames, block, own.keys.first + step / kStages * kKeys, slab, thread, own);
    if (step > 0) compute(step - 1, thread, shared, own);
    if (moves) keep(thread, own, shared.slabs[(of_keys ? slab : kSlabs + slab) % 2]);
  }

  TERCET_HOST_DEVICE void finish(int64_t block, int thread, Shared& shared, Own& own) const {
    TERCET_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const int row = first_row(thread) + r;
      const int64_t query = first_query(block) + row;
      if (query >= num_queries) continue;
      const Sum share = shared.starts[row] < shared.ends[row] ? 1 / shared.totals[row] : 0;
      TERCET_UNROLL
      for (int i = 0; i < kOwnDims; ++i) {
        const int64_t d = lane_of(thread) + i * kLanes;
        if (d < head_dim) out[query * num_heads * head_dim + first_dim(block) + d] = narrow<T>(own.sums[r][i] * share);
      }
    }
  }
  TERCET_HOST_DEVICE void settle(int64_t, int, Shared&, Own&) const {}

 private:
  using Slab = Sum[kKeys][kSlab + kWide];

  TERCET_HOST_DEVICE static int lane_of(int thread) { return thread % kLanes; }
  TERCET_HOST_DEVICE static int first_row(int thread) { return thread / kLanes * kRows; }
  TERCET_HOST_DEVICE int64_t first_query(int64_t block) const { return block / num_heads * kQueries; }
  TERCET_HOST_DEVICE int64_t first_dim(int64_t block) const { return block % num_heads * head_dim; }
  TERCET_HOST_DEVICE static KeySpan span_of(const Shared& shared) {
    KeySpan all = shared.spans[0];
    for (int warp = 1; warp < kWarps; ++warp) all.include(shared.spans[warp].first, shared.spans[warp].last);
    return all;
  }

  // 0 beyond the span and the dimensions.
  TERCET_HOST_DEVICE void fetch(const Frames<T>& frames, int64_t block, int64_t first_key, int slab, int thread,
                                Own& own) const {
    const int64_t d = slab * kSlab + thread % kSlab, end = d < head_dim ? own.keys.last : 0;
    const int64_t key = first_key + thread / kSlab;
    const T* place = frames.values + first_dim(block) + d;
    TERCET_UNROLL
    for (int i = 0; i < kMoved; ++i) {
      const int64_t at = key + i * kMovedRows;
      own.moved[i] = at < end ? place[at * frames.stride] : T{};
    }
  }

  TERCET_HOST_DEVICE static void keep(int thread, const Own& own, Slab& slab) {
    TERCET_UNROLL
    for (int i = 0; i < kMoved; ++i) slab[thread / kSlab + i * kMovedRows][thread % kSlab] = widen(own.moved[i]);
  }

  // A warp none of whose queries sees the tile has nothing to do.
  TERCET_HOST_DEVICE void compute(int64_t stage, int thread, Shared& shared, Own& own) const {
    const int64_t first_key = own.keys.first + stage / kStages * kKeys;
    if (!own.seen.meets(first_key, first_key + kKeys)) return;
    const int part = static_cast<int>(stage % kStages);
    if (part < kSlabs) {
      score(part, first_key + lane_of(thread), thread, shared, own);
    } else if (part == kMaxima) {
      if (lane_of(thread) < kRows) raise_shift(first_row(thread) + lane_of(thread), shared, own);
    } else if (part == kWeights) {
      weigh(thread, shared);
    } else {
      if (part == kValues && lane_of(thread) < kRows) add_weights(first_row(thread) + lane_of(thread), shared, own);
      TERCET_UNROLL
      for (int slab = 0; slab < kSlabs; ++slab) {  // so that the compiler knows which sums these are
        if (part == kValues + slab) add_values(slab, first_key, thread, shared, own);
      }
    }
  }

  TERCET_HOST_DEVICE void score(int slab, int64_t key, int thread, Shared& shared, Own& own) const {
    const Sum* values_of_key = shared.slabs[slab % 2][lane_of(thread)];
    TERCET_UNROLL
    for (int r = 0; r < kRows; ++r) own.scores[r] = slab == 0 ? 0 : own.scores[r];
    for (int d = 0; d < kSlab; d += kWide) {
      TERCET_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const Sum* query = shared.queries[first_row(thread) + r] + slab * kSlab;
        TERCET_UNROLL
        for (int w = 0; w < kWide; ++w) own.scores[r] = std::fma(query[d + w], values_of_key[d + w], own.scores[r]);
      }
    }
    if (slab < kSlabs - 1) return;
    TERCET_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const int row = first_row(thread) + r;
      const bool sees = shared.starts[row] <= key && key < shared.ends[row];
      shared.scores[row][lane_of(thread)] = sees ? own.scores[r] * scale : kNone;
    }
  }

  // A NaN does not raise the shift, but its own weight is NaN.
  TERCET_HOST_DEVICE void raise_shift(int row, Shared& shared, Own& own) const {
    Sum highest = kNone;
    for (int j = 0; j < kKeys; ++j) highest = larger(highest, shared.scores[row][j]);
    const Sum shift = larger(own.shift, std::rint(highest));
    shared.factors[row] = power_of_two(own.shift - shift);
    shared.shifts[row] = own.shift = shift;
  }

  TERCET_HOST_DEVICE void weigh(int thread, Shared& shared) const {
    TERCET_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const int row = first_row(thread) + r;
      Sum& score = shared.scores[row][lane_of(thread)];
      const Sum whole = std::rint(score);  // apart from the shift, so that this only scales what 2^ gives for the rest
      score = score == kNone ? 0 : std::exp2(score - whole) * power_of_two(whole - shared.shifts[row]);
    }
  }

  // Weights of keys outside the range are 0.
  TERCET_HOST_DEVICE void add_weights(int row, Shared& shared, Own& own) const {
    own.total *= shared.factors[row];
    for (int j = 0; j < kKeys; ++j) own.total += shared.scores[row][j];
    shared.totals[row] = own.total;
  }

  TERCET_HOST_DEVICE void add_values(int slab, int64_t first_key, int thread, Shared& shared, Own& own) const {
    bool all_see_all = true;
    TERCET_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const int row = first_row(thread) + r;
      all_see_all = all_see_all && shared.starts[row] <= first_key && first_key + kKeys <= shared.ends[row];
      TERCET_UNROLL
      for (int i = 0; i < kSlab / kLanes; ++i) own.sums[r][slab * (kSlab / kLanes) + i] *= shared.factors[row];
    }
    if (all_see_all) {
      add_products(slab, thread, shared, own, [](int, int) { return true; });
      return;
    }
    int from[kRows], to[kRows];  // the tile's keys that each query sees
    TERCET_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const int row = first_row(thread) + r;
      from[r] = static_cast<int>(smaller(larger(shared.starts[row] - first_key, int64_t{0}), int64_t{kKeys}));
      to[r] = static_cast<int>(smaller(larger(shared.ends[row] - first_key, int64_t{0}), int64_t{kKeys}));
    }
    add_products(slab, thread, shared, own, [&](int r, int j) { return from[r] <= j && j < to[r]; });
  }

  template <class Sees>
  TERCET_HOST_DEVICE void add_products(int slab, int thread, Shared& shared, Own& own, const Sees& sees) const {
    const Slab& values_of_keys = shared.slabs[(kSlabs + slab) % 2];
    for (int first = 0; first < kKeys; first += kWide) {
      Sum weights[kRows][kWide];
      TERCET_UNROLL
      for (int r = 0; r < kRows; ++r) {
        TERCET_UNROLL
        for (int w = 0; w < kWide; ++w) weights[r][w] = shared.scores[first_row(thread) + r][first + w];
      }
      TERCET_UNROLL
      for (int w = 0; w < kWide; ++w) {
        TERCET_UNROLL
        for (int i = 0; i < kSlab / kLanes; ++i) {
          const Sum value = values_of_keys[first + w][lane_of(thread) + i * kLanes];
          TERCET_UNROLL
          for (int r = 0; r < kRows; ++r) {
            Sum& sum = own.sums[r][slab * (kSlab / kLanes) + i];
            if (sees(r, first + w)) sum = std::fma(weights[r][w], value, sum);
          }
        }
      }
    }
  }
};

}  // namespace tercet::cuda
