// A block of results of one phase: consecutive pixels in the order (batch, axis 0, 1, 2), cut
// into pieces that lie in one panel and are evenly spaced in memory.
#pragma once

#include <vector>

#include "core/tap_plan.h"
#include "core/tensor_view.h"
#include "cpu/panels.h"

namespace mxd::cpu {

// A box of results that share their taps: one region on each axis, times the batch.
struct Box {
  const AxisTaps* taps[kAxes];
  const AxisRegion* region[kAxes];
  int64_t batch;

  int64_t pixels() const {
    return batch * region[0]->results() * region[1]->results() * region[2]->results();
  }
  int64_t tap_count() const {
    return region[0]->taps() * region[1]->taps() * region[2]->taps();
  }
};

struct Piece {
  int64_t panel;
  int64_t offset;        // of the first pixel within its panel
  int64_t pixel;         // of the first pixel within the block
  int64_t length;        // pixels
  int64_t src;           // element offset of the first pixel's source at tap index 0 (virtual)
  int64_t dst;           // element offset of the first pixel's result
  int64_t at[kAxes];     // the first pixel's result index q on each axis
};

struct PixelBlock {
  PixelBlock(const Box& box, const TensorView& src, const TensorView& dst);

  // Makes `pieces` for pixels [begin, begin + panels.total()) of the box.
  void cut(int64_t begin, const Panels& panels);

  // The part [begin, end) of a piece whose source lies inside the tensor at this tap.
  Range inside(const Piece& piece, const int64_t (&tap)[kAxes]) const;

  int64_t src_tap_offset(const int64_t (&tap)[kAxes]) const;

  const Box box;
  std::vector<Piece> pieces;
  int64_t src_step;      // elements from one pixel of a piece to the next
  int64_t dst_step;
  bool all_inside;       // no tap of this box meets the border

 private:
  const TensorView src_;
  const TensorView dst_;
  int run_axis_;  // the innermost axis longer than 1; -1: the batch
};

}  // namespace mxd::cpu
