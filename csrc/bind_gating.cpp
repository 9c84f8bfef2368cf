// The Python face of gating and streaming: pointers arrive as integers, the interpreter lock is released.
#include "bind_gating.h"

#include <pybind11/stl.h>

#include <cstdint>
#include <tuple>
#include <utility>
#include <vector>

#include "core.h"
#include "gating.h"
#include "streaming.h"

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

using LinearArgs = std::tuple<Pointer, Pointer>;                     // weight, bias
using ArbiterArgs = std::tuple<Pointer, Pointer, Pointer, Pointer>;  // own, acoustic, bias, threshold
using BlockArgs =
    std::tuple<NormArgs, ArbiterArgs, LinearArgs, LinearArgs, NormArgs, ArbiterArgs, LinearArgs, LinearArgs>;
using StateArgs = std::tuple<Pointer, Pointer, Pointer, Pointer>;  // keys, values, frames, positions
// num_streams, dim, num_heads, feed_forward_dim, acoustic_dim, window, norm_first, all_keys, activation
using StreamArgs = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, bool, bool, int>;

template <class T>
StreamLinear<T> linear_of(const LinearArgs& args) {
  return {at<T>(std::get<0>(args)), at<T>(std::get<1>(args))};
}

template <class T>
StreamArbiter<T> arbiter_of(const ArbiterArgs& args) {
  auto [own, acoustic, bias, threshold] = args;
  return {at<T>(own), at<T>(acoustic), at<T>(bias), at<T>(threshold)};
}

template <class T>
StreamBlock<T> block_of(const BlockArgs& args) {
  const auto& [norm1, arbiter1, projection, output, norm2, arbiter2, linear1, linear2] = args;
  return {norm_of(norm1),           norm_of(norm2),       arbiter_of<T>(arbiter1), arbiter_of<T>(arbiter2),
          linear_of<T>(projection), linear_of<T>(output), linear_of<T>(linear1),   linear_of<T>(linear2)};
}

StreamSizes sizes_of(int64_t num_blocks, const StreamArgs& args) {
  auto [streams, dim, heads, feed_forward, acoustic, window, norm_first, all_keys, activation] = args;
  return {num_blocks, streams, dim,        heads,    feed_forward,
          acoustic,   window,  norm_first, all_keys, static_cast<Activation>(activation)};
}

// A stack's parameters, read from Python once: six blocks are 150 numbers.
struct StreamBlocks {
  int dtype;
  std::vector<BlockArgs> blocks;
};

// Entries of dictionaries and what they are to stay: the same objects and, where these are tensors, at the same
// address.
class Entries {
 public:
  using Entry = std::tuple<py::dict, py::str, py::object>;  // dictionary, key, value

  Entries(std::vector<Entry> entries, const py::object& tensor)
      : entries_(std::move(entries)), data_ptr_(tensor.attr("data_ptr")) {
    for (const auto& [table, key, value] : entries_) {
      if (!py::isinstance(value, tensor)) continue;
      tensors_.push_back(value);
      addresses_.push_back(address(value));
    }
  }

  bool unchanged() const {
    for (const auto& [table, key, value] : entries_) {
      PyObject* now = PyDict_GetItemWithError(table.ptr(), key.ptr());
      if (now == nullptr && PyErr_Occurred()) throw py::error_already_set();
      if (now != value.ptr()) return false;
    }
    for (size_t i = 0; i < tensors_.size(); ++i) {
      if (address(tensors_[i]) != addresses_[i]) return false;
    }
    return true;
  }

 private:
  Pointer address(const py::object& tensor) const { return data_ptr_(tensor).cast<Pointer>(); }

  std::vector<Entry> entries_;
  std::vector<py::object> tensors_;
  std::vector<Pointer> addresses_;
  py::object data_ptr_;
};

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
  py::class_<Entries>(m, "Entries")
      .def(py::init<std::vector<Entries::Entry>, py::object>())
      .def("unchanged", &Entries::unchanged);
  py::class_<StreamBlocks>(m, "StreamBlocks").def(py::init<int, std::vector<BlockArgs>>());
  m.def(
      "stream_scratch",
      [](int64_t num_blocks, const StreamArgs& sizes) { return stream_scratch(sizes_of(num_blocks, sizes)); },
      Release());
  m.def(
      "stream_step",
      [](const StreamBlocks& stack, const StreamArgs& sizes, const StateArgs& state, Pointer frames, Pointer acoustic,
         Pointer gates, Pointer scratch, int num_threads) {
        with_dtype(stack.dtype, [&](auto zero) {
          using T = decltype(zero);
          std::vector<StreamBlock<T>> blocks;
          blocks.reserve(stack.blocks.size());
          for (const BlockArgs& block : stack.blocks) blocks.push_back(block_of<T>(block));
          auto [keys, values, kept, positions] = state;
          stream_step<T>(blocks.data(), sizes_of(static_cast<int64_t>(blocks.size()), sizes),
                         {at<T>(keys), at<T>(values), at<int64_t>(kept), at<int64_t>(positions)}, at<T>(frames),
                         at<T>(acoustic), at<uint8_t>(gates), at<T>(scratch), num_threads);
        });
      },
      Release());
}
