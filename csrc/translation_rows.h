// Sums over single rows: what training does with vectors that stand anywhere in a table.
#pragma once

#include "translation_tile.h"

namespace tercet {

constexpr int kRowVectors = 4;  // of a row at once: its sums stay in registers

// A vector of a row of which `left` values are left.
template <class T>
inline Lanes<T> load_some(const T* values, int64_t left) {
  return left >= kLanes<T> ? load<T>(values) : load_first<T>(values, left);
}

template <class T>
inline void store_some(T* values, Lanes<T> lanes, int64_t left) {
  left >= kLanes<T> ? store<T>(values, lanes) : store_first<T>(values, lanes, left);
}

// The sum of two rows' terms, by lanes and then over them.
template <class N, class T>
T row_sum(const T* query, const T* entity, int64_t dim) {
  const Lanes<T> ones = all<T>(1);
  Lanes<T> total[kRowVectors] = {};
  int64_t d = 0;
  for (; d + kRowVectors * kLanes<T> <= dim; d += kRowVectors * kLanes<T>) {
    for (int v = 0; v < kRowVectors; ++v) {
      const int64_t at = d + v * kLanes<T>;
      total[v] = N::template add<T>(total[v], load<T>(query + at), load<T>(entity + at), ones);
    }
  }
  for (int v = 0; d < dim; d += kLanes<T>, ++v) {
    total[v] = N::template add<T>(total[v], load_some(query + d, dim - d), load_some(entity + d, dim - d), ones);
  }
  return sum<T>((total[0] + total[1]) + (total[2] + total[3]));
}

// out[d] += sum over i of weights[i] f(row, partners[i]); see transe_scores_backward.
template <class N, class T>
void pull_partners(const T* row, const T* const* partners, const T* weights, int64_t count, int64_t dim, T* out) {
  int64_t d = 0;
  for (; d + kRowVectors * kLanes<T> <= dim; d += kRowVectors * kLanes<T>) {
    Lanes<T> own[kRowVectors], total[kRowVectors];
    for (int v = 0; v < kRowVectors; ++v) {
      own[v] = load<T>(row + d + v * kLanes<T>);
      total[v] = load<T>(out + d + v * kLanes<T>);
    }
    for (int64_t i = 0; i < count; ++i) {
      const Lanes<T> weight = all<T>(weights[i]);
      for (int v = 0; v < kRowVectors; ++v) {
        total[v] = N::template pull<T>(total[v], weight, own[v], load<T>(partners[i] + d + v * kLanes<T>));
      }
    }
    for (int v = 0; v < kRowVectors; ++v) store<T>(out + d + v * kLanes<T>, total[v]);
  }
  for (; d < dim; d += kLanes<T>) {
    const Lanes<T> own = load_some(row + d, dim - d);
    Lanes<T> total = load_some(out + d, dim - d);
    for (int64_t i = 0; i < count; ++i) {
      total = N::template pull<T>(total, all<T>(weights[i]), own, load_some(partners[i] + d, dim - d));
    }
    store_some(out + d, total, dim - d);
  }
}

}  // namespace tercet
