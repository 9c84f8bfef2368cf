// follow: y[b, o] = sum over edges (s, p, o) of x[b, s] w[b, p] c_e, its gradients, and the members of y.
//
// An object that an edge of the frontier reaches is a member of the result, whatever its weight. Every sum runs over
// the edges in the graph's order, in the sparse push and in the dense pull alike, so both give the same bits at any
// number of threads. Costs: push and backward read the edges of the frontier; pull reads every edge once for each block
// of lanes. Empty batches, sets and graphs give empty results.
#pragma once

#include "core.h"

namespace tercet {

// The weights that follow multiplies; edge_weights may be null (all 1).
template <class T>
struct FollowWeights {
  const T* members;    // [num_members]
  const T* relations;  // [batch, num_relations]
  const T* edges;      // [num_edges] or null
};

// The edges by object: those of object o are offsets[o] .. offsets[o + 1], in the order of the graph's edges.
struct Incoming {
  const int64_t* offsets;    // [num_entities + 1]
  const int32_t* subjects;   // [num_edges]
  const int32_t* relations;  // [num_edges]
  const int64_t* edges;      // [num_edges], or null where there are no edge weights
};

// Where the rows of a result go before its size is known: row b may fill bounds[b] .. bounds[b + 1] (shifted so that
// the first row of the chunk starts at 0), and offsets[b + 1] receives the running number of members; the first chunk
// also writes offsets[0] = 0.
template <class T>
struct FollowOutput {
  const int64_t* bounds;  // [batch + 1]
  int32_t* entities;      // [bounds of the chunk]
  T* weights;             // [bounds of the chunk]
  int64_t* offsets;       // [batch + 1]
};

// Scratch for workers, owned by the caller. With `accumulators`, each of num_workers accumulators must be clean
// (follow_scratch_clean) and is clean again afterwards. Without, the push sorts in `sorting`, which needs no memory of
// size num_entities.
struct FollowScratch {
  unsigned char* accumulators;  // [num_workers, follow_accumulator_bytes] or null
  unsigned char* sorting;       // [num_workers, follow_sorting_bytes] or null
  int num_workers;
};

int64_t follow_accumulator_bytes(int64_t num_entities, int64_t value_bytes);
int64_t follow_sorting_bytes(int64_t max_edges, int64_t value_bytes);
template <class T>
void follow_scratch_clean(unsigned char* accumulators, int64_t num_entities, int num_workers);

// bounds[b + 1] - bounds[b] = min(edges of row b's frontier, num_entities) + 1: the room that row b needs, one more
// than it can fill because the push writes an entity before it knows whether it is a member. Returns the most edges of
// one row through max_edges and all edges through total_edges.
void follow_bounds(const Graph& graph, const Sets& sets, int64_t* bounds, int64_t* max_edges, int64_t* total_edges);

// Rows first .. last, sparse push. max_edges: the most edges of one row. Returns the members of the chunk.
template <class T>
int64_t follow_push(const Graph& graph, const Sets& sets, const FollowWeights<T>& weights, const Sets& exclude,
                    int64_t first, int64_t last, int64_t max_edges, const FollowOutput<T>& output,
                    const FollowScratch& scratch);

// Rows first .. last, dense pull with `lanes` (4 or 16) rows as the vector dimension.
// scratch: [follow_pull_bytes], not initialised. Returns the members of the chunk.
int64_t follow_pull_bytes(int64_t num_entities, int64_t num_relations, int64_t lanes, int64_t value_bytes);
template <class T>
int64_t follow_pull(const Graph& graph, const Incoming& incoming, const Sets& sets, const FollowWeights<T>& weights,
                    const Sets& exclude, int64_t first, int64_t last, int64_t lanes, const FollowOutput<T>& output,
                    unsigned char* scratch, int num_threads);

// Turns the sizes that a chunk left in offsets[first + 1 ..] into running sums; returns the members of the chunk.
int64_t follow_offsets(int64_t* offsets, int64_t first, int64_t last);

// Copies the rows first .. last out of the room that FollowOutput gave them into consecutive arrays.
template <class T>
void follow_compact(const FollowOutput<T>& output, int64_t first, int64_t last, int32_t* entities, T* weights,
                    int num_threads);

// Gradients to the members' weights [num_members] and to the relations' weights [batch, num_relations]; both are
// written in full. `result` holds the members of y, `grad` [members of y] the gradient to their weights.
template <class T>
void follow_backward(const Graph& graph, const Sets& sets, const FollowWeights<T>& weights, const Sets& result,
                     const T* grad, T* grad_members, T* grad_relations, const FollowScratch& scratch);

// Gradient to the edges' weights [num_edges], which the caller has set to 0: each worker owns a range of subjects.
template <class T>
void follow_backward_edges(const Graph& graph, const Sets& sets, const FollowWeights<T>& weights, const Sets& result,
                           const T* grad, T* grad_edges, const FollowScratch& scratch);

}  // namespace tercet
