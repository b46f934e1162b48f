// Whole rows of the grid, or parts of one, their source packed once per row and innermost shift:
// shifts on the other axes are other rows of the same copy.
//
// Copies far less than a GatheredBlock, but a row starts with a fresh vector, so lanes are wasted
// at the end of each.
#pragma once

#include <vector>

#include "cpu/column_block.h"

namespace mxd::cpu {

// How a grid is cut into line blocks.
struct LineCut {
  LineCut() = default;
  // Blocks of at most `columns` columns, whose source for one channel has at most `elements`.
  LineCut(const ColumnGrid& grid, const Kernels& kernels, int64_t columns, int64_t elements);

  int64_t row_vectors = 0;    // vectors in a row of the grid
  int64_t block_vectors = 0;  // of a row, per block
  int64_t block_rows = 0;     // on axis 1, per block
  int64_t blocks = 0;
  int64_t channel_elements = 0;  // of the packed source, at most
};

class LineBlock final : public ColumnBlock {
 public:
  LineBlock(const ColumnGrid& grid, const TensorView& src, const Kernels& kernels,
            const LineCut& cut, int64_t block);

  void pack(const Kernels& kernels, const char* src, const Chunk& chunk, char* dst) const override;
  int64_t at(int64_t panel, const TapShift& shift, const Chunk& chunk) const override {
    const int64_t row = panel_row_[size_t(panel)];
    const int64_t vector = panel - row * place_.vectors;
    const int64_t outer = outer_[size_t(row * outer_shifts_ + shift.outer)];
    const int64_t inner = inner_[size_t(vector * inner_shifts_ + shift.inner)];
    return outer < 0 || inner < 0 ? -1 : (outer + inner) * vector_ * chunk.channel_count();
  }
  bool packs_between() const override { return true; }

 private:
  struct Place {
    int64_t batch, plane, first_row, rows, first_vector, vectors;
  };
  static Place place_of(const ColumnGrid& grid, const LineCut& cut, int64_t block);
  LineBlock(const ColumnGrid& grid, const TensorView& src, const Kernels& kernels,
            const Place& place);

  void place_panels(const std::vector<int64_t>& row_of);

  const ColumnGrid& grid_;
  const TensorView& src_;
  const Place place_;
  const int64_t vector_;
  std::vector<int64_t> planes_;          // source index on axis 0 of each shift, or -1
  std::vector<int64_t> source_rows_;     // source indices on axis 1 that are packed
  std::vector<ShiftedRun> runs_of_row_;  // [vector][shift of axis 2], for one channel
  // Where a panel's source is for one channel, in vectors, is a sum of two; -1 where there is none.
  int64_t outer_shifts_, inner_shifts_;
  std::vector<int64_t> panel_row_;
  std::vector<int64_t> outer_;  // [row][shift of axes 0 and 1]
  std::vector<int64_t> inner_;  // [vector][shift of axis 2]
};

}  // namespace mxd::cpu
