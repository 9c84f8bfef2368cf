// Whether a triple with a replaced entity is known.
#pragma once

#include "translation_training.h"

namespace tercet {

inline bool contains(const Graph& graph, int32_t subject, int32_t relation, int32_t object) {
  const int64_t end = graph.row_offsets[subject + 1];
  int64_t first = graph.row_offsets[subject], last = end;
  while (first < last) {
    const int64_t middle = first + (last - first) / 2;
    const bool before =
        graph.relations[middle] < relation || (graph.relations[middle] == relation && graph.objects[middle] < object);
    before ? first = middle + 1 : last = middle;
  }
  return first < end && graph.relations[first] == relation && graph.objects[first] == object;
}

// Whether a triple is known whose tail (or head) was replaced by `entity`.
inline bool is_known(const Known& known, const int32_t* triple, bool tail, int32_t entity) {
  return tail ? contains(known.by_head, triple[0], triple[1], entity)
              : contains(known.by_tail, triple[2], triple[1], entity);
}

}  // namespace tercet
