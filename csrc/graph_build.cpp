#include "graph_build.h"

#include <atomic>
#include <cstddef>

#include "mix.h"
#include "prefetch.h"
#include "row_sort.h"

namespace tercet {
namespace {

constexpr int64_t kRowsPerTask = 512;  // few enough that the long rows of the first ids are shared out
constexpr int64_t kEdgesPerTask = 1 << 20;
// A scatter reads the whole input in every thread that takes part; beyond this many the reading outweighs the writing.
constexpr int kScatterThreads = 16;
// How many edges ahead a scatter asks for the cursor it will move: about what a miss takes.
constexpr int64_t kAhead = 32;

int64_t num_tasks(int64_t size, int64_t per_task) { return (size + per_task - 1) / per_task; }

// Entities split evenly among the threads that scatter.
struct Ranges {
  int64_t num_entities;
  int count;

  Ranges(int64_t entities, int num_threads)
      : num_entities(entities), count(std::clamp(num_threads, 1, kScatterThreads)) {}
  int64_t start(int64_t range) const { return num_entities * range / count; }
};

// Split where the edges split evenly: ends[i] >= the sum of the rows up to i.
int64_t split_row(const int64_t* row_offsets, int64_t num_entities, int64_t range, int count) {
  if (range == count) return num_entities;
  const int64_t target = row_offsets[num_entities] / count * range;
  return std::lower_bound(row_offsets, row_offsets + num_entities, target) - row_offsets;
}

// counts -> starts, in place; counts [n + 1], the last one 0 beforehand and the total afterwards. Returns the largest.
int64_t exclusive_sum(int64_t* counts, int64_t n) {
  int64_t sum = 0, largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t count = std::exchange(counts[i], sum);
    largest = std::max(largest, count);
    sum += count;
  }
  counts[n] = sum;
  return largest;
}

// After a scatter each cursor stands at the end of its row, which is the start of the next.
void cursors_to_offsets(int64_t* cursors, int64_t n) {
  std::memmove(cursors + 1, cursors, n * sizeof(int64_t));
  cursors[0] = 0;
}

void keep_first(std::atomic<int64_t>& first, int64_t position) {
  int64_t seen = first.load(std::memory_order_relaxed);
  while (position < seen && !first.compare_exchange_weak(seen, position, std::memory_order_relaxed)) {
  }
}

// The lowest position in [0, size) at which faulty(position) holds, or size.
template <class Faulty>
int64_t first_fault(int64_t size, int num_threads, const Faulty& faulty) {
  std::atomic<int64_t> first{size};
  parallel_for(num_tasks(size, kEdgesPerTask), num_threads, [&](int64_t task, int) {
    const int64_t stop = std::min(size, (task + 1) * kEdgesPerTask);
    for (int64_t i = task * kEdgesPerTask; i < stop; ++i) {
      if (faulty(i)) {
        keep_first(first, i);
        return;
      }
    }
  });
  return first.load();
}

bool outside(int64_t id, int64_t size) { return static_cast<uint64_t>(id) >= static_cast<uint64_t>(size); }

// Moves every row's edges up to its first free place (relation -1) to the front; returns how many there are.
int64_t compact(int64_t num_entities, int64_t* row_offsets, const Edges& edges) {
  int64_t kept = 0, start = 0;
  for (int64_t row = 0; row < num_entities; ++row) {
    const int64_t stop = row_offsets[row + 1];
    for (int64_t e = start; e < stop && edges.relations[e] >= 0; ++e, ++kept) {
      edges.relations[kept] = edges.relations[e];
      edges.objects[kept] = edges.objects[e];
      if (edges.ids) edges.ids[kept] = edges.ids[e];
    }
    start = stop;
    row_offsets[row + 1] = kept;
  }
  return kept;
}

// Whether the hashes of all edges, those of inverses turned round and taken off, sum to nothing.
bool inverses_match(const Graph& graph, int num_threads) {
  const int64_t half = graph.num_relations / 2;
  std::atomic<uint64_t> sum{0};
  parallel_for(num_tasks(graph.num_entities, kRowsPerTask), num_threads, [&](int64_t task, int) {
    const int64_t stop = std::min(graph.num_entities, (task + 1) * kRowsPerTask);
    uint64_t own = 0;
    for (int64_t row = task * kRowsPerTask; row < stop; ++row) {
      for (int64_t e = graph.row_offsets[row]; e < graph.row_offsets[row + 1]; ++e) {
        const uint64_t relation = graph.relations[e], object = graph.objects[e], subject = row;
        if (graph.relations[e] < half) {
          own += mix(mix(subject << 32 | object) + relation);
        } else {
          own -= mix(mix(object << 32 | subject) + relation - half);
        }
      }
    }
    sum.fetch_add(own, std::memory_order_relaxed);
  });
  return 2 * half == graph.num_relations && sum == 0;
}

bool before(const Graph& a, int64_t i, const Graph& b, int64_t j) {
  return detail::key(a.relations[i], a.objects[i]) < detail::key(b.relations[j], b.objects[j]);
}

bool equal(const Graph& a, int64_t i, const Graph& b, int64_t j) {
  return a.relations[i] == b.relations[j] && a.objects[i] == b.objects[j];
}

// Calls emit(from_added, edge) for the edges of one row of (graph - removed) + added, in order.
template <class Emit>
void merge_row(const Graph& graph, const Graph& added, const Graph& removed, int64_t row, const Emit& emit) {
  int64_t g = graph.row_offsets[row], a = added.row_offsets[row], r = removed.row_offsets[row];
  const int64_t g_stop = graph.row_offsets[row + 1], a_stop = added.row_offsets[row + 1];
  const int64_t r_stop = removed.row_offsets[row + 1];
  while (g < g_stop || a < a_stop) {
    if (a < a_stop && (g == g_stop || before(added, a, graph, g))) {
      emit(true, a++);
    } else if (a < a_stop && equal(added, a, graph, g)) {
      emit(false, g++);  // it was there, and stays itself
      ++a;
    } else {
      while (r < r_stop && before(removed, r, graph, g)) ++r;
      if (r == r_stop || !equal(removed, r, graph, g)) emit(false, g);
      ++g;
    }
  }
}

}  // namespace

