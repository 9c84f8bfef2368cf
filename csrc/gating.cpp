// See gating.h. Attention works through chunks of queries, head by head: the keys that a chunk sees are packed into
// panels (one panel: kPanel keys, transposed, so that scores of neighbouring keys fill a vector) and the values into
// padded rows; both stay in the core's cache while groups of kGroup queries go over them. A group's scores are kept
// whole, so that the softmax has its maximum first and every sum runs over a query's own keys from first to last.
#include "gating.h"

#include <algorithm>
#include <limits>

#include "core.h"
#include "elementary.h"
#include "rows.h"
#include "simd.h"

namespace tercet {

namespace {

constexpr int64_t kChunk = 256;  // queries that share one packing of their keys
constexpr int64_t kRowsTask = 64;
constexpr int kGroup = kRegisters == 32 ? 8 : 4;  // queries whose scores of a panel stay in registers
constexpr int kPair = 4;                          // queries whose outputs stay in registers
template <class T>
constexpr int64_t kPanel = 2 * kLanes<T>;

int64_t round_up(int64_t size, int64_t multiple) { return (size + multiple - 1) / multiple * multiple; }

template <class T>
int64_t padded(int64_t head_dim) {
  return round_up(head_dim, kLanes<T>);
}

// What one thread works on: the keys and values that a run of queries sees, and the scores of a group.
template <class T>
struct Packed {
  T* keys;        // [panels, head_dim, kPanel]
  T* values;      // [num_keys, padded head_dim]
  T* scores;      // [kGroup, panels * kPanel]
  int64_t first;  // the key that is packed first
  int64_t num_panels;
  int64_t head_dim;

  int64_t width() const { return num_panels * kPanel<T>; }
};

template <class T>
void pack(const Frames<T>& keys, const Frames<T>& values, int64_t num_keys, Packed<T>& packed) {
  const int64_t head_dim = packed.head_dim, row = padded<T>(head_dim);
  for (int64_t j = 0; j < packed.width(); ++j) {
    T* to = packed.keys + j / kPanel<T> * head_dim * kPanel<T> + j % kPanel<T>;
    const T* from = keys.values + j * keys.stride;
    for (int64_t d = 0; d < head_dim; ++d) to[d * kPanel<T>] = j < num_keys ? from[d] : T{0};
  }
  for (int64_t j = 0; j < num_keys; ++j) {
    const T* from = values.values + j * values.stride;
    T* to = packed.values + j * row;
    std::copy(from, from + head_dim, to);
    std::fill(to + head_dim, to + row, T{0});
  }
}

// Scores of kRows queries with the panels that hold keys first .. last - 1 (counted from the packing's first).
template <int kRows, class T>
void score(const T* queries, int64_t stride, const Packed<T>& packed, int64_t first, int64_t last, T scale) {
  using V = Lanes<T>;
  for (int64_t panel = first / kPanel<T>; panel * kPanel<T> < last; ++panel) {
    const T* keys = packed.keys + panel * packed.head_dim * kPanel<T>;
    V low[kRows] = {}, high[kRows] = {};
    for (int64_t d = 0; d < packed.head_dim; ++d) {
      const V a = load(keys + d * kPanel<T>), b = load(keys + d * kPanel<T> + kLanes<T>);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const V q = all(queries[r * stride + d]);
        low[r] = multiply_add<T>(q, a, low[r]);
        high[r] = multiply_add<T>(q, b, high[r]);
      }
    }
    T* to = packed.scores + panel * kPanel<T>;
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      store(to + r * packed.width(), low[r] * all(scale));
      store(to + r * packed.width() + kLanes<T>, high[r] * all(scale));
    }
  }
}

// Scores become exponentials; returns one over their sum, NaN if a score is NaN.
template <class T>
T exponentiate(T* scores, int64_t count) {
  T highest = -std::numeric_limits<T>::infinity();
#pragma omp simd reduction(max : highest)
  for (int64_t j = 0; j < count; ++j) highest = scores[j] > highest ? scores[j] : highest;
#pragma omp simd
  for (int64_t j = 0; j < count; ++j) {
    const T score = scores[j] - highest;
    scores[j] = score == score ? exponential(score) : score;
  }
  constexpr int64_t kStep = kLanes<T>;
  const int64_t whole = count / kStep * kStep;
  Lanes<T> total = {};
  for (int64_t j = 0; j < whole; j += kStep) total += load(scores + j);
  T rest = 0;
  for (int64_t j = whole; j < count; ++j) rest += scores[j];
  return 1 / (sum<T>(total) + rest);
}

