#include "translation.h"

#include "translation_tile.h"

namespace tercet {

namespace {

constexpr int64_t kRowsPerTask = 256;     // of pairs
constexpr int64_t kQueriesPerTask = 256;  // for which a tile is packed once
constexpr int64_t kPullRowsPerTask = 16;  // a partner's values are loaded once for kPullRows of them
constexpr int kPullRows = 4;
constexpr int kPullVectors = 2;
constexpr int64_t kPartners = 256;  // whose sum stays in registers, and whose values in the second-level cache

template <class N, class T>
void scores_of_tile(const T* queries, int64_t num_queries, const T* tile, int64_t count, int64_t dim, T* scores,
                    int64_t stride) {
  alignas(64) T sums[kQueryGroup * kTile<T>];
  for (int64_t q = 0; q < num_queries; q += kQueryGroup) {
    const int64_t group = std::min<int64_t>(kQueryGroup, num_queries - q);
    tile_sums<N>(queries + q * dim, group, tile, dim, sums);
    for (int64_t i = 0; i < group; ++i) {
      T* out = scores + (q + i) * stride;
      for (int64_t e = 0; e < count; ++e) out[e] = N::score(sums[i * kTile<T> + e]);
    }
  }
}

// kRows rows, kVectors vectors of their dimensions, all partners of first .. last.
template <class N, int kRows, int kVectors, class T>
void pull_step(const T* rows, int64_t dim, const T* partners, int64_t first, int64_t last, const Weights<T>& weights,
               T* out) {
  Lanes<T> row[kRows][kVectors], total[kRows][kVectors] = {};
  for (int i = 0; i < kRows; ++i) {
    for (int v = 0; v < kVectors; ++v) row[i][v] = load<T>(rows + i * dim + v * kLanes<T>);
  }
  for (int64_t j = first; j < last; ++j) {
    Lanes<T> partner[kVectors];
    for (int v = 0; v < kVectors; ++v) partner[v] = load<T>(partners + j * dim + v * kLanes<T>);
    for (int i = 0; i < kRows; ++i) {
      const Lanes<T> weight = all<T>(weights.data[i * weights.row_stride + j * weights.partner_stride]);
      for (int v = 0; v < kVectors; ++v) total[i][v] = N::template pull<T>(total[i][v], weight, row[i][v], partner[v]);
    }
  }
  for (int i = 0; i < kRows; ++i) {
    for (int v = 0; v < kVectors; ++v) {
      T* place = out + i * dim + v * kLanes<T>;
      store<T>(place, load<T>(place) + total[i][v]);
    }
  }
}

// The dimensions that fill no vector.
template <class N, class T>
void pull_rest(const T* row, int64_t size, int64_t dim, const T* partners, int64_t first, int64_t last,
               const T* weights, int64_t stride, T* out) {
  const Lanes<T> own = load_first<T>(row, size);
  Lanes<T> total = {};
  for (int64_t j = first; j < last; ++j) {
    const Lanes<T> partner = load_first<T>(partners + j * dim, size);
    total = N::template pull<T>(total, all<T>(weights[j * stride]), own, partner);
  }
  store_first<T>(out, load_first<T>(out, size) + total, size);
}

template <class N, int kRows, class T>
void pull_rows(const T* rows, int64_t dim, const T* partners, int64_t first, int64_t last, const Weights<T>& weights,
               T* out) {
  constexpr int64_t kWide = kPullVectors * kLanes<T>;
  int64_t d = 0;
  for (; d + kWide <= dim; d += kWide) {
    pull_step<N, kRows, kPullVectors>(rows + d, dim, partners + d, first, last, weights, out + d);
  }
  for (; d + kLanes<T> <= dim; d += kLanes<T>) {
    pull_step<N, kRows, 1>(rows + d, dim, partners + d, first, last, weights, out + d);
  }
  if (d == dim) return;
  for (int i = 0; i < kRows; ++i) {
    pull_rest<N>(rows + i * dim + d, dim - d, dim, partners + d, first, last, weights.data + i * weights.row_stride,
                 weights.partner_stride, out + i * dim + d);
  }
}

// Chunks of several rows of pairs, one after another.
template <class Body>
void for_pairs(int64_t batch, int num_threads, const Body& body) {
  parallel_for((batch + kRowsPerTask - 1) / kRowsPerTask, num_threads, [&](int64_t task, int) {
    const int64_t last = std::min(batch, (task + 1) * kRowsPerTask);
    for (int64_t b = task * kRowsPerTask; b < last; ++b) body(b);
  });
}

template <class T>
T pair_sum(Norm norm, const T* head, const T* relation, const T* tail, int64_t dim) {
  T sum = 0;
  if (norm == Norm::kL1) {
#pragma omp simd reduction(+ : sum)
    for (int64_t d = 0; d < dim; ++d) sum += std::abs(head[d] + relation[d] - tail[d]);
  } else if (norm == Norm::kL2) {
#pragma omp simd reduction(+ : sum)
    for (int64_t d = 0; d < dim; ++d) {
      const T difference = head[d] + relation[d] - tail[d];
      sum += difference * difference;
    }
  } else {
#pragma omp simd reduction(+ : sum)
    for (int64_t d = 0; d < dim; ++d) sum += (head[d] + relation[d]) * tail[d];
  }
  return sum;
}

}  // namespace

template <class T>
void transe_score(Norm norm, const T* heads, const T* relations, const T* tails, int64_t batch, int64_t dim, T* scores,
                  int num_threads) {
  for_pairs(batch, num_threads, [&](int64_t b) {
    const T total = pair_sum(norm, heads + b * dim, relations + b * dim, tails + b * dim, dim);
    with_norm(norm, [&](auto n) { scores[b] = decltype(n)::score(total); });
  });
}

template <class T>
void transe_score_backward(Norm norm, const T* grad, const T* heads, const T* relations, const T* tails, int64_t batch,
                           int64_t dim, T* to_query, T* to_tails, int num_threads) {
  for_pairs(batch, num_threads, [&](int64_t b) {
    const T *head = heads + b * dim, *relation = relations + b * dim, *tail = tails + b * dim;
    T *query_out = to_query + b * dim, *tail_out = to_tails + b * dim;
    const T g = grad[b];
    if (norm == Norm::kDot) {
      for (int64_t d = 0; d < dim; ++d) {
        query_out[d] = g * tail[d];
        tail_out[d] = g * (head[d] + relation[d]);
      }
      return;
    }
    T weight = g;
    if (norm == Norm::kL2) {
      const T length = std::sqrt(pair_sum(norm, head, relation, tail, dim));
      weight = length > 0 ? g / length : 0 * length;  // 0, or NaN where the length is
    }
    for (int64_t d = 0; d < dim; ++d) {
      const T difference = head[d] + relation[d] - tail[d];
      const T sign = difference > 0 ? T{1} : difference < 0 ? T{-1} : difference;  // 0 and NaN stay
      const T along = norm == Norm::kL1 ? weight * sign : weight * difference;
      query_out[d] = -along;
      tail_out[d] = along;
    }
  });
}

template <class T>
int64_t transe_scores_scratch(int64_t dim) {
  return dim * kTile<T>;
}

template <class T>
void transe_scores(Norm norm, const T* queries, int64_t num_queries, const T* entities, int64_t num_entities,
                   int64_t dim, T* scores, T* scratch, int num_threads) {
  const int64_t num_tiles = (num_entities + kTile<T> - 1) / kTile<T>;
  const int64_t num_chunks = (num_queries + kQueriesPerTask - 1) / kQueriesPerTask;
  with_norm(norm, [&](auto n) {
    parallel_for(num_tiles * num_chunks, num_threads, [&](int64_t task, int worker) {
      const int64_t first_query = task / num_tiles * kQueriesPerTask, first = task % num_tiles * kTile<T>;
      const int64_t count = std::min<int64_t>(kTile<T>, num_entities - first);
      T* tile = scratch + worker * transe_scores_scratch<T>(dim);
      pack_tile(entities + first * dim, count, dim, tile);
      scores_of_tile<decltype(n)>(queries + first_query * dim, std::min(kQueriesPerTask, num_queries - first_query),
                                  tile, count, dim, scores + first_query * num_entities + first, num_entities);
    });
  });
}

template <class T>
void transe_scores_backward(Norm norm, const T* rows, int64_t num_rows, const T* partners, int64_t num_partners,
                            int64_t dim, const Weights<T>& weights, T* out, int num_threads) {
  with_norm(norm, [&](auto n) {
    using N = decltype(n);
    parallel_for((num_rows + kPullRowsPerTask - 1) / kPullRowsPerTask, num_threads, [&](int64_t task, int) {
      const int64_t begin = task * kPullRowsPerTask, end = std::min(num_rows, begin + kPullRowsPerTask);
      std::fill(out + begin * dim, out + end * dim, T{0});
      for (int64_t first = 0; first < num_partners; first += kPartners) {
        const int64_t last = std::min(first + kPartners, num_partners);
        int64_t i = begin;
        const auto at = [&](int64_t row) {
          return Weights<T>{weights.data + row * weights.row_stride, weights.row_stride, weights.partner_stride};
        };
        for (; i + kPullRows <= end; i += kPullRows) {
          pull_rows<N, kPullRows>(rows + i * dim, dim, partners, first, last, at(i), out + i * dim);
        }
        for (; i < end; ++i) pull_rows<N, 1>(rows + i * dim, dim, partners, first, last, at(i), out + i * dim);
      }
    });
  });
}

#define TERCET_INSTANTIATE(T)                                                                                          \
  template void transe_score<T>(Norm, const T*, const T*, const T*, int64_t, int64_t, T*, int);                        \
  template void transe_score_backward<T>(Norm, const T*, const T*, const T*, const T*, int64_t, int64_t, T*, T*, int); \
  template int64_t transe_scores_scratch<T>(int64_t);                                                                  \
  template void transe_scores<T>(Norm, const T*, int64_t, const T*, int64_t, int64_t, T*, T*, int);                    \
  template void transe_scores_backward<T>(Norm, const T*, int64_t, const T*, int64_t, int64_t, const Weights<T>&, T*,  \
                                          int);
TERCET_INSTANTIATE(float)
TERCET_INSTANTIATE(double)
#undef TERCET_INSTANTIATE

}  // namespace tercet
