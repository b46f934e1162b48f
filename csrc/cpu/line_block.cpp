#include "cpu/line_block.h"

#include <algorithm>

namespace mxd::cpu {
namespace {

// In long lines fewer vectors lie too far apart for what their copies save.
constexpr int64_t kLeastLong = 4;

}  // namespace

LineCut::LineCut(const ColumnGrid& grid, const Kernels& kernels, int64_t columns, int64_t elements,
                 LineCopies wanted)
    : copies(wanted) {
  const int64_t s0 = int64_t(grid.axis(0).shifts.size());
  const int64_t s1 = int64_t(grid.axis(1).shifts.size());
  const int64_t s2 = int64_t(grid.axis(2).shifts.size());
  row_vectors = ceil_div(grid.axis(2).columns, kernels.vector);
  const int64_t vectors = columns / kernels.vector;
  const int64_t parts = ceil_div(row_vectors, vectors);
  block_vectors = ceil_div(row_vectors, parts);
  const int64_t most_rows = std::clamp<int64_t>(vectors / block_vectors, 1, grid.axis(1).columns);
  // The two vectors of a tile must lie in one row, and so have a source at the same shifts.
  const bool pairs_in_rows = most_rows == 1 || block_vectors % 2 == 0;
  const bool suits = slides() ? s2 > 1 : block_vectors >= kLeastLong;
  if (!suits || !pairs_in_rows) copies = LineCopies::kVectors;
  copy_vectors = 1;
  copy_lines = s2;
  line = kernels.vector;
  if (copies == LineCopies::kLong) {
    copy_vectors = block_vectors;
    line = odd_lines(block_vectors * kernels.vector, kernels.acc_bytes);
  }
  if (slides()) slide(grid.axis(2), kernels.vector);
  const int64_t row_elements = ceil_div(block_vectors, copy_vectors) * copy_lines * line;
  // Source rows of so many rows of the grid.
  const int64_t reach = grid.axis(1).shifts.empty()
                            ? 0
                            : std::abs(grid.axis(1).shifts.back() - grid.axis(1).shifts.front());
  const auto elements_of = [&](int64_t rows) {
    const int64_t source_rows = std::min(rows * s1, (rows - 1) * grid.axis(1).src_step + reach + 1);
    return s0 * source_rows * row_elements;
  };
  block_rows = most_rows;
  while (block_rows > 1 && elements_of(block_rows) > elements) --block_rows;
  block_rows = ceil_div(grid.axis(1).columns, ceil_div(grid.axis(1).columns, block_rows));
  channel_elements = elements_of(block_rows);
  channel_steps = channel_elements / row_elements * block_vectors * s2 * kernels.vector;
  blocks = grid.batch() * grid.axis(0).columns * ceil_div(grid.axis(1).columns, block_rows) *
           ceil_div(row_vectors, block_vectors);
}

void LineCut::slide(const GridAxis& axis, int64_t vector) {
  const int64_t least = *std::min_element(axis.shifts.begin(), axis.shifts.end());
  int64_t furthest = 0;
  for (const int64_t shift : axis.shifts) {
    remainders.push_back((shift - least) % axis.src_step);
    furthest = std::max(furthest, (shift - least) / axis.src_step);
  }
  std::sort(remainders.begin(), remainders.end());
  remainders.erase(std::unique(remainders.begin(), remainders.end()), remainders.end());
  copy_vectors = 2;
  copy_lines = int64_t(remainders.size());
  line = (2 + ceil_div(furthest, vector)) * vector;
}

LineBlock::Part LineBlock::part_of(const ColumnGrid& grid, const LineCut& cut, int64_t block) {
  const int64_t parts = ceil_div(cut.row_vectors, cut.block_vectors);
  const int64_t row_blocks = ceil_div(grid.axis(1).columns, cut.block_rows);
  Part part;
  part.first_vector = block % parts * cut.block_vectors;
  block /= parts;
  part.first_row = block % row_blocks * cut.block_rows;
  block /= row_blocks;
  part.plane = block % grid.axis(0).columns;
  part.batch = block / grid.axis(0).columns;
  part.vectors = std::min(cut.block_vectors, cut.row_vectors - part.first_vector);
  part.rows = std::min(cut.block_rows, grid.axis(1).columns - part.first_row);
  return part;
}

LineBlock::LineBlock(const ColumnGrid& grid, const TensorView& src, const Kernels& kernels,
                     const LineCut& cut, int64_t block)
    : LineBlock(grid, src, kernels, cut, part_of(grid, cut, block)) {}

LineBlock::LineBlock(const ColumnGrid& grid, const TensorView& src, const Kernels& kernels,
                     const LineCut& cut, const Part& part)
    : ColumnBlock(Panels::of_vectors(kernels, part.rows * part.vectors * kernels.vector), cut.line),
      grid_(grid),
      src_(src),
      cut_(cut),
      part_(part),
      vector_(kernels.vector),
      row_elements_(ceil_div(part.vectors, cut.copy_vectors) * cut.copy_lines * cut.line) {
  const GridAxis& axis0 = grid.axis(0);
  for (size_t s = 0; s < axis0.shifts.size(); ++s) {
    const bool exists = part.plane >= axis0.valid[s].begin && part.plane < axis0.valid[s].end;
    planes_.push_back(exists ? axis0.shifts[s] + part.plane * axis0.src_step : -1);
  }
  const GridAxis& axis1 = grid.axis(1);
  std::vector<int64_t> row_of;  // [row of the block][shift] -> source index, or -1
  for (int64_t row = part.first_row; row < part.first_row + part.rows; ++row) {
    for (size_t s = 0; s < axis1.shifts.size(); ++s) {
      const bool exists = row >= axis1.valid[s].begin && row < axis1.valid[s].end;
      row_of.push_back(exists ? axis1.shifts[s] + row * axis1.src_step : -1);
      if (exists) source_rows_.push_back(row_of.back());
    }
  }
  std::sort(source_rows_.begin(), source_rows_.end());
  source_rows_.erase(std::unique(source_rows_.begin(), source_rows_.end()), source_rows_.end());
  switch (cut.copies) {
    case LineCopies::kVectors:
      copy_vectors();
      break;
    case LineCopies::kLong:
      copy_long();
      break;
    case LineCopies::kSliding:
      copy_remainders();
      break;
  }
  const int64_t first = part.first_vector * vector_;
  for (int64_t row = 0; row < part.rows; ++row) {
    runs_.push_back({row * part.vectors * vector_,
                     std::min(part.vectors * vector_, grid.axis(2).columns - first),
                     part.batch,
                     {part.plane, part.first_row + row, first},
                     2});
  }
  place_panels(row_of);
}

// Columns whose first source is this pixel of axis 2, which may lie beyond its ends.
void LineBlock::copy(int64_t line, int64_t offset, int64_t src, int64_t count) {
  const GridAxis& axis = grid_.axis(2);
  const int64_t step = axis.src_step;
  int64_t begin = 0;
  int64_t end = count;
  if (src < 0 || src + (count - 1) * step >= axis.src_size) {  // a division is slow
    begin = std::clamp<int64_t>(ceil_div(-src, step), 0, count);
    end = std::clamp(ceil_div(axis.src_size - src, step), begin, count);
  }
  copied_.push_back({line, offset, src * src_.axis[2], count, begin, end});
}

void LineBlock::copy_vectors() {
  const GridAxis& axis = grid_.axis(2);
  for (int64_t s = 0; s < cut_.copy_lines; ++s) inner_.push_back({s * step(), 0});
  copied_.reserve(size_t(part_.vectors * cut_.copy_lines));
  int64_t line = 0;
  for (int64_t v = 0; v < part_.vectors; ++v) {
    const int64_t column = (part_.first_vector + v) * vector_;
    for (const int64_t shift : axis.shifts) {
      copy(line++, 0, shift + column * axis.src_step, vector_);
    }
  }
}

// Vectors that lack nothing at any shift are copied together, those at the borders one by one.
void LineBlock::copy_long() {
  const GridAxis& axis = grid_.axis(2);
  for (int64_t s = 0; s < cut_.copy_lines; ++s) inner_.push_back({s * step(), 0});
  const auto ends = std::minmax_element(axis.shifts.begin(), axis.shifts.end());
  const auto whole = [&](int64_t vector) {
    const int64_t column = (part_.first_vector + vector) * vector_;
    return *ends.first + column * axis.src_step >= 0 &&
           *ends.second + (column + vector_ - 1) * axis.src_step < axis.src_size;
  };
  for (int64_t v = 0; v < part_.vectors;) {
    const int64_t first = v++;
    while (whole(first) && v < part_.vectors && whole(v)) ++v;
    const int64_t column = (part_.first_vector + first) * vector_;
    for (int64_t s = 0; s < cut_.copy_lines; ++s) {
      copy(s, first * vector_, axis.shifts[size_t(s)] + column * axis.src_step,
           (v - first) * vector_);
    }
  }
}

// Lines as long as all shifts of a tile's two vectors reach.
void LineBlock::copy_remainders() {
  const GridAxis& axis = grid_.axis(2);
  const int64_t least = *std::min_element(axis.shifts.begin(), axis.shifts.end());
  const std::vector<int64_t>& remainders = cut_.remainders;
  for (const int64_t shift : axis.shifts) {
    const auto found =
        std::lower_bound(remainders.begin(), remainders.end(), (shift - least) % axis.src_step);
    inner_.push_back({(found - remainders.begin()) * step(), (shift - least) / axis.src_step});
  }
  int64_t line = 0;
  for (int64_t v = 0; v < part_.vectors; v += 2) {
    const int64_t column = (part_.first_vector + v) * vector_;
    for (const int64_t remainder : remainders) {
      for (int64_t i = 0; i < step(); i += vector_) {
        copy(line, i, least + remainder + (column + i) * axis.src_step, vector_);
      }
      ++line;
    }
  }
}

void LineBlock::pack(const Kernels& kernels, const char* src, const Chunk& chunk, char* dst) const {
  const int64_t depth = chunk.depth();
  std::vector<ShiftedRun> runs;
  runs.reserve(planes_.size() * source_rows_.size() * copied_.size());
  int64_t to = 0;
  for (const int64_t plane : planes_) {
    for (const int64_t row : source_rows_) {
      const int64_t from = plane * src_.axis[0] + row * src_.axis[1];
      for (const Copied& copied : copied_) {
        if (plane < 0) break;
        runs.push_back({to + copied.line * step() * depth + copied.offset, from + copied.src,
                        copied.count, copied.begin, copied.end});
      }
      to += row_elements_ * depth;
    }
  }
  const int64_t offset = part_.batch * src_.batch + chunk.channels.begin * src_.channel;
  kernels.pack_shifted(dst, step(), src + offset * kernels.elem_bytes,
                       grid_.axis(2).src_step * src_.axis[2], chunk.channel_count(), src_.channel,
                       runs.data(), int64_t(runs.size()));
}

void LineBlock::place_panels(const std::vector<int64_t>& row_of) {
  const int64_t shifts1 = int64_t(grid_.axis(1).shifts.size());
  outer_shifts_ = int64_t(planes_.size()) * shifts1;
  for (int64_t row = 0; row < part_.rows; ++row) {
    for (int64_t v = 0; v < part_.vectors; ++v) {
      // A line longer than a vector does not step as the zeros do that stand for a missing source.
      const int64_t together = cut_.copies == LineCopies::kVectors ? 1 : 2;
      const int64_t first = (part_.first_vector + v / together * together) * vector_;
      places_.push_back({row,
                         {first, first + together * vector_},
                         v / cut_.copy_vectors * cut_.copy_lines * step(),
                         v % cut_.copy_vectors * vector_});
    }
    for (size_t plane = 0; plane < planes_.size(); ++plane) {
      for (int64_t s1 = 0; s1 < shifts1; ++s1) {
        const int64_t source = row_of[size_t(row * shifts1 + s1)];
        const bool exists = planes_[plane] >= 0 && source >= 0;
        const int64_t index = std::lower_bound(source_rows_.begin(), source_rows_.end(), source) -
                              source_rows_.begin();
        const int64_t packed = int64_t(plane) * int64_t(source_rows_.size()) + index;
        outer_.push_back(exists ? packed * row_elements_ : -1);
      }
    }
  }
}

}  // namespace mxd::cpu
