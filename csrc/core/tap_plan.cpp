#include "core/tap_plan.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace mxd {
namespace {

int64_t floor_div(int64_t a, int64_t b) {  // b > 0; no step of it overflows
  if (b == 1) return a;                    // the usual case: spares the division
  return a / b - (a % b < 0 ? 1 : 0);
}

int64_t ceil_div(int64_t a, int64_t b) { return -floor_div(-a, b); }

// The taps j < count for which some source index between lowest + j * step and highest + j * step,
// those of the first and the last result, lies in [0, size).
Range taps_between(int64_t lowest, int64_t highest, int64_t step, int64_t size, int64_t count) {
  Range range{0, count};
  if (step > 0) {
    range.begin = std::max(range.begin, ceil_div(-highest, step));
    range.end = std::min(range.end, floor_div(size - 1 - lowest, step) + 1);
  } else if (step < 0) {
    range.begin = std::max(range.begin, ceil_div(lowest - (size - 1), -step));
    range.end = std::min(range.end, floor_div(highest, -step) + 1);
  }
  range.end = std::max(range.begin, range.end);
  return range;
}

// Drops leading and trailing taps that miss the source for every result.
void clip_taps(AxisTaps& taps) {
  const Range range =
      taps_between(taps.src_begin, taps.src_begin + (taps.dst_count - 1) * taps.src_step,
                   taps.src_tap_step, taps.src_size, taps.tap_count);
  taps.tap_begin += range.begin * taps.tap_step;
  taps.src_begin += range.begin * taps.src_tap_step;
  taps.tap_count = range.end - range.begin;
}

// x with  a * x = 1 (mod m)  for coprime a and m, 0 <= x < m: Euclid's algorithm.
int64_t inverse_modulo(int64_t a, int64_t m) {
  int64_t r0 = m, r1 = a % m, x0 = 0, x1 = 1;
  while (r1 != 0) {
    const int64_t q = r0 / r1;
    std::swap(r0 -= q * r1, r1);
    std::swap(x0 -= q * x1, x1);
  }
  return x0 < 0 ? x0 + m : x0;
}

int64_t multiply_modulo(int64_t a, int64_t b, int64_t m) {
  __extension__ typedef unsigned __int128 Wide;
  return int64_t(Wide(a) * Wide(b) % Wide(m));
}

// The phase whose first tap is t0, if it has an output that a tap reaches.
void add_phase(const Axis& axis, int64_t g, int64_t t0, std::vector<AxisTaps>& phases) {
  const int64_t s = axis.stride;
  const int64_t shift = t0 * axis.dilate - axis.pad;  // output of input 0 at tap t0
  AxisTaps phase;
  phase.dst_begin = shift - floor_div(shift, s) * s;
  if (phase.dst_begin >= axis.out) return;
  phase.dst_step = s;
  phase.dst_count = (axis.out - 1 - phase.dst_begin) / s + 1;
  phase.src_begin = (phase.dst_begin - shift) / s;
  phase.src_step = 1;
  phase.src_tap_step = -(axis.dilate / g);
  phase.src_size = axis.in;
  phase.tap_begin = t0;
  phase.tap_step = s / g;
  phase.tap_count = (axis.kernel - 1 - t0) / phase.tap_step + 1;
  clip_taps(phase);
  if (phase.tap_count > 0) phases.push_back(phase);
}

}  // namespace

Range valid_results(const AxisTaps& taps, int64_t tap, Range within) {
  const int64_t base = taps.src_begin + tap * taps.src_tap_step;
  const int64_t begin = std::max(within.begin, ceil_div(-base, taps.src_step));
  const int64_t end = std::min(within.end, floor_div(taps.src_size - 1 - base, taps.src_step) + 1);
  return {begin, std::max(begin, end)};
}

Range valid_taps(const AxisTaps& taps, int64_t result) {
  const int64_t index = taps.src_begin + result * taps.src_step;
  return taps_between(index, index, taps.src_tap_step, taps.src_size, taps.tap_count);
}

int64_t phase_candidates(const Axis& axis) {
  const int64_t first_taps =
      std::min(axis.kernel, axis.stride / std::gcd(axis.stride, axis.dilate));
  return std::min({first_taps, axis.stride, axis.out});
}

std::vector<AxisTaps> forward_phases(const Axis& axis) {
  const int64_t g = std::gcd(axis.stride, axis.dilate);
  const int64_t period = axis.stride / g;  // residues of the taps repeat after so many
  std::vector<AxisTaps> phases;
  phases.reserve(size_t(std::min(phase_candidates(axis), int64_t(16))));
  if (std::min(axis.kernel, period) <= std::min(axis.out, axis.stride)) {
    for (int64_t t0 = 0; t0 < std::min(axis.kernel, period); ++t0) {
      add_phase(axis, g, t0, phases);
    }
  } else {  // fewer outputs than taps: ask each output's residue for its first tap
    const int64_t inverse = inverse_modulo(axis.dilate / g, period);
    for (int64_t o = 0; o < std::min(axis.out, axis.stride); ++o) {
      const int64_t residue = (o + axis.pad) % axis.stride;
      if (residue % g != 0) continue;
      const int64_t t0 = multiply_modulo(residue / g, inverse, period);
      if (t0 < axis.kernel) add_phase(axis, g, t0, phases);
    }
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
  if (taps.tap_count == 0) return {};
  return {taps};
}

}  // namespace mxd