Place check_triples(const Triples& triples, int64_t num_entities, int64_t num_relations, int num_threads) {
  const Column* columns[] = {&triples.heads, &triples.relations, &triples.tails};
  const int64_t sizes[] = {num_entities, num_relations, num_entities};
  for (int64_t c = 0; c < 3; ++c) {
    const int64_t first =
        first_fault(triples.count, num_threads, [&](int64_t i) { return outside((*columns[c])[i], sizes[c]); });
    if (first < triples.count) return {kBadHead + c, first};
  }
  return {kFine, 0};
}

Place check_graph(const Graph& graph, int64_t num_edges, bool with_inverses, int num_threads) {
  const int64_t num_entities = graph.num_entities;
  const int64_t* offsets = graph.row_offsets;
  if (offsets[0] != 0) return {kBadOffset, 0};
  const int64_t falls = first_fault(num_entities, num_threads, [&](int64_t i) { return offsets[i + 1] < offsets[i]; });
  if (falls < num_entities) return {kBadOffset, falls + 1};
  if (offsets[num_entities] != num_edges) return {kBadOffset, num_entities};
  const int64_t relation =
      first_fault(num_edges, num_threads, [&](int64_t e) { return outside(graph.relations[e], graph.num_relations); });
  if (relation < num_edges) return {kBadRelation, relation};
  const int64_t object =
      first_fault(num_edges, num_threads, [&](int64_t e) { return outside(graph.objects[e], num_entities); });
  if (object < num_edges) return {kBadTail, object};
  std::atomic<int64_t> unsorted{num_edges};
  parallel_for(num_tasks(num_entities, kRowsPerTask), num_threads, [&](int64_t task, int) {
    const int64_t stop = std::min(num_entities, (task + 1) * kRowsPerTask);
    for (int64_t row = task * kRowsPerTask; row < stop; ++row) {
      for (int64_t e = offsets[row] + 1; e < offsets[row + 1]; ++e) {
        if (!before(graph, e - 1, graph, e)) return keep_first(unsorted, e);
      }
    }
  });
  if (unsorted < num_edges) return {kUnsorted, unsorted};
  return {!with_inverses || inverses_match(graph, num_threads) ? kFine : kNoInverses, 0};
}

int64_t build_offsets(const Triples& triples, int64_t num_entities, int64_t* row_offsets, int num_threads) {
  const Ranges ranges(num_entities, num_threads);
  std::memset(row_offsets, 0, (num_entities + 1) * sizeof(int64_t));
  parallel_for(ranges.count, num_threads, [&](int64_t range, int) {
    const int64_t start = ranges.start(range), stop = ranges.start(range + 1);
    for (int64_t i = 0; i < triples.count; ++i) {
      const int64_t head = triples.heads[i];
      if (start <= head && head < stop) ++row_offsets[head];
    }
  });
  return exclusive_sum(row_offsets, num_entities);
}

