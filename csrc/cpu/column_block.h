// A block of columns of a ColumnGrid: its source, packed for the tiles, and what its columns are.
#pragma once

#include <vector>

#include "cpu/column_grid.h"
#include "cpu/panels.h"

namespace mxd::cpu {

// Columns that follow each other on one axis (or in the batch).
struct ColumnRun {
  int64_t column;  // of the first, within the block
  int64_t length;
  int64_t batch;
  int64_t at[kAxes];  // the first one's column on each axis
  int axis;           // -1: the batch
};

// A part of the channels and of the shifts: one step of the summation.
struct Chunk {
  Range channels;
  Range shifts;
  int64_t terms;  // channels in an element of a panel
  int64_t channel_count() const { return channels.end - channels.begin; }
  // Steps of a panel: at one shift, before those, and at all of them.
  int64_t depth() const { return ceil_div(channel_count(), terms); }
  int64_t first_step() const { return channels.begin / terms; }
  int64_t steps() const { return depth() * (shifts.end - shifts.begin); }
  bool first() const { return channels.begin == 0 && shifts.begin == 0; }
};

// A block also has
//
//   int64_t at(int64_t panel, const TapShift& shift, const Chunk& chunk) const
//     Where the source of a panel's columns lies in what pack() wrote, in elements of the
//     accumulate type: step after step, step() apart. -1: no column of the panel has a source.
//
//   bool packs_between() const
//     Whether pack() has written a panel's source, or zeros, at every innermost shift between two
//     at which at() finds some.
class ColumnBlock {
 public:
  virtual ~ColumnBlock() = default;

  // Packs the source of a chunk, from channel 0 of the group at `src` on.
  virtual void pack(const Kernels& kernels, const char* src, const Chunk& chunk,
                    char* dst) const = 0;
  // From one channel's source to the next, in elements.
  int64_t step() const { return step_; }
  const std::vector<ColumnRun>& runs() const { return runs_; }
  const Panels& panels() const { return panels_; }

 protected:
  ColumnBlock(const Panels& panels, int64_t step) : panels_(panels), step_(step) {}

  const Panels panels_;
  const int64_t step_;
  std::vector<ColumnRun> runs_;
};

}  // namespace mxd::cpu
