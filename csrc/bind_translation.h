// Adds the functions of translation, ranking and translation_training to the module.
#pragma once

#include <pybind11/pybind11.h>

void bind_translation(pybind11::module_& m);
