#include "cpu/column_grid.h"

#include <algorithm>
#include <map>

namespace mxd::cpu {
namespace {

// Below this share of (column, shift) pairs that have a source, an axis is cut where the set of
// shifts that have one changes. On images a few pixels wide the zeros multiplied at the border
// would otherwise cost more than the shorter runs: at 7/8 per axis a 2-D layer does 1.3x the work.
constexpr double kCutBelow = 0.9;

// Groups of phases are bounded, so that the rows of one fit the accumulators.
constexpr size_t kMostGrouped = 64;

// Shorter runs than this go along the batch, if that is longer.
constexpr int64_t kFairRun = 6;

// Rows that keep the multipliers busy: two vectors of so many accumulators cover their latency.
constexpr int64_t kBusyRows = 4;

std::vector<Range> pieces_of(const GridAxis& axis, bool exact) {
  double valid = 0;
  std::vector<int64_t> cuts;
  cuts.reserve(2 * axis.shifts.size() + 2);
  cuts.assign({0, axis.columns});
  for (size_t s = 0; s < axis.shifts.size(); ++s) {
    const Range range = axis.valid[s];
    valid += double(range.end - range.begin);
    cuts.push_back(range.begin);
    cuts.push_back(range.end);
  }
  if (!exact && valid >= kCutBelow * double(axis.columns) * double(axis.shifts.size())) {
    return {{0, axis.columns}};
  }
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  std::vector<Range> pieces;
  pieces.reserve(cuts.size());
  for (size_t c = 0; c + 1 < cuts.size(); ++c) pieces.push_back({cuts[c], cuts[c + 1]});
  return pieces;
}

}  // namespace

GridAxis::GridAxis(const std::vector<AxisTaps>& axis_phases, bool align_sources) {
  int64_t first_src = axis_phases.front().src_begin;
  size_t taps_of_all = 0;
  for (const AxisTaps& taps : axis_phases) {
    first_src = std::min(first_src, taps.src_begin);
    taps_of_all += size_t(taps.tap_count);
  }
  phases.reserve(axis_phases.size());
  for (const AxisTaps& taps : axis_phases) {
    src_step = taps.src_step;
    src_size = taps.src_size;
    const int64_t first_column = align_sources ? taps.src_begin - first_src : 0;
    phases.push_back({&taps, first_column, 0});
    columns = std::max(columns, first_column + taps.dst_count);
  }
  std::sort(phases.begin(), phases.end(),
            [](const GridPhase& a, const GridPhase& b) { return a.dst_at(0) < b.dst_at(0); });
  const auto shift_of = [](const GridPhase& phase, int64_t tap) {
    const AxisTaps& taps = *phase.taps;
    return taps.src_begin - phase.first_column * taps.src_step + tap * taps.src_tap_step;
  };
  shifts.reserve(taps_of_all);
  for (const GridPhase& phase : phases) {
    for (int64_t j = 0; j < phase.taps->tap_count; ++j) shifts.push_back(shift_of(phase, j));
  }
  std::sort(shifts.begin(), shifts.end());
  shifts.erase(std::unique(shifts.begin(), shifts.end()), shifts.end());
  const bool falling = axis_phases.front().src_tap_step < 0;
  if (falling) std::reverse(shifts.begin(), shifts.end());
  tap_shifts.reserve(taps_of_all);
  for (GridPhase& phase : phases) {
    phase.first_shift = int64_t(tap_shifts.size());
    for (int64_t j = 0; j < phase.taps->tap_count; ++j) {
      const int64_t shift = shift_of(phase, j);
      const auto at = falling ? std::lower_bound(shifts.begin(), shifts.end(), shift,
                                                 [](int64_t a, int64_t b) { return a > b; })
                              : std::lower_bound(shifts.begin(), shifts.end(), shift);
      tap_shifts.push_back(int32_t(at - shifts.begin()));
    }
  }
  valid.reserve(shifts.size());
  for (const int64_t shift : shifts) {
    AxisTaps one;
    one.src_begin = shift;
    one.src_step = src_step;
    one.src_size = src_size;
    valid.push_back(valid_results(one, 0, {0, columns}));
  }
  std::map<std::vector<int32_t>, size_t> known;  // only where phases can be alike
  for (size_t p = 0; p < phases.size(); ++p) {
    const int32_t* list = tap_shifts.data() + phases[p].first_shift;
    const int64_t taps = phases[p].taps->tap_count;
    if (align_sources) {
      const auto found = known.emplace(std::vector<int32_t>(list, list + taps), groups.size());
      if (!found.second && groups[found.first->second].phases.size() < kMostGrouped) {
        groups[found.first->second].phases.push_back(int32_t(p));
        continue;
      }
      found.first->second = groups.size();
    }
    groups.push_back({{int32_t(p)}, list, taps});
  }
}

ColumnGrid::ColumnGrid(const TapSum& sum, bool exact) : batch_(sum.batch) {
  int64_t rows = sum.dst_channels;
  axis_.reserve(kAxes);
  for (int a = 0; a < kAxes; ++a) {
    // The outer axes first: a column more on the innermost one may cost a vector.
    const bool align = sum.lanes == Lanes::kPixels && sum.axes[a].size() > 1 && rows < kBusyRows;
    axis_.emplace_back(sum.axes[a], align);
    if (align) rows *= int64_t(sum.axes[a].size());
  }
  for (int a = 0; a < kAxes; ++a) {
    inside_[a] = {0, axis_[size_t(a)].columns};
    for (size_t s = 0; s < axis_[size_t(a)].shifts.size(); ++s) {
      const Range range = axis_[size_t(a)].valid[s];
      inside_[a] = {std::max(inside_[a].begin, range.begin), std::min(inside_[a].end, range.end)};
    }
  }
  offsets_.reserve(axis_[0].shifts.size() * axis_[1].shifts.size() * axis_[2].shifts.size());
  for (const int64_t s0 : axis_[0].shifts) {
    for (const int64_t s1 : axis_[1].shifts) {
      for (const int64_t s2 : axis_[2].shifts) {
        offsets_.push_back(s0 * sum.src.axis[0] + s1 * sum.src.axis[1] + s2 * sum.src.axis[2]);
      }
    }
  }
  std::vector<Range> pieces[kAxes];
  int64_t all_pieces = 1, all_columns = batch_;
  for (int a = 0; a < kAxes; ++a) {
    pieces[a] = pieces_of(axis_[size_t(a)], exact);
    all_pieces *= int64_t(pieces[a].size());
    all_columns *= axis_[size_t(a)].columns;
  }
  if (!exact && all_columns < all_pieces * sum.kernels->vector) {
    // Vectors would reach across pieces, and nothing would be saved.
    for (int a = 0; a < kAxes; ++a) pieces[a] = {{0, axis_[size_t(a)].columns}};
  }
  sections_.reserve(pieces[0].size() * pieces[1].size() * pieces[2].size());
  int64_t first = 0;
  for (const Range& r0 : pieces[0]) {
    for (const Range& r1 : pieces[1]) {
      for (const Range& r2 : pieces[2]) {
        Section section{{r0, r1, r2}};
        for (int a = 0; a < kAxes; ++a) {
          if (section.extent(a) > 1) section.run_axis = a;
        }
        section.batch_inner = section.run_axis < 0 || (section.extent(section.run_axis) < batch_ &&
                                                       section.extent(section.run_axis) < kFairRun);
        if (section.batch_inner) section.run_axis = -1;
        section.first = first;
        section.columns = batch_ * section.extent(0) * section.extent(1) * section.extent(2);
        first += section.columns;
        sections_.push_back(section);
      }
    }
  }
}

}  // namespace mxd::cpu
