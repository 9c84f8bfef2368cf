// Filtered ranks and best entities without a matrix of scores.
//
// Ranks are those of the float64 sums of exact.h. A tile of fast sums is compared with a band around each target's sum,
// and only what falls inside is summed again: so ranks are exact under ties and do not depend on tiles, threads or the
// instruction set. Cost: that of transe_scores, and two comparisons for each target and score. Equal queries come
// grouped, and are scored once. Memory beyond inputs and counts: a block of packed entities, and a chunk of queries for
// each thread. Counts are integers, so threads may add to them in any order.
#pragma once

#include "core.h"
#include "exact.h"
#include "translation.h"

namespace tercet {

// first[i], last[i] of `entities` (ascending) for each of several queries; ranges null: none.
struct Ranges {
  const int64_t* ranges;  // [num_queries, 2]
  const int32_t* entities;
};

// Where the edges of each (subject, relation) stand: found [count, 2].
void known_ranges(const Graph& graph, const int32_t* subjects, const int32_t* relations, int64_t count, int64_t* found);

template <class T>
struct Ranking {
  const T* entities;   // [num_entities, dim], finite
  const T* relations;  // [num_relations, dim]
  int64_t num_entities, dim;
  const int32_t* anchors;         // [num_queries], heads (tails) or tails
  const int32_t* kinds;           // [num_queries], relations
  const int64_t* target_offsets;  // [num_queries + 1]
  const int32_t* targets;         // [num_targets]
  int64_t num_queries;
  Ranges known;       // no rivals
  Ranges candidates;  // the only rivals; null: all
  bool tails;
};

// Adds to better, equal, rivals [num_targets], which start at 0: rivals with a better and with the same score, and all.
// exact: [num_targets] scratch; scratch: rank_scratch_bytes.
template <class T>
int64_t rank_scratch_bytes(int64_t num_entities, int64_t dim, int num_threads);
template <class T>
void rank_counts(Norm norm, const Ranking<T>& ranking, int64_t* better, int64_t* equal, int64_t* rivals, double* exact,
                 unsigned char* scratch, int num_threads);

// scores, found [num_queries, k]: the best, descending, the smaller id first among equals; excluded entities and scores
// that are NaN or -inf never are; the rest is filled with -inf and -1.
template <class T>
int64_t transe_top_scratch_bytes(int64_t num_queries, int64_t num_entities, int64_t dim, int64_t k, int num_threads);
template <class T>
void transe_top(Norm norm, const T* queries, int64_t num_queries, const T* entities, int64_t num_entities, int64_t dim,
                int64_t k, const Sets& exclude, T* scores, int64_t* found, unsigned char* scratch, int num_threads);

}  // namespace tercet
