#include "launch.cuh"
#include "traversal.h"
#include "traversal_steps.h"

namespace tercet::cuda {

int64_t follow_visit_bytes(int64_t value_bytes) {
  // Keys made, sorted and in cub's buffer, values likewise, and a position or a piece.
  return 3 * 8 + 3 * value_bytes + 8 + value_bytes;
}

int64_t follow_visits_workspace(const Queue& queue, int64_t num_members) {
  return Stream(queue).scan_bytes(num_members + 1);
}

void follow_visits(const Queue& queue, const Graph& graph, const Sets& sets, const Frontier& frontier,
                   unsigned char* scratch) {
  Stream stream(queue);
  visits_steps(stream, graph, sets, frontier, Temp{scratch, stream.scan_bytes(frontier.num_members + 1)});
}

template <class T>
int64_t follow_workspace(const Queue& queue, const Graph& graph, const Part& part) {
  Carver carver(nullptr);
  FollowMemory<T>(Stream(queue), carver, graph, part);
  return carver.bytes();
}

template <class T>
int64_t follow_count(const Queue& queue, const Graph& graph, const Sets& sets, const FollowWeights<T>& weights,
                     const Sets& exclude, const Frontier& frontier, const Part& part, int64_t members_before,
                     int64_t* offsets, unsigned char* scratch) {
  Stream stream(queue);
  Carver carver(scratch);
  FollowMemory<T> memory(stream, carver, graph, part);
  return count_steps(stream, graph, sets, weights, exclude, frontier, part, members_before, offsets, memory);
}

template <class T>
void follow_fill(const Queue& queue, const Graph& graph, const Part& part, int64_t num_members, int32_t* entities,
                 T* weights, unsigned char* scratch) {
  Stream stream(queue);
  Carver carver(scratch);
  FollowMemory<T> memory(stream, carver, graph, part);
  fill_steps(stream, graph, part, num_members, entities, weights, memory);
}

template <class T>
int64_t follow_backward_workspace(const Queue& queue, const Graph& graph, const Part& part) {
  Carver carver(nullptr);
  BackwardMemory<T>(Stream(queue), carver, graph, part);
  return carver.bytes();
}

template <class T>
void follow_backward(const Queue& queue, const Graph& graph, const Sets& sets, const FollowWeights<T>& weights,
                     const Sets& result, const T* grad, const Frontier& frontier, const Part& part, T* grad_members,
                     T* grad_relations, unsigned char* scratch) {
  Stream stream(queue);
  Carver carver(scratch);
  BackwardMemory<T> memory(stream, carver, graph, part);
  backward_steps(stream, graph, sets, weights, result, grad, frontier, part, grad_members, grad_relations, memory);
}

template <class T>
int64_t follow_backward_edges_workspace(const Queue& queue, int64_t num_edges, const Part& part) {
  Carver carver(nullptr);
  BackwardEdgesMemory<T>(Stream(queue), carver, num_edges, part);
  return carver.bytes();
}

template <class T>
void follow_backward_edges(const Queue& queue, const Graph& graph, int64_t num_edges, const Sets& sets,
                           const FollowWeights<T>& weights, const Sets& result, const T* grad, const Frontier& frontier,
                           const Part& part, T* grad_edges, unsigned char* scratch) {
  Stream stream(queue);
  Carver carver(scratch);
  BackwardEdgesMemory<T> memory(stream, carver, num_edges, part);
  backward_edges_steps(stream, graph, sets, weights, result, grad, frontier, part, grad_edges, memory);
}

#define TERCET_INSTANTIATE(T)                                                                                       \
  template int64_t follow_workspace<T>(const Queue&, const Graph&, const Part&);                                    \
  template int64_t follow_count<T>(const Queue&, const Graph&, const Sets&, const FollowWeights<T>&, const Sets&,   \
                                   const Frontier&, const Part&, int64_t, int64_t*, unsigned char*);                \
  template void follow_fill<T>(const Queue&, const Graph&, const Part&, int64_t, int32_t*, T*, unsigned char*);     \
  template int64_t follow_backward_workspace<T>(const Queue&, const Graph&, const Part&);                           \
  template void follow_backward<T>(const Queue&, const Graph&, const Sets&, const FollowWeights<T>&, const Sets&,   \
                                   const T*, const Frontier&, const Part&, T*, T*, unsigned char*);                 \
  template int64_t follow_backward_edges_workspace<T>(const Queue&, int64_t, const Part&);                          \
  template void follow_backward_edges<T>(const Queue&, const Graph&, int64_t, const Sets&, const FollowWeights<T>&, \
                                         const Sets&, const T*, const Frontier&, const Part&, T*, unsigned char*);
TERCET_INSTANTIATE(float)
TERCET_INSTANTIATE(double)
#undef TERCET_INSTANTIATE

}  // namespace tercet::cuda