int64_t build_edges(const Triples& triples, int64_t num_entities, int64_t num_relations, int64_t* row_offsets,
                    int32_t* relations, int32_t* objects, int64_t* edge_ids, int64_t largest_row, int num_workers,
                    void* scratch, int num_threads) {
  const Edges edges{relations, objects, edge_ids};
  const int count = std::clamp(num_threads, 1, kScatterThreads);
  int64_t bounds[kScatterThreads + 1];  // before the cursors start to move
  for (int64_t range = 0; range <= count; ++range) bounds[range] = split_row(row_offsets, num_entities, range, count);
  parallel_for(count, num_threads, [&](int64_t range, int) {
    const int64_t start = bounds[range], stop = bounds[range + 1];
    for (int64_t i = 0; i < triples.count; ++i) {
      const int64_t head = triples.heads[i];
      if (i + kAhead < triples.count) prefetch(row_offsets + triples.heads[i + kAhead]);
      if (head < start || head >= stop) continue;
      const int64_t place = row_offsets[head]++;
      relations[place] = static_cast<int32_t>(triples.relations[i]);
      objects[place] = static_cast<int32_t>(triples.tails[i]);
      if (edge_ids) edge_ids[place] = i;
    }
  });
  cursors_to_offsets(row_offsets, num_entities);

  std::atomic<bool> duplicates{false};
  parallel_for(num_tasks(num_entities, kRowsPerTask), num_workers, [&](int64_t task, int worker) {
    std::byte* own = static_cast<std::byte*>(scratch) + worker * scratch_bytes(largest_row, edge_ids);
    const int64_t stop = std::min(num_entities, (task + 1) * kRowsPerTask);
    for (int64_t row = task * kRowsPerTask; row < stop; ++row) {
      const Edges mine = edges.at(row_offsets[row]);
      const int64_t n = row_offsets[row + 1] - row_offsets[row];
      sort_row(mine, n, num_relations, num_entities, own);
      const int64_t kept = merge_duplicates(mine, n);
      if (kept < n) {
        mine.relations[kept] = -1;  // where `compact` stops
        duplicates.store(true, std::memory_order_relaxed);
      }
    }
  });
  return duplicates ? compact(num_entities, row_offsets, edges) : triples.count;
}

int64_t inverse_offsets(const Graph& graph, int64_t num_edges, int64_t* out_offsets, int num_threads) {
  const Ranges ranges(graph.num_entities, num_threads);
  std::memset(out_offsets, 0, (graph.num_entities + 1) * sizeof(int64_t));
  parallel_for(ranges.count, num_threads, [&](int64_t range, int) {
    const int64_t start = ranges.start(range), stop = ranges.start(range + 1);
    for (int64_t e = 0; e < num_edges; ++e) {
      const int64_t object = graph.objects[e];
      if (start <= object && object < stop) ++out_offsets[object];
    }
  });
  int64_t largest = 0, sum = 0;
  for (int64_t row = 0; row < graph.num_entities; ++row) {
    const int64_t in = out_offsets[row], out = graph.row_offsets[row + 1] - graph.row_offsets[row];
    largest = std::max(largest, in);
    out_offsets[row] = sum + out;  // a row's inverse edges follow its own
    sum += out + in;
  }
  out_offsets[graph.num_entities] = sum;
  return largest;
}

