#include "cpu/line_block.h"

#include <algorithm>

namespace mxd::cpu {

LineCut::LineCut(const ColumnGrid& grid, const Kernels& kernels, int64_t columns,
                 int64_t elements) {
  const int64_t s0 = int64_t(grid.axis(0).shifts.size());
  const int64_t s1 = int64_t(grid.axis(1).shifts.size());
  const int64_t s2 = int64_t(grid.axis(2).shifts.size());
  row_vectors = ceil_div(grid.axis(2).columns, kernels.vector);
  const int64_t vectors = columns / kernels.vector;
  const int64_t parts = ceil_div(row_vectors, vectors);
  block_vectors = ceil_div(row_vectors, parts);
  // Source rows of so many rows of the grid.
  const int64_t reach = grid.axis(1).shifts.empty()
                            ? 0
                            : std::abs(grid.axis(1).shifts.back() - grid.axis(1).shifts.front());
  const auto elements_of = [&](int64_t rows) {
    const int64_t source_rows = std::min(rows * s1, (rows - 1) * grid.axis(1).src_step + reach + 1);
    return s0 * source_rows * block_vectors * s2 * kernels.vector;
  };
  block_rows = std::clamp<int64_t>(vectors / block_vectors, 1, grid.axis(1).columns);
  while (block_rows > 1 && elements_of(block_rows) > elements) --block_rows;
  block_rows = ceil_div(grid.axis(1).columns, ceil_div(grid.axis(1).columns, block_rows));
  channel_elements = elements_of(block_rows);
  blocks = grid.batch() * grid.axis(0).columns * ceil_div(grid.axis(1).columns, block_rows) *
           ceil_div(row_vectors, block_vectors);
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
    : LineBlock(grid, src, kernels, place_of(grid, cut, block)) {}

LineBlock::LineBlock(const ColumnGrid& grid, const TensorView& src, const Kernels& kernels,
                     const Place& place)
    : ColumnBlock(Panels::of_vectors(kernels, place.rows * place.vectors * kernels.vector)),
      grid_(grid),
      src_(src),
      place_(place),
      vector_(kernels.vector) {
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
  const GridAxis& axis2 = grid.axis(2);
  for (int64_t v = 0; v < place.vectors; ++v) {
    const int64_t column = (place.first_vector + v) * vector_;
    for (size_t s = 0; s < axis2.shifts.size(); ++s) {
      const int64_t begin = std::clamp<int64_t>(axis2.valid[s].begin - column, 0, vector_);
      const int64_t end = std::clamp<int64_t>(axis2.valid[s].end - column, begin, vector_);
      runs_of_row_.push_back({int64_t(runs_of_row_.size()) * vector_,
                              (axis2.shifts[s] + column * axis2.src_step) * src.axis[2], vector_,
                              begin, end});
    }
  }
  const int64_t first = place.first_vector * vector_;
  for (int64_t row = 0; row < place.rows; ++row) {
    runs_.push_back({row * place.vectors * vector_,
                     std::min(place.vectors * vector_, axis2.columns - first),
                     place.batch,
                     {place.plane, place.first_row + row, first},
                     2});
  }
  place_panels(row_of);
}

void LineBlock::pack(const Kernels& kernels, const char* src, const Chunk& chunk, char* dst) const {
  const int64_t channels = chunk.channel_count();
  std::vector<ShiftedRun> runs;
  int64_t at = 0;
  for (const int64_t plane : planes_) {
    for (const int64_t row : source_rows_) {
      const int64_t offset = plane * src_.axis[0] + row * src_.axis[1];
      for (const ShiftedRun& run : runs_of_row_) {
        if (plane >= 0) {
          runs.push_back(
              {(at + run.dst) * channels, offset + run.src, run.count, run.begin, run.end});
        }
      }
      at += int64_t(runs_of_row_.size()) * vector_;
    }
  }
  const int64_t offset = place_.batch * src_.batch + chunk.channels.begin * src_.channel;
  kernels.pack_shifted(dst, vector_, src + offset * kernels.elem_bytes,
                       grid_.axis(2).src_step * src_.axis[2], channels, src_.channel, runs.data(),
                       int64_t(runs.size()));
}

void LineBlock::place_panels(const std::vector<int64_t>& row_of) {
  const int64_t shifts1 = int64_t(grid_.axis(1).shifts.size());
  const int64_t row_runs = int64_t(runs_of_row_.size());
  outer_shifts_ = int64_t(planes_.size()) * shifts1;
  inner_shifts_ = row_runs / place_.vectors;
  for (int64_t row = 0; row < place_.rows; ++row) {
    panel_row_.insert(panel_row_.end(), size_t(place_.vectors), row);
    for (size_t plane = 0; plane < planes_.size(); ++plane) {
      for (int64_t s1 = 0; s1 < shifts1; ++s1) {
        const int64_t source = row_of[size_t(row * shifts1 + s1)];
        const bool exists = planes_[plane] >= 0 && source >= 0;
        const int64_t index = std::lower_bound(source_rows_.begin(), source_rows_.end(), source) -
                              source_rows_.begin();
        outer_.push_back(exists ? (int64_t(plane) * int64_t(source_rows_.size()) + index) * row_runs
                                : -1);
      }
    }
  }
  for (const ShiftedRun& run : runs_of_row_) {
    inner_.push_back(run.begin < run.end ? int64_t(inner_.size()) : -1);
  }
}

}  // namespace mxd::cpu
