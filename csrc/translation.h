// Translation scores, higher is better: -sum |q - e| (l1), -sqrt(sum (q - e)^2) (l2), sum q e (dot); and gradients.
//
// A pair's sum does not depend on which other pairs are computed with it: in transe_scores it is summed along the
// dimensions in blocks of kDepth, in the gradients along the other side in blocks of kPartners. Cost of a term: three
// vector instructions (l1), two (l2), one (dot); memory traffic is that of the inputs and the result.
// Empty batches, tables and vectors give empty or zero results.
#pragma once

#include "core.h"

namespace tercet {

enum class Norm { kL1 = 0, kL2 = 1, kDot = 2 };

// scores [batch] of heads, relations, tails [batch, dim].
template <class T>
void transe_score(Norm norm, const T* heads, const T* relations, const T* tails, int64_t batch, int64_t dim, T* scores,
                  int num_threads);

// From grad [batch]: to_query (which is the gradient to heads and to relations) and to_tails [batch, dim].
template <class T>
void transe_score_backward(Norm norm, const T* grad, const T* heads, const T* relations, const T* tails, int64_t batch,
                           int64_t dim, T* to_query, T* to_tails, int num_threads);

// scores [num_queries, num_entities] of queries [num_queries, dim] and entities [num_entities, dim].
// scratch: num_threads x transe_scores_scratch(dim) values.
template <class T>
int64_t transe_scores_scratch(int64_t dim);
template <class T>
void transe_scores(Norm norm, const T* queries, int64_t num_queries, const T* entities, int64_t num_entities,
                   int64_t dim, T* scores, T* scratch, int num_threads);

// A matrix of weights at any strides.
template <class T>
struct Weights {
  const T* data;
  int64_t row_stride, partner_stride;
};

// out[i] = sum over j of w[i, j] f(rows[i], partners[j]), [num_rows, dim], where f is sign(partner - row) (l1),
// partner - row (l2) or partner (dot). With the gradient to the scores as w (l2: divided by the distance) these are the
// gradients to the queries; with rows and partners exchanged and w transposed, to the entities.
template <class T>
void transe_scores_backward(Norm norm, const T* rows, int64_t num_rows, const T* partners, int64_t num_partners,
                            int64_t dim, const Weights<T>& weights, T* out, int num_threads);

}  // namespace tercet
