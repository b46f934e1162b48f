// What the Python module tells of the CUDA engine; a part of builds with CUDA only.
#pragma once

#include <torch/csrc/utils/pybind.h>

namespace mxd::ops {

void bind_cuda(pybind11::module_& m);
// What is special to the library of library_pass.h: defined with cuDNN's headers or without.
void bind_library(pybind11::module_& m);
void add_cuda_build_info(pybind11::dict& info);

}  // namespace mxd::ops
