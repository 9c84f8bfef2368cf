// The set operations of csrc/entity_sets.h on CUDA, with the same results.
//
// Every member looks its partner up in the other side's row; sums over the members then give positions, so the work is
// spread by members, not by rows. Rules for arrays and errors as in traversal.h; only merge_count waits for the device.
#pragma once

#include "../csrc/entity_sets.h"
#include "steps.h"

namespace tercet::cuda {

struct Sides {
  Sets a, b;
  int64_t num_a, num_b;  // members
};

// Writes offsets [batch + 1] and returns the number of members. The scratch keeps what merge_fill needs.
int64_t merge_workspace(const Queue& queue, const Sides& sides, Merge how);
int64_t merge_count(const Queue& queue, const Sides& sides, Merge how, int64_t* offsets, unsigned char* scratch);

// entities, index_a, index_b: [num_members], as merge_count returned it.
void merge_fill(const Queue& queue, const Sides& sides, Merge how, int32_t* entities, int64_t* index_a,
                int64_t* index_b, unsigned char* scratch);

}  // namespace tercet::cuda
