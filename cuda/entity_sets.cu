#include "entity_sets.h"
#include "entity_sets_steps.h"
#include "launch.cuh"

namespace tercet::cuda {

int64_t merge_workspace(const Queue& queue, const Sides& sides, Merge how) {
  Carver carver(nullptr);
  MergeMemory(Stream(queue), carver, sides, how);
  return carver.bytes();
}

int64_t merge_count(const Queue& queue, const Sides& sides, Merge how, int64_t* offsets, unsigned char* scratch) {
  Stream stream(queue);
  Carver carver(scratch);
  return merge_count_steps(stream, sides, how, offsets, MergeMemory(stream, carver, sides, how));
}

void merge_fill(const Queue& queue, const Sides& sides, Merge how, int32_t* entities, int64_t* index_a,
                int64_t* index_b, unsigned char* scratch) {
  Stream stream(queue);
  Carver carver(scratch);
  merge_fill_steps(stream, sides, how, entities, index_a, index_b, MergeMemory(stream, carver, sides, how));
}

}  // namespace tercet::cuda
