// Results that no tap reaches.
#pragma once

#include "core/tensor_view.h"
#include "cpu/kernels.h"

namespace mxd::cpu {

// Writes the bias of each channel, or zero, to the whole of a tensor.
void fill_with_bias(const Kernels& kernels, const TensorView& dst, const BiasView& bias,
                    int64_t batch, int64_t channels, const int64_t (&size)[kAxes]);

// Writes zero to a weight gradient that no product reaches.
void fill_weight_with_zero(const Kernels& kernels, const WeightView& weight, int64_t in_channels,
                           int64_t out_channels, const int64_t (&kernel)[kAxes]);

}  // namespace mxd::cpu
