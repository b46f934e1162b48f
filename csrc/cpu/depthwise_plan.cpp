#include "cpu/depthwise_plan.h"

#include <algorithm>
#include <numeric>

#include "cpu/depthwise_ways.h"
#include "cpu/panels.h"

namespace mxd::cpu {
namespace {

constexpr int64_t kPatternBytes = int64_t(1) << 18;  // weights of a channel, as they recur in rows
constexpr int64_t kRowBytes = int64_t(3) << 17;      // source rows in scratch, at most
constexpr int64_t kChunkBytes = int64_t(1) << 15;    // if one can choose: they stay in L1 cache
constexpr int64_t kResultBytes = int64_t(1) << 16;   // partial sums
constexpr int64_t kSegment = int64_t(1) << 12;       // results of a row

int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0 ? 1 : 0); }

int64_t round_up(int64_t value, int64_t step) { return ceil_div(value, step) * step; }

bool is_forward(const std::vector<AxisTaps>& phases) { return phases.front().src_step == 1; }

std::vector<ShiftedTap> shifted_taps(const std::vector<AxisTaps>& phases) {
  std::vector<ShiftedTap> shifted;
  for (const AxisTaps& phase : phases) {
    for (int64_t j = 0; j < phase.tap_count; ++j) {
      const int64_t src = phase.src_begin + j * phase.src_tap_step;
      shifted.push_back({is_forward(phases) ? phase.dst_begin - src * phase.dst_step : src,
                         phase.tap_begin + j * phase.tap_step});
    }
  }
  return shifted;
}

ShiftRange shift_range(const std::vector<AxisTaps>& phases) {
  const std::vector<ShiftedTap> taps = shifted_taps(phases);
  const auto [least, greatest] = std::minmax_element(
      taps.begin(), taps.end(),
      [](const ShiftedTap& a, const ShiftedTap& b) { return a.shift < b.shift; });
  const bool forward = is_forward(phases);
  return {forward, forward ? phases.front().dst_step : phases.front().src_step, least->shift,
          greatest->shift};
}

// Taps that reach one result, and how far apart the first and the last source index of those lie.
struct Reach {
  double taps;
  double span;
};

Reach reach_of(const Axis& axis, Pass pass) {
  const double reach = double(axis.dilate) * double(axis.kernel - 1);
  if (pass == Pass::kDataGradient) {
    const double size = double(axis.out);
    return {std::min(double(axis.kernel), size), std::min(reach + 1, size)};
  }
  const double taps =
      double((axis.kernel - 1) / (axis.stride / std::gcd(axis.stride, axis.dilate)));
  const double size = double(axis.in);
  return {std::min(taps + 1, size), std::min(reach / double(axis.stride) + 1, size)};
}

}  // namespace

FlatAxis::FlatAxis(const TapSum& sum, int64_t no_tap) {
  const std::vector<AxisTaps>& phases = sum.axes[2];
  const int64_t vector = sum.kernels->vector;
  const auto [forward, stride, least, greatest] = shift_range(phases);
  const std::vector<ShiftedTap> shifted = shifted_taps(phases);
  // Moves the first tap to the first lane of its slot, so that there are as few slots as can be.
  const int64_t origin = -least - floor_div(-least, stride) * stride;

  const auto distance = [forward = forward, stride = stride, origin](const ShiftedTap& tap) {
    const int64_t pixels = floor_div(tap.shift + origin, stride);
    return forward ? -pixels : pixels;
  };
  std::vector<int64_t> distances;
  for (const ShiftedTap& tap : shifted) distances.push_back(distance(tap));
  std::sort(distances.begin(), distances.end());
  distances.erase(std::unique(distances.begin(), distances.end()), distances.end());

  src_size = phases.front().src_size;
  repeat = forward ? stride : 1;
  width = forward ? 1 : stride;
  results = sum.dst_size[2] * width;
  first_src = forward ? distances.front() : distances.front() * stride - origin;
  period = stride / std::gcd(stride, vector);
  const int64_t lanes = period * vector;
  for (const int64_t d : distances) {
    slots.push_back((d - distances.front()) * stride + (forward ? origin : 0));
  }
  taps.assign(distances.size() * size_t(lanes), int32_t(no_tap));
  for (const ShiftedTap& tap : shifted) {
    const int64_t slot =
        std::lower_bound(distances.begin(), distances.end(), distance(tap)) - distances.begin();
    const int64_t residue = tap.shift + origin - floor_div(tap.shift + origin, stride) * stride;
    int64_t lane = forward ? residue - origin : residue;
    lane += lane < 0 ? stride : 0;
    for (; lane < lanes; lane += stride) {
      taps[size_t(slot * lanes + lane)] = int32_t(tap.tap - sum.first_tap[2]);
    }
  }
}

