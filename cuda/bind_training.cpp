// The Python face of translation_training.
#include "bind.h"
#include "translation_training.h"

namespace py = pybind11;

namespace {

using tercet::Batches;
using tercet::BatchGradients;
using tercet::Rule;
using tercet::Tables;
using tercet::Update;
using tercet::with_dtype;
using tercet::cuda::at;
using tercet::cuda::norm_of;
using tercet::cuda::Pointer;
using tercet::cuda::queue_of;
using tercet::cuda::QueueArgs;
using tercet::cuda::Release;

using TablesArgs = std::tuple<Pointer, Pointer, int64_t>;  // entities, relations, dim
// triples, negatives, num_tails, entity_entries, relation_entries, num_batches, size, chunk_size, num_negatives
using BatchesArgs = std::tuple<Pointer, Pointer, Pointer, Pointer, Pointer, int64_t, int64_t, int64_t, int64_t>;
using GradientsArgs = std::tuple<Pointer, Pointer, Pointer, Pointer>;       // loss, queries, positives, negatives
using RuleArgs = std::tuple<int, double, double, double, double, int64_t>;  // rule, rate, betas, epsilon, step
using MomentsArgs = std::tuple<Pointer, Pointer>;

template <class T>
Tables<T> tables_of(const TablesArgs& args) {
  auto [entities, relations, dim] = args;
  return {at<T>(entities), at<T>(relations), dim};
}

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
Update<T> update_of(const RuleArgs& args, const MomentsArgs& moments, bool unit_ball) {
  auto [rule, learning_rate, beta1, beta2, epsilon, step] = args;
  if (rule < 0 || rule > 3) throw std::invalid_argument("rule must be 0 to 3 (sgd, row-wise adagrad, adam, adagrad)");
  auto [first, second] = moments;
  return {static_cast<Rule>(rule), learning_rate, beta1, beta2, epsilon, step, at<T>(first), at<T>(second), unit_ball};
}

}  // namespace

void bind_training(py::module_& m) {
  m.def(
      "own_scores",
      [](const QueueArgs& queue, int dtype, int norm, const TablesArgs& tables, const BatchesArgs& batches,
         int64_t batch, Pointer queries, Pointer scores) {
        with_dtype(dtype, [&](auto zero) {
          using T = decltype(zero);
          tercet::cuda::own_scores<T>(queue_of(queue), norm_of(norm), tables_of<T>(tables), batches_of(batches), batch,
                                      at<T>(queries), at<T>(scores));
        });
      },
      Release());
  m.def(
      "own_gradients",
      [](const QueueArgs& queue, int dtype, int norm, const TablesArgs& tables, const BatchesArgs& batches,
         int64_t batch, Pointer weights, Pointer positives) {
        with_dtype(dtype, [&](auto zero) {
          using T = decltype(zero);
          tercet::cuda::own_gradients<T>(queue_of(queue), norm_of(norm), tables_of<T>(tables), batches_of(batches),
                                         batch, at<T>(weights), at<T>(positives));
        });
      },
      Release());
  m.def(
      "apply_gradients",
      [](const QueueArgs& queue, int dtype, int norm, const TablesArgs& tables, const BatchesArgs& batches,
         int64_t batch, const GradientsArgs& gradients, const RuleArgs& rule, const MomentsArgs& of_entities,
         const MomentsArgs& of_relations, bool unit_ball) {
        with_dtype(dtype, [&](auto zero) {
          using T = decltype(zero);
          tercet::cuda::apply_gradients<T>(queue_of(queue), norm_of(norm), tables_of<T>(tables), batches_of(batches),
                                           batch, gradients_of<T>(gradients),
                                           update_of<T>(rule, of_entities, unit_ball),
                                           update_of<T>(rule, of_relations, false));
        });
      },
      Release());
}
