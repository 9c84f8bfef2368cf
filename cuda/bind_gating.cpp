// The Python face of gating.
#include <tuple>

#include "bind.h"
#include "gating.h"
#include "halves.h"

namespace py = pybind11;

namespace {

using tercet::Frames;
using tercet::KeyRanges;
using tercet::LayerNorm;
using tercet::cuda::at;
using tercet::cuda::Pointer;
using tercet::cuda::queue_of;
using tercet::cuda::QueueArgs;
using tercet::cuda::Release;

using NormArgs = std::tuple<Pointer, Pointer, double>;    // weight, bias, epsilon
using FramesArgs = std::tuple<Pointer, int64_t>;          // values, stride
using RangesArgs = std::tuple<Pointer, Pointer>;          // starts, ends
using SizesArgs = std::tuple<int64_t, int64_t, int64_t>;  // num_queries, num_heads, head_dim

// The codes of with_dtype, and those of halves.
template <class Body>
void with_any_dtype(int dtype, const Body& body) {
  if (dtype == 2) {
    body(tercet::cuda::BFloat16{});
  } else if (dtype == 3) {
    body(tercet::cuda::Float16{});
  } else if (dtype == 0 || dtype == 1) {
    tercet::with_dtype(dtype, body);
  } else {
    throw std::invalid_argument("dtype must be 0 (float32), 1 (float64), 2 (bfloat16) or 3 (float16)");
  }
}

LayerNorm norm_of(const NormArgs& args) {
  auto [weight, bias, epsilon] = args;
  return {at<void>(weight), at<void>(bias), epsilon};
}

template <class T>
Frames<T> frames_of(const FramesArgs& args) {
  return {at<T>(std::get<0>(args)), std::get<1>(args)};
}

KeyRanges ranges_of(const RangesArgs& args) { return {at<int64_t>(std::get<0>(args)), at<int64_t>(std::get<1>(args))}; }

}  // namespace

void bind_gating(py::module_& m) {
  m.attr("kept_attention_max_head_dim") = tercet::cuda::kMaxHeadDim;
  m.def(
      "arbiter_logits",
      [](const QueueArgs& queue, int dtype, Pointer rows, const NormArgs& norm, Pointer weight, Pointer bias,
         Pointer logits, int64_t num_rows, int64_t dim) {
        with_any_dtype(dtype, [&](auto zero) {
          using T = decltype(zero);
          tercet::cuda::arbiter_logits<T>(queue_of(queue), at<T>(rows), norm_of(norm), at<T>(weight), at<T>(bias),
                                          at<tercet::cuda::Wide<T>>(logits), num_rows, dim);
        });
      },
      Release());
  m.def(
      "kept_attention",
      [](const QueueArgs& queue, int dtype, const FramesArgs& queries, const FramesArgs& keys, const FramesArgs& values,
         const RangesArgs& ranges, Pointer out, const SizesArgs& sizes, double scale) {
        with_any_dtype(dtype, [&](auto zero) {
          using T = decltype(zero);
          auto [num_queries, num_heads, head_dim] = sizes;
          tercet::cuda::kept_attention<T>(queue_of(queue), frames_of<T>(queries), frames_of<T>(keys),
                                          frames_of<T>(values), ranges_of(ranges), at<T>(out), num_queries, num_heads,
                                          head_dim, scale);
        });
      },
      Release());
}
