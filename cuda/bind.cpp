// The Python face of the CUDA kernels: pointers and the stream arrive as integers.
#include <pybind11/pybind11.h>

namespace py = pybind11;

PYBIND11_MODULE(_cuda, m, py::mod_gil_not_used()) { m.attr("built") = true; }
