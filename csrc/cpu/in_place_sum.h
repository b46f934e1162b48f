// The forward pass and the data gradient of tensors whose channels are contiguous on both sides:
// the source is read where it lies, the channels of a pixel broadcast one after the other, and the
// result's channels are the lanes. Neither is rearranged.
//
// Results of a phase that the same taps reach make a box. At the borders, boxes have fewer taps: no
// zero stands for a missing pixel, so that values that are not finite need no care.
#pragma once

#include "cpu/tap_sum.h"

namespace mxd::cpu {

// Steps of a sum after which the next panel's turn comes: so many weights stay in the L2 cache.
// No run is longer.
constexpr int64_t kInPlaceSteps = 1024;

bool in_place_fits(const Problem& problem, Pass pass);

void run_in_place_sum(const TapSum& sum, const Resources& resources);

}  // namespace mxd::cpu
