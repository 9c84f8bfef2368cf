// The steps of scores and of their gradients over a Device (steps.h); translation.h says what each function gives.
#pragma once

#include "pair_tile.h"
#include "translation.h"
#include "warp_sums.h"

namespace tercet::cuda {

// A block computes its tile of the scores.
template <class N, class T>
struct ScoreTiles {
  using Tile = PairTile<N, T>;
  using Shared = typename Tile::Shared;
  using Own = typename Tile::Own;

  Tile tile;
  T* scores;  // [num_queries, num_entities]
  int64_t num_steps;

  TERCET_HOST_DEVICE void start(int64_t block, int thread, Shared& shared, Own& own) const {
    tile.start(block, thread, shared, own);
  }
  TERCET_HOST_DEVICE void step(int64_t block, int64_t step, int thread, Shared& shared, Own& own) const {
    tile.step(block, step, thread, shared, own);
  }
  TERCET_HOST_DEVICE void finish(int64_t block, int thread, Shared&, Own& own) const {
    TERCET_UNROLL
    for (int i = 0; i < Tile::kOwn; ++i) {
      const int64_t query = tile.first_query(block) + Tile::query_of(thread, i);
      TERCET_UNROLL
      for (int j = 0; j < Tile::kOwn; ++j) {
        const int64_t entity = tile.first_entity(block) + Tile::entity_of(thread, j);
        if (query < tile.num_queries && entity < tile.num_entities) {
          scores[query * tile.num_entities + entity] = N::score(own.sums[i][j]);
        }
      }
    }
  }
  TERCET_HOST_DEVICE void settle(int64_t, int, Shared&, Own&) const {}
};

template <class T, class Device>
void scores_steps(const Device& device, Norm norm, const T* queries, int64_t num_queries, const T* entities,
                  int64_t num_entities, int64_t dim, T* scores) {
  with_norm(norm, [&](auto n) {
    const PairTile<decltype(n), T> tile{queries, num_queries, entities, num_entities, dim};
    const ScoreTiles<decltype(n), T> work{tile, scores, tile.num_steps()};
    device.for_each_block("transe_scores", tile.num_blocks(), work);
  });
}

// The vectors of triples.
template <class T>
struct TripleRows {
  const T *heads, *relations, *tails;  // [count, dim]
  int64_t count, dim;

  TERCET_HOST_DEVICE T query(int64_t pair, int64_t d) const {
    return heads[pair * dim + d] + relations[pair * dim + d];
  }
  TERCET_HOST_DEVICE T entity(int64_t pair, int64_t d) const { return tails[pair * dim + d]; }
};

// A warp's part of the sums of a pair: Rows gives both vectors of it.
template <class N, class T, class Rows>
TERCET_HOST_DEVICE inline void put_pair_sum(const Rows& rows, int64_t pair, int thread, WarpSums<T>& sums) {
  T part = 0;
  for (int64_t d = sums.lane_of(thread); pair < rows.count && d < rows.dim; d += sums.kLanes) {
    part = N::add(part, rows.query(pair, d), rows.entity(pair, d));
  }
  sums.put(thread, part);
}

template <class N, class T, class Rows>
struct PairScores {
  using Shared = WarpSums<T>;
  struct Own {};

  Rows rows;
  T* scores;  // [count]
  int64_t num_steps;

  TERCET_HOST_DEVICE void start(int64_t block, int thread, Shared& shared, Own&) const {
    put_pair_sum<N>(rows, shared.item_of(block, thread), thread, shared);
  }
  TERCET_HOST_DEVICE void step(int64_t, int64_t, int, Shared&, Own&) const {}
  TERCET_HOST_DEVICE void finish(int64_t block, int thread, Shared& shared, Own&) const {
    const int64_t pair = shared.item_of(block, thread);
    if (shared.lane_of(thread) == 0 && pair < rows.count) scores[pair] = N::score(shared.sum(thread));
  }
  TERCET_HOST_DEVICE void settle(int64_t, int, Shared&, Own&) const {}
};

template <class N, class T>
struct PairGradients {
  using Shared = WarpSums<T>;
  struct Own {};

  TripleRows<T> rows;
  const T* grad;           // [count]
  T *to_query, *to_tails;  // [count, dim]
  int64_t num_steps;

