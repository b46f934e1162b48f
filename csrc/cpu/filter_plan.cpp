#include "cpu/filter_plan.h"

#include <algorithm>

#include "core/tap_plan.h"
#include "cpu/scratch.h"

namespace mxd::cpu {
namespace {

constexpr int64_t kMostPhases = 64;
constexpr int64_t kMostTaps = 3;  // of a phase on one axis
constexpr int64_t kMostKernel = 4096;
// Sizes beyond these belong to no memory, but `explain` may ask for them: nothing may overflow.
constexpr int64_t kMostChannels = int64_t(1) << 20;
constexpr double kMostWeights = 0x1p40;
constexpr int64_t kWeightChannels = 16;

// Tiles of a block: enough rows that a column panel of the weights, streamed from the cache, feeds
// several register tiles. Columns of a block: few enough that its products stay in cache; twice as
// many in the data gradient, where the source that is transformed for each block has a chunk for
// every phase (1.13x to 1.25x, and less than 1x in the forward pass).
constexpr int64_t kBlockTiles = 64;
constexpr int64_t kBlockColumns = 128;
constexpr int64_t kBlockColumnsOfPhases = 256;

std::vector<AxisTaps> phases_of(const Axis& axis) {
  if (phase_candidates(axis) > kMostPhases) return {};
  return forward_phases(axis);
}

int64_t products_for(FilterKind kind, int64_t results) {
  return ceil_div(results, results_of(kind)) * products_of(kind);
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

std::vector<FilterAxis> correlations_of(Pass pass, const Axis& axis) {
  std::vector<FilterAxis> found;
  for (const PartOfAxis& part : parts_of(pass, axis)) {
    const std::vector<FilterAxis> more = correlations_of(pass, part);
    found.insert(found.end(), more.begin(), more.end());
  }
  return found;
}

// Whether both groups transform the same taps in the same way.
bool same_weights(const FilterGroup& a, const FilterGroup& b) {
  if (a.correlations.size() != b.correlations.size()) return false;
  for (size_t c = 0; c < a.correlations.size(); ++c) {
    for (int i = 0; i < kAxes; ++i) {
      const FilterAxis &left = a.correlations[c].axis[i], &right = b.correlations[c].axis[i];
      if (left.kind != right.kind || left.tap_first != right.tap_first ||
          left.tap_step != right.tap_step) {
        return false;
      }
    }
  }
  return true;
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

FilterPlan::FilterPlan(Pass pass, const Problem& problem)
    : geometry(problem.geometry),
      kernels(&kernels_for(problem.dtype)),
      shared_source(pass == Pass::kForward) {
  bool split = false;
  for (const Axis& axis : geometry.axis) split |= parts_of(pass, axis).size() > 1;
  if (split) shared_source = false;
  const bool forward = pass == Pass::kForward;
  src_channels = forward ? geometry.in_channels : geometry.out_channels;
  dst_channels = forward ? geometry.out_channels : geometry.in_channels;
  src = forward ? problem.data : problem.out;
  dst = forward ? problem.out : problem.data;
  weight = problem.weight;
  weight_group = geometry.in_channels * weight.in_channel;
  if (!forward) std::swap(weight.in_channel, weight.out_channel);
  if (forward) bias = problem.bias;

  std::vector<FilterAxis> axes[kAxes];
  int64_t unit[kAxes];  // whole tiles of every kind
  for (int a = 0; a < kAxes; ++a) {
    axes[a] = correlations_of(pass, geometry.axis[a]);
    unit[a] = 1;
    results[a] = 0;
    for (const FilterAxis& axis : axes[a]) {
      results[a] = std::max(results[a], axis.dst_end);
      const int64_t m = results_of(axis.kind);
      if (unit[a] % m != 0) unit[a] *= m;
    }
    dst_step[a] = axes[a][0].dst_step;
    dst_low = axes[a][0].dst_first;
    for (const FilterAxis& axis : axes[a]) dst_low = std::min(dst_low, axis.dst_first);
    dst_size[a] = forward ? geometry.axis[a].out : geometry.axis[a].in;
  }
  for (const FilterAxis& a0 : axes[0]) {
    for (const FilterAxis& a1 : axes[1]) {
      for (const FilterAxis& a2 : axes[2]) {
        if (forward || split || groups.empty()) {
          groups.push_back({{a0.kind, a1.kind, a2.kind}, {}, 0});
        }
        groups.back().correlations.push_back({{a0, a1, a2}});
      }
    }
  }
  last_axis_groups = forward || split ? int64_t(axes[2].size()) : 1;

  for (size_t c = 0; c < groups[0].correlations.size(); ++c) {
    for (int64_t k = 0; k < src_channels; k += kFilterChunk) {
      lengths.push_back(std::min(kFilterChunk, src_channels - k));
    }
  }
  steps = int64_t(groups[0].correlations.size()) * src_channels;
  columns = Panels::of_cols(*kernels, dst_channels);
  const int64_t most_columns = forward ? kBlockColumns : kBlockColumnsOfPhases;
  block_panels = std::min(columns.count(), most_columns / kernels->cols);
  dst_blocks = ceil_div(columns.count(), block_panels);
  block_panels = ceil_div(columns.count(), dst_blocks);
  block_channels = std::min(block_panels * kernels->cols, columns.padded_total());
  block_channels = ceil_div(block_channels, kFilterLanes) * kFilterLanes;

  weight_channels =
      std::clamp<int64_t>(kMostProducts * kWeightChannels / geometry.taps(), 1, kWeightChannels);

  // The block grows from the innermost axis outwards.
  int64_t room = kBlockTiles;
  for (int a = kAxes - 1; a >= 0; --a) {
    const int64_t units = ceil_div(results[a], unit[a]);
    const int64_t parts = ceil_div(units, std::max<int64_t>(std::min(units, room), 1));
    const int64_t fitting = ceil_div(units, parts);
    step[a] = fitting * unit[a];
    count[a] = ceil_div(results[a], step[a]);
    room /= fitting;
  }
  batch_step = std::max<int64_t>(std::min(room, geometry.batch), 1);
  batch_count = ceil_div(geometry.batch, batch_step);

  const int64_t chunks = int64_t(lengths.size());
  weight_elements = tile_count = source_elements = product_elements = result_elements = 0;
  int64_t most0 = 1, most1 = 1;  // products
  growth = 1;
  Range whole[kAxes];
  for (int a = 0; a < kAxes; ++a) whole[a] = {0, step[a]};
  for (FilterGroup& group : groups) {
    const int64_t products = group.products();
    const auto like = std::find_if(groups.begin(), groups.begin() + (&group - groups.data()),
                                   [&](const FilterGroup& g) { return same_weights(g, group); });
    group.owns_weights = &*like == &group;
    group.weight_begin = group.owns_weights ? weight_elements : like->weight_begin;
    if (group.owns_weights) {
      weight_elements +=
          align_up(geometry.groups * products * steps * columns.padded_total() * 4) / 4;
    }
    int64_t t = batch_step;
    for (int a = 0; a < kAxes; ++a) t *= tiles(group, a, step[a]);
    tile_count = std::max(tile_count, t);
    source_elements = std::max(source_elements, products * chunks * t * kFilterChunk);
    product_elements = std::max(product_elements, products * t * block_channels);
    const int64_t p0 = products_of(group.kind[0]), p1 = products_of(group.kind[1]);
    const int64_t p2 = products_of(group.kind[2]);
    const int64_t row = tiles(group, 2, step[2]) * block_channels;
    result_elements = std::max(
        result_elements, (results_of(group.kind[0]) * p1 + results_of(group.kind[1])) * p2 * row);
    most0 = std::max(most0, p0);
    most1 = std::max(most1, p1);
    double grown = 1;  // a bound on the maps' row sums, one after the other
    for (const FilterKind kind : group.kind) grown *= kind == FilterKind::kSingle ? 1 : 12;
    growth = std::max(growth, grown);
  }
  // Of one correlation where each has a grid of its own; they differ in their origin only.
  std::vector<Correlation> reading{groups[0].correlations[0]};
  for (const FilterGroup& group : groups) reading.push_back(group.correlations[0]);
  const FilterRegion all = region(reading.data(), reading.data() + reading.size(), whole);
  region_elements = batch_step * all.pixels() * kFilterChunk * (shared_source ? chunks : 1);
  rows_elements = (most0 * all.size[1] + most1) * all.size[2] * kFilterChunk;
  staging_elements = batch_step * step[0] * step[1] * step[2] * dst_step[2] * block_channels;
}

double FilterPlan::gain() const {
  double direct = 0, filtered = 0;
  for (const FilterGroup& group : groups) {
    double taps = 1, products = 1;
    for (int a = 0; a < kAxes; ++a) {
      const FilterAxis& axis = group.correlations[0].axis[a];
      taps *= double((axis.dst_end - axis.dst_begin) * taps_of(axis.kind));
      products *= double(products_for(axis.kind, results[a]));
    }
    direct += taps;
    filtered += products;
  }
  return direct / filtered;
}

int64_t FilterPlan::worker_bytes() const {
  return (region_elements + rows_elements + source_elements + product_elements + result_elements +
          staging_elements + block_channels) *
             4 +
         7 * kAlignment;
}

int64_t FilterPlan::weight_worker_bytes() const {
  return (geometry.taps() + 2 * kMostProducts) * weight_channels * kernels->cols * 4 +
         3 * kAlignment;
}

Range FilterPlan::block_range(int axis, int64_t index) const {
  return {index * step[axis], std::min((index + 1) * step[axis], results[axis])};
}

Range FilterPlan::batch_range(int64_t index) const {
  return {index * batch_step, std::min((index + 1) * batch_step, geometry.batch)};
}

FilterRegion FilterPlan::region(const Correlation* first, const Correlation* last,
                                const Range (&range)[kAxes]) const {
  FilterRegion region;
  for (int a = 0; a < kAxes; ++a) {
    int64_t begin = first->axis[a].src_begin;
    int64_t end = begin;
    for (const Correlation* c = first; c != last; ++c) {
      const FilterAxis& axis = c->axis[a];
      const int64_t m = results_of(axis.kind);
      const int64_t covered = ceil_div(range[a].end - range[a].begin, m) * m;
      begin = std::min(begin, axis.src_begin);
      end = std::max(end, axis.src_begin + covered + taps_of(axis.kind) - 1);
    }
    region.begin[a] = begin + range[a].begin;
    region.size[a] = end - begin;
  }
  return region;
}

}  // namespace mxd::cpu
