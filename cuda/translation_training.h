// Training on CUDA: the gradients of positives that have their own negatives, and the update of rows; results differ
// from those of csrc/translation_training.h by rounding.
//
// The loss is torch's: scores -> loss and its gradients to the scores -> gradients to the vectors. A gradient is summed
// by one thread and a row moved by one warp, in the order of the entries, without atomics: runs agree bit for bit.
// Positives and negatives are scored by a warp each.
//
// Rules for arrays and errors as in traversal.h; no function waits for the device.
#pragma once

#include "../csrc/translation_training.h"
#include "steps.h"

namespace tercet::cuda {

// With chunk_size 1: queries [size, 2, dim] as in BatchGradients; scores [size, 1 + num_negatives] of each positive and
// its negatives, without what the relation adds to those of replaced heads (dot).
template <class T>
void own_scores(const Queue& queue, Norm norm, const Tables<T>& tables, const Batches& batches, int64_t batch,
                T* queries, T* scores);

// Fills positives [size, 3, dim] from weights [size, 1 + num_negatives]: the gradients to the scores (l2: divided by
// the distance).
template <class T>
void own_gradients(const Queue& queue, Norm norm, const Tables<T>& tables, const Batches& batches, int64_t batch,
                   const T* weights, T* positives);

template <class T>
void apply_gradients(const Queue& queue, Norm norm, const Tables<T>& tables, const Batches& batches, int64_t batch,
                     const BatchGradients<T>& gradients, const Update<T>& entities, const Update<T>& relations);

}  // namespace tercet::cuda
