// Consecutive columns of the grid, their source gathered shift by shift.
//
// Wastes no lane however small the image, but copies a source pixel once for every shift.
#pragma once

#include <vector>

#include "cpu/column_block.h"

namespace mxd::cpu {

class GatheredBlock final : public ColumnBlock {
 public:
  // Columns [begin, begin + panels.total()) of the grid.
  GatheredBlock(const ColumnGrid& grid, const TensorView& src, int64_t begin, const Panels& panels);

  // Packs the source of a chunk: panel after panel, shift after shift within a panel; zeros where a
  // source pixel does not exist, and nothing where at() says -1.
  void pack(const Kernels& kernels, const char* src, const Chunk& chunk, char* dst) const override;
  int64_t at(int64_t panel, const TapShift& shift, const Chunk& chunk) const {
    if (!uses(panel, shift.flat)) return -1;
    return panels_.begin(panel) * chunk.steps() +
           (shift.flat - chunk.shifts.begin) * chunk.depth() * panels_.width(panel);
  }
  bool packs_between() const { return all_inside_; }

 private:
  // The part of a run that lies in one panel.
  struct Part {
    int64_t panel;
    int64_t offset;  // within its panel
    ColumnRun run;
    int64_t src;       // element offset of the first column's source at a shift of 0
    int64_t src_step;  // from one column to the next
    bool inside;       // at every shift, all of it
  };

  bool uses(int64_t panel, int64_t shift) const {
    return all_inside_ || used_[size_t(panel * grid_.shifts() + shift)];
  }
  void add_run(const Section& section, int64_t index, int64_t column);
  // Columns of the part that have a source at this shift of axis `a`.
  Range valid(const Part& part, int a, size_t shift) const;
  void mark_used();

  const ColumnGrid& grid_;
  const TensorView& src_;
  std::vector<Part> parts_;
  std::vector<Range> valid_;  // [part][shift], unless all_inside_
  std::vector<char> used_;    // [panel][shift], unless all_inside_
  bool all_inside_ = true;
};

}  // namespace mxd::cpu
