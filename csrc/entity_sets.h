// The members of intersections, unions and differences of batches of sets, and the largest members of each row.
//
// Only members and positions are computed here; weights follow by indexing. Every row is one linear merge of its two
// sorted sides, or one partial selection. Empty batches and rows give empty results.
#pragma once

#include "core.h"

namespace tercet {

enum class Merge { kIntersection = 0, kUnion = 1, kDifference = 2 };

// offsets [batch + 1]: where each row of the result starts. Returns the number of members.
int64_t merge_count(const Sets& a, const Sets& b, Merge how, int64_t* offsets, int num_threads);

// Fills the members and where each stands in a and in b (-1: it does not), all [num_members]; index_b only for kUnion
// and kIntersection differs from -1.
void merge_fill(const Sets& a, const Sets& b, Merge how, const int64_t* offsets, int32_t* entities, int64_t* index_a,
                int64_t* index_b, int num_threads);

// index [offsets_out[batch]]: positions of the k largest weights of each row, ascending; among equals the first, NaN
// before all. offsets_out [batch + 1] holds the sums of min(k, size of the row). order: [num_members] scratch.
template <class T>
void top_fill(const T* weights, const int64_t* offsets, int64_t batch, const int64_t* offsets_out, int64_t* order,
              int64_t* index, int num_threads);

}  // namespace tercet
