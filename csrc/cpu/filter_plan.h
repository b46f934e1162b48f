// How a pass is cut for minimal filtering: correlations, groups, blocks.
//
// A *correlation* is a phase seen from its results: result q of an axis meets source values
// src_begin + q + e for e = 0 .. taps-1, with step 1. Forward, every phase is one, and writes
// results of its own. In the data gradient every phase of the output is a source, and all of them
// add to the same results. Where dilation splits an axis, correlations are of its parts, in both
// passes with results of their own. A *group* is what shares results: one correlation, or all.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/engine.h"
#include "cpu/filter_tiles.h"
#include "cpu/panels.h"

namespace mxd::cpu {

struct FilterAxis {
  FilterKind kind;
  int64_t src_begin;  // source index of result 0, e = 0
  FilterGrid src;
  int64_t tap_first, tap_step;  // of the kernel, for e = 0 and from one e to the next
  int64_t dst_first, dst_step;  // of the destination; results dst_begin .. dst_end-1
  int64_t dst_begin, dst_end;   // exist, those from 0 on belong to the tiles
};

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

// Why minimal filtering cannot do the problem, or null. Looks at no memory.
const char* why_not_filtered(Pass pass, const Problem& problem);

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
