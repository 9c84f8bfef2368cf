// Adds the functions of gating and streaming to the module.
#pragma once

#include <pybind11/pybind11.h>

void bind_gating(pybind11::module_& m);
