// dst[n, m, q] = sum over taps and src channels of src[n, k, s(q, tap)] * w[k, m, tap]  (+ bias):
// the forward pass and the data gradient, which differ only in the plan and in the roles.
#pragma once

#include <vector>

#include "core/tap_plan.h"
#include "cpu/engine.h"

namespace mxd::cpu {

struct TapSum {
  const Kernels* kernels;
  const Kernels* products;  // the same, or those that multiply pairs
  Lanes lanes;
  int64_t batch, groups;
  int64_t src_channels, dst_channels;  // per group
  TensorView src, dst;
  int64_t src_group;   // from the source of a group to the next
  const char* weight;  // of the first tap that any phase reaches
  int64_t weight_group, weight_src, weight_dst, weight_tap[kAxes];  // strides in elements
  int64_t kernel[kAxes];  // taps on each axis from the first to the last that a phase reaches
  int64_t first_tap[kAxes];
  BiasView bias;
  std::vector<AxisTaps> axes[kAxes];  // phases of each axis; their products are the work
  int64_t dst_size[kAxes];

  int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
  // Steps of a panel for all channels of a group at one tap.
  int64_t src_steps() const { return (src_channels + products->terms - 1) / products->terms; }
};

// Whether every result is in a phase; the others hold the bias alone.
bool phases_cover_results(const TapSum& sum);

// Forward: src = data, dst = out. Data gradient: src = out, dst = data, no bias.
TapSum forward_tap_sum(const Problem& problem, Lanes lanes);
TapSum data_gradient_tap_sum(const Problem& problem, Lanes lanes);

void run_tap_sum(const TapSum& sum, const Resources& resources);

}  // namespace mxd::cpu
