// How a pass is cut for minimal filtering on a CPU: groups of correlations (core/filter_axes.h),
// blocks.
//
// A *group* is what shares results: one correlation, or all.
#pragma once

#include <algorithm>
#include <vector>

#include "core/filter_axes.h"
#include "cpu/engine.h"
#include "cpu/filter_tiles.h"
#include "cpu/panels.h"

namespace mxd::cpu {

struct Correlation {
  FilterAxis axis[kAxes];
};

struct FilterGroup {
  FilterKind kind[kAxes];
  std::vector<Correlation> correlations;
  int64_t weight_begin;       // its transformed weights, in elements
  bool owns_weights = false;  // else they are those of a group before it

  int64_t products() const {
    return products_of(kind[0]) * products_of(kind[1]) * products_of(kind[2]);
  }
};

struct FilterPlan {
  FilterPlan(Pass pass, const Problem& problem);

  int64_t blocks() const { return count[0] * count[1] * count[2] * batch_count; }
  int64_t jobs() const { return geometry.groups * blocks() * dst_blocks; }
  // The block's results on an axis, or its images.
  Range block_range(int axis, int64_t index) const;
  Range batch_range(int64_t index) const;
  int64_t tiles(const FilterGroup& group, int axis, int64_t results) const {
    return ceil_div(results, results_of(group.kind[axis]));
  }
  // What the tiles of these correlations read for results [begin, end).
  FilterRegion region(const Correlation* first, const Correlation* last,
                      const Range (&range)[kAxes]) const;

  Geometry geometry;
  const Kernels* kernels;
  bool shared_source;  // the correlations read one grid: forward, but for split axes
  int64_t src_channels, dst_channels;  // per convolution group
  TensorView src, dst;
  WeightView weight;  // in_channel and out_channel are src's and dst's
  int64_t weight_group;
  BiasView bias;
  std::vector<FilterGroup> groups;    // those that differ in the last axis only follow each other
  int64_t last_axis_groups;           // how many those are
  int64_t steps;                      // of the summation of a product: correlations * channels
  std::vector<int64_t> lengths;       // of the chunks of the summation
  Panels columns;                     // of all dst channels of a convolution group
  int64_t block_panels, dst_blocks;   // panels in a block of dst channels, such blocks
  int64_t block_channels;             // padded channels of a block
  int64_t weight_channels;            // source channels whose weights are transformed at once
  int64_t results[kAxes];             // of any correlation
  int64_t step[kAxes], count[kAxes];  // results in a block, blocks
  int64_t dst_low;                    // least dst_first on the last axis
  int64_t dst_step[kAxes], dst_size[kAxes];
  int64_t batch_step, batch_count;
  int64_t tile_count;  // most tiles in a block
  int64_t weight_elements, region_elements, rows_elements, source_elements, product_elements,
      result_elements, staging_elements;
  double growth;  // how much larger than the direct products the sums of a product may become

  // How many times fewer the products are than those of the direct sum.
  double gain() const;
  int64_t dst_bytes() const {
    return geometry.batch * geometry.groups * dst_channels * dst_size[0] * dst_size[1] *
           dst_size[2] * kernels->elem_bytes;
  }
  int64_t weight_bytes() const { return weight_elements * 4; }
  int64_t worker_bytes() const;
  int64_t weight_worker_bytes() const;
  int64_t largest_worker_bytes() const { return std::max(worker_bytes(), weight_worker_bytes()); }
  int64_t bytes() const { return weight_bytes() + largest_worker_bytes(); }  // with one worker
};

}  // namespace mxd::cpu
