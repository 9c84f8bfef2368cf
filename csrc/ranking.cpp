#include "ranking.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "translation_tile.h"

namespace tercet {

namespace {

constexpr int64_t kQueryChunk = 64;  // queries of a task, in the first-level cache tile by tile
constexpr int64_t kTilesPerTask = 16;
constexpr int64_t kBlockTiles = 64;  // packed at once
constexpr int64_t kTopChunk = 16;

template <class T>
constexpr double kUnit = std::numeric_limits<T>::epsilon() / 2;

int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

void add(int64_t& total, int64_t more) { std::atomic_ref<int64_t>(total).fetch_add(more, std::memory_order_relaxed); }

template <class T>
T round_down(double value) {
  const T near = static_cast<T>(value);
  return near > value ? std::nextafter(near, -std::numeric_limits<T>::infinity()) : near;
}

template <class T>
T round_up(double value) {
  const T near = static_cast<T>(value);
  return near < value ? std::nextafter(near, std::numeric_limits<T>::infinity()) : near;
}

template <class T>
double length(const T* values, int64_t dim) {
  double total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t d = 0; d < dim; ++d) total += static_cast<double>(values[d]) * values[d];
  return std::sqrt(total);
}

// How many lanes of a tile's sums are below a bound, or not above it.
template <class T>
int64_t count_below(const T* sums, T bound, bool or_equal) {
  LaneBits<T> count = {};
  for (int v = 0; v < kTile<T>; v += kLanes<T>) {
    const Lanes<T> values = load<T>(sums + v), bounds = all<T>(bound);
    count -= or_equal ? values <= bounds : values < bounds;
  }
  int64_t total = 0;
  for (int i = 0; i < kLanes<T>; ++i) total += count[i];
  return total;
}

// The entities of some queries in a tile: a cursor for each query, which moves on from tile to tile.
class Cursors {
 public:
  Cursors(const Ranges& ranges, int64_t first_query, int64_t count, int64_t first_entity) : ranges_(ranges) {
    if (!ranges.ranges) return;
    for (int64_t q = 0; q < count; ++q) {
      const int64_t* range = ranges.ranges + 2 * (first_query + q);
      const int32_t* begin = ranges.entities + range[0];
      last_[q] = range[1];
      next_[q] = std::lower_bound(begin, ranges.entities + range[1], first_entity) - ranges.entities;
    }
  }

  // Calls body(entity) for those of query q that are below `end` and were not met before.
  template <class Body>
  void advance(int64_t q, int64_t end, const Body& body) {
    if (!ranges_.ranges) return;
    for (; next_[q] < last_[q] && ranges_.entities[next_[q]] < end; ++next_[q]) body(ranges_.entities[next_[q]]);
  }

 private:
  const Ranges& ranges_;
  int64_t next_[kQueryChunk], last_[kQueryChunk];
};

// Some tiles, packed, with the l2 length of the longest entity of each.
template <class T>
struct Block {
  T* tiles;             // [kBlockTiles, dim, kTile]
  double* lengths;      // [kBlockTiles]
  int64_t first, last;  // tiles

  const T* tile(int64_t t, int64_t dim) const { return tiles + (t - first) * dim * kTile<T>; }
};

template <class T>
void pack_block(const T* entities, int64_t num_entities, int64_t dim, bool with_lengths, const Block<T>& block,
                int num_threads) {
  parallel_for(block.last - block.first, num_threads, [&](int64_t t, int) {
    const int64_t first = (block.first + t) * kTile<T>, count = std::min<int64_t>(kTile<T>, num_entities - first);
    pack_tile(entities + first * dim, count, dim, block.tiles + t * dim * kTile<T>);
    if (!with_lengths) return;
    double longest = 0;
    for (int64_t e = first; e < first + count; ++e) longest = std::max(longest, length(entities + e * dim, dim));
    block.lengths[t] = longest;
  });
}

// One task of rank_counts: a chunk of queries and some tiles of a block.
template <class N, class T>
class RankTask {
 public:
  RankTask(const Ranking<T>& ranking, Norm norm, Query kind, const double* exact, int64_t first_query, T* queries)
      : r_(ranking),
        norm_(norm),
        kind_(kind),
        exact_(exact),
        first_query_(first_query),
        num_queries_(std::min(kQueryChunk, ranking.num_queries - first_query)),
        queries_(queries) {
    for (int64_t q = 0; q < num_queries_; ++q) {
      const T *anchor = this->anchor(q), *relation = this->relation(q);
      T* query = queries + q * r_.dim;
      for (int64_t d = 0; d < r_.dim; ++d) query[d] = query_value<T>(kind, anchor[d], relation[d]);
      lengths_[q] = length(query, r_.dim) * (1 + 1e-6);
    }
  }

