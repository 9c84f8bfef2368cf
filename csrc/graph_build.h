// From triples to the graph's CSR, and from one graph to another: with inverses, by object, merged with changes.
//
// Every step is linear in edges and entities: counting sort by subject straight into the final arrays, then each row is
// sorted by (relation, object) through scratch no longer than the largest row. A subject belongs to one thread and
// keeps the order of the input until its row is sorted, so the result is the same for any number of threads. No triples
// give a graph without edges; no entities give row_offsets = [0].
#pragma once

#include "core.h"

namespace tercet {

// One column of integer ids, int32 or int64, at any stride (a column of a [count, 3] array is read in place).
struct Column {
  const void* data;  // [count]
  int64_t stride;    // in elements
  bool wide;         // int64, else int32

  int64_t operator[](int64_t i) const {
    return wide ? static_cast<const int64_t*>(data)[i * stride] : static_cast<const int32_t*>(data)[i * stride];
  }
};

struct Triples {
  Column heads, relations, tails;
  int64_t count;
};

// What is wrong, and where; nothing is when code is kFine.
struct Place {
  int64_t code;
  int64_t position;
};

enum GraphFault : int64_t {
  kFine = 0,
  kBadHead,      // triple `position`
  kBadRelation,  // triple or edge `position`
  kBadTail,      // triple or edge `position`
  kBadOffset,    // row_offsets[position] falls, or does not begin at 0 or end at num_edges
  kUnsorted,     // edge `position` does not come after the edge before it in its row
  kNoInverses,   // the upper half of the relations does not hold the inverse of every edge of the lower half
};

// The first triple with an id out of range (the head's fault before the relation's before the tail's).
Place check_triples(const Triples& triples, int64_t num_entities, int64_t num_relations, int num_threads);

// The first fault of a CSR that came from outside; with_inverses: that it is one is checked too, by comparing the sums
// of 64-bit hashes of the edges and of their inverses.
Place check_graph(const Graph& graph, int64_t num_edges, bool with_inverses, int num_threads);

// Where the triples of each subject start: row_offsets [num_entities + 1]. Returns the length of the largest row.
int64_t build_offsets(const Triples& triples, int64_t num_entities, int64_t* row_offsets, int num_threads);

// Fills relations and objects [count] (and edge_ids [count]: the first triple of each edge; or null), sorts rows,
// merges duplicates. Returns the number of edges, which come first; row_offsets then fits them. scratch: num_workers x
// largest_row x 8 bytes (16 with edge_ids).
int64_t build_edges(const Triples& triples, int64_t num_entities, int64_t num_relations, int64_t* row_offsets,
                    int32_t* relations, int32_t* objects, int64_t* edge_ids, int64_t largest_row, int num_workers,
                    void* scratch, int num_threads);

// The graph with an edge (object, relation + num_relations, subject) for each edge: first the cursors that
// `inverse_edges` scatters by, in out_offsets [num_entities + 1]; returns the largest number of edges to one object.
int64_t inverse_offsets(const Graph& graph, int64_t num_edges, int64_t* out_offsets, int num_threads);

// Fills out_relations, out_objects (and out_ids, or null) [2 num_edges]; turns the cursors into row offsets.
// scratch: num_workers x largest_row x 8 bytes (16 with ids).
void inverse_edges(const Graph& graph, const int64_t* edge_ids, int64_t* out_offsets, int32_t* out_relations,
                   int32_t* out_objects, int64_t* out_ids, int64_t largest_row, int num_workers, void* scratch,
                   int num_threads);

// The edges by object, within an object in the order of the graph's edges: offsets [num_entities + 1], subjects and
// relations [num_edges], edges [num_edges] or null.
void incoming_edges(const Graph& graph, int64_t num_edges, int64_t* offsets, int32_t* subjects, int32_t* relations,
                    int64_t* edges, int num_threads);

// (graph - removed) + added, all three over the same entities and relations: row offsets first, then the edges.
// edge_ids and added_ids are null together; an edge that stays keeps its id.
void merge_offsets(const Graph& graph, const Graph& added, const Graph& removed, int64_t* out_offsets, int num_threads);
void merge_edges(const Graph& graph, const int64_t* edge_ids, const Graph& added, const int64_t* added_ids,
                 const Graph& removed, const int64_t* out_offsets, int32_t* out_relations, int32_t* out_objects,
                 int64_t* out_ids, int num_threads);

}  // namespace tercet
