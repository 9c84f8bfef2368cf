// Gated blocks: the arbitrators' logits, and attention over the frames that gates keep.
//
// arbiter_logits: logit[i] = <weight, normalised(x[i])> + bias, the row normalised as layer normalisation does
//   ((x - mean) / sqrt(variance + epsilon) * norm_weight + norm_bias), or raw without norm_weight. Each row is read
//   once from memory.
// kept_attention: out[i] = sum over j in key_starts[i] .. key_ends[i] - 1 of softmax_j(<q[i], k[j]> scale) v[j], for
// each
//   head apart; no keys give zeros. Kept frames lie packed, in the order of their frames, so lengths, windows and gates
//   are all ranges. Costs 2 dim multiply-adds for each query and key in its range.
//
// Every result is summed in an order that depends on its own row and range alone: not on threads, nor on the rest of
// the batch. A NaN stays with the queries whose range holds it.
#pragma once

#include <cstdint>

#include "rows.h"

namespace tercet {

template <class T>
void arbiter_logits(const T* rows,  // [num_rows, dim]
                    LayerNorm norm,
                    const T* weight,  // [dim]
                    const T* bias,    // [1]
                    T* logits,        // [num_rows]
                    int64_t num_rows, int64_t dim, int num_threads);

// Packed frames, one row of heads after each other; `stride` values from one frame to the next.
template <class T>
struct Frames {
  const T* values;
  int64_t stride;
};

struct KeyRanges {
  const int64_t* starts;  // [num_queries], both ends within the keys
  const int64_t* ends;    // [num_queries]
};

// Values of scratch that each thread needs, given the ranges.
int64_t kept_attention_scratch(KeyRanges ranges, int64_t num_queries, int64_t head_dim);

template <class T>
void kept_attention(Frames<T> queries, Frames<T> keys, Frames<T> values, KeyRanges ranges,
                    T* out,      // [num_queries, num_heads * head_dim]
                    T* scratch,  // [num_threads, scratch_size], aligned as values are
                    int64_t scratch_size, int64_t num_queries, int64_t num_heads, int64_t head_dim, double scale,
                    int num_threads);

}  // namespace tercet
