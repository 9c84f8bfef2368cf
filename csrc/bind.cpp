// The Python face of the CPU kernels: pointers arrive as integers, the interpreter lock is released, nothing else
// happens.
#include <pybind11/pybind11.h>

#include <cstdint>
#include <tuple>

#include "bind_annotators.h"
#include "bind_gating.h"
#include "bind_graph.h"
#include "bind_translation.h"
#include "entity_sets.h"
#include "traversal.h"

namespace py = pybind11;

namespace {

using tercet::FollowOutput;
using tercet::FollowScratch;
using tercet::FollowWeights;
using tercet::Graph;
using tercet::Incoming;
using tercet::Sets;
using tercet::with_dtype;

using Pointer = uintptr_t;
using GraphArgs = std::tuple<Pointer, Pointer, Pointer, int64_t, int64_t>;  // row_offsets, relations, objects, sizes
using IncomingArgs = std::tuple<Pointer, Pointer, Pointer, Pointer>;        // offsets, subjects, relations, edges
using SetsArgs = std::tuple<Pointer, Pointer, int64_t>;                     // offsets, entities, batch
using WeightArgs = std::tuple<Pointer, Pointer, Pointer>;                   // of members, relations, edges
using OutputArgs = std::tuple<Pointer, Pointer, Pointer, Pointer>;          // bounds, entities, weights, offsets
using ScratchArgs = std::tuple<Pointer, Pointer, int>;                      // accumulators, sorting, num_workers

template <class T>
T* at(Pointer pointer) {
  return reinterpret_cast<T*>(pointer);
}

Graph graph_of(const GraphArgs& args) {
  auto [row_offsets, relations, objects, num_entities, num_relations] = args;
  return {at<int64_t>(row_offsets), at<int32_t>(relations), at<int32_t>(objects), num_entities, num_relations};
}

Incoming incoming_of(const IncomingArgs& args) {
  auto [offsets, subjects, relations, edges] = args;
  return {at<int64_t>(offsets), at<int32_t>(subjects), at<int32_t>(relations), at<int64_t>(edges)};
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

template <class T>
FollowOutput<T> output_of(const OutputArgs& args) {
  auto [bounds, entities, weights, offsets] = args;
  return {at<int64_t>(bounds), at<int32_t>(entities), at<T>(weights), at<int64_t>(offsets)};
}

FollowScratch scratch_of(const ScratchArgs& args) {
  auto [accumulators, sorting, num_workers] = args;
  return {at<unsigned char>(accumulators), at<unsigned char>(sorting), num_workers};
}

void bind_traversal(py::module_& m) {
  using release = py::call_guard<py::gil_scoped_release>;
  m.def("follow_accumulator_bytes", &tercet::follow_accumulator_bytes);
  m.def("follow_sorting_bytes", &tercet::follow_sorting_bytes);
  m.def("follow_pull_bytes", &tercet::follow_pull_bytes);
  m.def(
      "follow_scratch_clean",
      [](int dtype, Pointer accumulators, int64_t num_entities, int num_workers) {
        with_dtype(dtype, [&](auto zero) {
          tercet::follow_scratch_clean<decltype(zero)>(at<unsigned char>(accumulators), num_entities, num_workers);
        });
      },
      release());
  m.def(
      "follow_bounds",
      [](const GraphArgs& graph, const SetsArgs& sets, Pointer bounds) {
        int64_t max_edges = 0, total_edges = 0;
        tercet::follow_bounds(graph_of(graph), sets_of(sets), at<int64_t>(bounds), &max_edges, &total_edges);
        return std::tuple(max_edges, total_edges, at<int64_t>(bounds)[std::get<2>(sets)]);
      },
      release());
  m.def(
      "follow_push",
      [](int dtype, const GraphArgs& graph, const SetsArgs& sets, const WeightArgs& weights, const SetsArgs& exclude,
         int64_t first, int64_t last, int64_t max_edges, const OutputArgs& output, const ScratchArgs& scratch) {
        int64_t members = 0;
        with_dtype(dtype, [&](auto zero) {
          using T = decltype(zero);
          members = tercet::follow_push<T>(graph_of(graph), sets_of(sets), weights_of<T>(weights), sets_of(exclude),
                                           first, last, max_edges, output_of<T>(output), scratch_of(scratch));
        });
        return members;
      },
      release());
  m.def(
      "follow_pull",
      [](int dtype, const GraphArgs& graph, const IncomingArgs& incoming, const SetsArgs& sets,
         const WeightArgs& weights, const SetsArgs& exclude, int64_t first, int64_t last, int64_t lanes,
         const OutputArgs& output, Pointer scratch, int num_threads) {
        int64_t members = 0;
        with_dtype(dtype, [&](auto zero) {
          using T = decltype(zero);
          members = tercet::follow_pull<T>(graph_of(graph), incoming_of(incoming), sets_of(sets),
                                           weights_of<T>(weights), sets_of(exclude), first, last, lanes,
                                           output_of<T>(output), at<unsigned char>(scratch), num_threads);
        });
        return members;
      },
      release());
  m.def(
      "follow_compact",
      [](int dtype, const OutputArgs& output, int64_t first, int64_t last, Pointer entities, Pointer weights,
         int num_threads) {
        with_dtype(dtype, [&](auto zero) {
          using T = decltype(zero);
          tercet::follow_compact<T>(output_of<T>(output), first, last, at<int32_t>(entities), at<T>(weights),
                                    num_threads);
        });
      },
      release());
  m.def(
      "follow_backward",
      [](int dtype, const GraphArgs& graph, const SetsArgs& sets, const WeightArgs& weights, const SetsArgs& result,
         Pointer grad, Pointer grad_members, Pointer grad_relations, const ScratchArgs& scratch) {
        with_dtype(dtype, [&](auto zero) {
          using T = decltype(zero);
          tercet::follow_backward<T>(graph_of(graph), sets_of(sets), weights_of<T>(weights), sets_of(result),
                                     at<T>(grad), at<T>(grad_members), at<T>(grad_relations), scratch_of(scratch));
        });
      },
      release());
  m.def(
      "follow_backward_edges",
      [](int dtype, const GraphArgs& graph, const SetsArgs& sets, const WeightArgs& weights, const SetsArgs& result,
         Pointer grad, Pointer grad_edges, const ScratchArgs& scratch) {
        with_dtype(dtype, [&](auto zero) {
          using T = decltype(zero);
          tercet::follow_backward_edges<T>(graph_of(graph), sets_of(sets), weights_of<T>(weights), sets_of(result),
                                           at<T>(grad), at<T>(grad_edges), scratch_of(scratch));
        });
      },
      release());
}

void bind_entity_sets(py::module_& m) {
  using release = py::call_guard<py::gil_scoped_release>;
  m.def(
      "merge_count",
      [](const SetsArgs& a, const SetsArgs& b, int how, Pointer offsets, int num_threads) {
        return tercet::merge_count(sets_of(a), sets_of(b), static_cast<tercet::Merge>(how), at<int64_t>(offsets),
                                   num_threads);
      },
      release());
  m.def(
      "merge_fill",
      [](const SetsArgs& a, const SetsArgs& b, int how, Pointer offsets, Pointer entities, Pointer index_a,
         Pointer index_b, int num_threads) {
        tercet::merge_fill(sets_of(a), sets_of(b), static_cast<tercet::Merge>(how), at<int64_t>(offsets),
                           at<int32_t>(entities), at<int64_t>(index_a), at<int64_t>(index_b), num_threads);
      },
      release());
  m.def(
      "top_fill",
      [](int dtype, Pointer weights, Pointer offsets, int64_t batch, Pointer offsets_out, Pointer order, Pointer index,
         int num_threads) {
        with_dtype(dtype, [&](auto zero) {
          tercet::top_fill<decltype(zero)>(at<decltype(zero)>(weights), at<int64_t>(offsets), batch,
                                           at<int64_t>(offsets_out), at<int64_t>(order), at<int64_t>(index),
                                           num_threads);
        });
      },
      release());
}

}  // namespace

PYBIND11_MODULE(TERCET_MODULE, m, py::mod_gil_not_used()) {
#ifdef _OPENMP
  m.attr("openmp") = _OPENMP;
#else
  m.attr("openmp") = 0;
#endif
  bind_traversal(m);
  bind_entity_sets(m);
  bind_graph(m);
  bind_translation(m);
  bind_gating(m);
  bind_annotators(m);
}
