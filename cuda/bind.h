// What the files of the Python face share.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <tuple>

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

}  // namespace tercet::cuda

void bind_translation(pybind11::module_& m);
