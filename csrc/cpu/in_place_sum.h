// The forward pass and the data gradient of tensors whose channels are contiguous on both sides:
// the source is read where it lies, the channels of a pixel broadcast one after the other, and the
// result's channels are the lanes. Neither is rearranged.
//
// Where products of pairs are so fast that packing takes longer, a source whose channels are not
// contiguous, or not of an even number, is copied first (channels_copy.h), and results whose pixels
// are contiguous are transposed on their way to memory.
//
// Results of a phase that the same taps reach make a box. At the borders, boxes have fewer taps: no
// zero stands for a missing pixel, so that values that are not finite need no care.
#pragma once

#include "cpu/tap_sum.h"

namespace mxd::cpu {

// Steps of a sum after which the next panel's turn comes: so many weights stay in the L2 cache.
// No run is longer.
constexpr int64_t kInPlaceSteps = 1024;

// The choice looks at the workspace where the source has to be copied.
bool in_place_fits(const Problem& problem, Pass pass, int64_t workspace_bytes);

void run_in_place_sum(const TapSum& sum, const Resources& resources);

}  // namespace mxd::cpu
