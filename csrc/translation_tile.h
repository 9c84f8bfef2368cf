// Sums of all pairs of some queries and a tile of entities: the inner loop of scoring, ranking and training.
//
// A tile holds the entities' values by dimension, so that a vector's lanes are entities; sums stay in registers for
// kDepth dimensions and are then added to the result.
#pragma once

#include <algorithm>
#include <cmath>

#include "simd.h"
#include "translation.h"

namespace tercet {

constexpr int kDepth = 64;
template <class T>
constexpr int kTile = 256 / static_cast<int>(sizeof(T));  // entities of a tile

struct L1 {
  template <class T>
  static Lanes<T> add(Lanes<T> total, Lanes<T> query, Lanes<T> entity, Lanes<T> ones) {
    return total + magnitude<T>(subtract<T>(query, entity, ones));
  }
  template <class T>
  static T score(T total) {
    return -total;
  }
  // weight f(row, partner); see transe_scores_backward.
  template <class T>
  static Lanes<T> pull(Lanes<T> total, Lanes<T> weight, Lanes<T> row, Lanes<T> partner) {
    return total + with_sign<T>(weight, partner - row);
  }
};

struct L2 {
  template <class T>
  static Lanes<T> add(Lanes<T> total, Lanes<T> query, Lanes<T> entity, Lanes<T>) {
    const Lanes<T> difference = query - entity;
    return multiply_add<T>(difference, difference, total);
  }
  template <class T>
  static T score(T total) {
    return -std::sqrt(total);
  }
  template <class T>
  static Lanes<T> pull(Lanes<T> total, Lanes<T> weight, Lanes<T> row, Lanes<T> partner) {
    return multiply_add<T>(weight, partner - row, total);
  }
};

struct Dot {
  template <class T>
  static Lanes<T> add(Lanes<T> total, Lanes<T> query, Lanes<T> entity, Lanes<T>) {
    return multiply_add<T>(query, entity, total);
  }
  template <class T>
  static T score(T total) {
    return total;
  }
  template <class T>
  static Lanes<T> pull(Lanes<T> total, Lanes<T> weight, Lanes<T>, Lanes<T> partner) {
    return multiply_add<T>(weight, partner, total);
  }
};

template <class Body>
void with_norm(Norm norm, const Body& body) {
  if (norm == Norm::kL1) {
    body(L1{});
  } else if (norm == Norm::kL2) {
    body(L2{});
  } else {
    body(Dot{});
  }
}

// rows [count <= kTile, dim] -> tile [dim, kTile], 0 beyond count.
template <class T>
void pack_tile(const T* rows, int64_t count, int64_t dim, T* tile) {
  constexpr int kStrip = 16;  // dimensions whose part of the tile stays in the first-level cache
  for (int64_t first = 0; first < dim; first += kStrip) {
    const int64_t last = std::min(first + kStrip, dim);
    for (int64_t e = 0; e < count; ++e) {
      for (int64_t d = first; d < last; ++d) tile[d * kTile<T> + e] = rows[e * dim + d];
    }
    if (count == kTile<T>) continue;
    for (int64_t d = first; d < last; ++d) std::fill(tile + d * kTile<T> + count, tile + (d + 1) * kTile<T>, T{0});
  }
}

namespace detail {

// kQueries queries at once, kVectors vectors of the tile: the sums are kQueries x kVectors registers.
template <class N, int kQueries, int kVectors, class T>
void tile_sums_step(const T* queries, const T* tile, int64_t dim, T* sums) {
  const Lanes<T> ones = all<T>(1);
  for (int i = 0; i < kQueries; ++i) {
    for (int v = 0; v < kVectors; ++v) store<T>(sums + i * kTile<T> + v * kLanes<T>, Lanes<T>{});
  }
  for (int64_t first = 0; first < dim; first += kDepth) {
    const int64_t last = std::min(first + kDepth, dim);
    Lanes<T> total[kQueries][kVectors] = {};
    for (int64_t d = first; d < last; ++d) {
      Lanes<T> entity[kVectors];
      for (int v = 0; v < kVectors; ++v) entity[v] = load<T>(tile + d * kTile<T> + v * kLanes<T>);
      for (int i = 0; i < kQueries; ++i) {
        const Lanes<T> query = all<T>(queries[i * dim + d]);
        for (int v = 0; v < kVectors; ++v) total[i][v] = N::template add<T>(total[i][v], query, entity[v], ones);
      }
    }
    for (int i = 0; i < kQueries; ++i) {
      for (int v = 0; v < kVectors; ++v) {
        T* place = sums + i * kTile<T> + v * kLanes<T>;
        store<T>(place, load<T>(place) + total[i][v]);
      }
    }
  }
}

template <class N, int kQueries, class T>
void tile_sums_group(const T* queries, const T* tile, int64_t dim, T* sums) {
  constexpr int kVectors = kRegisters / 8;
  for (int first = 0; first < kTile<T>; first += kVectors * kLanes<T>) {
    tile_sums_step<N, kQueries, kVectors>(queries, tile + first, dim, sums + first);
  }
}

}  // namespace detail

constexpr int kQueryGroup = 4;

// sums [num_queries <= kQueryGroup, kTile] of queries [num_queries, dim] and a tile.
template <class N, class T>
void tile_sums(const T* queries, int64_t num_queries, const T* tile, int64_t dim, T* sums) {
  if (num_queries == kQueryGroup) {
    detail::tile_sums_group<N, kQueryGroup>(queries, tile, dim, sums);
    return;
  }
  for (int64_t i = 0; i < num_queries; ++i) {
    detail::tile_sums_group<N, 1>(queries + i * dim, tile, dim, sums + i * kTile<T>);
  }
}

}  // namespace tercet