RowPlan::RowPlan(const TapSum& s) : sum(s), flat(s, s.kernel[2]), shifts(shift_range(s.axes[1])) {
  const int64_t vector = sum.kernels->vector;
  const int64_t acc = sum.kernels->acc_bytes;
  int64_t taps[2] = {0, 0};  // that reach one result, at most
  for (int a = 0; a < 2; ++a) {
    for (const AxisTaps& phase : sum.axes[a]) {
      taps[a] = std::max(taps[a], std::min(phase.tap_count, phase.src_size));
    }
  }
  for (const AxisTaps& phase : sum.axes[0]) planes += phase.dst_count;
  src_planes = sum.src_channels * taps[0];
  most_terms = src_planes * taps[1] * int64_t(flat.slots.size());

  // A row's pixels, and what `expand` may write beyond them.
  const auto pitch_of = [&](int64_t results) {
    return round_up(round_up(results, vector) + flat.slots.back() + flat.repeat + vector, vector);
  };
  // Source rows that a block of result rows needs at once.
  const int64_t src_size = sum.axes[1].front().src_size;
  const auto chunk_of = [&](int64_t block) {
    const int64_t reach = shifts.greatest - shifts.least;
    const int64_t rows = shifts.forward ? (block - 1 + reach) / shifts.stride + 1
                                        : (block - 1) * shifts.stride + reach + 1;
    return contracts() ? 1 : std::min(rows, src_size);
  };
  const auto bytes_of = [&](int64_t block, int64_t row) {
    return src_planes * chunk_of(block) * pitch_of(row) * acc;
  };
  // Whole rows if they fit; then as many of them as stay in cache.
  segment = round_up(std::min(flat.results, kSegment), flat.lanes());
  while (segment > flat.lanes() && bytes_of(1, segment) > kRowBytes) {
    segment = round_up(segment / 2, flat.lanes());
  }
  segments = ceil_div(flat.results, segment);
  pitch = pitch_of(std::min(segment, flat.results));
  const auto fits = [&](int64_t block) {
    return contracts() ? block * segment * acc <= kResultBytes
                       : bytes_of(block, segment) <= kChunkBytes;
  };
  block_rows = 1;
  while (block_rows < sum.dst_size[1] && fits(2 * block_rows)) block_rows *= 2;
  blocks = ceil_div(sum.dst_size[1], block_rows);
  chunk_rows = chunk_of(block_rows);
  if (contracts()) {
    chunk_rows = std::min(std::max<int64_t>(1, kChunkBytes / (src_planes * pitch * acc)), src_size);
  }
}

Range RowPlan::source_rows(Range results) const {
  const int64_t size = sum.axes[1].front().src_size;
  Range rows;
  if (shifts.forward) {
    rows.begin = -floor_div(shifts.greatest - results.begin, shifts.stride);
    rows.end = floor_div(results.end - 1 - shifts.least, shifts.stride) + 1;
  } else {
    rows.begin = results.begin * shifts.stride + shifts.least;
    rows.end = (results.end - 1) * shifts.stride + shifts.greatest + 1;
  }
  rows.begin = std::max<int64_t>(rows.begin, 0);
  rows.end = std::max(rows.begin, std::min(rows.end, size));
  return rows;
}

bool rows_fit(const Problem& problem, Pass pass) {
  const Geometry& g = problem.geometry;
  const Kernels& kernels = kernels_for(problem.dtype);
  const int64_t vector = kernels.vector;
  const Axis& row = g.axis[2];
  const double reach = double(row.dilate) * double(row.kernel - 1);
  const double lanes = double(row.stride / std::gcd(row.stride, vector)) * double(vector);
  const double slots = std::min(double(row.kernel), reach / double(row.stride) + 2);
  const double channels = pass == Pass::kDataGradient ? double(g.out_channels)
                          : pass == Pass::kForward    ? double(g.in_channels)
                                                      : 1;
  const double patterns =
      channels * double(g.axis[0].kernel) * double(g.axis[1].kernel) * slots * lanes;
  const double pitch = lanes + reach + 2 * double(row.stride) + 4 * double(vector);
  const bool contracts = pass == Pass::kDataGradient && row.stride > 1;
  const double rows =
      channels * reach_of(g.axis[0], pass).taps * (contracts ? 1 : reach_of(g.axis[1], pass).span);
  const double acc = double(kernels.acc_bytes);
  return patterns * acc <= double(kPatternBytes) && rows * pitch * acc <= double(kRowBytes);
}

}  // namespace mxd::cpu