  void run(const Block<T>& block, int64_t first_tile, int64_t last_tile, int64_t* better, int64_t* equal,
           int64_t* rivals) {
    Cursors known(r_.known, first_query_, num_queries_, first_tile * kTile<T>);
    Cursors candidates(r_.candidates, first_query_, num_queries_, first_tile * kTile<T>);
    alignas(64) T sums[kQueryGroup * kTile<T>];
    for (int64_t t = first_tile; t < last_tile; ++t) {
      const int64_t first = t * kTile<T>, count = std::min<int64_t>(kTile<T>, r_.num_entities - first);
      for (int64_t q = 0; q < num_queries_; q += kQueryGroup) {
        const int64_t group = std::min<int64_t>(kQueryGroup, num_queries_ - q);
        tile_sums<N>(queries_ + q * r_.dim, group, block.tile(t, r_.dim), r_.dim, sums);
        for (int64_t i = 0; i < group; ++i) {
          T* row = sums + i * kTile<T>;
          const int64_t left = keep_rivals(q + i, first, count, known, candidates, row);
          if (left) count_targets(q + i, first, row, left, block.lengths[t - block.first], better, equal, rivals);
        }
      }
    }
  }

 private:
  const T* anchor(int64_t q) const { return r_.entities + r_.anchors[first_query_ + q] * r_.dim; }
  const T* relation(int64_t q) const { return r_.relations + r_.kinds[first_query_ + q] * r_.dim; }

  double exact_of(int64_t q, int64_t entity) const {
    return exact_sum(static_cast<int>(norm_), kind_, anchor(q), relation(q), r_.entities + entity * r_.dim, r_.dim);
  }

  // Puts NaN, which no comparison counts, in place of sums that are no rivals'; returns how many rivals are left.
  int64_t keep_rivals(int64_t q, int64_t first, int64_t count, Cursors& known, Cursors& candidates, T* row) const {
    constexpr T kNone = std::numeric_limits<T>::quiet_NaN();
    int64_t left = count;
    if (r_.candidates.ranges) {
      alignas(64) T kept[kTile<T>];
      std::fill(kept, kept + kTile<T>, kNone);
      left = 0;
      candidates.advance(q, first + count, [&](int64_t entity) {
        kept[entity - first] = row[entity - first];
        ++left;
      });
      std::copy(kept, kept + kTile<T>, row);
    } else {
      std::fill(row + count, row + kTile<T>, kNone);
    }
    known.advance(q, first + count, [&](int64_t entity) {
      T& sum = row[entity - first];
      left -= sum == sum;
      sum = kNone;
    });
    return left;
  }

