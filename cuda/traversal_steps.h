// The steps of follow and of its gradients over a Device (steps.h); traversal.h says what each function gives.
#pragma once

#include "traversal.h"

namespace tercet::cuda {

constexpr int64_t kPiece = 256;  // terms that are summed in order

// Visits with a key each: as they are made, and sorted.
template <class T>
struct Visits {
  template <class Device>
  Visits(const Device& device, Carver& carver, int64_t count, int end_bit)
      : keys_made(carver.take<uint64_t>(count + 1)),
        keys(carver.take<uint64_t>(count)),
        values_made(carver.take<T>(count)),
        values(carver.take<T>(count)),
        temp(carver.take_temp(device.template sort_bytes<T>(count, end_bit))),
        end_bit(end_bit) {}

  template <class Device>
  void sort(const Device& device, int64_t count) const {
    device.sort(keys_made, keys, values_made, values, count, end_bit, temp);
  }

  uint64_t* keys_made;  // [count + 1]: once sorted, free for other use
  uint64_t* keys;       // [count]
  T* values_made;       // [count]: once sorted, free for other use
  T* values;            // [count]
  Temp temp;
  int end_bit;
};

// Scratch of sum_segments: every segment is cut into pieces of kPiece items, counted from its first.
template <class T>
struct Pieces {
  int64_t* first_pieces;  // [num_segments + 1]
  T* sums;                // [num_items]: no more pieces than items, since no piece is empty
  Temp temp;              // for a scan of num_segments + 1
};

// sums[s] = the sum of values[i - offset] over starts[s] <= i < starts[s + 1], 0 where there is none. The order of a
// sum depends on its length alone: up to kPiece items from first to last, more by pieces. num_items: of all segments.
template <class T, class Device>
void sum_segments(const Device& device, const int64_t* starts, int64_t num_segments, int64_t offset, int64_t num_items,
                  const T* values, const Pieces<T>& pieces, T* sums) {
  int64_t* first_pieces = pieces.first_pieces;
  T* piece_sums = pieces.sums;
  device.for_each("sum_segments, counting pieces", num_segments + 1, [=] TERCET_DEVICE(int64_t segment) {
    bool exists = segment < num_segments;
    first_pieces[segment] = exists ? (starts[segment + 1] - starts[segment] + kPiece - 1) / kPiece : 0;
  });
  device.scan(first_pieces, num_segments + 1, pieces.temp);
  int64_t most_pieces = smaller(num_items, num_segments + num_items / kPiece);
  device.expand("sum_segments, pieces", first_pieces, num_segments, 0, most_pieces,
                [=] TERCET_DEVICE(int64_t piece, int64_t segment) {
                  int64_t first = starts[segment] + (piece - first_pieces[segment]) * kPiece;
                  int64_t last = smaller(first + kPiece, starts[segment + 1]);
                  T sum = 0;
                  for (int64_t i = first; i < last; ++i) sum += values[i - offset];
                  piece_sums[piece] = sum;
                });
  device.for_each("sum_segments", num_segments, [=] TERCET_DEVICE(int64_t segment) {
    T sum = 0;
    for (int64_t piece = first_pieces[segment]; piece < first_pieces[segment + 1]; ++piece) sum += piece_sums[piece];
    sums[segment] = sum;
  });
}

template <class Device>
void visits_steps(const Device& device, const Graph& graph, const Sets& sets, const Frontier& frontier, Temp temp) {
  device.expand("follow_visits, rows", sets.offsets, sets.batch, 0, frontier.num_members,
                [=] TERCET_DEVICE(int64_t member, int64_t row) { frontier.rows[member] = row; });
  device.for_each("follow_visits, degrees", frontier.num_members + 1, [=] TERCET_DEVICE(int64_t member) {
    int64_t degree = 0;
    if (member < frontier.num_members) {
      int64_t subject = sets.entities[member];
      degree = graph.row_offsets[subject + 1] - graph.row_offsets[subject];
    }
    frontier.first_visits[member] = degree;
  });
  device.scan(frontier.first_visits, frontier.num_members + 1, temp);
}

// The edge that a member's visit goes along.
TERCET_HOST_DEVICE inline int64_t edge_of(const Graph& graph, const Sets& sets, const Frontier& frontier, int64_t visit,
                                          int64_t member) {
  return graph.row_offsets[sets.entities[member]] + (visit - frontier.first_visits[member]);
}

// Scratch of the forward. Key of a visit: row of the part * num_entities + object; what is excluded gets the key after
// the last, so it ends up behind all that counts.
template <class T>
struct FollowMemory {
  template <class Device>
  FollowMemory(const Device& device, Carver& carver, const Graph& graph, const Part& part)
      : excluded_key(static_cast<uint64_t>(part.rows()) * static_cast<uint64_t>(graph.num_entities)),
        visits(device, carver, part.visits(), bits_of(excluded_key)),
        positions(carver.take<int64_t>(part.visits() + 1)),
        scan_temp(carver.take_temp(device.scan_bytes(part.visits() + 1))) {}

