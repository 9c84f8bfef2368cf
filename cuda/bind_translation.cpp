// The Python face of translation and ranking.
#include <pybind11/stl.h>

#include <array>

#include "bind.h"
#include "ranking.h"
#include "translation.h"

namespace py = pybind11;

namespace {

using tercet::Ranking;
using tercet::with_dtype;
using tercet::cuda::at;
using tercet::cuda::norm_of;
using tercet::cuda::Pointer;
using tercet::cuda::queue_of;
using tercet::cuda::QueueArgs;
using tercet::cuda::Release;

using WeightArgs = std::tuple<Pointer, int64_t, int64_t>;  // data, strides of rows and partners
// entities, relations, anchors, kinds, target_offsets, targets, and ranges and entities of known and of candidates
using RankingArgs = std::array<Pointer, 10>;
using RankingSizes = std::array<int64_t, 4>;  // num_entities, dim, num_queries, num_targets

template <class T>
Ranking<T> ranking_of(const RankingArgs& args, const RankingSizes& sizes, bool tails) {
  return {at<T>(args[0]),
          at<T>(args[1]),
          sizes[0],
          sizes[1],
          at<int32_t>(args[2]),
          at<int32_t>(args[3]),
          at<int64_t>(args[4]),
          at<int32_t>(args[5]),
          sizes[2],
          {at<int64_t>(args[6]), at<int32_t>(args[7])},
          {at<int64_t>(args[8]), at<int32_t>(args[9])},
          tails};
}

void bind_score(py::module_& m) {
  m.def(
      "transe_score",
      [](const QueueArgs& queue, int dtype, int norm, Pointer heads, Pointer relations, Pointer tails, int64_t batch,
         int64_t dim, Pointer scores) {
        with_dtype(dtype, [&](auto zero) {
          using T = decltype(zero);
          tercet::cuda::transe_score<T>(queue_of(queue), norm_of(norm), at<T>(heads), at<T>(relations), at<T>(tails),
                                        batch, dim, at<T>(scores));
        });
      },
      Release());
  m.def(
      "transe_score_backward",
      [](const QueueArgs& queue, int dtype, int norm, Pointer grad, Pointer heads, Pointer relations, Pointer tails,
         int64_t batch, int64_t dim, Pointer to_query, Pointer to_tails) {
        with_dtype(dtype, [&](auto zero) {
          using T = decltype(zero);
          tercet::cuda::transe_score_backward<T>(queue_of(queue), norm_of(norm), at<T>(grad), at<T>(heads),
                                                 at<T>(relations), at<T>(tails), batch, dim, at<T>(to_query),
                                                 at<T>(to_tails));
        });
      },
      Release());
}

void bind_scores(py::module_& m) {
  m.def(
      "transe_scores",
      [](const QueueArgs& queue, int dtype, int norm, Pointer queries, Pointer entities, int64_t num_queries,
         int64_t num_entities, int64_t dim, Pointer scores) {
        with_dtype(dtype, [&](auto zero) {
          using T = decltype(zero);
          tercet::cuda::transe_scores<T>(queue_of(queue), norm_of(norm), at<T>(queries), num_queries, at<T>(entities),
                                         num_entities, dim, at<T>(scores));
        });
      },
      Release());
  m.def("transe_scores_backward_workspace", [](int dtype, int64_t num_rows, int64_t num_partners, int64_t dim) {
    int64_t bytes = 0;
    with_dtype(dtype, [&](auto zero) {
      bytes = tercet::cuda::transe_scores_backward_workspace<decltype(zero)>(num_rows, num_partners, dim);
    });
    return bytes;
  });
  m.def(
      "transe_scores_backward",
      [](const QueueArgs& queue, int dtype, int norm, Pointer rows, Pointer partners, int64_t num_rows,
         int64_t num_partners, int64_t dim, const WeightArgs& weights, Pointer out, Pointer scratch) {
        with_dtype(dtype, [&](auto zero) {
          using T = decltype(zero);
          auto [data, row_stride, partner_stride] = weights;
          tercet::cuda::transe_scores_backward<T>(
              queue_of(queue), norm_of(norm), at<T>(rows), num_rows, at<T>(partners), num_partners, dim,
              {at<T>(data), row_stride, partner_stride}, at<T>(out), at<unsigned char>(scratch));
        });
      },
      Release());
}

void bind_ranking(py::module_& m) {
  m.def("rank_workspace", [](int dtype, int64_t num_targets, int64_t dim, int64_t queries_at_once) {
    int64_t bytes = 0;
    with_dtype(dtype, [&](auto zero) {
      bytes = tercet::cuda::rank_workspace<decltype(zero)>(num_targets, dim, queries_at_once);
    });
    return bytes;
  });
  m.def(
      "rank_counts",
      [](const QueueArgs& queue, int dtype, int norm, const RankingArgs& args, const RankingSizes& sizes, bool tails,
         int64_t queries_at_once, const std::array<Pointer, 3>& counts, Pointer scratch) {
        with_dtype(dtype, [&](auto zero) {
          using T = decltype(zero);
          tercet::cuda::rank_counts<T>(queue_of(queue), norm_of(norm), ranking_of<T>(args, sizes, tails), sizes[3],
                                       queries_at_once, at<int64_t>(counts[0]), at<int64_t>(counts[1]),
                                       at<int64_t>(counts[2]), at<unsigned char>(scratch));
        });
      },
      Release());
}

}  // namespace

void bind_translation(py::module_& m) {
  bind_score(m);
  bind_scores(m);
  bind_ranking(m);
}
