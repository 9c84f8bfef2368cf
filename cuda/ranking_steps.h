// The steps of rank_counts over a Device (steps.h); ranking.h says what it gives.
#pragma once

#include <cfloat>

#include "pair_tile.h"
#include "ranking.h"

namespace tercet::cuda {

// What a ranking counts, for each target.
struct Counts {
  int64_t *better, *equal, *rivals;  // [num_targets]
};

template <class T>
struct RankMemory {
  RankMemory(Carver& carver, int64_t num_targets, int64_t dim, int64_t queries_at_once)
      : exact(carver.take<double>(num_targets)),
        lower(carver.take<T>(num_targets)),
        upper(carver.take<T>(num_targets)),
        longest(carver.take<double>(1)),
        queries(carver.take<T>(queries_at_once * dim)) {}

  double* exact;     // [num_targets]: sums
  T *lower, *upper;  // [num_targets]: bands around them
  double* longest;   // l2 length of the longest entity, for dot
  T* queries;        // [queries_at_once, dim]: rounded to T
};

// What the threads of all steps read.
template <class T>
struct RankView {
  Ranking<T> ranking;
  Norm norm;
  Query kind;
  RankMemory<T> memory;

  TERCET_HOST_DEVICE const T* anchor(int64_t query) const {
    return ranking.entities + ranking.anchors[query] * ranking.dim;
  }
  TERCET_HOST_DEVICE const T* relation(int64_t query) const {
    return ranking.relations + ranking.kinds[query] * ranking.dim;
  }
  TERCET_HOST_DEVICE double exact_of(int64_t query, int64_t entity) const {
    return exact_sum(static_cast<int>(norm), kind, anchor(query), relation(query),
                     ranking.entities + entity * ranking.dim, ranking.dim);
  }
};

// The nearest T on the given side.
template <class T>
TERCET_HOST_DEVICE inline T round_down(double value) {
  const T near = static_cast<T>(value);
  return near > value ? std::nextafter(near, static_cast<T>(-INFINITY)) : near;
}

template <class T>
TERCET_HOST_DEVICE inline T round_up(double value) {
  const T near = static_cast<T>(value);
  return near < value ? std::nextafter(near, static_cast<T>(INFINITY)) : near;
}

// Upper bound of an l2 length, whose square does not overflow; see exact.h for the values that come here.
template <class Value>
TERCET_HOST_DEVICE inline double length_bound(int64_t dim, const Value& value) {
  double squares = 0;
  for (int64_t d = 0; d < dim; ++d) squares += static_cast<double>(value(d)) * static_cast<double>(value(d));
  return std::sqrt(squares) * (1 + 1e-6);
}

// The exact sum of a target, and the band of fast sums around it.
template <class T>
TERCET_HOST_DEVICE inline void prepare_target(const RankView<T>& view, int64_t target, int64_t query) {
  const int64_t dim = view.ranking.dim;
  const T *anchor = view.anchor(query), *relation = view.relation(query);
  const double exact = view.exact_of(query, view.ranking.targets[target]);
  const double length = length_bound(dim, [&](int64_t d) { return query_value<T>(view.kind, anchor[d], relation[d]); });
  // A fast sum adds each term to all that follow.
  const double unit = sizeof(T) == 4 ? FLT_EPSILON / 2 : DBL_EPSILON / 2, smallest = sizeof(T) == 4 ? FLT_MIN : DBL_MIN;
  const Band near = band(static_cast<int>(view.norm), exact, unit, smallest, dim + 1, dim, length, *view.memory.longest,
                         std::sqrt(static_cast<double>(dim)));
  view.memory.exact[target] = exact;
  view.memory.lower[target] = round_down<T>(near.lower);
  view.memory.upper[target] = round_up<T>(near.upper);
}

template <class T, class Device>
void prepare_steps(const Device& device, const RankView<T>& view, int64_t num_targets) {
  const Ranking<T> ranking = view.ranking;
  double* longest = view.memory.longest;
  device.for_each("rank_counts, no entity", 1, [=] TERCET_DEVICE(int64_t) { *longest = 0; });
  if (view.norm == Norm::kDot) {
    device.for_each("rank_counts, lengths", ranking.num_entities, [=] TERCET_DEVICE(int64_t entity) {
      const T* values = ranking.entities + entity * ranking.dim;
      raise_to(longest, length_bound(ranking.dim, [&](int64_t d) { return values[d]; }));
    });
  }
  device.expand("rank_counts, targets", ranking.target_offsets, ranking.num_queries, 0, num_targets,
                [=] TERCET_DEVICE(int64_t target, int64_t query) { prepare_target(view, target, query); });
}

TERCET_HOST_DEVICE inline uint32_t first_bits(int64_t count) {
  return count >= 32 ? ~uint32_t{0} : count <= 0 ? 0 : (uint32_t{1} << count) - 1;
}

// A block ranks its tile of pairs: queries of a chunk, and entities.
template <class N, class T>
struct RankTiles {
  using Tile = PairTile<N, T>;
  using Own = typename Tile::Own;
  static constexpr int kSide = Tile::kSide, kWords = kSide / 32;
  static constexpr bool kMore = std::is_same_v<N, Dot>;  // a larger sum is better