void inverse_edges(const Graph& graph, const int64_t* edge_ids, int64_t* out_offsets, int32_t* out_relations,
                   int32_t* out_objects, int64_t* out_ids, int64_t largest_row, int num_workers, void* scratch,
                   int num_threads) {
  const int64_t num_entities = graph.num_entities, num_edges = graph.row_offsets[num_entities];
  const int32_t shift = static_cast<int32_t>(graph.num_relations);
  const int count = std::clamp(num_threads, 1, kScatterThreads);
  int64_t bounds[kScatterThreads + 1];
  for (int64_t range = 0; range <= count; ++range) bounds[range] = split_row(out_offsets, num_entities, range, count);
  parallel_for(count, num_threads, [&](int64_t range, int) {
    const int64_t start = bounds[range], stop = bounds[range + 1];
    for (int64_t subject = 0; subject < num_entities; ++subject) {
      for (int64_t e = graph.row_offsets[subject]; e < graph.row_offsets[subject + 1]; ++e) {
        const int64_t object = graph.objects[e];
        if (e + kAhead < num_edges) prefetch(out_offsets + graph.objects[e + kAhead]);
        if (object < start || object >= stop) continue;
        const int64_t place = out_offsets[object]++;
        out_relations[place] = graph.relations[e] + shift;
        out_objects[place] = static_cast<int32_t>(subject);
        if (out_ids) out_ids[place] = edge_ids[e];
      }
    }
  });
  cursors_to_offsets(out_offsets, num_entities);

  const Edges edges{out_relations, out_objects, out_ids};
  parallel_for(num_tasks(num_entities, kRowsPerTask), num_workers, [&](int64_t task, int worker) {
    std::byte* own = static_cast<std::byte*>(scratch) + worker * scratch_bytes(largest_row, out_ids);
    const int64_t stop = std::min(num_entities, (task + 1) * kRowsPerTask);
    for (int64_t row = task * kRowsPerTask; row < stop; ++row) {
      const int64_t from = graph.row_offsets[row], n = graph.row_offsets[row + 1] - from, to = out_offsets[row];
      std::copy_n(graph.relations + from, n, out_relations + to);
      std::copy_n(graph.objects + from, n, out_objects + to);
      if (out_ids) std::copy_n(edge_ids + from, n, out_ids + to);
      // The subjects arrived in order, so only the relations are left to sort by.
      sort_row(edges.at(to + n), out_offsets[row + 1] - to - n, 2 * static_cast<uint64_t>(shift), 0, own);
    }
  });
}

void incoming_edges(const Graph& graph, int64_t num_edges, int64_t* offsets, int32_t* subjects, int32_t* relations,
                    int64_t* edges, int num_threads) {
  const int64_t num_entities = graph.num_entities;
  const Triples by_object{{graph.objects, 1, false}, {}, {}, num_edges};
  build_offsets(by_object, num_entities, offsets, num_threads);
  const int count = std::clamp(num_threads, 1, kScatterThreads);
  int64_t bounds[kScatterThreads + 1];
  for (int64_t range = 0; range <= count; ++range) bounds[range] = split_row(offsets, num_entities, range, count);
  parallel_for(count, num_threads, [&](int64_t range, int) {
    const int64_t start = bounds[range], stop = bounds[range + 1];
    for (int64_t subject = 0; subject < num_entities; ++subject) {
      for (int64_t e = graph.row_offsets[subject]; e < graph.row_offsets[subject + 1]; ++e) {
        const int64_t object = graph.objects[e];
        if (e + kAhead < num_edges) prefetch(offsets + graph.objects[e + kAhead]);
        if (object < start || object >= stop) continue;
        const int64_t place = offsets[object]++;
        subjects[place] = static_cast<int32_t>(subject);
        relations[place] = graph.relations[e];
        if (edges) edges[place] = e;
      }
    }
  });
  cursors_to_offsets(offsets, num_entities);
}

void merge_offsets(const Graph& graph, const Graph& added, const Graph& removed, int64_t* out_offsets,
                   int num_threads) {
  const int64_t num_entities = graph.num_entities;
  parallel_for(num_tasks(num_entities, kRowsPerTask), num_threads, [&](int64_t task, int) {
    const int64_t stop = std::min(num_entities, (task + 1) * kRowsPerTask);
    for (int64_t row = task * kRowsPerTask; row < stop; ++row) {
      int64_t count = 0;
      merge_row(graph, added, removed, row, [&](bool, int64_t) { ++count; });
      out_offsets[row] = count;
    }
  });
  out_offsets[num_entities] = 0;
  exclusive_sum(out_offsets, num_entities);
}

void merge_edges(const Graph& graph, const int64_t* edge_ids, const Graph& added, const int64_t* added_ids,
                 const Graph& removed, const int64_t* out_offsets, int32_t* out_relations, int32_t* out_objects,
                 int64_t* out_ids, int num_threads) {
  const int64_t num_entities = graph.num_entities;
  parallel_for(num_tasks(num_entities, kRowsPerTask), num_threads, [&](int64_t task, int) {
    const int64_t stop = std::min(num_entities, (task + 1) * kRowsPerTask);
    for (int64_t row = task * kRowsPerTask; row < stop; ++row) {
      int64_t place = out_offsets[row];
      merge_row(graph, added, removed, row, [&](bool from_added, int64_t e) {
        const Graph& source = from_added ? added : graph;
        out_relations[place] = source.relations[e];
        out_objects[place] = source.objects[e];
        if (out_ids) out_ids[place] = from_added ? added_ids[e] : edge_ids[e];
        ++place;
      });
    }
  });
}

}  // namespace tercet
