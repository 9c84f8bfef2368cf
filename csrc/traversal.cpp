#include "traversal.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "prefetch.h"

namespace tercet {
namespace {

constexpr uint32_t kLine = 16;    // entities whose sums are drained together
constexpr uint32_t kPage = 4096;  // entities that one flag of the upper level stands for
constexpr uint32_t kLinesOfPage = kPage / kLine;
constexpr int64_t kCachedMembers = 4096;  // a cache holds the first edges of so many members
constexpr int64_t kHubEdges = 48;         // more edges than this make a subject a hub

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// Sums over all entities, of which few are touched. -0.0 marks an entity that no edge has reached: no sum can be -0.0,
// because what is added never is, and as a summand it changes nothing. Two levels of flags lead to what was touched.
template <class T>
class Accumulator {
 public:
  Accumulator(unsigned char* memory, int64_t num_entities)
      : pages_(round_up(num_entities, kPage) / kPage),
        sums_(reinterpret_cast<T*>(memory)),
        line_flags_(memory + pages_ * kPage * static_cast<int64_t>(sizeof(T))),
        page_flags_(line_flags_ + pages_ * kLinesOfPage) {}

  void clean() const {
    std::fill(sums_, sums_ + pages_ * kPage, T(-0.0));
    std::memset(line_flags_, 0, pages_ * kLinesOfPage + pages_);
  }

  void add(int32_t entity, T value) const {
    uint32_t at = static_cast<uint32_t>(entity);
    sums_[at] += value + T(0);  // -0.0 becomes 0.0
    line_flags_[at / kLine] = 1;
    page_flags_[at / kPage] = 1;
  }

  void remove(int32_t entity) const { sums_[entity] = T(-0.0); }

  // Writes the entities that were reached, ascending, with their sums; leaves everything clean. Returns how many.
  int64_t drain(int32_t* entities, T* weights) const {
    int64_t count = 0;
    for (int64_t page = 0; page < pages_; ++page) {
      if (!page_flags_[page]) continue;
      page_flags_[page] = 0;
      unsigned char* flags = line_flags_ + page * kLinesOfPage;
      for (uint32_t group = 0; group < kLinesOfPage; group += 8) {  // most lines of a page are untouched
        uint64_t touched;
        std::memcpy(&touched, flags + group, 8);
        for (uint32_t line = group; touched && line < group + 8; ++line) {
          if (!flags[line]) continue;
          flags[line] = 0;
          count += drain_line(page * kPage + line * kLine, entities + count, weights + count);
        }
      }
    }
    return count;
  }

  // A plain table of values, for the backward: what is not set reads as zero.
  void set(int32_t entity, T value) const { sums_[entity] = value; }
  T get(int32_t entity) const { return sums_[entity]; }

 private:
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;

  // Writes each candidate before it is known whether it counts: no branch to predict, but room for one more is needed.
  int64_t drain_line(int64_t first, int32_t* __restrict entities, T* __restrict weights) const {
    T* __restrict sums = sums_ + first;
    Bits untouched = std::bit_cast<Bits>(T(-0.0));
    int64_t count = 0;
    for (uint32_t i = 0; i < kLine; ++i) {
      entities[count] = static_cast<int32_t>(first + i);
      weights[count] = sums[i];
      count += std::bit_cast<Bits>(sums[i]) != untouched;
    }
    for (uint32_t i = 0; i < kLine; ++i) sums[i] = T(-0.0);
    return count;
  }