  struct Shared {
    union {
      typename Tile::Shared tile;
      uint16_t listed[kSide * kSide];  // once summed: query * kSide + entity of pairs whose fast sums do not decide
    };
    uint32_t rivals[kSide][kWords];  // by query, a bit for each entity
    int num_listed;
  };
  static_assert(sizeof(Shared) <= 48 * 1024 && kSide * kSide <= 1 << 16);

  Tile tile;
  RankView<T> view;
  int64_t first_of_chunk;
  Counts counts;
  int64_t num_steps;

  TERCET_HOST_DEVICE void start(int64_t block, int thread, Shared& shared, Own& own) const {
    tile.start(block, thread, shared.tile, own);
    if (thread < kSide) mark_rivals(block, thread, shared.rivals[thread]);
    if (thread == 0) shared.num_listed = 0;
  }

  TERCET_HOST_DEVICE void step(int64_t block, int64_t step, int thread, Shared& shared, Own& own) const {
    tile.step(block, step, thread, shared.tile, own);
  }

  TERCET_HOST_DEVICE void finish(int64_t block, int thread, Shared& shared, Own& own) const {
    const int64_t first_query = query_at(block, 0), first_entity = tile.first_entity(block);
    TERCET_UNROLL
    for (int i = 0; i < Tile::kOwn; ++i) {
      const int query = Tile::query_of(thread, i);
      uint32_t open = 0;  // a bit for each of the thread's sums that are rivals'
      TERCET_UNROLL
      for (int j = 0; j < Tile::kOwn; ++j) {
        const int entity = Tile::entity_of(thread, j);
        open |= (shared.rivals[query][entity / 32] >> entity % 32 & 1) << j;
      }
      if (open) decide(first_query + query, first_entity, query, thread, open, own.sums[i], shared);
    }
  }

  TERCET_HOST_DEVICE void settle(int64_t block, int thread, Shared& shared, Own&) const {
    for (int place = thread; place < shared.num_listed; place += kBlock) {
      const int64_t query = query_at(block, shared.listed[place] / kSide);
      const int64_t entity = tile.first_entity(block) + shared.listed[place] % kSide;
      const double sum = view.exact_of(query, entity);
      for (int64_t t = first_target(query); t < first_target(query + 1); ++t) {
        if (view.ranking.targets[t] == entity) continue;
        const double target = view.memory.exact[t];
        if (kMore ? sum > target : sum < target) add_to(counts.better + t, 1);
        if (sum == target) add_to(counts.equal + t, 1);
      }
    }
  }

 private:
  TERCET_HOST_DEVICE int64_t query_at(int64_t block, int query) const {
    return first_of_chunk + tile.first_query(block) + query;
  }
  TERCET_HOST_DEVICE int64_t first_target(int64_t query) const { return view.ranking.target_offsets[query]; }

  // Calls body(entity - first) for the entities of a query that lie in the tile.
  template <class Body>
  TERCET_HOST_DEVICE void for_listed(const Ranges& ranges, int64_t query, int64_t first, const Body& body) const {
    const int64_t end = ranges.ranges[2 * query + 1];
    int64_t at = lower_bound(ranges.entities, ranges.ranges[2 * query], end, static_cast<int32_t>(first));
    for (; at < end && ranges.entities[at] < first + kSide; ++at) body(static_cast<int>(ranges.entities[at] - first));
  }

