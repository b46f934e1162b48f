// A block of results whose source pixels are gathered tap by tap: consecutive results in the order
// (batch, axis 0, 1, 2), cut into runs that lie in one panel and are evenly spaced in memory.
//
// Wastes no lane however small the image, but copies a source pixel once for every tap.
#pragma once

#include <cstddef>
#include <vector>

#include "cpu/box.h"
#include "cpu/panels.h"

namespace mxd::cpu {

class PixelBlock {
 public:
  // Results [begin, begin + panels.total()) of the box.
  PixelBlock(const Box& box, const TensorView& src, const TensorView& dst, int64_t begin,
             const Panels& panels);

  const std::vector<Piece>& pieces() const { return pieces_; }
  int64_t dst_step() const { return dst_step_; }

  // Packs `channels` channels, from `src` on, of the pixels that the taps reach: panel after panel,
  // tap after tap within a panel; zeros where a tap falls outside.
  void pack(const Kernels& kernels, const char* src, int64_t channel_stride, int64_t channels,
            const std::vector<Tap>& taps, const Panels& panels, char* dst) const;

 private:
  struct Run {
    int64_t panel;
    int64_t offset;  // of the first pixel within its panel
    int64_t length;
    int64_t src;        // element offset of the first pixel's source at tap index 0 (virtual)
    int64_t at[kAxes];  // the first pixel's result index q on each axis
  };

  // The part of a run whose source lies inside the tensor at this tap.
  Range inside(const Run& run, const Tap& tap) const;
  bool covers(size_t first, size_t last, const Tap& tap) const;

  const Box& box_;
  const TensorView& src_;
  std::vector<Run> runs_;
  std::vector<Piece> pieces_;
  int run_axis_ = -1;  // the innermost axis longer than 1; -1: the batch
  int64_t src_step_;   // elements from one pixel of a run to the next
  int64_t dst_step_;
  bool all_inside_;
};

}  // namespace mxd::cpu