  void count_targets(int64_t q, int64_t first, const T* row, int64_t left, double longest, int64_t* better,
                     int64_t* equal, int64_t* rivals) const {
    constexpr bool kMore = std::is_same_v<N, Dot>;  // a larger sum is better
    for (int64_t i = r_.target_offsets[first_query_ + q]; i < r_.target_offsets[first_query_ + q + 1]; ++i) {
      const int64_t target = r_.targets[i];
      const bool itself = target >= first && target < first + kTile<T> && row[target - first] == row[target - first];
      add(rivals[i], left - itself);
      const Band near = band(static_cast<int>(norm_), exact_[i], kUnit<T>, std::numeric_limits<T>::min(),
                             kDepth + r_.dim / kDepth + 2, r_.dim, lengths_[q], longest, std::sqrt(r_.dim));
      const T lower = round_down<T>(near.lower), upper = round_up<T>(near.upper);
      const int64_t below = count_below(row, lower, false), not_above = count_below(row, upper, true);
      int64_t ahead = kMore ? left - not_above : below, beside = 0;
      if (not_above - below > itself) {
        for (int64_t e = 0; e < kTile<T>; ++e) {
          if (!(row[e] >= lower && row[e] <= upper) || first + e == target) continue;
          const double sum = exact_of(q, first + e);
          ahead += kMore ? sum > exact_[i] : sum < exact_[i];
          beside += sum == exact_[i];
        }
      }
      if (ahead) add(better[i], ahead);
      if (beside) add(equal[i], beside);
    }
  }

  const Ranking<T>& r_;
  Norm norm_;
  Query kind_;
  const double* exact_;
  int64_t first_query_, num_queries_;
  T* queries_;  // [kQueryChunk, dim]
  double lengths_[kQueryChunk];
};

Query query_kind(Norm norm, bool tails) {
  return tails ? Query::kSum : norm == Norm::kDot ? Query::kAnchor : Query::kDifference;
}

// The k best of a query so far: a heap whose first is the worst, by score and then the smaller id.
template <class T>
struct Best {
  struct Entry {
    T score;
    int64_t entity;
  };
  static bool before(const Entry& a, const Entry& b) {
    return a.score > b.score || (a.score == b.score && a.entity < b.entity);
  }
};

}  // namespace

void known_ranges(const Graph& graph, const int32_t* subjects, const int32_t* relations, int64_t count,
                  int64_t* found) {
  for (int64_t i = 0; i < count; ++i) {
    const int32_t* first = graph.relations + graph.row_offsets[subjects[i]];
    const int32_t* last = graph.relations + graph.row_offsets[subjects[i] + 1];
    const auto [begin, end] = std::equal_range(first, last, relations[i]);
    found[2 * i] = begin - graph.relations;
    found[2 * i + 1] = end - graph.relations;
  }
}

template <class T>
int64_t rank_scratch_bytes(int64_t num_entities, int64_t dim, int num_threads) {
  const int64_t num_tiles = std::min(kBlockTiles, (num_entities + kTile<T> - 1) / kTile<T>);
  const int64_t values = sizeof(T);
  return aligned(num_tiles * dim * kTile<T> * values) + aligned(kBlockTiles * 8) +
         num_threads * aligned(kQueryChunk * dim * values);
}

template <class T>
void rank_counts(Norm norm, const Ranking<T>& r, int64_t* better, int64_t* equal, int64_t* rivals, double* exact,
                 unsigned char* scratch, int num_threads) {
  const int64_t num_tiles = (r.num_entities + kTile<T> - 1) / kTile<T>;
  const int64_t num_chunks = (r.num_queries + kQueryChunk - 1) / kQueryChunk;
  const int64_t dim = r.dim, chunk_bytes = aligned(kQueryChunk * dim * sizeof(T));
  const Query kind = query_kind(norm, r.tails);
  Block<T> block{reinterpret_cast<T*>(scratch), nullptr, 0, 0};
  scratch += aligned(std::min(kBlockTiles, num_tiles) * dim * kTile<T> * static_cast<int64_t>(sizeof(T)));
  block.lengths = reinterpret_cast<double*>(scratch);
  scratch += aligned(kBlockTiles * 8);
  parallel_for(num_chunks, num_threads, [&](int64_t chunk, int) {
    for (int64_t q = chunk * kQueryChunk; q < std::min(r.num_queries, (chunk + 1) * kQueryChunk); ++q) {
      const T *anchor = r.entities + r.anchors[q] * dim, *relation = r.relations + r.kinds[q] * dim;
      for (int64_t i = r.target_offsets[q]; i < r.target_offsets[q + 1]; ++i) {
        exact[i] = exact_sum(static_cast<int>(norm), kind, anchor, relation, r.entities + r.targets[i] * dim, dim);
      }
    }
  });
  with_norm(norm, [&](auto n) {
    for (block.first = 0; block.first < num_tiles; block.first = block.last) {
      block.last = std::min(block.first + kBlockTiles, num_tiles);
      pack_block(r.entities, r.num_entities, dim, norm == Norm::kDot, block, num_threads);
      const int64_t parts = (block.last - block.first + kTilesPerTask - 1) / kTilesPerTask;
      parallel_for(num_chunks * parts, num_threads, [&](int64_t task, int worker) {
        const int64_t first = block.first + task % parts * kTilesPerTask;
        RankTask<decltype(n), T> chunk(r, norm, kind, exact, task / parts * kQueryChunk,
                                       reinterpret_cast<T*>(scratch + worker * chunk_bytes));
        chunk.run(block, first, std::min(first + kTilesPerTask, block.last), better, equal, rivals);
      });
    }
  });
}