  // The rivals of a query in the tile: all or its candidates, but what is known; and how many each target has.
  TERCET_HOST_DEVICE void mark_rivals(int64_t block, int row, uint32_t* words) const {
    const int64_t query = query_at(block, row), first = tile.first_entity(block);
    const bool any = tile.first_query(block) + row < tile.num_queries;
    const bool all = any && !view.ranking.candidates.ranges;
    int64_t left = all ? smaller<int64_t>(kSide, tile.num_entities - first) : 0;
    for (int word = 0; word < kWords; ++word) words[word] = first_bits(left - 32 * word);
    if (!any) return;
    const auto is_rival = [&](int64_t entity) { return words[entity / 32] >> entity % 32 & 1; };
    const auto mark = [&](int entity) {  // once each
      left += 1;
      words[entity / 32] |= uint32_t{1} << entity % 32;
    };
    const auto unmark = [&](int entity) {
      left -= is_rival(entity);
      words[entity / 32] &= ~(uint32_t{1} << entity % 32);
    };
    if (!all) for_listed(view.ranking.candidates, query, first, mark);
    if (view.ranking.known.ranges) for_listed(view.ranking.known, query, first, unmark);
    if (left == 0) return;
    for (int64_t t = first_target(query); t < first_target(query + 1); ++t) {
      const int64_t target = view.ranking.targets[t] - first;
      const bool itself = target >= 0 && target < kSide && is_rival(target);
      add_to(counts.rivals + t, left - itself);
    }
  }

  // One query's sums against its targets. A sum in the band of any target is left to exact sums for all of them.
  TERCET_HOST_DEVICE void decide(int64_t query, int64_t first_entity, int row, int thread, uint32_t open, const T* sums,
                                 Shared& shared) const {
    const int64_t first = first_target(query), last = first_target(query + 1);
    uint32_t unsure = 0;
    for (int64_t t = first; t < last; ++t) {
      const T lower = view.memory.lower[t], upper = view.memory.upper[t];
      const int64_t target = view.ranking.targets[t] - first_entity;
      TERCET_UNROLL
      for (int j = 0; j < Tile::kOwn; ++j) {
        const bool in_band = !(sums[j] < lower) && !(sums[j] > upper) && Tile::entity_of(thread, j) != target;
        unsure |= uint32_t{in_band} << j;
      }
    }
    unsure &= open;
    for (int64_t t = first; t < last; ++t) {
      int64_t ahead = 0;
      TERCET_UNROLL
      for (int j = 0; j < Tile::kOwn; ++j) {
        const bool better = kMore ? sums[j] > view.memory.upper[t] : sums[j] < view.memory.lower[t];
        ahead += better && ((open & ~unsure) >> j & 1);
      }
      if (ahead) add_to(counts.better + t, ahead);
    }
    for (int j = 0; j < Tile::kOwn; ++j) {
      if (!(unsure >> j & 1)) continue;
      shared.listed[take_place(&shared.num_listed)] = static_cast<uint16_t>(row * kSide + Tile::entity_of(thread, j));
    }
  }
};

template <class T, class Device>
void rank_steps(const Device& device, Norm norm, const Ranking<T>& ranking, int64_t num_targets,
                int64_t queries_at_once, const Counts& counts, const RankMemory<T>& memory) {
  const Query kind = ranking.tails ? Query::kSum : norm == Norm::kDot ? Query::kAnchor : Query::kDifference;
  const RankView<T> view{ranking, norm, kind, memory};
  prepare_steps(device, view, num_targets);
  const int64_t dim = ranking.dim;
  for (int64_t first = 0; first < ranking.num_queries; first += queries_at_once) {
    const int64_t num_queries = smaller(queries_at_once, ranking.num_queries - first);
    device.for_each("rank_counts, queries", num_queries * dim, [=] TERCET_DEVICE(int64_t i) {
      const int64_t query = first + i / dim, d = i % dim;
      view.memory.queries[i] = query_value<T>(view.kind, view.anchor(query)[d], view.relation(query)[d]);
    });
    with_norm(norm, [&](auto n) {
      const PairTile<decltype(n), T> tile{memory.queries, num_queries, ranking.entities, ranking.num_entities, dim};
      const RankTiles<decltype(n), T> work{tile, view, first, counts, tile.num_steps()};
      device.for_each_block("rank_counts", tile.num_blocks(), work);
    });
  }
}

}  // namespace tercet::cuda
