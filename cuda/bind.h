// What the files of the Python face share.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <tuple>

#include "../csrc/translation.h"
#include "steps.h"

namespace tercet::cuda {

using Pointer = uintptr_t;
using QueueArgs = std::tuple<int, Pointer>;  // device, stream
using Release = pybind11::call_guard<pybind11::gil_scoped_release>;

template <class T>
T* at(Pointer pointer) {
  return reinterpret_cast<T*>(pointer);
}

inline Queue queue_of(const QueueArgs& args) { return {std::get<0>(args), std::get<1>(args)}; }

inline Norm norm_of(int norm) {
  if (norm < 0 || norm > 2) throw std::invalid_argument("norm must be 0 (l1), 1 (l2) or 2 (dot)");
  return static_cast<Norm>(norm);
}

}  // namespace tercet::cuda

void bind_gating(pybind11::module_& m);
void bind_training(pybind11::module_& m);
void bind_translation(pybind11::module_& m);
