// Boxes of results that share their taps, and the pieces that a block of one is stored by.
#pragma once

#include <cstdint>
#include <vector>

#include "core/tap_plan.h"
#include "core/tensor_view.h"

namespace mxd::cpu {

// A tap of a phase.
struct Tap {
  int64_t at[kAxes];  // its index j on each axis
  int64_t flat;       // its place in the kernel
  int64_t offset;     // of its weight, in elements
};

// One region on each axis, times the batch.
struct Box {
  const AxisTaps* taps[kAxes];
  AxisRegion region[kAxes];
  int64_t batch;

  int64_t results(int axis) const { return region[axis].results(); }
  int64_t pixels() const { return batch * results(0) * results(1) * results(2); }
  // Whether no tap of the box meets the border of the source for any result.
  bool all_inside() const {
    for (int a = 0; a < kAxes; ++a) {
      const Range whole{region[a].begin, region[a].end};
      for (const int64_t tap : {region[a].tap_begin, region[a].tap_end - 1}) {
        const Range valid = valid_results(*taps[a], tap, whole);
        if (valid.begin != whole.begin || valid.end != whole.end) return false;
      }
    }
    return true;
  }
};

// Evenly spaced results of a block, as `store` takes them.
struct Piece {
  int64_t pixel;  // of the first, within the block's accumulators
  int64_t length;
  int64_t dst;  // element offset of the first
};

}  // namespace mxd::cpu