  TERCET_HOST_DEVICE void start(int64_t block, int thread, Shared& shared, Own&) const {
    if constexpr (std::is_same_v<N, L2>) {  // only it needs the distance
      put_pair_sum<N>(rows, shared.item_of(block, thread), thread, shared);
    }
  }
  TERCET_HOST_DEVICE void step(int64_t, int64_t, int, Shared&, Own&) const {}
  TERCET_HOST_DEVICE void finish(int64_t block, int thread, Shared& shared, Own&) const {
    const int64_t pair = shared.item_of(block, thread), dim = rows.dim;
    if (pair >= rows.count) return;
    T weight = grad[pair];
    if constexpr (std::is_same_v<N, L2>) {
      const T length = std::sqrt(shared.sum(thread));
      weight = length > 0 ? weight / length : 0 * length;  // 0, or NaN where the length is
    }
    for (int64_t d = shared.lane_of(thread); d < dim; d += shared.kLanes) {
      const T query = rows.query(pair, d), tail = rows.entity(pair, d);
      to_query[pair * dim + d] = N::pull(T{0}, weight, query, tail);
      to_tails[pair * dim + d] = N::pull(T{0}, weight, tail, query);
    }
  }
  TERCET_HOST_DEVICE void settle(int64_t, int, Shared&, Own&) const {}
};

template <class T, class Device>
void score_steps(const Device& device, Norm norm, const T* heads, const T* relations, const T* tails, int64_t batch,
                 int64_t dim, T* scores) {
  const TripleRows<T> rows{heads, relations, tails, batch, dim};
  with_norm(norm, [&](auto n) {
    const PairScores<decltype(n), T, TripleRows<T>> work{rows, scores, 0};
    device.for_each_block("transe_score", WarpSums<T>::num_blocks(batch), work);
  });
}

template <class T, class Device>
void score_backward_steps(const Device& device, Norm norm, const T* grad, const T* heads, const T* relations,
                          const T* tails, int64_t batch, int64_t dim, T* to_query, T* to_tails) {
  const TripleRows<T> rows{heads, relations, tails, batch, dim};
  with_norm(norm, [&](auto n) {
    const PairGradients<decltype(n), T> work{rows, grad, to_query, to_tails, 0};
    device.for_each_block("transe_score_backward", WarpSums<T>::num_blocks(batch), work);
  });
}

// A block computes kSide rows and kSide dimensions of a weighted sum over a piece of the partners, kDepth of them a
// step; shared memory and what is on its way as in PairTile.
template <class N, class T>
struct PullTiles {
  static constexpr int kSide = 64, kDepth = 16, kOwn = kSide / 16;
  static constexpr int kMoved = kSide * kDepth / kBlock;
  static constexpr int kRow = kSide + 16 / int{sizeof(T)};

  struct Shared {
    struct alignas(16) Buffer {
      T weights[kDepth][kRow], partners[kDepth][kRow];
    } buffers[2];
  };
  struct Own {
    T rows[kOwn][kOwn], sums[kOwn][kOwn];
    T weights[kMoved], partners[kMoved];
  };

  const T* rows;  // [num_rows, dim]
  int64_t num_rows;
  const T* partners;  // [num_partners, dim]
  int64_t num_partners, dim;
  Weights<T> weights;
  T* sums;                    // [pieces, num_rows, dim]
  int64_t partners_of_piece;  // a multiple of kDepth
  int64_t num_steps;          // partners_of_piece / kDepth

  TERCET_HOST_DEVICE int64_t num_row_tiles() const { return ceil_div(num_rows, kSide); }
  TERCET_HOST_DEVICE int64_t num_tiles() const { return num_row_tiles() * ceil_div(dim, kSide); }
  int64_t num_pieces() const { return larger(ceil_div(num_partners, partners_of_piece), int64_t{1}); }
  TERCET_HOST_DEVICE int64_t first_row(int64_t block) const { return block % num_tiles() % num_row_tiles() * kSide; }
  TERCET_HOST_DEVICE int64_t first_dim(int64_t block) const { return block % num_tiles() / num_row_tiles() * kSide; }
  TERCET_HOST_DEVICE int64_t piece(int64_t block) const { return block / num_tiles(); }

  TERCET_HOST_DEVICE void start(int64_t block, int thread, Shared& shared, Own& own) const {
    TERCET_UNROLL
    for (int i = 0; i < kOwn; ++i) {
      const int64_t row = first_row(block) + thread / 16 * kOwn + i;
      TERCET_UNROLL
      for (int j = 0; j < kOwn; ++j) {
        const int64_t d = first_dim(block) + thread % 16 * kOwn + j;
        own.rows[i][j] = row < num_rows && d < dim ? rows[row * dim + d] : 0;
        own.sums[i][j] = 0;
      }
    }
    fetch(block, 0, thread, own);
    keep(thread, own, shared.buffers[0]);
  }

  TERCET_HOST_DEVICE void step(int64_t block, int64_t step, int thread, Shared& shared, Own& own) const {
    fetch(block, step + 1, thread, own);
    const typename Shared::Buffer& buffer = shared.buffers[step % 2];
    TERCET_UNROLL
    for (int k = 0; k < kDepth; ++k) {
      T weight[kOwn], partner[kOwn];
      TERCET_UNROLL
      for (int i = 0; i < kOwn; ++i) {
        weight[i] = buffer.weights[k][thread / 16 * kOwn + i];
        partner[i] = buffer.partners[k][thread % 16 * kOwn + i];
      }
      TERCET_UNROLL
      for (int i = 0; i < kOwn; ++i) {
        TERCET_UNROLL
        for (int j = 0; j < kOwn; ++j) {
          own.sums[i][j] = N::pull(own.sums[i][j], weight[i], own.rows[i][j], partner[j]);
        }
      }
    }
    keep(thread, own, shared.buffers[(step + 1) % 2]);
  }

