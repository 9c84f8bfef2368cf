// The Python face of translation, ranking and translation_training: pointers arrive as integers, the interpreter lock
// is released.
#include "bind_translation.h"

#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <tuple>

#include "ranking.h"
#include "translation.h"
#include "translation_training.h"

namespace py = pybind11;

namespace {

using namespace tercet;

using Pointer = uintptr_t;
using Release = py::call_guard<py::gil_scoped_release>;
using GraphArgs = std::tuple<Pointer, Pointer, Pointer, int64_t, int64_t>;  // row_offsets, relations, objects, sizes
using SetsArgs = std::tuple<Pointer, Pointer, int64_t>;                     // offsets, entities, batch
// entities, relations, anchors, kinds, target_offsets, targets, and ranges and entities of known and of candidates
using RankingArgs = std::array<Pointer, 10>;

template <class T>
T* at(Pointer pointer) {
  return reinterpret_cast<T*>(pointer);
}

using KnownArgs = std::tuple<GraphArgs, GraphArgs>;  // by head, by tail; null pointers for none
// triples, negatives, num_tails, entity_entries, relation_entries, num_batches, size, chunk_size, num_negatives
using BatchesArgs = std::tuple<Pointer, Pointer, Pointer, Pointer, Pointer, int64_t, int64_t, int64_t, int64_t>;
using TablesArgs = std::tuple<Pointer, Pointer, int64_t>;                   // entities, relations, dim
using GradientsArgs = std::tuple<Pointer, Pointer, Pointer, Pointer>;       // loss, queries, positives, negatives
using RuleArgs = std::tuple<int, double, double, double, double, int64_t>;  // rule, rate, betas, epsilon, step
using MomentsArgs = std::tuple<Pointer, Pointer>;

Norm norm_of(int norm) { return static_cast<Norm>(norm); }

Graph graph_of(const GraphArgs& args) {
  auto [row_offsets, relations, objects, num_entities, num_relations] = args;
  return {at<int64_t>(row_offsets), at<int32_t>(relations), at<int32_t>(objects), num_entities, num_relations};
}

Known known_of(const KnownArgs& args) { return {graph_of(std::get<0>(args)), graph_of(std::get<1>(args))}; }

Batches batches_of(const BatchesArgs& args) {
  auto [triples, negatives, num_tails, entity_entries, relation_entries, num_batches, size, chunk_size, num_negatives] =
      args;
  return {at<int32_t>(triples),
          at<int32_t>(negatives),
          at<int32_t>(num_tails),
          at<int64_t>(entity_entries),
          at<int64_t>(relation_entries),
          num_batches,
          size,
          chunk_size,
          num_negatives};
}

template <class T>
BatchGradients<T> gradients_of(const GradientsArgs& args) {
  auto [loss, queries, positives, negatives] = args;
  return {at<double>(loss), at<T>(queries), at<T>(positives), at<T>(negatives)};
}

template <class T>
Tables<T> tables_of(const TablesArgs& args) {
  auto [entities, relations, dim] = args;
  return {at<T>(entities), at<T>(relations), dim};
}

template <class T>
Update<T> update_of(const RuleArgs& args, const MomentsArgs& moments, bool unit_ball) {
  auto [rule, learning_rate, beta1, beta2, epsilon, step] = args;
  auto [first, second] = moments;
  return {static_cast<Rule>(rule), learning_rate, beta1, beta2, epsilon, step, at<T>(first), at<T>(second), unit_ball};
}

void bind_scores(py::module_& m) {
  m.def(
      "transe_score",
      [](int dtype, int norm, Pointer heads, Pointer relations, Pointer tails, int64_t batch, int64_t dim,
         Pointer scores, int num_threads) {
        with_dtype(dtype, [&](auto zero) {
          using T = decltype(zero);
          transe_score<T>(norm_of(norm), at<T>(heads), at<T>(relations), at<T>(tails), batch, dim, at<T>(scores),
                          num_threads);
        });
      },
      Release());
  m.def(
      "transe_score_backward",
      [](int dtype, int norm, Pointer grad, Pointer heads, Pointer relations, Pointer tails, int64_t batch, int64_t dim,
         Pointer to_query, Pointer to_tails, int num_threads) {
        with_dtype(dtype, [&](auto zero) {
          using T = decltype(zero);
          transe_score_backward<T>(norm_of(norm), at<T>(grad), at<T>(heads), at<T>(relations), at<T>(tails), batch, dim,
                                   at<T>(to_query), at<T>(to_tails), num_threads);
        });
      },
      Release());
  m.def("transe_scores_scratch", [](int dtype, int64_t dim) {
    return dtype == 0 ? transe_scores_scratch<float>(dim) : transe_scores_scratch<double>(dim);
  });
  m.def(
      "transe_scores",
      [](int dtype, int norm, Pointer queries, Pointer entities, int64_t num_queries, int64_t num_entities, int64_t dim,
         Pointer scores, Pointer scratch, int num_threads) {
        with_dtype(dtype, [&](auto zero) {
          using T = decltype(zero);
          transe_scores<T>(norm_of(norm), at<T>(queries), num_queries, at<T>(entities), num_entities, dim,
                           at<T>(scores), at<T>(scratch), num_threads);
        });
      },
      Release());
  m.def(
      "transe_scores_backward",
      [](int dtype, int norm, Pointer rows, Pointer partners, int64_t num_rows, int64_t num_partners, int64_t dim,
         const std::tuple<Pointer, int64_t, int64_t>& weights, Pointer out, int num_threads) {
        with_dtype(dtype, [&](auto zero) {
          using T = decltype(zero);
          auto [data, row_stride, partner_stride] = weights;
          transe_scores_backward<T>(norm_of(norm), at<T>(rows), num_rows, at<T>(partners), num_partners, dim,
                                    {at<T>(data), row_stride, partner_stride}, at<T>(out), num_threads);
        });
      },
      Release());
}

void bind_ranking(py::module_& m) {
  m.def(
      "known_ranges",
      [](const GraphArgs& graph, Pointer subjects, Pointer relations, int64_t count, Pointer found) {
        known_ranges(graph_of(graph), at<int32_t>(subjects), at<int32_t>(relations), count, at<int64_t>(found));
      },
      Release());
  m.def("rank_scratch_bytes", [](int dtype, int64_t num_entities, int64_t dim, int num_threads) {
    return dtype == 0 ? rank_scratch_bytes<float>(num_entities, dim, num_threads)
                      : rank_scratch_bytes<double>(num_entities, dim, num_threads);
  });
  m.def(
      "rank_counts",
      [](int dtype, int norm, const RankingArgs& args, int64_t num_entities, int64_t dim, int64_t num_queries,
         bool tails, const std::array<Pointer, 3>& counts, Pointer exact, Pointer scratch, int num_threads) {
        with_dtype(dtype, [&](auto zero) {
          using T = decltype(zero);
          const Ranking<T> ranking{at<T>(args[0]),
                                   at<T>(args[1]),
                                   num_entities,
                                   dim,
                                   at<int32_t>(args[2]),
                                   at<int32_t>(args[3]),
                                   at<int64_t>(args[4]),
                                   at<int32_t>(args[5]),
                                   num_queries,
                                   {at<int64_t>(args[6]), at<int32_t>(args[7])},
                                   {at<int64_t>(args[8]), at<int32_t>(args[9])},
                                   tails};
          rank_counts<T>(norm_of(norm), ranking, at<int64_t>(counts[0]), at<int64_t>(counts[1]), at<int64_t>(counts[2]),
                         at<double>(exact), at<unsigned char>(scratch), num_threads);
        });
      },
      Release());
  m.def("transe_top_scratch_bytes",
        [](int dtype, int64_t num_queries, int64_t num_entities, int64_t dim, int64_t k, int num_threads) {
          return dtype == 0 ? transe_top_scratch_bytes<float>(num_queries, num_entities, dim, k, num_threads)
                            : transe_top_scratch_bytes<double>(num_queries, num_entities, dim, k, num_threads);
        });
  m.def(
      "transe_top",
      [](int dtype, int norm, Pointer queries, Pointer entities, const std::array<int64_t, 3>& sizes, int64_t k,
         const SetsArgs& exclude, Pointer scores, Pointer found, Pointer scratch, int num_threads) {
        with_dtype(dtype, [&](auto zero) {
          using T = decltype(zero);
          auto [offsets, members, batch] = exclude;
          transe_top<T>(norm_of(norm), at<T>(queries), sizes[0], at<T>(entities), sizes[1], sizes[2], k,
                        {at<int64_t>(offsets), at<int32_t>(members), batch}, at<T>(scores), at<int64_t>(found),
                        at<unsigned char>(scratch), num_threads);
        });
      },
      Release());
}

void bind_training(py::module_& m) {
  m.def(
      "sample_batches",
      [](const BatchesArgs& batches, const std::tuple<uint64_t, int64_t, int64_t>& draws, Pointer tail_probability,
         const KnownArgs& known_args, Pointer scratch, int num_threads) {
        auto [key, first_position, num_entities] = draws;
        const Known known = known_of(known_args);
        const Sampling sampling{key, first_position, num_entities, at<double>(tail_probability),
                                known.by_head.row_offsets ? &known : nullptr};
        sample_batches(batches_of(batches), sampling, at<void>(scratch), num_threads);
      },
      Release());
  m.def("batch_gradients_bytes", [](int dtype, const BatchesArgs& batches, int64_t dim) {
    return dtype == 0 ? batch_gradients_bytes<float>(batches_of(batches), dim)
                      : batch_gradients_bytes<double>(batches_of(batches), dim);
  });
  m.def(
      "batch_gradients",
      [](int dtype, int norm, const TablesArgs& tables, const BatchesArgs& batches, int64_t batch,
         const std::tuple<int, double, double>& loss, const KnownArgs& known_args, const GradientsArgs& out,
         Pointer scratch, int num_threads) {
        auto [kind, margin, temperature] = loss;
        const Known known = known_of(known_args);
        with_dtype(dtype, [&, kind = kind, margin = margin, temperature = temperature](auto zero) {
          using T = decltype(zero);
          batch_gradients<T>(norm_of(norm), tables_of<T>(tables), batches_of(batches), batch,
                             {static_cast<Loss>(kind), margin, temperature},
                             known.by_head.row_offsets ? &known : nullptr, gradients_of<T>(out), at<void>(scratch),
                             num_threads);
        });
      },
      Release());
  m.def("apply_gradients_scratch", [](int dtype, int64_t dim) {
    return dtype == 0 ? apply_gradients_scratch<float>(dim) : apply_gradients_scratch<double>(dim);
  });
  m.def(
      "apply_gradients",
      [](int dtype, int norm, const TablesArgs& tables, const BatchesArgs& batches, int64_t batch,
         const GradientsArgs& gradients, const RuleArgs& rule, const MomentsArgs& of_entities,
         const MomentsArgs& of_relations, bool unit_ball, Pointer scratch, int num_threads) {
        with_dtype(dtype, [&](auto zero) {
          using T = decltype(zero);
          apply_gradients<T>(norm_of(norm), tables_of<T>(tables), batches_of(batches), batch,
                             gradients_of<T>(gradients), update_of<T>(rule, of_entities, unit_ball),
                             update_of<T>(rule, of_relations, false), at<T>(scratch), num_threads);
        });
      },
      Release());
}

}  // namespace

void bind_translation(py::module_& m) {
  bind_scores(m);
  bind_ranking(m);
  bind_training(m);
}