template <class T>
struct Range {
  int64_t start, end;  // counted from the packing's first key
  const T* weights;    // exponentials, [packing's keys]
  T share;             // one over their sum
  T* out;              // [head_dim]
};

// kVectors vectors of values, from value d on: sums over each query's own keys, first to last. Where ranges differ the
// keys that not all queries see are added for one query at a time, so that no sum reads a key outside its range.
template <int kVectors, int kRows, class T>
void weigh(const Range<T>* ranges, const T* values, int64_t row, int64_t d, int64_t count) {
  using V = Lanes<T>;
  int64_t shared_start = 0, shared_end = std::numeric_limits<int64_t>::max();
  for (int r = 0; r < kRows; ++r) {
    shared_start = std::max(shared_start, ranges[r].start);
    shared_end = std::min(shared_end, ranges[r].end);
  }
  V totals[kRows][kVectors] = {};
  const auto add = [&](int r, int64_t from, int64_t to) {
    for (int64_t j = from; j < to; ++j) {
      const V weight = all(ranges[r].weights[j]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        totals[r][v] = multiply_add<T>(weight, load(values + j * row + d + v * kLanes<T>), totals[r][v]);
      }
    }
  };
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) add(r, ranges[r].start, std::min(ranges[r].end, shared_start));
  for (int64_t j = shared_start; j < shared_end; ++j) {
    V value[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) value[v] = load(values + j * row + d + v * kLanes<T>);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const V weight = all(ranges[r].weights[j]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) totals[r][v] = multiply_add<T>(weight, value[v], totals[r][v]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    add(r, std::max(std::max(shared_start, shared_end), ranges[r].start), ranges[r].end);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const V result = totals[r][v] * all(ranges[r].share);
      T* to = ranges[r].out + d + v * kLanes<T>;
      const int64_t left = count - v * kLanes<T>;
      if (left >= kLanes<T>) {
        store(to, result);
      } else {
        store_first(to, result, left);
      }
    }
  }
}

template <int kRows, class T>
void weigh_rows(const Range<T>* ranges, const T* values, int64_t head_dim) {
  constexpr int64_t kWide = 4 * kLanes<T>;
  const int64_t row = padded<T>(head_dim);
  int64_t d = 0;
  if constexpr (kRegisters == 32) {
    for (; d + kWide <= row; d += kWide) weigh<4, kRows>(ranges, values, row, d, head_dim - d);
  }
  for (; d + 2 * kLanes<T> <= row; d += 2 * kLanes<T>) weigh<2, kRows>(ranges, values, row, d, head_dim - d);
  for (; d < row; d += kLanes<T>) weigh<1, kRows>(ranges, values, row, d, head_dim - d);
}

// The keys that queries first .. last - 1 see: from the lowest start to the highest end of those that see any.
struct Span {
  int64_t first = std::numeric_limits<int64_t>::max(), end = 0;

  Span(KeyRanges ranges, int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      if (ranges.starts[i] >= ranges.ends[i]) continue;
      first = std::min(first, ranges.starts[i]);
      end = std::max(end, ranges.ends[i]);
    }
    first = std::min(first, end);
  }
  int64_t size() const { return end - first; }
};

int64_t scratch_of(int64_t num_keys, int64_t head_dim) {
  const int64_t width = round_up(num_keys, kPanel<float>);  // panels of float64 are narrower, rows of float32 wider
  return width * (head_dim + round_up(head_dim, kLanes<float>) + kGroup);
}

// One head's outputs of kRows queries whose scores lie in packed.scores.
template <int kRows, class T>
void weigh_group(const Packed<T>& packed, KeyRanges keys, int64_t query, T* out, int64_t out_stride) {
  Range<T> ranges[kRows];
  for (int r = 0; r < kRows; ++r) {
    const int64_t start = keys.starts[query + r], end = keys.ends[query + r];
    if (start >= end) {
      ranges[r] = {0, 0, nullptr, T{0}, out + r * out_stride};
      continue;
    }
    T* scores = packed.scores + r * packed.width();
    const T share = exponentiate(scores + (start - packed.first), end - start);
    ranges[r] = {start - packed.first, end - packed.first, scores, share, out + r * out_stride};
  }
  int r = 0;
  for (; r + kPair <= kRows; r += kPair) weigh_rows<kPair>(ranges + r, packed.values, packed.head_dim);
  for (; r < kRows; ++r) weigh_rows<1>(ranges + r, packed.values, packed.head_dim);
}

