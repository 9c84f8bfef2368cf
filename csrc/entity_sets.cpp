#include "entity_sets.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace tercet {
namespace {

constexpr int64_t kRows = 64;  // rows that one task works on

// Walks two sorted rows at once and calls emit(entity, position in a or -1, position in b or -1) for the members.
template <class Emit>
void merge_row(const Sets& a, const Sets& b, Merge how, int64_t row, const Emit& emit) {
  int64_t i = a.offsets[row], end_a = a.offsets[row + 1], j = b.offsets[row], end_b = b.offsets[row + 1];
  while (i < end_a || j < end_b) {
    if (j == end_b || (i < end_a && a.entities[i] < b.entities[j])) {
      if (how != Merge::kIntersection) emit(a.entities[i], i, int64_t{-1});
      ++i;
    } else if (i == end_a || b.entities[j] < a.entities[i]) {
      if (how == Merge::kUnion) emit(b.entities[j], int64_t{-1}, j);
      ++j;
    } else {
      if (how != Merge::kDifference) emit(a.entities[i], i, j);
      ++i, ++j;
    }
  }
}

template <class Body>
void parallel_rows(int64_t batch, int num_threads, const Body& body) {
  parallel_for((batch + kRows - 1) / kRows, num_threads, [&](int64_t task, int) {
    for (int64_t row = task * kRows; row < std::min((task + 1) * kRows, batch); ++row) body(row);
  });
}

}  // namespace

int64_t merge_count(const Sets& a, const Sets& b, Merge how, int64_t* offsets, int num_threads) {
  parallel_rows(a.batch, num_threads, [&](int64_t row) {
    int64_t count = 0;
    merge_row(a, b, how, row, [&](int32_t, int64_t, int64_t) { ++count; });
    offsets[row + 1] = count;
  });
  offsets[0] = 0;
  std::partial_sum(offsets, offsets + a.batch + 1, offsets);
  return offsets[a.batch];
}

void merge_fill(const Sets& a, const Sets& b, Merge how, const int64_t* offsets, int32_t* entities, int64_t* index_a,
                int64_t* index_b, int num_threads) {
  parallel_rows(a.batch, num_threads, [&](int64_t row) {
    int64_t target = offsets[row];
    merge_row(a, b, how, row, [&](int32_t entity, int64_t in_a, int64_t in_b) {
      entities[target] = entity;
      index_a[target] = in_a;
      index_b[target++] = in_b;
    });
  });
}

template <class T>
void top_fill(const T* weights, const int64_t* offsets, int64_t batch, const int64_t* offsets_out, int64_t* order,
              int64_t* index, int num_threads) {
  auto precedes = [weights](int64_t i, int64_t j) {
    bool nan_i = std::isnan(weights[i]), nan_j = std::isnan(weights[j]);
    if (nan_i != nan_j) return nan_i;
    if (!nan_i && weights[i] != weights[j]) return weights[i] > weights[j];
    return i < j;
  };
  parallel_rows(batch, num_threads, [&](int64_t row) {
    int64_t* begin = order + offsets[row];
    int64_t* end = order + offsets[row + 1];
    int64_t kept = offsets_out[row + 1] - offsets_out[row];
    std::iota(begin, end, offsets[row]);
    if (kept < end - begin) std::nth_element(begin, begin + kept, end, precedes);
    std::sort(begin, begin + kept);
    std::copy_n(begin, kept, index + offsets_out[row]);
  });
}

template void top_fill<float>(const float*, const int64_t*, int64_t, const int64_t*, int64_t*, int64_t*, int);
template void top_fill<double>(const double*, const int64_t*, int64_t, const int64_t*, int64_t*, int64_t*, int);

}  // namespace tercet
