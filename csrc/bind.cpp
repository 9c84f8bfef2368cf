// The Python face of the CPU kernels: pointers arrive as integers, the interpreter lock is released, nothing else happens.
#include <pybind11/pybind11.h>

#include <cstdint>

#include "entity_sets.h"
#include "graph_build.h"
#include "names.h"
#include "traversal.h"

namespace py = pybind11;

PYBIND11_MODULE(TERCET_MODULE, m, py::mod_gil_not_used()) {
#ifdef _OPENMP
  m.attr("openmp") = _OPENMP;
#else
  m.attr("openmp") = 0;
#endif
}
