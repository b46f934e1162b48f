#include "core/filter_axes.h"

#include <algorithm>

#include "core/tap_plan.h"

namespace mxd {
namespace {

constexpr int64_t kMostPhases = 64;
constexpr int64_t kMostTaps = 3;  // of a phase on one axis
constexpr int64_t kMostKernel = 4096;
// Sizes beyond these belong to no memory, but `explain` may ask for them: nothing may overflow.
constexpr int64_t kMostChannels = int64_t(1) << 20;
constexpr double kMostWeights = 0x1p40;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

std::vector<AxisTaps> phases_of(const Axis& axis) {
  if (phase_candidates(axis) > kMostPhases) return {};
  return forward_phases(axis);
}

// The kind that needs the fewest products for all results; of two, the one with fewer weights.
FilterKind kind_for(int64_t taps, int64_t results) {
  if (taps == 1) return FilterKind::kSingle;
  if (taps == 3) return FilterKind::kF23;
  return products_for(FilterKind::kF32, results) < products_for(FilterKind::kF22, results)
             ? FilterKind::kF32
             : FilterKind::kF22;
}

// Renumbers the results of all phases so that result q meets the same source values in each: they
// then share their transformed source. More tiles hang over at the ends for it: only where that
// takes no more products.
void align(std::vector<FilterAxis>& axes) {
  int64_t least = axes[0].src_begin;
  int64_t apart = 0, together = 0;
  for (const FilterAxis& axis : axes) {
    if (taps_of(axis.kind) != taps_of(axes[0].kind)) return;
    least = std::min(least, axis.src_begin);
  }
  std::vector<FilterAxis> aligned = axes;
  int64_t results = 0, low = 0, high = 0;
  for (FilterAxis& axis : aligned) {
    const int64_t shift = axis.src_begin - least;
    axis.src_begin = least;
    axis.dst_first -= shift * axis.dst_step;
    axis.dst_begin += shift;
    axis.dst_end += shift;
    results = std::max(results, axis.dst_end);
    low = std::min(low, axis.dst_first);
    high = std::max(high, axis.dst_first);
  }
  if (high - low >= axes[0].dst_step) return;
  for (size_t i = 0; i < axes.size(); ++i) {
    aligned[i].kind = kind_for(taps_of(axes[i].kind), results);
    together += products_for(aligned[i].kind, results);
    apart += products_for(axes[i].kind, axes[i].dst_end);
  }
  // Where both are equal but of different kinds, the weights are fewer apart.
  if (together < apart || (together == apart && aligned[0].kind == axes[0].kind)) axes = aligned;
}

// Every in_step-th input and every out_step-th output of an axis, as an axis of their own.
struct PartOfAxis {
  Axis axis;
  int64_t in_first, in_step, out_first, out_step;
};

// Without a stride, a dilation d splits an axis: every d-th input meets every d-th output only, and
// there taps lie side by side. A stride of d meets every d-th output only, which is as good as no
// stride where the others are not asked for: in the data gradient.
std::vector<PartOfAxis> parts_of(Pass pass, const Axis& axis) {
  const int64_t d = axis.dilate;
  const bool dilated = d > 1 && d <= kMostPhases && axis.kernel > 1;
  if (pass == Pass::kDataGradient && dilated && axis.stride == d && axis.out >= d) {
    const int64_t o = (d - axis.pad % d) % d;
    const Axis part{axis.in, ceil_div(axis.out - o, d), axis.kernel, 1, 1, (o + axis.pad) / d};
    return {{part, 0, 1, o, d}};
  }
  const bool splits = axis.stride == 1 && dilated && pass != Pass::kWeightGradient;
  if (!splits || std::min(axis.in, axis.out) < d) return {{axis, 0, 1, 0, 1}};
  std::vector<PartOfAxis> parts;
  for (int64_t i = 0; i < d; ++i) {
    const int64_t o = ((i - axis.pad) % d + d) % d;
    const Axis part{ceil_div(axis.in - i, d), ceil_div(axis.out - o, d), axis.kernel, 1, 1,
                    (o - i + axis.pad) / d};
    parts.push_back({part, i, d, o, d});
  }
  return parts;
}

std::vector<FilterAxis> correlations_of(Pass pass, const PartOfAxis& part) {
  const Axis& axis = part.axis;
  std::vector<FilterAxis> found;
  for (const AxisTaps& phase : phases_of(axis)) {
    FilterAxis a;
    const int64_t last = phase.tap_count - 1;
    if (pass == Pass::kForward) {
      a = {kind_for(phase.tap_count, phase.dst_count),
           phase.src_begin - last,
           {0, 1, axis.in},
           phase.tap_begin + last * phase.tap_step,
           -phase.tap_step,
           phase.dst_begin,
           phase.dst_step,
           0,
           phase.dst_count};
    } else {
      a = {kind_for(phase.tap_count, axis.in),
           -phase.src_begin,
           {phase.dst_begin, phase.dst_step, phase.dst_count},
           phase.tap_begin,
           phase.tap_step,
           0,
           1,
           0,
           axis.in};
    }
    found.push_back(a);
  }
  if (pass == Pass::kForward) align(found);
  const bool forward = pass == Pass::kForward;
  for (FilterAxis& a : found) {
    const int64_t src_step = forward ? part.in_step : part.out_step;
    const int64_t dst_step = forward ? part.out_step : part.in_step;
    a.src.first = a.src.first * src_step + (forward ? part.in_first : part.out_first);
    a.src.step *= src_step;
    a.dst_first = a.dst_first * dst_step + (forward ? part.out_first : part.in_first);
    a.dst_step *= dst_step;
  }
  return found;
}

// A result that no tap reaches is exactly zero: a tile would leave a rounding error there.
bool every_result_reached(Pass pass, const Axis& axis) {
  const int64_t reach = (axis.kernel - 1) * axis.dilate;
  const int64_t last = (axis.in - 1) * axis.stride - axis.pad;
  return pass == Pass::kForward ? axis.out <= last + reach + 1
                                : axis.pad <= reach && last < axis.out;
}

// Why an axis cannot be filtered, or null.
const char* why_not_filtered(Pass pass, const Axis& axis) {
  const std::vector<AxisTaps> phases = phases_of(axis);
  if (int64_t(phases.size()) < std::min(axis.stride, axis.out)) {
    return "minimal filtering needs taps at every output and few phases";
  }
  int64_t taps = 0;
  for (const AxisTaps& phase : phases) taps += phase.tap_count;
  if (pass == Pass::kWeightGradient ? taps < axis.kernel : !every_result_reached(pass, axis)) {
    return "minimal filtering needs a tap for every result";
  }
  for (const AxisTaps& phase : phases) {
    if (phase.src_tap_step != -1 && phase.tap_count > 1) {
      return "minimal filtering needs taps side by side";
    }
    if (phase.tap_count > kMostTaps) return "minimal filtering knows two or three taps a phase";
    if (pass == Pass::kDataGradient && phase.tap_count != phases[0].tap_count) {
      return "minimal filtering needs phases with as many taps each";
    }
  }
  return nullptr;
}

}  // namespace

int64_t products_for(FilterKind kind, int64_t results) {
  return ceil_div(results, results_of(kind)) * products_of(kind);
}

std::vector<FilterAxis> correlations_of(Pass pass, const Axis& axis) {
  std::vector<FilterAxis> found;
  for (const PartOfAxis& part : parts_of(pass, axis)) {
    const std::vector<FilterAxis> more = correlations_of(pass, part);
    found.insert(found.end(), more.begin(), more.end());
  }
  return found;
}

bool splits(Pass pass, const Axis& axis) { return parts_of(pass, axis).size() > 1; }

const char* why_not_filtered(Pass pass, const Problem& problem) {
  if (problem.dtype == DType::kFloat64) return "minimal filtering never runs in float64";
  if (double(problem.geometry.axis[0].kernel) * double(problem.geometry.axis[1].kernel) *
          double(problem.geometry.axis[2].kernel) >
      double(kMostKernel)) {
    return "minimal filtering needs a small kernel";
  }
  const Geometry& g = problem.geometry;
  if (std::max(g.in_channels, g.out_channels) > kMostChannels ||
      double(g.groups) * double(g.in_channels * g.out_channels) * double(g.taps()) > kMostWeights) {
    return "minimal filtering needs fewer weights";
  }
  bool several = false, split = false, strided = false;
  int64_t combinations = 1;
  for (const Axis& axis : problem.geometry.axis) {
    const std::vector<PartOfAxis> parts = parts_of(pass, axis);
    int64_t phases = 0;
    for (const PartOfAxis& part : parts) {
      if (const char* reason = why_not_filtered(pass, part.axis)) return reason;
      for (const AxisTaps& phase : phases_of(part.axis)) {
        several |= phase.tap_count > 1;
        ++phases;
      }
    }
    combinations *= phases;
    split |= parts.size() > 1;
    strided |= parts[0].axis.stride > 1;
  }
  if (!several) return "one tap a phase leaves nothing to filter";
  if (pass == Pass::kDataGradient && split && strided) {
    return "minimal filtering of a data gradient knows strides or dilations, not both";
  }
  if (combinations > kMostPhases) return "minimal filtering needs few phases";
  return nullptr;
}

}  // namespace mxd
