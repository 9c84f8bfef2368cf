// The Python face of gating: pointers arrive as integers, the interpreter lock is released.
#include "bind_gating.h"

#include <pybind11/stl.h>

#include <cstdint>
#include <tuple>

#include "core.h"
#include "gating.h"

namespace py = pybind11;

namespace {

using namespace tercet;

using Pointer = uintptr_t;
using Release = py::call_guard<py::gil_scoped_release>;
using NormArgs = std::tuple<Pointer, Pointer, double>;    // weight, bias, epsilon
using FramesArgs = std::tuple<Pointer, int64_t>;          // values, stride
using RangesArgs = std::tuple<Pointer, Pointer>;          // starts, ends
using ScratchArgs = std::tuple<Pointer, int64_t, int>;    // values, size of each thread's, num_threads
using SizesArgs = std::tuple<int64_t, int64_t, int64_t>;  // num_queries, num_heads, head_dim

template <class T>
T* at(Pointer pointer) {
  return reinterpret_cast<T*>(pointer);
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
  m.def(
      "arbiter_logits",
      [](int dtype, Pointer rows, const NormArgs& norm, Pointer weight, Pointer bias, Pointer logits, int64_t num_rows,
         int64_t dim, int num_threads) {
        with_dtype(dtype, [&](auto zero) {
          using T = decltype(zero);
          arbiter_logits<T>(at<T>(rows), norm_of(norm), at<T>(weight), at<T>(bias), at<T>(logits), num_rows, dim,
                            num_threads);
        });
      },
      Release());
  m.def(
      "kept_attention_scratch",
      [](const RangesArgs& ranges, int64_t num_queries, int64_t head_dim) {
        return kept_attention_scratch(ranges_of(ranges), num_queries, head_dim);
      },
      Release());
  m.def(
      "kept_attention",
      [](int dtype, const FramesArgs& queries, const FramesArgs& keys, const FramesArgs& values,
         const RangesArgs& ranges, Pointer out, const ScratchArgs& scratch, const SizesArgs& sizes, double scale) {
        with_dtype(dtype, [&](auto zero) {
          using T = decltype(zero);
          auto [space, size, num_threads] = scratch;
          auto [num_queries, num_heads, head_dim] = sizes;
          kept_attention<T>(frames_of<T>(queries), frames_of<T>(keys), frames_of<T>(values), ranges_of(ranges),
                            at<T>(out), at<T>(space), size, num_queries, num_heads, head_dim, scale, num_threads);
        });
      },
      Release());
}
