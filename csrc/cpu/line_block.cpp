#include "cpu/line_block.h"

#include <algorithm>

namespace mxd::cpu {

LineCut::LineCut(const ColumnGrid& grid, const Kernels& kernels, int64_t columns, int64_t elements,
                 bool may_slide) {
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
  line = kernels.vector;
  if (may_slide && s2 > 1 && pairs_in_rows) slide(grid.axis(2), kernels.vector);
  const int64_t row_elements = slides()
                                   ? ceil_div(block_vectors, 2) * int64_t(remainders.size()) * line
                                   : block_vectors * s2 * kernels.vector;
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
  line = (2 + ceil_div(furthest, vector)) * vector;
}

LineBlock::Place LineBlock::place_of(const ColumnGrid& grid, const LineCut& cut, int64_t block) {
  const int64_t parts = ceil_div(cut.row_vectors, cut.block_vectors);
  const int64_t row_blocks = ceil_div(grid.axis(1).columns, cut.block_rows);
  Place place;
  place.first_vector = block % parts * cut.block_vectors;
  block /= parts;
  place.first_row = block % row_blocks * cut.block_rows;
  block /= row_blocks;
  place.plane = block % grid.axis(0).columns;
  place.batch = block / grid.axis(0).columns;
  place.vectors = std::min(cut.block_vectors, cut.row_vectors - place.first_vector);
  place.rows = std::min(cut.block_rows, grid.axis(1).columns - place.first_row);
  return place;
}

LineBlock::LineBlock(const ColumnGrid& grid, const TensorView& src, const Kernels& kernels,
                     const LineCut& cut, int64_t block)
    : LineBlock(grid, src, kernels, cut, place_of(grid, cut, block)) {}

LineBlock::LineBlock(const ColumnGrid& grid, const TensorView& src, const Kernels& kernels,
                     const LineCut& cut, const Place& place)
    : ColumnBlock(Panels::of_vectors(kernels, place.rows * place.vectors * kernels.vector),
                  cut.line),
      grid_(grid),
      src_(src),
      place_(place),
      vector_(kernels.vector),
      slides_(cut.slides()) {
  const GridAxis& axis0 = grid.axis(0);
  for (size_t s = 0; s < axis0.shifts.size(); ++s) {
    const bool exists = place.plane >= axis0.valid[s].begin && place.plane < axis0.valid[s].end;
    planes_.push_back(exists ? axis0.shifts[s] + place.plane * axis0.src_step : -1);
  }
  const GridAxis& axis1 = grid.axis(1);
  std::vector<int64_t> row_of;  // [row of the block][shift] -> source index, or -1
  for (int64_t row = place.first_row; row < place.first_row + place.rows; ++row) {
    for (size_t s = 0; s < axis1.shifts.size(); ++s) {
      const bool exists = row >= axis1.valid[s].begin && row < axis1.valid[s].end;
      row_of.push_back(exists ? axis1.shifts[s] + row * axis1.src_step : -1);
      if (exists) source_rows_.push_back(row_of.back());
    }
  }
  std::sort(source_rows_.begin(), source_rows_.end());
  source_rows_.erase(std::unique(source_rows_.begin(), source_rows_.end()), source_rows_.end());
  if (slides_) {
    copy_remainders(cut.remainders);
  } else {
    copy_shifts();
  }
  const int64_t first = place.first_vector * vector_;
  for (int64_t row = 0; row < place.rows; ++row) {
    runs_.push_back({row * place.vectors * vector_,
                     std::min(place.vectors * vector_, grid.axis(2).columns - first),
                     place.batch,
                     {place.plane, place.first_row + row, first},
                     2});
  }
  place_panels(row_of);
}

// The vector whose first element is this pixel of axis 2, which may lie beyond its ends.
LineBlock::Copied LineBlock::vector_at(int64_t src) const {
  const GridAxis& axis = grid_.axis(2);
  const int64_t step = axis.src_step;
  if (src >= 0 && src + (vector_ - 1) * step < axis.src_size) {  // a division is slow
    return {src * src_.axis[2], 0, vector_};
  }
  const int64_t begin = std::clamp<int64_t>(ceil_div(-src, step), 0, vector_);
  const int64_t end = std::clamp(ceil_div(axis.src_size - src, step), begin, vector_);
  return {src * src_.axis[2], begin, end};
}

// A line of one vector for every shift.
void LineBlock::copy_shifts() {
  const GridAxis& axis = grid_.axis(2);
  lines_of_copy_ = int64_t(axis.shifts.size());
  for (int64_t s = 0; s < lines_of_copy_; ++s) inner_.push_back({s, 0});
  copied_.reserve(size_t(place_.vectors * lines_of_copy_));
  for (int64_t v = 0; v < place_.vectors; ++v) {
    const int64_t column = (place_.first_vector + v) * vector_;
    for (const int64_t shift : axis.shifts) {
      copied_.push_back(vector_at(shift + column * axis.src_step));
    }
  }
}

// A line for every remainder, as long as all shifts of a tile's two vectors reach.
void LineBlock::copy_remainders(const std::vector<int64_t>& remainders) {
  const GridAxis& axis = grid_.axis(2);
  const int64_t least = *std::min_element(axis.shifts.begin(), axis.shifts.end());
  lines_of_copy_ = int64_t(remainders.size());
  for (const int64_t shift : axis.shifts) {
    const auto found =
        std::lower_bound(remainders.begin(), remainders.end(), (shift - least) % axis.src_step);
    inner_.push_back({found - remainders.begin(), (shift - least) / axis.src_step});
  }
  for (int64_t v = 0; v < place_.vectors; v += 2) {
    const int64_t column = (place_.first_vector + v) * vector_;
    for (const int64_t remainder : remainders) {
      for (int64_t i = 0; i < step(); i += vector_) {
        copied_.push_back(vector_at(least + remainder + (column + i) * axis.src_step));
      }
    }
  }
}

void LineBlock::pack(const Kernels& kernels, const char* src, const Chunk& chunk, char* dst) const {
  const int64_t channels = chunk.channel_count();
  const size_t vectors_of_line = size_t(step() / vector_);
  std::vector<ShiftedRun> runs;
  runs.reserve(planes_.size() * source_rows_.size() * copied_.size());
  int64_t line = 0;
  for (const int64_t plane : planes_) {
    for (const int64_t row : source_rows_) {
      const int64_t offset = plane * src_.axis[0] + row * src_.axis[1];
      for (size_t i = 0; i < copied_.size(); line += step() * channels) {
        for (size_t v = 0; v < vectors_of_line; ++v, ++i) {
          const Copied& part = copied_[i];
          if (plane < 0) continue;
          runs.push_back(
              {line + int64_t(v) * vector_, offset + part.src, vector_, part.begin, part.end});
        }
      }
    }
  }
  const int64_t offset = place_.batch * src_.batch + chunk.channels.begin * src_.channel;
  kernels.pack_shifted(dst, step(), src + offset * kernels.elem_bytes,
                       grid_.axis(2).src_step * src_.axis[2], channels, src_.channel, runs.data(),
                       int64_t(runs.size()));
}

void LineBlock::place_panels(const std::vector<int64_t>& row_of) {
  const int64_t shifts1 = int64_t(grid_.axis(1).shifts.size());
  const int64_t copies = slides_ ? ceil_div(place_.vectors, 2) : place_.vectors;
  const int64_t row_elements = copies * lines_of_copy_ * step();
  outer_shifts_ = int64_t(planes_.size()) * shifts1;
  for (int64_t row = 0; row < place_.rows; ++row) {
    panel_row_.insert(panel_row_.end(), size_t(place_.vectors), row);
    for (size_t plane = 0; plane < planes_.size(); ++plane) {
      for (int64_t s1 = 0; s1 < shifts1; ++s1) {
        const int64_t source = row_of[size_t(row * shifts1 + s1)];
        const bool exists = planes_[plane] >= 0 && source >= 0;
        const int64_t index = std::lower_bound(source_rows_.begin(), source_rows_.end(), source) -
                              source_rows_.begin();
        const int64_t packed = int64_t(plane) * int64_t(source_rows_.size()) + index;
        outer_.push_back(exists ? packed * row_elements : -1);
      }
    }
  }
}

}  // namespace mxd::cpu