namespace {

// Into how many parts the entities are split, so that few queries keep all threads busy.
int64_t top_parts(int64_t num_queries, int64_t num_tiles, int num_threads) {
  const int64_t chunks = (num_queries + kTopChunk - 1) / kTopChunk;
  return std::max<int64_t>(1,
                           std::min<int64_t>(num_tiles, (4 * num_threads + chunks - 1) / std::max<int64_t>(chunks, 1)));
}

template <class N, class T>
void top_of_tile(const T* queries, int64_t num_queries, int64_t first_query, const T* tile, int64_t first,
                 int64_t count, int64_t dim, int64_t k, Cursors& excluded, typename Best<T>::Entry* heaps,
                 int64_t* sizes) {
  using Entry = typename Best<T>::Entry;
  alignas(64) T sums[kQueryGroup * kTile<T>];
  for (int64_t q = 0; q < num_queries; q += kQueryGroup) {
    const int64_t group = std::min<int64_t>(kQueryGroup, num_queries - q);
    tile_sums<N>(queries + (first_query + q) * dim, group, tile, dim, sums);
    for (int64_t i = 0; i < group; ++i) {
      T* row = sums + i * kTile<T>;
      for (int64_t e = 0; e < count; ++e) row[e] = N::score(row[e]);
      excluded.advance(q + i, first + count, [&](int64_t entity) { row[entity - first] = -INFINITY; });
      Entry* heap = heaps + (q + i) * k;
      int64_t& size = sizes[q + i];
      for (int64_t e = 0; e < count; ++e) {
        // Entities come in ascending order, so an equal score is never better than what is there.
        if (!(row[e] > (size < k ? -std::numeric_limits<T>::infinity() : heap[0].score))) continue;
        if (size == k) {
          std::pop_heap(heap, heap + k, Best<T>::before);
          --size;
        }
        heap[size++] = {row[e], first + e};
        std::push_heap(heap, heap + size, Best<T>::before);
      }
    }
  }
}

}  // namespace

template <class T>
int64_t transe_top_scratch_bytes(int64_t num_queries, int64_t num_entities, int64_t dim, int64_t k, int num_threads) {
  const int64_t parts = top_parts(num_queries, (num_entities + kTile<T> - 1) / kTile<T>, num_threads);
  return num_threads * aligned(dim * kTile<T> * static_cast<int64_t>(sizeof(T))) + aligned(parts * num_queries * 8) +
         parts * num_queries * k * static_cast<int64_t>(sizeof(typename Best<T>::Entry));
}

