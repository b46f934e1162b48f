// Whole rows of the grid, or parts of one, their source packed once per row: shifts on the other
// axes are other rows of the same copy. Along a row the source is copied in one of three ways:
//
//   vectors   for each vector, a line for every shift. The columns of a tile lie close together.
//   long      a line as long as the block's row for every shift: fewer and longer copies.
//   sliding   for each tile, a line for every remainder that a shift leaves when divided by the
//             step of the source; the shifts are other places in it. Copies least, but every shift
//             is a stretch of the sum of its own: that needs a few channels to pay.
//
// Copies far less than a GatheredBlock, but a row starts with a fresh vector, so lanes are wasted
// at the end of each.
#pragma once

#include <vector>

#include "cpu/column_block.h"

namespace mxd::cpu {

enum class LineCopies { kVectors, kLong, kSliding };

// How a grid is cut into line blocks.
struct LineCut {
  LineCut() = default;
  // Blocks of at most `columns` columns, whose source for one channel has at most `elements`.
  // What does not suit the sizes becomes kVectors.
  LineCut(const ColumnGrid& grid, const Kernels& kernels, int64_t columns, int64_t elements,
          LineCopies wanted);

  bool slides() const { return copies == LineCopies::kSliding; }
  // Elements that are copied for one channel.
  int64_t channel_copied() const { return slides() ? channel_elements : channel_steps; }
  // Of a whole block.
  int64_t columns(const Kernels& kernels) const {
    return block_rows * block_vectors * kernels.vector;
  }

  LineCopies copies = LineCopies::kVectors;
  int64_t row_vectors = 0;    // vectors in a row of the grid
  int64_t block_vectors = 0;  // of a row, per block
  int64_t block_rows = 0;     // on axis 1, per block
  int64_t blocks = 0;
  int64_t channel_elements = 0;  // of the packed source, at most
  int64_t channel_steps = 0;     // read as the columns of the steps, of all shifts
  int64_t line = 0;              // elements from one channel's line to the next
  int64_t copy_vectors = 0;      // of a row, that share a copy
  int64_t copy_lines = 0;        // of a copy
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
  int64_t at(int64_t panel, const TapShift& shift, const Chunk& chunk) const {
    const Place& place = places_[size_t(panel)];
    const int64_t outer = outer_[size_t(place.row * outer_shifts_ + shift.outer)];
    if (outer < 0 || !reads(place.columns, shift.inner)) return -1;
    const Inner& inner = inner_[size_t(shift.inner)];
    return (outer + place.copy + inner.line) * chunk.depth() + inner.offset + place.offset;
  }
  bool packs_between() const { return !cut_.slides(); }

 private:
  struct Part {
    int64_t batch, plane, first_row, rows, first_vector, vectors;
  };
  // Where a panel lies: its row of the block, the columns along it that have a source together or
  // not at all, its copy and the place in a line of that. Copies and lines are counted in elements
  // for one channel.
  struct Place {
    int64_t row;
    Range columns;
    int64_t copy, offset;
  };
  // Where a shift along the row finds the source of a copy's first vector: the line, and the place
  // in it.
  struct Inner {
    int64_t line, offset;
  };
  // `count` columns that are copied to this place of a line, from elements [begin, end) of those at
  // `src`; zeros elsewhere.
  struct Copied {
    int64_t line, offset, src, count, begin, end;
  };
  static Part part_of(const ColumnGrid& grid, const LineCut& cut, int64_t block);
  LineBlock(const ColumnGrid& grid, const TensorView& src, const Kernels& kernels,
            const LineCut& cut, const Part& part);

  // Whether any of the columns has a source at this shift along the row.
  bool reads(Range columns, int64_t shift) const {
    const Range& valid = grid_.axis(2).valid[size_t(shift)];
    return columns.begin < valid.end && columns.end > valid.begin;
  }
  void copy_vectors();
  void copy_long();
  void copy_remainders();
  void copy(int64_t line, int64_t offset, int64_t src, int64_t count);
  void place_panels(const std::vector<int64_t>& row_of);

  const ColumnGrid& grid_;
  const TensorView& src_;
  const LineCut& cut_;
  const Part part_;
  const int64_t vector_;
  std::vector<int64_t> planes_;       // source index on axis 0 of each shift, or -1
  std::vector<int64_t> source_rows_;  // source indices on axis 1 that are packed
  std::vector<Copied> copied_;        // of a row
  std::vector<Inner> inner_;          // of each shift of axis 2
  int64_t row_elements_;              // of a packed row, for one channel
  int64_t outer_shifts_;
  std::vector<Place> places_;   // of each panel
  std::vector<int64_t> outer_;  // [row][shift of axes 0 and 1]: the row for one channel; -1: none
};

}  // namespace mxd::cpu