  uint64_t excluded_key;
  Visits<T> visits;
  int64_t* positions;  // [visits + 1]: how many objects start before a sorted visit
  Temp scan_temp;
};

// Whether a sorted visit is the first of its (row, object).
TERCET_HOST_DEVICE inline bool starts_object(const uint64_t* keys, int64_t visit) {
  return visit == 0 || keys[visit] != keys[visit - 1];
}

template <class T, class Device>
int64_t count_steps(const Device& device, const Graph& graph, const Sets& sets, const FollowWeights<T>& weights,
                    const Sets& exclude, const Frontier& frontier, const Part& part, int64_t members_before,
                    int64_t* offsets, const FollowMemory<T>& memory) {
  device.expand(
      "follow_count, visits", frontier.first_visits, frontier.num_members, part.first_visit, part.last_visit,
      [=] TERCET_DEVICE(int64_t visit, int64_t member) {
        int64_t row = frontier.rows[member], edge = edge_of(graph, sets, frontier, visit, member);
        int32_t object = graph.objects[edge];
        T value = weights.members[member] * weights.relations[row * graph.num_relations + graph.relations[edge]];
        if (weights.edges) value *= weights.edges[edge];
        bool excluded = exclude.offsets && find(exclude, row, object) >= 0;
        int64_t key = (row - part.first_row) * graph.num_entities + object;
        memory.visits.keys_made[visit - part.first_visit] = excluded ? memory.excluded_key : static_cast<uint64_t>(key);
        memory.visits.values_made[visit - part.first_visit] = value;
      });
  memory.visits.sort(device, part.visits());
  device.for_each("follow_count, objects", part.visits() + 1, [=] TERCET_DEVICE(int64_t visit) {
    const uint64_t* keys = memory.visits.keys;
    bool counts = visit < part.visits() && keys[visit] != memory.excluded_key && starts_object(keys, visit);
    memory.positions[visit] = counts ? 1 : 0;
  });
  device.scan(memory.positions, part.visits() + 1, memory.scan_temp);
  device.for_each("follow_count, offsets", part.rows() + 1, [=] TERCET_DEVICE(int64_t row) {
    uint64_t first_key = static_cast<uint64_t>(row) * static_cast<uint64_t>(graph.num_entities);
    int64_t first_visit = lower_bound(memory.visits.keys, 0, part.visits(), first_key);
    offsets[part.first_row + row] = members_before + memory.positions[first_visit];
  });
  return device.read(memory.positions + part.visits());
}

template <class T, class Device>
void fill_steps(const Device& device, const Graph& graph, const Part& part, int64_t num_members, int32_t* entities,
                T* sums, const FollowMemory<T>& memory) {
  auto* starts = reinterpret_cast<int64_t*>(memory.visits.keys_made);  // [num_members + 1]: first visit of each object
  device.for_each("follow_fill, starts", part.visits() + 1, [=] TERCET_DEVICE(int64_t visit) {
    const uint64_t* keys = memory.visits.keys;
    // What is excluded starts behind the last member; without it, the end of the visits stands there.
    bool starts_here =
        visit < part.visits() ? starts_object(keys, visit) : visit == 0 || keys[visit - 1] != memory.excluded_key;
    if (starts_here) starts[memory.positions[visit]] = visit;
  });
  device.for_each("follow_fill, entities", num_members, [=] TERCET_DEVICE(int64_t member) {
    uint64_t key = memory.visits.keys[starts[member]];
    entities[member] = static_cast<int32_t>(key % static_cast<uint64_t>(graph.num_entities));
  });
  Pieces<T> pieces{memory.positions, memory.visits.values_made, memory.scan_temp};
  sum_segments(device, starts, num_members, 0, part.visits(), memory.visits.values, pieces, sums);
}

// What arrives at a visit's object from the gradient of its row; nothing where the object was excluded.
template <class T>
TERCET_HOST_DEVICE inline T arriving_at(const Sets& result, const T* grad, int64_t row, int32_t object) {
  int64_t place = find(result, row, object);
  return place < 0 ? T(0) : grad[place];
}

// Scratch of the backward. Key of a visit: row of the part * num_relations + relation.
template <class T>
struct BackwardMemory {
  template <class Device>
  BackwardMemory(const Device& device, Carver& carver, const Graph& graph, const Part& part)
      : num_keys(part.rows() * graph.num_relations),
        visits(device, carver, part.visits(), bits_of(static_cast<uint64_t>(num_keys))),
        starts(carver.take<int64_t>(num_keys + 1)),
        pieces{carver.take<int64_t>(larger(num_keys, part.members()) + 1), carver.take<T>(part.visits()),
               carver.take_temp(device.scan_bytes(larger(num_keys, part.members()) + 1))} {}

