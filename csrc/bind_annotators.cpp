// The Python face of annotators: pointers arrive as integers, the interpreter lock is released.
#include "bind_annotators.h"

#include <cstdint>
#include <tuple>

#include "annotators.h"

#include <pybind11/stl.h>

namespace py = pybind11;

namespace {

using namespace tercet;

using Pointer = uintptr_t;
using Release = py::call_guard<py::gil_scoped_release>;
// offsets, annotators, labels, num_items, num_annotators, num_classes
using LabelsArgs = std::tuple<Pointer, Pointer, Pointer, int64_t, int64_t, int64_t>;

template <class T>
T* at(Pointer pointer) {
  return reinterpret_cast<T*>(pointer);
}

Labels labels_of(const LabelsArgs& args) {
  auto [offsets, annotators, labels, num_items, num_annotators, num_classes] = args;
  return {at<int64_t>(offsets), at<int32_t>(annotators), at<int32_t>(labels), num_items, num_annotators, num_classes};
}

}  // namespace

void bind_annotators(py::module_& m) {
  m.attr("annotators_shares") = kShares;
  m.def(
      "annotators_vote",
      [](const LabelsArgs& labels, Pointer posteriors, int num_threads) {
        vote(labels_of(labels), at<double>(posteriors), num_threads);
      },
      Release());
  m.def(
      "annotators_count",
      [](const LabelsArgs& labels, Pointer posteriors, Pointer shares, int num_threads) {
        count_errors(labels_of(labels), at<double>(posteriors), at<double>(shares), num_threads);
      },
      Release());
  m.def(
      "annotators_maximise",
      [](Pointer counts, double smoothing, Pointer log_confusion, Pointer log_prior, int64_t num_annotators,
         int64_t num_classes, int num_threads) {
        maximise(at<double>(counts), smoothing, at<double>(log_confusion), at<double>(log_prior), num_annotators,
                 num_classes, num_threads);
      },
      Release());
  m.def(
      "annotators_expect",
      [](const LabelsArgs& labels, Pointer log_confusion, Pointer log_prior, Pointer posteriors, Pointer shares,
         int num_threads) {
        return expect(labels_of(labels), at<double>(log_confusion), at<double>(log_prior), at<double>(posteriors),
                      at<double>(shares), num_threads);
      },
      Release());
}
