#include "cpu/shifted_block.h"

#include <algorithm>
#include <cstring>

namespace mxd::cpu {
namespace {

int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

}  // namespace

ShiftedGrid::ShiftedGrid(const Box& box, const int64_t (&size)[kAxes], const Kernels& kernels)
    : tile_room_(kernels.cols) {
  for (int a = 0; a < kAxes; ++a) {
    GridAxis& axis = axis_[a];
    const AxisTaps& taps = *box.taps[a];
    axis.taps = &taps;
    axis.first_tap = box.region[a].tap_begin;
    axis.residue_of.reserve(size_t(box.region[a].taps()));
    axis.shift_of.reserve(size_t(box.region[a].taps()));
    for (int64_t tap = box.region[a].tap_begin; tap < box.region[a].tap_end; ++tap) {
      const int64_t index = taps.src_begin + tap * taps.src_tap_step;
      const int64_t shift = taps.src_step == 1 ? index : floor_div(index, taps.src_step);
      const int64_t residue = index - shift * taps.src_step;
      const auto found = std::find(axis.residues.begin(), axis.residues.end(), residue);
      axis.residue_of.push_back(found - axis.residues.begin());
      if (found == axis.residues.end()) axis.residues.push_back(residue);
      axis.shift_of.push_back(shift);
    }
    const auto range = std::minmax_element(axis.shift_of.begin(), axis.shift_of.end());
    axis.least_shift = *range.first;
    axis.reach = *range.second - axis.least_shift;
    for (int64_t& shift : axis.shift_of) shift -= axis.least_shift;
  }
  resize(size);
}

void ShiftedGrid::resize(const int64_t (&size)[kAxes]) {
  int64_t grids = 1;
  grid_elements_ = 1;
  for (int a = 0; a < kAxes; ++a) {
    GridAxis& axis = axis_[a];
    axis.line = size[a] + axis.reach;
    grids *= int64_t(axis.residues.size());
    grid_elements_ *= axis.line;
  }
  positions_ = position(size[0] - 1, size[1] - 1) + size[2];
  channel_elements_ = grids * grid_elements_ + tile_room_;
}

int64_t ShiftedGrid::tap_offset(const Tap& tap) const {
  int64_t grid = 0;
  int64_t offset = 0;
  for (int a = 0; a < kAxes; ++a) {
    const GridAxis& axis = axis_[a];
    const size_t t = size_t(tap.at[a] - axis.first_tap);
    grid = grid * int64_t(axis.residues.size()) + axis.residue_of[t];
    offset = offset * axis.line + axis.shift_of[t];
  }
  return grid * grid_elements_ + offset;
}

void ShiftedGrid::pack(const Kernels& kernels, const TensorView& view, const char* src,
                       int64_t channels, const int64_t (&begin)[kAxes], char* dst) const {
  // Grid points [first, last) of a residue have a source pixel.
  const auto inside = [&](int a, int64_t residue) {
    const AxisTaps& taps = *axis_[a].taps;
    const int64_t base = (begin[a] + axis_[a].least_shift) * taps.src_step + residue;
    const int64_t first = base >= 0 ? 0 : (-base + taps.src_step - 1) / taps.src_step;
    const int64_t last = floor_div(taps.src_size - 1 - base, taps.src_step) + 1;
    return Range{std::min(first, axis_[a].line), std::clamp<int64_t>(last, 0, axis_[a].line)};
  };
  const auto source = [&](int a, int64_t residue, int64_t point) {
    return ((begin[a] + axis_[a].least_shift + point) * axis_[a].taps->src_step + residue) *
           view.axis[a];
  };
  bool whole = true;
  for (int a = 0; a < kAxes; ++a) {
    for (const int64_t residue : axis_[a].residues) {
      const Range range = inside(a, residue);
      whole = whole && range.begin == 0 && range.end == axis_[a].line;
    }
  }
  if (!whole) {
    std::memset(dst, 0, size_t(channels * channel_elements_ * kernels.acc_bytes));
  } else {
    // Only what no line covers: the room behind the last position.
    for (int64_t c = 0; c < channels; ++c) {
      std::memset(dst + ((c + 1) * channel_elements_ - kernels.cols) * kernels.acc_bytes, 0,
                  size_t(kernels.cols * kernels.acc_bytes));
    }
  }
  const int64_t step = axis_[2].taps->src_step * view.axis[2];
  int64_t grid = 0;
  for (const int64_t r0 : axis_[0].residues) {
    const Range range0 = inside(0, r0);
    for (const int64_t r1 : axis_[1].residues) {
      const Range range1 = inside(1, r1);
      for (const int64_t r2 : axis_[2].residues) {
        const Range range2 = inside(2, r2);
        for (int64_t i0 = range0.begin; i0 < range0.end && range2.begin < range2.end; ++i0) {
          for (int64_t i1 = range1.begin; i1 < range1.end; ++i1) {
            const int64_t from =
                source(0, r0, i0) + source(1, r1, i1) + source(2, r2, range2.begin);
            const int64_t to = grid * grid_elements_ + position(i0, i1) + range2.begin;
            kernels.pack(dst + to * kernels.acc_bytes, channel_elements_,
                         src + from * kernels.elem_bytes, range2.end - range2.begin, step, channels,
                         view.channel);
          }
        }
        ++grid;
      }
    }
  }
}

}  // namespace mxd::cpu