  int64_t num_keys;
  Visits<T> visits;
  int64_t* starts;  // [num_keys + 1]: first visit of each (row, relation)
  Pieces<T> pieces;
};

template <class T, class Device>
void backward_steps(const Device& device, const Graph& graph, const Sets& sets, const FollowWeights<T>& weights,
                    const Sets& result, const T* grad, const Frontier& frontier, const Part& part, T* grad_members,
                    T* grad_relations, const BackwardMemory<T>& memory) {
  T* to_members = memory.visits.values;  // in the order of visits, until the sort overwrites it
  device.expand("follow_backward, visits", frontier.first_visits, frontier.num_members, part.first_visit,
                part.last_visit, [=] TERCET_DEVICE(int64_t visit, int64_t member) {
                  int64_t row = frontier.rows[member], edge = edge_of(graph, sets, frontier, visit, member);
                  int64_t relation = graph.relations[edge], i = visit - part.first_visit;
                  T arriving = arriving_at(result, grad, row, graph.objects[edge]);
                  if (weights.edges) arriving *= weights.edges[edge];
                  to_members[i] = weights.relations[row * graph.num_relations + relation] * arriving;
                  memory.visits.values_made[i] = weights.members[member] * arriving;
                  memory.visits.keys_made[i] =
                      static_cast<uint64_t>((row - part.first_row) * graph.num_relations + relation);
                });
  sum_segments(device, frontier.first_visits + part.first_member, part.members(), part.first_visit, part.visits(),
               to_members, memory.pieces, grad_members + part.first_member);
  memory.visits.sort(device, part.visits());
  device.for_each("follow_backward, starts", memory.num_keys + 1, [=] TERCET_DEVICE(int64_t key) {
    memory.starts[key] = lower_bound(memory.visits.keys, 0, part.visits(), static_cast<uint64_t>(key));
  });
  sum_segments(device, memory.starts, memory.num_keys, 0, part.visits(), memory.visits.values, memory.pieces,
               grad_relations + part.first_row * graph.num_relations);
}

// Scratch of the gradient to the edges. Key of a visit: its edge, which a row visits at most once.
template <class T>
struct BackwardEdgesMemory {
  template <class Device>
  BackwardEdgesMemory(const Device& device, Carver& carver, int64_t num_edges, const Part& part)
      : visits(device, carver, part.visits(), bits_of(static_cast<uint64_t>(num_edges))) {}

  Visits<T> visits;
};

template <class T, class Device>
void backward_edges_steps(const Device& device, const Graph& graph, const Sets& sets, const FollowWeights<T>& weights,
                          const Sets& result, const T* grad, const Frontier& frontier, const Part& part, T* grad_edges,
                          const BackwardEdgesMemory<T>& memory) {
  device.expand("follow_backward_edges, visits", frontier.first_visits, frontier.num_members, part.first_visit,
                part.last_visit, [=] TERCET_DEVICE(int64_t visit, int64_t member) {
                  int64_t row = frontier.rows[member], edge = edge_of(graph, sets, frontier, visit, member);
                  T arriving = arriving_at(result, grad, row, graph.objects[edge]);
                  T weight = weights.relations[row * graph.num_relations + graph.relations[edge]];
                  memory.visits.keys_made[visit - part.first_visit] = static_cast<uint64_t>(edge);
                  memory.visits.values_made[visit - part.first_visit] = weights.members[member] * weight * arriving;
                });
  memory.visits.sort(device, part.visits());
  // One thread sums an edge's visits, at most one from each row of the part.
  device.for_each("follow_backward_edges", part.visits(), [=] TERCET_DEVICE(int64_t first) {
    const uint64_t* keys = memory.visits.keys;
    if (first > 0 && keys[first] == keys[first - 1]) return;
    T sum = grad_edges[keys[first]];
    for (int64_t i = first; i < part.visits() && keys[i] == keys[first]; ++i) sum += memory.visits.values[i];
    grad_edges[keys[first]] = sum;
  });
}

}  // namespace tercet::cuda
