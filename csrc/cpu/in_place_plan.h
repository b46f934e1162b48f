// How a sum whose source is read in place is cut: into boxes of results that share their taps,
// those into blocks of pixels, and the result's channels into panels.
#pragma once

#include <vector>

#include "cpu/tap_sum.h"

namespace mxd::cpu {

// Consecutive results of a phase of an axis that the same taps reach.
struct AxisPiece {
  int64_t phase;
  Range results;
  Range taps;  // in the order of the phase
};

// The results of one piece on each axis.
struct Box {
  int64_t piece[kAxes];
  int64_t pixels;  // over the batch
};

struct PixelBlock {
  size_t box;
  int64_t first;  // pixel of the box
  double place;   // in the box, from 0 to 1
};

// The steps of a sum, as the weights of a panel have them: part after part of the source's
// channels, in each tap after tap, the taps of a phase as they follow each other in the source.
class InPlacePlan {
 public:
  // `copy_bytes` of the workspace are taken already.
  InPlacePlan(const TapSum& sum, const Resources& resources, int64_t copy_bytes);

  const AxisPiece& piece(const Box& box, int a) const { return pieces[a][size_t(box.piece[a])]; }
  // The runs of a box, whose weights are counted in steps.
  std::vector<SourceRun> runs(const Box& box) const;

  int64_t panels() const { return (vectors + panel_vectors - 1) / panel_vectors; }
  // The first vector of a panel; they are as equal as possible.
  int64_t first_vector(int64_t panel) const { return vectors * panel / panels(); }
  int64_t taps() const { return int64_t(tap[0].size() * tap[1].size() * tap[2].size()); }
  int64_t steps() const { return taps() * sum.src_steps(); }
  // Of the source's channels, in steps.
  Range part(int64_t index) const {
    return {sum.src_steps() * index / parts, sum.src_steps() * (index + 1) / parts};
  }

  const TapSum& sum;
  int64_t lanes;                          // of a vector
  int64_t vectors;                        // of a group's channels
  int64_t panel_vectors;                  // of a panel, at most
  int64_t parts;                          // of the source's channels
  std::vector<int64_t> tap[kAxes];        // in the order of the steps, from the sum's first
  std::vector<int64_t> first_tap[kAxes];  // of each phase, in that order
  // The place among all taps, in the order of the steps, of each tap of the kernel, where these lie
  // evenly spaced in memory and every one is in a phase; else empty.
  std::vector<int64_t> places;
  std::vector<AxisPiece> pieces[kAxes];
  std::vector<Box> boxes;
  int64_t block_pixels;  // at most
  // Those at the same place in their boxes follow each other: phases share the source, and their
  // results lie next to each other.
  std::vector<PixelBlock> blocks;
  int64_t weight_bytes;  // of all panels of all groups
  bool resident;         // whether these are packed before the sums; else by who needs them
  // Results that are to be rounded are summed in scratch, for so many panels or, where one vector
  // holds a group's channels, groups at a time. Otherwise all at a time, where the results lie.
  bool rounds;
  bool transposes;  // these, since pixels are contiguous in the result
  int64_t slice_panels, slice_groups;
  int64_t sum_bytes;

 private:
  void find_places();
};

}  // namespace mxd::cpu
