// The steps of the set operations over a Device (steps.h); entity_sets.h says what each function gives.
#pragma once

#include "entity_sets.h"

namespace tercet::cuda {

// Intersection and difference choose among the members of a. A union has all of a, and chooses among the members of b
// those that are not in a. positions [members of the choosing side + 1]: how many are chosen before each.
struct MergeMemory {
  template <class Device>
  MergeMemory(const Device& device, Carver& carver, const Sides& sides, Merge how)
      : num_candidates(how == Merge::kUnion ? sides.num_b : sides.num_a),
        positions(carver.take<int64_t>(num_candidates + 1)),
        temp(carver.take_temp(device.scan_bytes(num_candidates + 1))) {}

  int64_t num_candidates;
  int64_t* positions;
  Temp temp;
};

template <class Device>
int64_t merge_count_steps(const Device& device, const Sides& sides, Merge how, int64_t* offsets,
                          const MergeMemory& memory) {
  const bool all_of_a = how == Merge::kUnion, wanted = how == Merge::kIntersection;
  const Sets candidates = all_of_a ? sides.b : sides.a, others = all_of_a ? sides.a : sides.b;
  device.expand("merge_count, members", candidates.offsets, candidates.batch, 0, memory.num_candidates,
                [=] TERCET_DEVICE(int64_t member, int64_t row) {
                  bool found = find(others, row, candidates.entities[member]) >= 0;
                  memory.positions[member] = found == wanted ? 1 : 0;
                });
  device.for_each("merge_count, end", 1, [=] TERCET_DEVICE(int64_t) { memory.positions[memory.num_candidates] = 0; });
  device.scan(memory.positions, memory.num_candidates + 1, memory.temp);
  device.for_each("merge_count, offsets", candidates.batch + 1, [=] TERCET_DEVICE(int64_t row) {
    offsets[row] = memory.positions[candidates.offsets[row]] + (all_of_a ? sides.a.offsets[row] : 0);
  });
  return device.read(memory.positions + memory.num_candidates) + (all_of_a ? sides.num_a : 0);
}

template <class Device>
void merge_choice_steps(const Device& device, const Sides& sides, Merge how, int32_t* entities, int64_t* index_a,
                        int64_t* index_b, const MergeMemory& memory) {
  device.expand("merge_fill", sides.a.offsets, sides.a.batch, 0, sides.num_a,
                [=] TERCET_DEVICE(int64_t member, int64_t row) {
                  int64_t target = memory.positions[member];
                  if (memory.positions[member + 1] == target) return;
                  entities[target] = sides.a.entities[member];
                  index_a[target] = member;
                  index_b[target] = how == Merge::kIntersection ? find(sides.b, row, sides.a.entities[member]) : -1;
                });
}

// A member's place in the union: its own index, plus how many of the other side alone stand before it.
template <class Device>
void merge_union_steps(const Device& device, const Sides& sides, int32_t* entities, int64_t* index_a, int64_t* index_b,
                       const MergeMemory& memory) {
  device.expand("merge_fill, a", sides.a.offsets, sides.a.batch, 0, sides.num_a,
                [=] TERCET_DEVICE(int64_t member, int64_t row) {
                  int32_t entity = sides.a.entities[member];
                  int64_t target = member + memory.positions[place_of(sides.b, row, entity)];
                  entities[target] = entity;
                  index_a[target] = member;
                  index_b[target] = find(sides.b, row, entity);
                });
  device.expand("merge_fill, b", sides.b.offsets, sides.b.batch, 0, sides.num_b,
                [=] TERCET_DEVICE(int64_t member, int64_t row) {
                  if (memory.positions[member + 1] == memory.positions[member]) return;
                  int32_t entity = sides.b.entities[member];
                  int64_t target = place_of(sides.a, row, entity) + memory.positions[member];
                  entities[target] = entity;
                  index_a[target] = -1;
                  index_b[target] = member;
                });
}

template <class Device>
void merge_fill_steps(const Device& device, const Sides& sides, Merge how, int32_t* entities, int64_t* index_a,
                      int64_t* index_b, const MergeMemory& memory) {
  if (how == Merge::kUnion) {
    merge_union_steps(device, sides, entities, index_a, index_b, memory);
  } else {
    merge_choice_steps(device, sides, how, entities, index_a, index_b, memory);
  }
}

}  // namespace tercet::cuda
