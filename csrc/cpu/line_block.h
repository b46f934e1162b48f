// Whole rows of the grid, or parts of one, their source packed once per row: shifts on the other
// axes are other rows of the same copy. Along a row the shifts are copies too, each starting with a
// vector of its own, or, where the cut slides, other places in the same copy: one for every
// remainder that a shift leaves when divided by the step of the source.
//
// Copies far less than a GatheredBlock, but a row starts with a fresh vector, so lanes are wasted
// at the end of each. Sliding copies least, but every shift is a stretch of the sum of its own:
// that needs a few channels to pay.
#pragma once

#include <vector>

#include "cpu/column_block.h"

namespace mxd::cpu {

// How a grid is cut into line blocks.
struct LineCut {
  LineCut() = default;
  // Blocks of at most `columns` columns, whose source for one channel has at most `elements`.
  LineCut(const ColumnGrid& grid, const Kernels& kernels, int64_t columns, int64_t elements,
          bool may_slide);

  bool slides() const { return !remainders.empty(); }
  // Of a whole block.
  int64_t columns(const Kernels& kernels) const {
    return block_rows * block_vectors * kernels.vector;
  }

  int64_t row_vectors = 0;    // vectors in a row of the grid
  int64_t block_vectors = 0;  // of a row, per block
  int64_t block_rows = 0;     // on axis 1, per block
  int64_t blocks = 0;
  int64_t channel_elements = 0;  // of the packed source, at most
  int64_t channel_steps = 0;     // the same, if every shift had a copy of its own
  int64_t line = 0;              // elements from one channel's line to the next
  // If it slides: what the shifts of axis 2 leave, counted from the least of them.
  std::vector<int64_t> remainders;

 private:
  void slide(const GridAxis& axis, int64_t vector);
};

class LineBlock final : public ColumnBlock {
 public:
  LineBlock(const ColumnGrid& grid, const TensorView& src, const Kernels& kernels,
            const LineCut& cut, int64_t block);

  void pack(const Kernels& kernels, const char* src, const Chunk& chunk, char* dst) const override;
  int64_t at(int64_t panel, const TapShift& shift, const Chunk& chunk) const override {
    const int64_t row = panel_row_[size_t(panel)];
    const int64_t outer = outer_[size_t(row * outer_shifts_ + shift.outer)];
    if (outer < 0) return -1;
    const int64_t vector = panel - row * place_.vectors;
    const Inner& inner = inner_[size_t(shift.inner)];
    if (slides_) {  // one copy for the two vectors of a tile
      const int64_t line = vector / 2 * lines_of_copy_ + inner.line;
      return (outer + line * step()) * chunk.channel_count() + inner.offset + vector % 2 * vector_;
    }
    const int64_t line = vector * lines_of_copy_ + inner.line;
    if (!copied_[size_t(line)].any()) return -1;
    return (outer + line * step()) * chunk.channel_count();
  }
  bool packs_between() const override { return !slides_; }

 private:
  struct Place {
    int64_t batch, plane, first_row, rows, first_vector, vectors;
  };
  // Where a shift along the row finds the source of its first vector: the line, and the place in
  // it.
  struct Inner {
    int64_t line, offset;
  };
  // A vector that is copied, from elements [begin, end) of those at `src`; zeros elsewhere.
  struct Copied {
    int64_t src, begin, end;
    bool any() const { return begin < end; }
  };
  static Place place_of(const ColumnGrid& grid, const LineCut& cut, int64_t block);
  LineBlock(const ColumnGrid& grid, const TensorView& src, const Kernels& kernels,
            const LineCut& cut, const Place& place);

  void copy_shifts();
  void copy_remainders(const std::vector<int64_t>& remainders);
  Copied vector_at(int64_t src) const;
  void place_panels(const std::vector<int64_t>& row_of);

  const ColumnGrid& grid_;
  const TensorView& src_;
  const Place place_;
  const int64_t vector_;
  const bool slides_;
  int64_t lines_of_copy_;             // of step() elements: one for every shift, or remainder
  std::vector<int64_t> planes_;       // source index on axis 0 of each shift, or -1
  std::vector<int64_t> source_rows_;  // source indices on axis 1 that are packed
  std::vector<Copied> copied_;        // of a row: line after line
  std::vector<Inner> inner_;          // of each shift of axis 2
  int64_t outer_shifts_;
  std::vector<int64_t> panel_row_;
  std::vector<int64_t> outer_;  // [row][shift of axes 0 and 1]: the row for one channel; -1: none
};

}  // namespace mxd::cpu