  TERCET_HOST_DEVICE void finish(int64_t block, int thread, Shared&, Own& own) const {
    T* out = sums + piece(block) * num_rows * dim;
    TERCET_UNROLL
    for (int i = 0; i < kOwn; ++i) {
      const int64_t row = first_row(block) + thread / 16 * kOwn + i;
      TERCET_UNROLL
      for (int j = 0; j < kOwn; ++j) {
        const int64_t d = first_dim(block) + thread % 16 * kOwn + j;
        if (row < num_rows && d < dim) out[row * dim + d] = own.sums[i][j];
      }
    }
  }
  TERCET_HOST_DEVICE void settle(int64_t, int, Shared&, Own&) const {}

 private:
  // Neighbouring threads read neighbouring weights, along the partners or along the rows.
  TERCET_HOST_DEVICE int weight_partner(int thread, int i) const {
    return weights.partner_stride == 1 ? thread % kDepth : thread / kSide + i * (kBlock / kSide);
  }
  TERCET_HOST_DEVICE int weight_row(int thread, int i) const {
    return weights.partner_stride == 1 ? thread / kDepth + i * (kBlock / kDepth) : thread % kSide;
  }
  TERCET_HOST_DEVICE static int partner_of(int thread, int i) { return thread / kSide + i * (kBlock / kSide); }

  // Weights of 0 beyond the rows and the partners; a piece ends with a step.
  TERCET_HOST_DEVICE void fetch(int64_t block, int64_t step, int thread, Own& own) const {
    const int64_t first = piece(block) * partners_of_piece + step * kDepth;
    const int64_t d = first_dim(block) + thread % kSide;
    TERCET_UNROLL
    for (int i = 0; i < kMoved; ++i) {
      const int64_t row = first_row(block) + weight_row(thread, i), j = first + weight_partner(thread, i);
      own.weights[i] =
          row < num_rows && j < num_partners ? weights.data[row * weights.row_stride + j * weights.partner_stride] : 0;
      const int64_t partner = first + partner_of(thread, i);
      own.partners[i] = partner < num_partners && d < dim ? partners[partner * dim + d] : 0;
    }
  }

  TERCET_HOST_DEVICE void keep(int thread, const Own& own, typename Shared::Buffer& buffer) const {
    TERCET_UNROLL
    for (int i = 0; i < kMoved; ++i) {
      buffer.weights[weight_partner(thread, i)][weight_row(thread, i)] = own.weights[i];
      buffer.partners[partner_of(thread, i)][thread % kSide] = own.partners[i];
    }
  }
};

// The partners of a piece: so many pieces that about kWantedBlocks blocks have work, of no less than kLeastPartners.
inline int64_t partners_of_piece(int64_t num_rows, int64_t num_partners, int64_t dim) {
  constexpr int64_t kWantedBlocks = 1024, kLeastPartners = 256, kSide = 64, kDepth = 16;
  const int64_t num_tiles = larger(ceil_div(num_rows, kSide) * ceil_div(dim, kSide), int64_t{1});
  const int64_t wanted = larger(kWantedBlocks / num_tiles, int64_t{1});
  return ceil_div(larger(ceil_div(num_partners, wanted), kLeastPartners), kDepth) * kDepth;
}

// Scratch of the backward: the sums of the pieces, where there are several.
template <class T>
struct PullMemory {
  PullMemory(Carver& carver, int64_t num_rows, int64_t num_partners, int64_t dim)
      : partners(partners_of_piece(num_rows, num_partners, dim)),
        num_pieces(ceil_div(num_partners, partners)),
        sums(carver.take<T>(num_pieces > 1 ? num_pieces * num_rows * dim : 0)) {}

  int64_t partners, num_pieces;
  T* sums;  // [num_pieces, num_rows, dim]
};

template <class T, class Device>
void scores_backward_steps(const Device& device, Norm norm, const T* rows, int64_t num_rows, const T* partners,
                           int64_t num_partners, int64_t dim, const Weights<T>& weights, T* out,
                           const PullMemory<T>& memory) {
  const bool whole = memory.num_pieces <= 1;
  with_norm(norm, [&](auto n) {
    using Tiles = PullTiles<decltype(n), T>;
    const Tiles work{rows,
                     num_rows,
                     partners,
                     num_partners,
                     dim,
                     weights,
                     whole ? out : memory.sums,
                     memory.partners,
                     smaller(memory.partners, ceil_div(num_partners, Tiles::kDepth) * Tiles::kDepth) / Tiles::kDepth};
    device.for_each_block("transe_scores_backward", work.num_tiles() * work.num_pieces(), work);
  });
  if (whole) return;
  const int64_t size = num_rows * dim, num_pieces = memory.num_pieces;
  const T* sums = memory.sums;
  device.for_each("transe_scores_backward, pieces", size, [=] TERCET_DEVICE(int64_t i) {
    T total = 0;
    for (int64_t piece = 0; piece < num_pieces; ++piece) total += sums[piece * size + i];
    out[i] = total;
  });
}

}  // namespace tercet::cuda
