// Sums of all pairs of some queries and some entities, the inner loop of scoring and ranking; and the norms.
//
// A block computes a tile of kSide x kSide pairs. It goes through the dimensions in steps of kDepth, for which both
// sides lie in shared memory, by dimension; while a step is summed, the values of the next one are on their way.
#pragma once

#include <cmath>

#include "../csrc/translation.h"
#include "steps.h"

namespace tercet::cuda {

// `size` where `of` is positive, -size where it is negative; 0 and NaN stay.
template <class T>
TERCET_HOST_DEVICE inline T with_sign(T size, T of) {
  return of > 0 ? size : of < 0 ? -size : of;
}

// Each norm's term of a sum, the score that a sum stands for, and weight f(row, partner); see csrc/translation.h.
struct L1 {
  template <class T>
  TERCET_HOST_DEVICE static T add(T total, T query, T entity) {
    return total + std::abs(query - entity);
  }
  template <class T>
  TERCET_HOST_DEVICE static T score(T total) {
    return -total;
  }
  template <class T>
  TERCET_HOST_DEVICE static T pull(T total, T weight, T row, T partner) {
    return total + with_sign(weight, partner - row);
  }
};

struct L2 {
  template <class T>
  TERCET_HOST_DEVICE static T add(T total, T query, T entity) {
    const T difference = query - entity;
    return std::fma(difference, difference, total);
  }
  template <class T>
  TERCET_HOST_DEVICE static T score(T total) {
    return -std::sqrt(total);
  }
  template <class T>
  TERCET_HOST_DEVICE static T pull(T total, T weight, T row, T partner) {
    return std::fma(weight, partner - row, total);
  }
};

struct Dot {
  template <class T>
  TERCET_HOST_DEVICE static T add(T total, T query, T entity) {
    return std::fma(query, entity, total);
  }
  template <class T>
  TERCET_HOST_DEVICE static T score(T total) {
    return total;
  }
  template <class T>
  TERCET_HOST_DEVICE static T pull(T total, T weight, T, T partner) {
    return std::fma(weight, partner, total);
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

template <class N, class T>
struct PairTile {
  static constexpr int kSide = sizeof(T) == 4 ? 128 : 64;
  static constexpr int kDepth = 16;
  static constexpr int kOwn = kSide / 16;                   // a thread has kOwn x kOwn pairs
  static constexpr int kMoved = kSide * kDepth / kBlock;    // values of each side that a thread moves in a step
  static constexpr int kRow = kSide + 16 / int{sizeof(T)};  // spreads a column over the banks

  struct Shared {
    struct alignas(16) Buffer {
      T queries[kDepth][kRow], entities[kDepth][kRow];
    } buffers[2];
  };
  struct Own {
    T sums[kOwn][kOwn];
    T queries[kMoved], entities[kMoved];  // on their way
  };

  const T* queries;  // [num_queries, dim]
  int64_t num_queries;
  const T* entities;  // [num_entities, dim]
  int64_t num_entities;
  int64_t dim;

  int64_t num_steps() const { return ceil_div(dim, kDepth); }
  TERCET_HOST_DEVICE int64_t num_query_tiles() const { return ceil_div(num_queries, kSide); }
  int64_t num_blocks() const { return num_query_tiles() * ceil_div(num_entities, kSide); }
  TERCET_HOST_DEVICE int64_t first_query(int64_t block) const { return block % num_query_tiles() * kSide; }
  TERCET_HOST_DEVICE int64_t first_entity(int64_t block) const { return block / num_query_tiles() * kSide; }

  // Where a thread's sums stand in the tile: four neighbours in each half, which one load from shared memory brings.
  TERCET_HOST_DEVICE static int query_of(int thread, int i) { return i / 4 * 64 + thread / 16 * 4 + i % 4; }
  TERCET_HOST_DEVICE static int entity_of(int thread, int j) { return j / 4 * 64 + thread % 16 * 4 + j % 4; }

  TERCET_HOST_DEVICE void start(int64_t block, int thread, Shared& shared, Own& own) const {
    TERCET_UNROLL
    for (int i = 0; i < kOwn; ++i) {
      TERCET_UNROLL
      for (int j = 0; j < kOwn; ++j) own.sums[i][j] = 0;
    }
    fetch(block, 0, thread, own);
    keep(thread, own, shared.buffers[0]);
  }

  // While one buffer is summed the other is filled, which no thread has read since the step before.
  TERCET_HOST_DEVICE void step(int64_t block, int64_t step, int thread, Shared& shared, Own& own) const {
    fetch(block, step + 1, thread, own);
    const typename Shared::Buffer& buffer = shared.buffers[step % 2];
    TERCET_UNROLL
    for (int d = 0; d < kDepth; ++d) {
      T query[kOwn], entity[kOwn];
      TERCET_UNROLL
      for (int i = 0; i < kOwn; ++i) {
        query[i] = buffer.queries[d][query_of(thread, i)];
        entity[i] = buffer.entities[d][entity_of(thread, i)];
      }
      TERCET_UNROLL
      for (int i = 0; i < kOwn; ++i) {
        TERCET_UNROLL
        for (int j = 0; j < kOwn; ++j) own.sums[i][j] = N::add(own.sums[i][j], query[i], entity[j]);
      }
    }
    keep(thread, own, shared.buffers[(step + 1) % 2]);
  }

 private:
  static constexpr int kRowsAtOnce = kBlock / kDepth;

  // 0 beyond the dimensions, the queries and the entities: terms of 0, and sums that nobody reads.
  TERCET_HOST_DEVICE void fetch(int64_t block, int64_t step, int thread, Own& own) const {
    const int64_t d = step * kDepth + thread % kDepth;
    fetch_side(queries, num_queries, first_query(block) + thread / kDepth, d, own.queries);
    fetch_side(entities, num_entities, first_entity(block) + thread / kDepth, d, own.entities);
  }

  TERCET_HOST_DEVICE void fetch_side(const T* rows, int64_t num_rows, int64_t row, int64_t d, T* moved) const {
    const int64_t stride = kRowsAtOnce * dim, end = d < dim ? num_rows : 0;
    int64_t place = row * dim + d;
    TERCET_UNROLL
    for (int i = 0; i < kMoved; ++i, place += stride) moved[i] = row + i * kRowsAtOnce < end ? rows[place] : 0;
  }

  TERCET_HOST_DEVICE static void keep(int thread, const Own& own, typename Shared::Buffer& buffer) {
    TERCET_UNROLL
    for (int i = 0; i < kMoved; ++i) {
      buffer.queries[thread % kDepth][thread / kDepth + i * kRowsAtOnce] = own.queries[i];
      buffer.entities[thread % kDepth][thread / kDepth + i * kRowsAtOnce] = own.entities[i];
    }
  }
};

}  // namespace tercet::cuda
