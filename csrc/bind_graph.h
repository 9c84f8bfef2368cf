// Adds the functions of graph_build and names to the module.
#pragma once

#include <pybind11/pybind11.h>

void bind_graph(pybind11::module_& m);
