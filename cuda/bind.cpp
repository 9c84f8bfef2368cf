// The Python face of the CUDA kernels: pointers and the stream arrive as integers, the interpreter lock is released,
// nothing else happens.
#include "bind.h"

#include "entity_sets.h"
#include "traversal.h"

namespace py = pybind11;

namespace {

using tercet::FollowWeights;
using tercet::Graph;
using tercet::Merge;
using tercet::Sets;
using tercet::with_dtype;
using tercet::cuda::at;
using tercet::cuda::Frontier;
using tercet::cuda::Part;
using tercet::cuda::Pointer;
using tercet::cuda::queue_of;
using tercet::cuda::QueueArgs;
using tercet::cuda::Sides;

using GraphArgs = std::tuple<Pointer, Pointer, Pointer, int64_t, int64_t>;  // row_offsets, relations, objects, sizes
using SetsArgs = std::tuple<Pointer, Pointer, int64_t>;                     // offsets, entities, batch
using WeightArgs = std::tuple<Pointer, Pointer, Pointer>;                   // of members, relations, edges
using FrontierArgs = std::tuple<Pointer, Pointer, int64_t>;                 // rows, first_visits, num_members
using PartArgs = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t>;  // rows, members, visits from .. to
using SidesArgs = std::tuple<SetsArgs, SetsArgs, int64_t, int64_t>;                 // a, b, their members

Graph graph_of(const GraphArgs& args) {
  auto [row_offsets, relations, objects, num_entities, num_relations] = args;
  return {at<int64_t>(row_offsets), at<int32_t>(relations), at<int32_t>(objects), num_entities, num_relations};
}

Sets sets_of(const SetsArgs& args) {
  auto [offsets, entities, batch] = args;
  return {at<int64_t>(offsets), at<int32_t>(entities), batch};
}

template <class T>
FollowWeights<T> weights_of(const WeightArgs& args) {
  auto [members, relations, edges] = args;
  return {at<T>(members), at<T>(relations), at<T>(edges)};
}

Frontier frontier_of(const FrontierArgs& args) {
  auto [rows, first_visits, num_members] = args;
  return {at<int64_t>(rows), at<int64_t>(first_visits), num_members};
}

Part part_of(const PartArgs& args) {
  auto [first_row, last_row, first_member, last_member, first_visit, last_visit] = args;
  return {first_row, last_row, first_member, last_member, first_visit, last_visit};
}

Sides sides_of(const SidesArgs& args) {
  auto [a, b, num_a, num_b] = args;
  return {sets_of(a), sets_of(b), num_a, num_b};
}

Merge merge_of(int how) {
  if (how < 0 || how > 2) throw std::invalid_argument("how must be 0 (intersection), 1 (union) or 2 (difference)");
  return static_cast<Merge>(how);
}

void bind_follow(py::module_& m) {
  using release = tercet::cuda::Release;
  m.def("follow_visit_bytes", &tercet::cuda::follow_visit_bytes);
  m.def(
      "follow_visits_workspace",
      [](const QueueArgs& queue, int64_t num_members) {
        return tercet::cuda::follow_visits_workspace(queue_of(queue), num_members);
      },
      release());
  m.def(
      "follow_visits",
      [](const QueueArgs& queue, const GraphArgs& graph, const SetsArgs& sets, const FrontierArgs& frontier,
         Pointer scratch) {
        tercet::cuda::follow_visits(queue_of(queue), graph_of(graph), sets_of(sets), frontier_of(frontier),
                                    at<unsigned char>(scratch));
      },
      release());
  m.def(
      "follow_workspace",
      [](const QueueArgs& queue, int dtype, const GraphArgs& graph, const PartArgs& part) {
        int64_t bytes = 0;
        with_dtype(dtype, [&](auto zero) {
          bytes = tercet::cuda::follow_workspace<decltype(zero)>(queue_of(queue), graph_of(graph), part_of(part));
        });
        return bytes;
      },
      release());
  m.def(
      "follow_count",
      [](const QueueArgs& queue, int dtype, const GraphArgs& graph, const SetsArgs& sets, const WeightArgs& weights,
         const SetsArgs& exclude, const FrontierArgs& frontier, const PartArgs& part, int64_t members_before,
         Pointer offsets, Pointer scratch) {
        int64_t members = 0;
        with_dtype(dtype, [&](auto zero) {
          using T = decltype(zero);
          members = tercet::cuda::follow_count<T>(
              queue_of(queue), graph_of(graph), sets_of(sets), weights_of<T>(weights), sets_of(exclude),
              frontier_of(frontier), part_of(part), members_before, at<int64_t>(offsets), at<unsigned char>(scratch));
        });
        return members;
      },
      release());
  m.def(
      "follow_fill",
      [](const QueueArgs& queue, int dtype, const GraphArgs& graph, const PartArgs& part, int64_t num_members,
         Pointer entities, Pointer weights, Pointer scratch) {
        with_dtype(dtype, [&](auto zero) {
          using T = decltype(zero);
          tercet::cuda::follow_fill<T>(queue_of(queue), graph_of(graph), part_of(part), num_members,
                                       at<int32_t>(entities), at<T>(weights), at<unsigned char>(scratch));
        });
      },
      release());
}

void bind_follow_backward(py::module_& m) {
  using release = tercet::cuda::Release;
  m.def(
      "follow_backward_workspace",
      [](const QueueArgs& queue, int dtype, const GraphArgs& graph, const PartArgs& part) {
        int64_t bytes = 0;
        with_dtype(dtype, [&](auto zero) {
          bytes =
              tercet::cuda::follow_backward_workspace<decltype(zero)>(queue_of(queue), graph_of(graph), part_of(part));
        });
        return bytes;
      },
      release());
  m.def(
      "follow_backward",
      [](const QueueArgs& queue, int dtype, const GraphArgs& graph, const SetsArgs& sets, const WeightArgs& weights,
         const SetsArgs& result, Pointer grad, const FrontierArgs& frontier, const PartArgs& part, Pointer grad_members,
         Pointer grad_relations, Pointer scratch) {
        with_dtype(dtype, [&](auto zero) {
          using T = decltype(zero);
          tercet::cuda::follow_backward<T>(queue_of(queue), graph_of(graph), sets_of(sets), weights_of<T>(weights),
                                           sets_of(result), at<T>(grad), frontier_of(frontier), part_of(part),
                                           at<T>(grad_members), at<T>(grad_relations), at<unsigned char>(scratch));
        });
      },
      release());
  m.def(
      "follow_backward_edges_workspace",
      [](const QueueArgs& queue, int dtype, int64_t num_edges, const PartArgs& part) {
        int64_t bytes = 0;
        with_dtype(dtype, [&](auto zero) {
          bytes =
              tercet::cuda::follow_backward_edges_workspace<decltype(zero)>(queue_of(queue), num_edges, part_of(part));
        });
        return bytes;
      },
      release());
  m.def(
      "follow_backward_edges",
      [](const QueueArgs& queue, int dtype, const GraphArgs& graph, int64_t num_edges, const SetsArgs& sets,
         const WeightArgs& weights, const SetsArgs& result, Pointer grad, const FrontierArgs& frontier,
         const PartArgs& part, Pointer grad_edges, Pointer scratch) {
        with_dtype(dtype, [&](auto zero) {
          using T = decltype(zero);
          tercet::cuda::follow_backward_edges<T>(
              queue_of(queue), graph_of(graph), num_edges, sets_of(sets), weights_of<T>(weights), sets_of(result),
              at<T>(grad), frontier_of(frontier), part_of(part), at<T>(grad_edges), at<unsigned char>(scratch));
        });
      },
      release());
}

void bind_merge(py::module_& m) {
  using release = tercet::cuda::Release;
  m.def(
      "merge_workspace",
      [](const QueueArgs& queue, const SidesArgs& sides, int how) {
        return tercet::cuda::merge_workspace(queue_of(queue), sides_of(sides), merge_of(how));
      },
      release());
  m.def(
      "merge_count",
      [](const QueueArgs& queue, const SidesArgs& sides, int how, Pointer offsets, Pointer scratch) {
        return tercet::cuda::merge_count(queue_of(queue), sides_of(sides), merge_of(how), at<int64_t>(offsets),
                                         at<unsigned char>(scratch));
      },
      release());
  m.def(
      "merge_fill",
      [](const QueueArgs& queue, const SidesArgs& sides, int how, Pointer entities, Pointer index_a, Pointer index_b,
         Pointer scratch) {
        tercet::cuda::merge_fill(queue_of(queue), sides_of(sides), merge_of(how), at<int32_t>(entities),
                                 at<int64_t>(index_a), at<int64_t>(index_b), at<unsigned char>(scratch));
      },
      release());
}

}  // namespace

PYBIND11_MODULE(_cuda, m, py::mod_gil_not_used()) {
  bind_follow(m);
  bind_follow_backward(m);
  bind_merge(m);
  bind_translation(m);
  bind_training(m);
  bind_gating(m);
}
