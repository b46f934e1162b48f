// Groups with so few channels that a product is hardly used twice (depthwise layers, bilinear
// upsampling): no panels; tensors stream through registers, contiguous vectors at a time.
//
//   rows      lanes along a row of results of one channel (depthwise_plan.h tells how);
//   channels  lanes along channels that are contiguous, one channel a group;
//   groups    lanes along the contiguous channels of several groups.
//
// Values that are not finite spread as in the direct sum, exactly.
#pragma once

#include "cpu/tap_sum.h"

namespace mxd::cpu {

// Whether the method can compute the pass: a kernel of very many taps does not fit its scratch.
bool depthwise_fits(const Problem& problem, Pass pass, Lanes lanes);

// The forward pass and the data gradient; sum.lanes says which way.
void run_depthwise(const TapSum& sum, const Resources& resources);

void run_depthwise_weight(const Problem& problem, Lanes lanes, const Resources& resources);

}  // namespace mxd::cpu
