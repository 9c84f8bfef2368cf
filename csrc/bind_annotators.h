// Adds the functions of annotators to the module.
#pragma once

#include <pybind11/pybind11.h>

void bind_annotators(pybind11::module_& m);
