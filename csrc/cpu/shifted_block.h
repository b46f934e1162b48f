// A block of results whose source is copied once, with its border, so that every tap is a mere
// offset into the copy.
//
// Results are numbered by their place in the copy: result (q0, q1, q2) of the block is at position
// (q0 * line1 + q1) * line2 + q2, where line2 is longer than the row by the reach of the taps. The
// positions in between belong to no result: they are computed and dropped. Where the source is
// read with a step (data gradient, step = stride), the copy holds one such grid for each residue
// of the source index that a tap asks for.
//
// Copies a source pixel once for all taps, but wastes the positions in between: for rows that are
// long beside the reach of the taps, or where there are few channels to spread the copying over.
#pragma once

#include <vector>

#include "cpu/box.h"
#include "cpu/kernels.h"

namespace mxd::cpu {

// The shape of the copy for a box of `size` results.
class ShiftedGrid {
 public:
  ShiftedGrid(const Box& box, const int64_t (&size)[kAxes], const Kernels& kernels);

  // The same taps for boxes of another size.
  void resize(const int64_t (&size)[kAxes]);

  // From the first result to the last.
  int64_t positions() const { return positions_; }
  // Elements of one channel of the copy, with room for a whole tile behind the last position.
  int64_t channel_elements() const { return channel_elements_; }
  int64_t tap_offset(const Tap& tap) const;
  // Grid points of an axis: its results and the reach of its taps.
  int64_t line(int axis) const { return axis_[axis].line; }
  int64_t position(int64_t q0, int64_t q1) const {
    return (q0 * axis_[1].line + q1) * axis_[2].line;
  }

  // Copies `channels` channels, from `src` on, for the results at `begin`, zeros outside.
  void pack(const Kernels& kernels, const TensorView& view, const char* src, int64_t channels,
            const int64_t (&begin)[kAxes], char* dst) const;

 private:
  struct GridAxis {
    const AxisTaps* taps;
    int64_t first_tap;
    int64_t least_shift;                        // of any tap, in grid steps
    int64_t reach;                              // from the least shift to the greatest
    int64_t line;                               // grid points
    std::vector<int64_t> residues;              // of the source index modulo src_step
    std::vector<int64_t> residue_of, shift_of;  // tap -> index into residues, shift - least_shift
  };

  GridAxis axis_[kAxes];
  int64_t tile_room_;  // elements behind the last position
  int64_t positions_;
  int64_t grid_elements_;
  int64_t channel_elements_;
};

}  // namespace mxd::cpu
