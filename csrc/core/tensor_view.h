// Where a tensor's elements lie. NCHW, NHWC, expanded and sliced tensors differ only in strides.
#pragma once

#include <cstdint>

#include "core/geometry.h"

namespace mxd {

// data and out: element [n, channel, i0, i1, i2]. Strides are in elements and may be 0.
struct TensorView {
  void* data = nullptr;
  int64_t batch = 0;
  int64_t channel = 0;
  int64_t axis[kAxes] = {0, 0, 0};
};

// weight: element [c, f, t0, t1, t2] with c over all input channels, f over one group's filters.
struct WeightView {
  void* data = nullptr;
  int64_t in_channel = 0;
  int64_t out_channel = 0;
  int64_t tap[kAxes] = {0, 0, 0};
};

struct BiasView {
  const void* data = nullptr;  // null: no bias
  int64_t stride = 0;
};

}  // namespace mxd
