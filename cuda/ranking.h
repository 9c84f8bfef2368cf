// rank_counts of csrc/ranking.h on CUDA, with the same counts.
//
// Tiles of fast sums as in translation.h. A tile marks its rivals in bits, counts what lies outside of a target's band
// and lists the pairs inside one, which are then summed again as exact.h says. Cost: that of transe_scores, two
// comparisons for each target and score, and two searches in the known entities (and candidates) of each query for
// every tile. Counts are integers, so atomics may add to them in any order.
//
// transe_top has no kernel of its own: python/tercet/ops/_ranking_cuda.py sorts scores of translation.h by parts.
//
// Rules for arrays and errors as in traversal.h; no function waits for the device.
#pragma once

#include "../csrc/ranking.h"
#include "steps.h"

namespace tercet::cuda {

// Adds to better, equal, rivals [num_targets], which start at 0. Queries are worked through in chunks of
// queries_at_once.
template <class T>
int64_t rank_workspace(int64_t num_targets, int64_t dim, int64_t queries_at_once);
template <class T>
void rank_counts(const Queue& queue, Norm norm, const Ranking<T>& ranking, int64_t num_targets, int64_t queries_at_once,
                 int64_t* better, int64_t* equal, int64_t* rivals, unsigned char* scratch);

}  // namespace tercet::cuda
