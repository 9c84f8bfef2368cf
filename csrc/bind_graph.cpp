// The Python face of graph_build and names: pointers arrive as integers, the interpreter lock is released.
#include "bind_graph.h"

#include <cstdint>
#include <tuple>

#include "graph_build.h"
#include "names.h"

namespace py = pybind11;

namespace {

using namespace tercet;

using Pointer = uintptr_t;
using ColumnArgs = std::tuple<Pointer, int64_t, bool>;                        // data, stride, int64?
using TriplesArgs = std::tuple<ColumnArgs, ColumnArgs, ColumnArgs, int64_t>;  // heads, relations, tails, count
using GraphArgs = std::tuple<Pointer, Pointer, Pointer, int64_t, int64_t>;    // row_offsets, relations, objects, sizes
using EdgesArgs = std::tuple<Pointer, Pointer, Pointer>;                      // relations, objects, edge ids or 0
using IdsArgs = std::tuple<Pointer, Pointer, Pointer>;                        // heads, relations, tails
using ScratchArgs = std::tuple<int64_t, int, Pointer>;                        // largest_row, num_workers, scratch
// blob, offsets, slots, blob_capacity, names_capacity, num_slots, size
using NamesArgs = std::tuple<Pointer, Pointer, Pointer, int64_t, int64_t, int64_t, Pointer>;

template <class T>
T* at(Pointer pointer) {
  return reinterpret_cast<T*>(pointer);
}

Column column_of(const ColumnArgs& args) {
  auto [data, stride, wide] = args;
  return {at<void>(data), stride, wide};
}

Triples triples_of(const TriplesArgs& args) {
  const auto& [heads, relations, tails, count] = args;
  return {column_of(heads), column_of(relations), column_of(tails), count};
}

Graph graph_of(const GraphArgs& args) {
  auto [row_offsets, relations, objects, num_entities, num_relations] = args;
  return {at<int64_t>(row_offsets), at<int32_t>(relations), at<int32_t>(objects), num_entities, num_relations};
}

NameTable names_of(const NamesArgs& args) {
  auto [blob, offsets, slots, blob_capacity, names_capacity, num_slots, size] = args;
  return {at<uint8_t>(blob), at<int64_t>(offsets), at<int64_t>(slots), blob_capacity, names_capacity,
          num_slots,         at<int64_t>(size)};
}

void bind_build(py::module_& m) {
  using Guard = py::call_guard<py::gil_scoped_release>;
  m.def(
      "graph_check_triples",
      [](const TriplesArgs& triples, int64_t num_entities, int64_t num_relations, int num_threads) {
        const Place place = check_triples(triples_of(triples), num_entities, num_relations, num_threads);
        return std::make_tuple(place.code, place.position);
      },
      Guard());
  m.def(
      "graph_check",
      [](const GraphArgs& graph, int64_t num_edges, bool with_inverses, int num_threads) {
        const Place place = check_graph(graph_of(graph), num_edges, with_inverses, num_threads);
        return std::make_tuple(place.code, place.position);
      },
      Guard());
  m.def(
      "graph_build_offsets",
      [](const TriplesArgs& triples, int64_t num_entities, Pointer row_offsets, int num_threads) {
        return build_offsets(triples_of(triples), num_entities, at<int64_t>(row_offsets), num_threads);
      },
      Guard());
  m.def(
      "graph_build_edges",
      [](const TriplesArgs& triples, int64_t num_entities, int64_t num_relations, Pointer row_offsets,
         const EdgesArgs& out, const ScratchArgs& scratch, int num_threads) {
        auto [relations, objects, ids] = out;
        auto [largest_row, num_workers, memory] = scratch;
        return build_edges(triples_of(triples), num_entities, num_relations, at<int64_t>(row_offsets),
                           at<int32_t>(relations), at<int32_t>(objects), at<int64_t>(ids), largest_row, num_workers,
                           at<void>(memory), num_threads);
      },
      Guard());
}

void bind_derived(py::module_& m) {
  using Guard = py::call_guard<py::gil_scoped_release>;
  m.def(
      "graph_inverse_offsets",
      [](const GraphArgs& graph, int64_t num_edges, Pointer out_offsets, int num_threads) {
        return inverse_offsets(graph_of(graph), num_edges, at<int64_t>(out_offsets), num_threads);
      },
      Guard());
  m.def(
      "graph_inverse_edges",
      [](const GraphArgs& graph, Pointer edge_ids, Pointer out_offsets, const EdgesArgs& out,
         const ScratchArgs& scratch, int num_threads) {
        auto [relations, objects, ids] = out;
        auto [largest_row, num_workers, memory] = scratch;
        inverse_edges(graph_of(graph), at<int64_t>(edge_ids), at<int64_t>(out_offsets), at<int32_t>(relations),
                      at<int32_t>(objects), at<int64_t>(ids), largest_row, num_workers, at<void>(memory), num_threads);
      },
      Guard());
  m.def(
      "graph_incoming",
      [](const GraphArgs& graph, int64_t num_edges, Pointer offsets, Pointer subjects, Pointer relations, Pointer edges,
         int num_threads) {
        incoming_edges(graph_of(graph), num_edges, at<int64_t>(offsets), at<int32_t>(subjects), at<int32_t>(relations),
                       at<int64_t>(edges), num_threads);
      },
      Guard());
  m.def(
      "graph_merge_offsets",
      [](const GraphArgs& graph, const GraphArgs& added, const GraphArgs& removed, Pointer out_offsets,
         int num_threads) {
        merge_offsets(graph_of(graph), graph_of(added), graph_of(removed), at<int64_t>(out_offsets), num_threads);
      },
      Guard());
  m.def(
      "graph_merge_edges",
      [](const GraphArgs& graph, Pointer edge_ids, const GraphArgs& added, Pointer added_ids, const GraphArgs& removed,
         Pointer out_offsets, const EdgesArgs& out, int num_threads) {
        auto [relations, objects, ids] = out;
        merge_edges(graph_of(graph), at<int64_t>(edge_ids), graph_of(added), at<int64_t>(added_ids), graph_of(removed),
                    at<int64_t>(out_offsets), at<int32_t>(relations), at<int32_t>(objects), at<int64_t>(ids),
                    num_threads);
      },
      Guard());
}

void bind_names(py::module_& m) {
  using Guard = py::call_guard<py::gil_scoped_release>;
  m.def(
      "names_parse_lines",
      [](Pointer text, int64_t size, bool last, int separator, const NamesArgs& entities, const NamesArgs& relations,
         const IdsArgs& out, int64_t capacity, Pointer state) {
        auto [heads, relation_ids, tails] = out;
        return static_cast<int64_t>(parse_lines(
            at<uint8_t>(text), size, last, static_cast<uint8_t>(separator), names_of(entities), names_of(relations),
            at<int32_t>(heads), at<int32_t>(relation_ids), at<int32_t>(tails), capacity, *at<TextState>(state)));
      },
      Guard());
  m.def(
      "names_intern",
      [](Pointer blob, Pointer offsets, int64_t count, const NamesArgs& table, Pointer ids, Pointer state) {
        return static_cast<int64_t>(intern_names(at<uint8_t>(blob), at<int64_t>(offsets), count, names_of(table),
                                                 at<int32_t>(ids), *at<TextState>(state)));
      },
      Guard());
  m.def(
      "names_rehash",
      [](Pointer old_slots, int64_t num_old, Pointer slots, int64_t num_slots) {
        rehash(at<int64_t>(old_slots), num_old, at<int64_t>(slots), num_slots);
      },
      Guard());
  m.def(
      "names_build",
      [](const NamesArgs& table, Pointer next) { return build_names(names_of(table), at<int32_t>(next)); }, Guard());
  m.def(
      "names_find",
      [](const NamesArgs& table, Pointer name, int64_t length) {
        return find_name(names_of(table), at<uint8_t>(name), length);
      },
      Guard());
  m.def(
      "names_check",
      [](const NamesArgs& table, int64_t blob_size, Pointer next) {
        const NamesPlace place = check_names(names_of(table), blob_size, at<int32_t>(next));
        return std::make_tuple(place.code, place.position);
      },
      Guard());
}

}  // namespace

void bind_graph(py::module_& m) {
  bind_build(m);
  bind_derived(m);
  bind_names(m);
}
