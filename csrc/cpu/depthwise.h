// Groups with so few channels that a product is hardly used twice (depthwise layers, bilinear
// upsampling): nothing is packed, rows are read and written where they lie, and each tap adds a
// scaled row to a row of results.
//
// Only pixels that exist are ever touched, so values that are not finite spread exactly.
#pragma once

#include "cpu/tap_sum.h"

namespace mxd::cpu {

// The forward pass and the data gradient.
void run_depthwise(const TapSum& sum, const Resources& resources);

void run_depthwise_weight(const Problem& problem, const Resources& resources);

}  // namespace mxd::cpu