template <class T>
void transe_top(Norm norm, const T* queries, int64_t num_queries, const T* entities, int64_t num_entities, int64_t dim,
                int64_t k, const Sets& exclude, T* scores, int64_t* found, unsigned char* scratch, int num_threads) {
  using Entry = typename Best<T>::Entry;
  const int64_t num_tiles = (num_entities + kTile<T> - 1) / kTile<T>;
  const int64_t num_chunks = (num_queries + kTopChunk - 1) / kTopChunk;
  const int64_t parts = top_parts(num_queries, num_tiles, num_threads);
  const int64_t tile_bytes = aligned(dim * kTile<T> * static_cast<int64_t>(sizeof(T)));
  unsigned char* tiles = scratch;
  scratch += num_threads * tile_bytes;
  auto* sizes = reinterpret_cast<int64_t*>(scratch);                                   // [parts, num_queries]
  auto* heaps = reinterpret_cast<Entry*>(scratch + aligned(parts * num_queries * 8));  // [parts, num_queries, k]
  std::fill(sizes, sizes + parts * num_queries, 0);
  with_norm(norm, [&](auto n) {
    parallel_for(num_chunks * parts, num_threads, [&](int64_t task, int worker) {
      const int64_t part = task / num_chunks, first_query = task % num_chunks * kTopChunk;
      const int64_t count = std::min(kTopChunk, num_queries - first_query);
      const int64_t first_tile = num_tiles * part / parts, last_tile = num_tiles * (part + 1) / parts;
      int64_t ranges[2 * kTopChunk];
      for (int64_t q = 0; exclude.offsets && q < count; ++q) {
        ranges[2 * q] = exclude.offsets[first_query + q];
        ranges[2 * q + 1] = exclude.offsets[first_query + q + 1];
      }
      const Ranges excluded{exclude.offsets ? ranges : nullptr, exclude.entities};
      Cursors cursors(excluded, 0, count, first_tile * kTile<T>);
      T* tile = reinterpret_cast<T*>(tiles + worker * tile_bytes);
      for (int64_t t = first_tile; t < last_tile; ++t) {
        const int64_t first = t * kTile<T>, size = std::min<int64_t>(kTile<T>, num_entities - first);
        pack_tile(entities + first * dim, size, dim, tile);
        top_of_tile<decltype(n)>(queries, count, first_query, tile, first, size, dim, k, cursors,
                                 heaps + (part * num_queries + first_query) * k,
                                 sizes + part * num_queries + first_query);
      }
    });
  });
  parallel_for(num_chunks, num_threads, [&](int64_t chunk, int) {
    for (int64_t q = chunk * kTopChunk; q < std::min(num_queries, (chunk + 1) * kTopChunk); ++q) {
      Entry* best = heaps + q * k;
      int64_t size = sizes[q];
      std::sort(best, best + size, Best<T>::before);
      for (int64_t part = 1; part < parts; ++part) {
        const Entry* other = heaps + (part * num_queries + q) * k;
        for (int64_t i = 0; i < sizes[part * num_queries + q]; ++i) {
          if (size == k && !Best<T>::before(other[i], best[k - 1])) continue;
          size = std::min(size + 1, k);
          best[size - 1] = other[i];
          for (int64_t j = size - 1; j > 0 && Best<T>::before(best[j], best[j - 1]); --j)
            std::swap(best[j], best[j - 1]);
        }
      }
      for (int64_t i = 0; i < k; ++i) {
        scores[q * k + i] = i < size ? best[i].score : -std::numeric_limits<T>::infinity();
        found[q * k + i] = i < size ? best[i].entity : -1;
      }
    }
  });
}

#define TERCET_INSTANTIATE(T)                                                                                          \
  template int64_t rank_scratch_bytes<T>(int64_t, int64_t, int);                                                       \
  template void rank_counts<T>(Norm, const Ranking<T>&, int64_t*, int64_t*, int64_t*, double*, unsigned char*, int);   \
  template int64_t transe_top_scratch_bytes<T>(int64_t, int64_t, int64_t, int64_t, int);                               \
  template void transe_top<T>(Norm, const T*, int64_t, const T*, int64_t, int64_t, int64_t, const Sets&, T*, int64_t*, \
                              unsigned char*, int);
TERCET_INSTANTIATE(float)
TERCET_INSTANTIATE(double)
#undef TERCET_INSTANTIATE

}  // namespace tercet
