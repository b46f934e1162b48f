// The shortest way from Python into the forward op, for the calls that are made most.
#pragma once

#include <torch/csrc/utils/pybind.h>

namespace mxd::ops {

// Adds `EagerCall` and `call_eagerly` to the Python module.
void bind_eager_call(pybind11::module_& m);

}  // namespace mxd::ops
