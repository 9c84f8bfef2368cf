// What every kernel shares: the CSR views, the parallel loop, the dtype switch.
// Kernels are pure functions of pointers and sizes; they allocate nothing and keep nothing.
#pragma once

#include <cstdint>
#include <stdexcept>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace tercet {

// A knowledge graph by subject: the edges of subject s are row_offsets[s] .. row_offsets[s + 1], sorted by (relation,
// object).
struct Graph {
  const int64_t* row_offsets;  // [num_entities + 1]
  const int32_t* relations;    // [num_edges]
  const int32_t* objects;      // [num_edges]
  int64_t num_entities;
  int64_t num_relations;
};

// A batch of sets: the members of row b are offsets[b] .. offsets[b + 1], sorted by entity, each entity once.
struct Sets {
  const int64_t* offsets;   // [batch + 1]
  const int32_t* entities;  // [num_members]
  int64_t batch;
};

// Calls body(task, worker) for each task, in any order, with worker < num_threads: a body writes only what belongs to
// its task, and scratch that belongs to its worker.
template <class Body>
void parallel_for(int64_t num_tasks, int num_threads, const Body& body) {
#ifdef _OPENMP
  if (num_threads > 1 && num_tasks > 1) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(num_threads)
    for (int64_t task = 0; task < num_tasks; ++task) body(task, omp_get_thread_num());
    return;
  }
#endif
  (void)num_threads;
  for (int64_t task = 0; task < num_tasks; ++task) body(task, 0);
}

// Float32 is 0 and float64 is 1 at the boundary.
template <class Body>
void with_dtype(int dtype, const Body& body) {
  if (dtype == 0) {
    body(float{});
  } else if (dtype == 1) {
    body(double{});
  } else {
    throw std::invalid_argument("dtype must be 0 (float32) or 1 (float64)");
  }
}

}  // namespace tercet
