// The functions of csrc/translation.h on CUDA; results differ from the CPU's by rounding.
//
// A pair's sum is taken along the dimensions in order, whatever else is computed with it. Scores come from tiles of
// 128 x 128 pairs (float64: 64 x 64): a thread keeps 8 x 8 sums in registers, so that a term costs its arithmetic, two
// instructions (l1, l2) or one (dot), and a sixteenth of a load from shared memory. No atomics: runs agree bit for bit.
//
// Rules for arrays and errors as in traversal.h; no function waits for the device.
#pragma once

#include "../csrc/translation.h"
#include "steps.h"

namespace tercet::cuda {

template <class T>
void transe_score(const Queue& queue, Norm norm, const T* heads, const T* relations, const T* tails, int64_t batch,
                  int64_t dim, T* scores);

template <class T>
void transe_score_backward(const Queue& queue, Norm norm, const T* grad, const T* heads, const T* relations,
                           const T* tails, int64_t batch, int64_t dim, T* to_query, T* to_tails);

template <class T>
void transe_scores(const Queue& queue, Norm norm, const T* queries, int64_t num_queries, const T* entities,
                   int64_t num_entities, int64_t dim, T* scores);

// The partners of few rows are cut into pieces, whose sums lie in the scratch: below 64 MiB, whatever the sizes. Where
// the cuts are depends on the sizes alone.
template <class T>
int64_t transe_scores_backward_workspace(int64_t num_rows, int64_t num_partners, int64_t dim);
template <class T>
void transe_scores_backward(const Queue& queue, Norm norm, const T* rows, int64_t num_rows, const T* partners,
                            int64_t num_partners, int64_t dim, const Weights<T>& weights, T* out,
                            unsigned char* scratch);

}  // namespace tercet::cuda