template <int kRows, class T>
void attend_group(const Packed<T>& packed, KeyRanges keys, const Frames<T>& queries, int64_t query, T scale, T* out,
                  int64_t out_stride) {
  const Span span(keys, query, query + kRows);
  score<kRows>(queries.values + query * queries.stride, queries.stride, packed, span.first - packed.first,
               span.end - packed.first, scale);
  weigh_group<kRows>(packed, keys, query, out + query * out_stride, out_stride);
}

}  // namespace

template <class T>
void arbiter_logits(const T* rows, LayerNorm norm, const T* weight, const T* bias, T* logits, int64_t num_rows,
                    int64_t dim, int num_threads) {
  parallel_for((num_rows + kRowsTask - 1) / kRowsTask, num_threads, [&](int64_t task, int) {
    const int64_t end = std::min(num_rows, (task + 1) * kRowsTask);
    for (int64_t i = task * kRowsTask; i < end; ++i) {
      const Normalised<T> row(rows + i * dim, norm, dim);
      Lanes<T> product = {};
      each_vector<T>(dim, [&](auto read, int64_t d) { product += row.at(read, d) * read(weight + d); });
      logits[i] = sum<T>(product) + *bias;
    }
  });
}

int64_t kept_attention_scratch(KeyRanges ranges, int64_t num_queries, int64_t head_dim) {
  int64_t most = 0;
  for (int64_t from = 0; from < num_queries; from += kChunk) {
    most = std::max(most, Span(ranges, from, std::min(num_queries, from + kChunk)).size());
  }
  return scratch_of(most, head_dim);
}

template <class T>
void kept_attention(Frames<T> queries, Frames<T> keys, Frames<T> values, KeyRanges ranges, T* out, T* scratch,
                    int64_t scratch_size, int64_t num_queries, int64_t num_heads, int64_t head_dim, double scale,
                    int num_threads) {
  const int64_t num_chunks = (num_queries + kChunk - 1) / kChunk, out_stride = num_heads * head_dim;
  parallel_for(num_chunks * num_heads, num_threads, [&](int64_t task, int worker) {
    const int64_t from = task / num_heads * kChunk, to = std::min(num_queries, from + kChunk);
    const int64_t at_head = task % num_heads * head_dim;
    const Span span(ranges, from, to);
    Packed<T> packed;
    packed.first = span.first;
    packed.num_panels = (span.size() + kPanel<T> - 1) / kPanel<T>;
    packed.head_dim = head_dim;
    packed.keys = scratch + worker * scratch_size;
    packed.values = packed.keys + packed.width() * head_dim;
    packed.scores = packed.values + packed.width() * padded<T>(head_dim);
    pack({keys.values + span.first * keys.stride + at_head, keys.stride},
         {values.values + span.first * values.stride + at_head, values.stride}, span.size(), packed);
    const Frames<T> head{queries.values + at_head, queries.stride};
    const T factor = static_cast<T>(scale);
    int64_t query = from;
    for (; query + kGroup <= to; query += kGroup) {
      attend_group<kGroup>(packed, ranges, head, query, factor, out + at_head, out_stride);
    }
    for (; query < to; ++query) attend_group<1>(packed, ranges, head, query, factor, out + at_head, out_stride);
  });
}

template void arbiter_logits(const float*, LayerNorm, const float*, const float*, float*, int64_t, int64_t, int);
template void arbiter_logits(const double*, LayerNorm, const double*, const double*, double*, int64_t, int64_t, int);
template void kept_attention(Frames<float>, Frames<float>, Frames<float>, KeyRanges, float*, float*, int64_t, int64_t,
                             int64_t, int64_t, double, int);
template void kept_attention(Frames<double>, Frames<double>, Frames<double>, KeyRanges, double*, double*, int64_t,
                             int64_t, int64_t, int64_t, double, int);

}  // namespace tercet
