#include "core/tap_plan.h"

#include <algorithm>
#include <numeric>

namespace mxd {
namespace {

int64_t floor_div(int64_t a, int64_t b) {  // b > 0; no step of it overflows
  return a / b - (a % b < 0 ? 1 : 0);
}

int64_t ceil_div(int64_t a, int64_t b) { return -floor_div(-a, b); }

// Drops leading and trailing taps that miss the source for every result.
void clip_taps(AxisTaps& taps) {
  const int64_t src_first = taps.src_begin;
  const int64_t src_last = taps.src_begin + (taps.dst_count - 1) * taps.src_step;
  int64_t begin = 0;
  int64_t end = taps.tap_count;
  if (taps.src_tap_step > 0) {
    begin = std::max(begin, ceil_div(-src_last, taps.src_tap_step));
    end = std::min(end, floor_div(taps.src_size - 1 - src_first, taps.src_tap_step) + 1);
  } else if (taps.src_tap_step < 0) {
    begin = std::max(begin, ceil_div(src_first - (taps.src_size - 1), -taps.src_tap_step));
    end = std::min(end, floor_div(src_last, -taps.src_tap_step) + 1);
  }
  taps.tap_begin += begin * taps.tap_step;
  taps.src_begin += begin * taps.src_tap_step;
  taps.tap_count = std::max<int64_t>(end - begin, 0);
}

// Below this share of (result, tap) pairs that meet the source, an axis is cut where the set of
// reaching taps changes. On images a few pixels wide the zeros multiplied at the border would
// otherwise cost more than the smaller tiles: at 7/8 per axis a 2-D layer does 1.3x the work.
constexpr double kSplitBelow = 0.9;

void make_regions(AxisTaps& taps) {
  if (taps.tap_count == 0 || taps.dst_count == 0) return;
  // Long progressions are not worth cutting; the cap keeps planning cheap for any kernel.
  constexpr int64_t kMostTapsToCut = 64;
  double valid = 0;
  for (int64_t j = 0; j < taps.tap_count && j < kMostTapsToCut; ++j) {
    const Range range = valid_results(taps, j, {0, taps.dst_count});
    valid += double(range.end - range.begin);
  }
  const bool cut = taps.tap_count <= kMostTapsToCut &&
                   valid < kSplitBelow * double(taps.tap_count) * double(taps.dst_count);
  if (cut) {
    taps.regions = exact_regions(taps);
  } else {
    taps.regions.push_back({0, taps.dst_count, 0, taps.tap_count});
  }
}

}  // namespace

Range valid_results(const AxisTaps& taps, int64_t tap, Range within) {
  const int64_t base = taps.src_begin + tap * taps.src_tap_step;
  const int64_t begin = std::max(within.begin, ceil_div(-base, taps.src_step));
  const int64_t end = std::min(within.end, floor_div(taps.src_size - 1 - base, taps.src_step) + 1);
  return {begin, std::max(begin, end)};
}

std::vector<AxisRegion> exact_regions(const AxisTaps& taps) {
  std::vector<int64_t> cuts;
  for (int64_t j = 0; j < taps.tap_count; ++j) {
    const Range range = valid_results(taps, j, {0, taps.dst_count});
    if (range.begin >= range.end) continue;
    cuts.push_back(range.begin);
    cuts.push_back(range.end);
  }
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  std::vector<AxisRegion> regions;
  for (size_t c = 0; c + 1 < cuts.size(); ++c) {
    AxisRegion region{cuts[c], cuts[c + 1], taps.tap_count, 0};
    for (int64_t j = 0; j < taps.tap_count; ++j) {
      const Range range = valid_results(taps, j, {region.begin, region.end});
      if (range.begin >= range.end) continue;
      region.tap_begin = std::min(region.tap_begin, j);
      region.tap_end = j + 1;
    }
    if (region.tap_begin < region.tap_end) regions.push_back(region);
  }
  return regions;
}

std::vector<AxisTaps> forward_phases(const Axis& axis) {
  const int64_t s = axis.stride;
  const int64_t d = axis.dilate;
  const int64_t g = std::gcd(s, d);
  std::vector<AxisTaps> phases;
  // Tap t0 < stride/g is the first of its residue: the residues repeat with period stride/g.
  for (int64_t t0 = 0; t0 < std::min(axis.kernel, s / g); ++t0) {
    const int64_t shift = t0 * d - axis.pad;  // output of input 0 at tap t0
    AxisTaps phase;
    phase.dst_begin = shift - floor_div(shift, s) * s;
    if (phase.dst_begin >= axis.out) continue;
    phase.dst_step = s;
    phase.dst_count = (axis.out - 1 - phase.dst_begin) / s + 1;
    phase.src_begin = (phase.dst_begin - shift) / s;
    phase.src_step = 1;
    phase.src_tap_step = -(d / g);
    phase.src_size = axis.in;
    phase.tap_begin = t0;
    phase.tap_step = s / g;
    phase.tap_count = (axis.kernel - 1 - t0) / phase.tap_step + 1;
    clip_taps(phase);
    make_regions(phase);
    if (!phase.regions.empty()) phases.push_back(phase);
  }
  std::sort(phases.begin(), phases.end(),
            [](const AxisTaps& a, const AxisTaps& b) { return a.dst_begin < b.dst_begin; });
  return phases;
}

std::vector<AxisTaps> data_gradient_taps(const Axis& axis) {
  AxisTaps taps;
  taps.dst_count = axis.in;
  taps.src_begin = -axis.pad;
  taps.src_step = axis.stride;
  taps.src_tap_step = axis.dilate;
  taps.src_size = axis.out;
  taps.tap_count = axis.kernel;
  if (axis.out == 0) return {};
  clip_taps(taps);
  make_regions(taps);
  if (taps.regions.empty()) return {};
  return {taps};
}

}  // namespace mxd