  int64_t pages_;
  T* sums_;                    // [pages * 4096]
  unsigned char* line_flags_;  // [pages * 256]
  unsigned char* page_flags_;  // [pages]
};

template <class T>
Accumulator<T> accumulator_of(const FollowScratch& scratch, int worker, int64_t num_entities) {
  return {scratch.accumulators + worker * follow_accumulator_bytes(num_entities, sizeof(T)), num_entities};
}

// Members are scattered over the graph: their edges are asked for before their turn, those of the next rows too.
void prefetch_edges(const Graph& graph, const Sets& sets, int64_t member) {
  if (member >= sets.offsets[sets.batch]) return;
  int64_t edge = graph.row_offsets[sets.entities[member]];
  prefetch(graph.objects + edge);
  prefetch(graph.relations + edge);
}

// Calls visit(object, value) for every edge of the row's frontier, in the order of members and edges. The arguments are
// copies, so that what `visit` stores cannot make the compiler load their pointers anew for each edge.
template <class T, class Visit>
void for_each_edge(Graph graph, Sets sets, FollowWeights<T> weights, int64_t row, Visit visit) {
  const T* of_relation = weights.relations + row * graph.num_relations;
  for (int64_t member = sets.offsets[row], last = sets.offsets[row + 1]; member < last; ++member) {
    prefetch_edges(graph, sets, member + 4);
    int32_t subject = sets.entities[member];
    T x = weights.members[member];
    for (int64_t edge = graph.row_offsets[subject], end = graph.row_offsets[subject + 1]; edge < end; ++edge) {
      T value = x * of_relation[graph.relations[edge]];
      if (weights.edges) value *= weights.edges[edge];
      visit(graph.objects[edge], value);
    }
  }
}

template <class T>
int64_t push_row_accumulating(const Graph& graph, const Sets& sets, const FollowWeights<T>& weights,
                              const Sets& exclude, int64_t row, const Accumulator<T>& sums, int32_t* entities,
                              T* values) {
  for_each_edge(graph, sets, weights, row, [sums](int32_t object, T value) { sums.add(object, value); });
  if (exclude.offsets) {
    for (int64_t i = exclude.offsets[row]; i < exclude.offsets[row + 1]; ++i) sums.remove(exclude.entities[i]);
  }
  return sums.drain(entities, values);
}

// keys: object in the upper half, position in the lower: sorting them keeps the order of the edges within an object.
template <class T>
int64_t push_row_sorting(const Graph& graph, const Sets& sets, const FollowWeights<T>& weights, const Sets& exclude,
                         int64_t row, uint64_t* keys, T* visited, int32_t* entities, T* values) {
  int64_t visits = 0;
  for_each_edge(graph, sets, weights, row, [&](int32_t object, T value) {
    keys[visits] = static_cast<uint64_t>(object) << 32 | static_cast<uint64_t>(visits);
    visited[visits++] = value;
  });
  std::sort(keys, keys + visits);
  const int32_t* excluded = exclude.offsets ? exclude.entities + exclude.offsets[row] : nullptr;
  const int32_t* excluded_end = exclude.offsets ? exclude.entities + exclude.offsets[row + 1] : nullptr;
  int64_t count = 0;
  for (int64_t i = 0; i < visits;) {
    int32_t object = static_cast<int32_t>(keys[i] >> 32);
    T sum = T(-0.0);
    for (; i < visits && static_cast<int32_t>(keys[i] >> 32) == object; ++i) {
      sum += visited[static_cast<uint32_t>(keys[i])] + T(0);
    }
    while (excluded != excluded_end && *excluded < object) ++excluded;
    if (excluded != excluded_end && *excluded == object) continue;
    entities[count] = object;
    values[count++] = sum;
  }
  return count;
}

// What arrives at an object from the gradient of a result's row: a table where there is one, else a binary search.
template <class T>
class Arriving {
 public:
  Arriving(const Sets& result, const T* grad, int64_t row, const Accumulator<T>* table)
      : begin_(result.entities + result.offsets[row]),
        end_(result.entities + result.offsets[row + 1]),
        grad_(grad + result.offsets[row]),
        table_(table) {
    if (table_) {
      for (const int32_t* entity = begin_; entity != end_; ++entity) table_->set(*entity, grad_[entity - begin_]);
    }
  }
  ~Arriving() {
    if (table_) {
      for (const int32_t* entity = begin_; entity != end_; ++entity) table_->remove(*entity);
    }
  }
  Arriving(const Arriving&) = delete;
  Arriving& operator=(const Arriving&) = delete;

  T searched(int32_t object) const {
    const int32_t* found = std::lower_bound(begin_, end_, object);
    return found != end_ && *found == object ? grad_[found - begin_] : T(0);
  }

