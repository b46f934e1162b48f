// What the Python module tells of the CUDA engine; a part of builds with CUDA only.
#pragma once

#include <torch/csrc/utils/pybind.h>

namespace mxd::ops {

void bind_cuda(pybind11::module_& m);
void add_cuda_build_info(pybind11::dict& info);

}  // namespace mxd::ops
