// The Python face of annotators: pointers arrive as integers, the interpreter lock is released.
#include "bind_annotators.h"

#include <pybind11/stl.h>

#include <cstdint>
#include <tuple>

#include "annotators.h"

namespace py = pybind11;

namespace {

using namespace tercet;

using Pointer = uintptr_t;
using Release = py::call_guard<py::gil_scoped_release>;
// offsets, rows, num_items, num_annotators, num_classes
using LabelsArgs = std::tuple<Pointer, Pointer, int64_t, int64_t, int64_t>;

template <class T>
T* at(Pointer pointer) {
  return reinterpret_cast<T*>(pointer);
}

Labels labels_of(const LabelsArgs& args) {
  auto [offsets, rows, num_items, num_annotators, num_classes] = args;
  return {at<int64_t>(offsets), at<int32_t>(rows), num_items, num_annotators, num_classes};
}

}  // namespace

void bind_annotators(py::module_& m) {
  m.def("annotators_workspace", [](const LabelsArgs& labels) { return workspace_size(labels_of(labels)); });
  m.def(
      "annotators_count",
      [](const LabelsArgs& labels, Pointer before, Pointer posteriors, Pointer workspace, int num_threads) {
        count_labels(labels_of(labels), at<double>(before), at<double>(posteriors), at<double>(workspace), num_threads);
      },
      Release());
  m.def(
      "annotators_maximise",
      [](const LabelsArgs& labels, Pointer counts, double smoothing, Pointer model, Pointer logarithms,
         int num_threads) {
        maximise(labels_of(labels), at<double>(counts), smoothing, at<double>(model), at<double>(logarithms),
                 num_threads);
      },
      Release());
  m.def(
      "annotators_expect",
      [](const LabelsArgs& labels, Pointer logarithms, Pointer evidence, Pointer before, Pointer posteriors,
         Pointer workspace, int num_threads) {
        return expect(labels_of(labels), at<double>(logarithms), at<double>(evidence), at<double>(before),
                      at<double>(posteriors), at<double>(workspace), num_threads);
      },
      Release());
}
