#include "cpu/filter_plan.h"

#include <algorithm>

#include "cpu/scratch.h"

namespace mxd::cpu {
namespace {

constexpr int64_t kWeightChannels = 16;

// Tiles of a block: enough rows that a column panel of the weights, streamed from the cache, feeds
// several register tiles. Columns of a block: few enough that its products stay in cache; twice as
// many in the data gradient, where the source that is transformed for each block has a chunk for
// every phase (1.13x to 1.25x, and less than 1x in the forward pass).
constexpr int64_t kBlockTiles = 64;
constexpr int64_t kBlockColumns = 128;
constexpr int64_t kBlockColumnsOfPhases = 256;

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

}  // namespace

FilterPlan::FilterPlan(Pass pass, const Problem& problem)
    : geometry(problem.geometry),
      kernels(&kernels_for(problem.dtype)),
      shared_source(pass == Pass::kForward) {
  bool split = false;
  for (const Axis& axis : geometry.axis) split |= splits(pass, axis);
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
    double grown = 1;
    for (const FilterKind kind : group.kind) grown *= growth_of(kind);
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
