// The grid of columns that all phases of a tap sum share, so that its source is packed once.
//
// A column stands for one result of every phase. On each axis, result q of phase p lies in column
// q + first_column(p), and tap j of that phase meets column u at the source index
//
//     shifts[tap_shifts(p)[j]] + u * src_step.
//
// There are far fewer distinct shifts than taps: two phases of a 4-tap kernel with stride 2 have
// four taps, but read the source at three shifts when their results are aligned, and at two when
// their sources are. The second alignment gives the phases equal lists of shifts (which lets them
// share the rows of a product) at the price of columns that only some phases have.
#pragma once

#include <cstddef>
#include <vector>

#include "cpu/tap_sum.h"

namespace mxd::cpu {

struct GridPhase {
  const AxisTaps* taps;
  int64_t first_column;  // of the phase's result 0
  int64_t first_shift;   // of its tap 0, in GridAxis::tap_shifts

  // What would be the result in column 0: column u holds result dst_at(u) of the tensor.
  int64_t dst_at(int64_t column) const {
    return taps->dst_begin + (column - first_column) * taps->dst_step;
  }
  bool has(int64_t column) const {
    return column >= first_column && column < first_column + taps->dst_count;
  }
};

// The phases of an axis with equal lists of shifts.
struct PhaseGroup {
  std::vector<int32_t> phases;  // indices into GridAxis::phases
  const int32_t* shifts;        // of each tap
  int64_t taps;
};

struct GridAxis {
  GridAxis(const std::vector<AxisTaps>& phases, bool align_sources);

  std::vector<GridPhase> phases;  // in the order of dst_at(0)
  std::vector<int64_t> shifts;    // in the order of the taps
  std::vector<Range> valid;       // of each shift: the columns whose source exists
  std::vector<int32_t> tap_shifts;
  std::vector<PhaseGroup> groups;
  int64_t columns = 0;
  int64_t src_step = 1;
  int64_t src_size = 0;
};

// The shifts at which a tap reads the source.
struct TapShift {
  int64_t outer;  // of axes 0 and 1 together
  int64_t inner;  // of axis 2
  int64_t flat;   // of all axes together, the innermost fastest
};

// A box of columns. Its columns follow each other along the innermost axis longer than 1 or, where
// `batch_inner`, along the batch.
struct Section {
  Range axis[kAxes];
  int64_t first = 0;  // its first column, counted through all sections
  int64_t columns = 0;
  bool batch_inner = false;
  int run_axis = -1;  // -1: the batch

  int64_t extent(int a) const { return axis[a].end - axis[a].begin; }
};

class ColumnGrid {
 public:
  // `exact`: every section has, at every shift, a source for all of its columns or for none.
  // Otherwise only small grids are cut so, where the zeros multiplied at the border would cost more
  // than the shorter runs.
  ColumnGrid(const TapSum& sum, bool exact);

  const GridAxis& axis(int a) const { return axis_[a]; }
  const std::vector<Section>& sections() const { return sections_; }
  int64_t columns() const { return sections_.back().first + sections_.back().columns; }
  int64_t batch() const { return batch_; }

  // Shifts of all axes together, the innermost axis fastest.
  int64_t shifts() const { return int64_t(offsets_.size()); }
  TapShift shift(int64_t s0, int64_t s1, int64_t s2) const {
    const int64_t outer = s0 * int64_t(axis_[1].shifts.size()) + s1;
    return {outer, s2, outer * int64_t(axis_[2].shifts.size()) + s2};
  }
  // From the source of column 0 at shift index 0 to that at `shift`, in elements; from nothing.
  int64_t offset(int64_t shift) const { return offsets_[size_t(shift)]; }
  // Whether each shift of axis `a` finds its source in all columns of the range.
  bool inside(int a, Range columns) const {
    return columns.begin >= inside_[a].begin && columns.end <= inside_[a].end;
  }

 private:
  std::vector<GridAxis> axis_;
  int64_t batch_;
  std::vector<Section> sections_;
  std::vector<int64_t> offsets_;
  Range inside_[kAxes];
};

}  // namespace mxd::cpu
