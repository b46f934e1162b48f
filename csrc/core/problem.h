// What is to be computed: the pass, the sizes, and where the operands lie.
#pragma once

#include "core/geometry.h"
#include "core/tensor_view.h"

namespace mxd {

// Which of data, weight and out is the result.
enum class Pass { kForward, kDataGradient, kWeightGradient };

struct Problem {
  Geometry geometry;
  DType dtype = DType::kFloat32;
  TensorView data;    // [batch, groups * in_channels, in]
  TensorView out;     // [batch, groups * out_channels, out]
  WeightView weight;  // [groups * in_channels, out_channels, kernel]
  BiasView bias;      // [groups * out_channels]; forward only
};

}  // namespace mxd