 private:
  const int32_t* begin_;
  const int32_t* end_;
  const T* grad_;
  const Accumulator<T>* table_;
};

// One row. A hub's edges of one relation are summed before they meet x and w; elsewhere runs are too short to find. The
// arguments are copies for the reason given at for_each_edge.
template <class T, class Arrive>
void backward_row(Graph graph, Sets sets, FollowWeights<T> weights, int64_t row, Arrive arrive,
                  T* __restrict grad_members, T* __restrict grad_relations) {
  const T* of_relation = weights.relations + row * graph.num_relations;
  T* to_relation = grad_relations + row * graph.num_relations;
  std::fill(to_relation, to_relation + graph.num_relations, T(0));
  for (int64_t member = sets.offsets[row], last = sets.offsets[row + 1]; member < last; ++member) {
    prefetch_edges(graph, sets, member + 4);
    int32_t subject = sets.entities[member];
    T x = weights.members[member], to_member = 0;
    int64_t edge = graph.row_offsets[subject], end = graph.row_offsets[subject + 1];
    bool hub = end - edge > kHubEdges;
    while (edge < end) {
      int32_t relation = graph.relations[edge];
      T sum = 0;
      do {
        T arriving = arrive(graph.objects[edge]);
        sum += weights.edges ? arriving * weights.edges[edge] : arriving;
        ++edge;
      } while (hub && edge < end && graph.relations[edge] == relation);
      to_member += of_relation[relation] * sum;
      to_relation[relation] += x * sum;
    }
    grad_members[member] = to_member;
  }
}

template <class T, class Arrive>
void backward_edges_row(const Graph& graph, const Sets& sets, const FollowWeights<T>& weights, int64_t row,
                        int64_t first_member, int64_t last_member, const Arrive& arrive, T* grad_edges) {
  const T* of_relation = weights.relations + row * graph.num_relations;
  for (int64_t member = first_member; member < last_member; ++member) {
    int32_t subject = sets.entities[member];
    T x = weights.members[member];
    for (int64_t edge = graph.row_offsets[subject]; edge < graph.row_offsets[subject + 1]; ++edge) {
      grad_edges[edge] += x * of_relation[graph.relations[edge]] * arrive(graph.objects[edge]);
    }
  }
}

}  // namespace

int64_t follow_accumulator_bytes(int64_t num_entities, int64_t value_bytes) {
  int64_t pages = round_up(num_entities, kPage) / kPage;
  return round_up(pages * kPage * value_bytes + pages * kLinesOfPage + pages, 64);
}

int64_t follow_sorting_bytes(int64_t max_edges, int64_t value_bytes) {
  return round_up(max_edges * (8 + value_bytes), 64);
}

template <class T>
void follow_scratch_clean(unsigned char* accumulators, int64_t num_entities, int num_workers) {
  FollowScratch scratch{accumulators, nullptr, num_workers};
  for (int worker = 0; worker < num_workers; ++worker) accumulator_of<T>(scratch, worker, num_entities).clean();
}

void follow_bounds(const Graph& graph, const Sets& sets, int64_t* bounds, int64_t* max_edges, int64_t* total_edges) {
  bounds[0] = *max_edges = *total_edges = 0;
  bool small = graph.objects &&
               sets.offsets[sets.batch] <= kCachedMembers;  // then what is asked for here is still there for the push
  for (int64_t row = 0; row < sets.batch; ++row) {
    int64_t edges = 0;
    for (int64_t member = sets.offsets[row]; member < sets.offsets[row + 1]; ++member) {
      int32_t subject = sets.entities[member];
      int64_t first_edge = graph.row_offsets[subject];
      edges += graph.row_offsets[subject + 1] - first_edge;
      if (small) {
        prefetch(graph.objects + first_edge);
        prefetch(graph.relations + first_edge);
      }
    }
    bounds[row + 1] = bounds[row] + std::min(edges, graph.num_entities) + 1;
    *max_edges = std::max(*max_edges, edges);
    *total_edges += edges;
  }
}

template <class T>
int64_t follow_push(const Graph& graph, const Sets& sets, const FollowWeights<T>& weights, const Sets& exclude,
                    int64_t first, int64_t last, int64_t max_edges, const FollowOutput<T>& output,
                    const FollowScratch& scratch) {
  int64_t stride = follow_sorting_bytes(max_edges, sizeof(T));
  parallel_for(last - first, scratch.num_workers, [&](int64_t task, int worker) {
    int64_t row = first + task, room = output.bounds[row] - output.bounds[first], count = 0;
    if (scratch.accumulators) {
      count = push_row_accumulating(graph, sets, weights, exclude, row,
                                    accumulator_of<T>(scratch, worker, graph.num_entities), output.entities + room,
                                    output.weights + room);
    } else {
      auto* keys = reinterpret_cast<uint64_t*>(scratch.sorting + worker * stride);
      count = push_row_sorting(graph, sets, weights, exclude, row, keys, reinterpret_cast<T*>(keys + max_edges),
                               output.entities + room, output.weights + room);
    }
    output.offsets[row + 1] = count;
  });
  return follow_offsets(output.offsets, first, last);
}

int64_t follow_offsets(int64_t* offsets, int64_t first, int64_t last) {
  if (first == 0) offsets[0] = 0;
  for (int64_t row = first; row < last; ++row) offsets[row + 1] += offsets[row];
  return offsets[last] - offsets[first];
}

template <class T>
void follow_compact(const FollowOutput<T>& output, int64_t first, int64_t last, int32_t* entities, T* weights,
                    int num_threads) {
  parallel_for(last - first, num_threads, [&](int64_t task, int) {
    int64_t row = first + task, room = output.bounds[row] - output.bounds[first];
    int64_t target = output.offsets[row] - output.offsets[first], count = output.offsets[row + 1] - output.offsets[row];
    std::copy_n(output.entities + room, count, entities + target);
    std::copy_n(output.weights + room, count, weights + target);
  });
}

template <class T>
void follow_backward(const Graph& graph, const Sets& sets, const FollowWeights<T>& weights, const Sets& result,
                     const T* grad, T* grad_members, T* grad_relations, const FollowScratch& scratch) {
  parallel_for(sets.batch, scratch.num_workers, [&](int64_t row, int worker) {
    if (scratch.accumulators) {
      auto table = accumulator_of<T>(scratch, worker, graph.num_entities);
      Arriving<T> arriving(result, grad, row, &table);
      backward_row(
          graph, sets, weights, row, [table](int32_t object) { return table.get(object); }, grad_members,
          grad_relations);
    } else {
      Arriving<T> arriving(result, grad, row, nullptr);
      backward_row(
          graph, sets, weights, row, [&](int32_t object) { return arriving.searched(object); }, grad_members,
          grad_relations);
    }
  });
}

template <class T>
void follow_backward_edges(const Graph& graph, const Sets& sets, const FollowWeights<T>& weights, const Sets& result,
                           const T* grad, T* grad_edges, const FollowScratch& scratch) {
  const int64_t* row_offsets = graph.row_offsets;
  int64_t num_edges = row_offsets[graph.num_entities];
  auto first_subject = [&](int64_t part) {  // ranges of subjects with about equal numbers of edges
    int64_t edge = num_edges / scratch.num_workers * part;
    return part == scratch.num_workers
               ? graph.num_entities
               : std::lower_bound(row_offsets, row_offsets + graph.num_entities, edge) - row_offsets;
  };
  parallel_for(scratch.num_workers, scratch.num_workers, [&](int64_t part, int worker) {
    int64_t first = first_subject(part), last = first_subject(part + 1);
    for (int64_t row = 0; row < sets.batch; ++row) {
      const int32_t* begin = sets.entities + sets.offsets[row];
      const int32_t* end = sets.entities + sets.offsets[row + 1];
      int64_t first_member = std::lower_bound(begin, end, first) - sets.entities;
      int64_t last_member = std::lower_bound(begin, end, last) - sets.entities;
      if (first_member == last_member) continue;
      if (scratch.accumulators) {
        auto table = accumulator_of<T>(scratch, worker, graph.num_entities);
        Arriving<T> arriving(result, grad, row, &table);
        backward_edges_row(
            graph, sets, weights, row, first_member, last_member, [table](int32_t object) { return table.get(object); },
            grad_edges);
      } else {
        Arriving<T> arriving(result, grad, row, nullptr);
        backward_edges_row(
            graph, sets, weights, row, first_member, last_member,
            [&](int32_t object) { return arriving.searched(object); }, grad_edges);
      }
    }
  });
}

#define TERCET_INSTANTIATE(T)                                                                                         \
  template void follow_scratch_clean<T>(unsigned char*, int64_t, int);                                                \
  template int64_t follow_push<T>(const Graph&, const Sets&, const FollowWeights<T>&, const Sets&, int64_t, int64_t,  \
                                  int64_t, const FollowOutput<T>&, const FollowScratch&);                             \
  template void follow_compact<T>(const FollowOutput<T>&, int64_t, int64_t, int32_t*, T*, int);                       \
  template void follow_backward<T>(const Graph&, const Sets&, const FollowWeights<T>&, const Sets&, const T*, T*, T*, \
                                   const FollowScratch&);                                                             \
  template void follow_backward_edges<T>(const Graph&, const Sets&, const FollowWeights<T>&, const Sets&, const T*,   \
                                         T*, const FollowScratch&);
TERCET_INSTANTIATE(float)
TERCET_INSTANTIATE(double)
#undef TERCET_INSTANTIATE

}  // namespace tercet
