// The weight gradient by minimal filtering. The taps of a phase are the results here, and a tile of
// output gradients is the filter: sums over all tiles are formed between the products and the
// last step, which is done once.
#pragma once

#include <vector>

#include "cpu/engine.h"
#include "cpu/filter_tiles.h"

namespace mxd::cpu {

struct WeightFilterAxis {
  FilterKind kind;              // F(taps of the phase, output gradients of a tile)
  int64_t data_begin;           // data index that output gradient 0 meets at e = 0
  FilterGrid out;               // the phase's output gradients
  int64_t tap_first, tap_step;  // of the kernel, for e = 0 and from one e to the next
};

struct WeightFilterPhase {
  WeightFilterAxis axis[kAxes];
  int64_t products() const {
    return products_of(axis[0].kind) * products_of(axis[1].kind) * products_of(axis[2].kind);
  }
};

// Where why_not_filtered has nothing against it. A job does one phase of a block of channel pairs.
struct WeightFilterPlan {
  explicit WeightFilterPlan(const Problem& problem);

  int64_t jobs() const {
    return problem.geometry.groups * int64_t(phases.size()) * in_blocks * out_blocks;
  }
  int64_t worker_bytes() const;
  // Results begin .. begin + step - 1 of a phase, as regions of data and of the output gradients.
  FilterTiles tiles(const WeightFilterPhase& phase, FilterMap map, int64_t images) const;
  FilterRegion region(const WeightFilterPhase& phase, FilterMap map,
                      const int64_t (&begin)[kAxes]) const;

  const Problem& problem;
  const Kernels& kernels;
  std::vector<WeightFilterPhase> phases;
  int64_t channels;               // of either kind in a block, a multiple of kFilterChunk
  int64_t in_blocks, out_blocks;  // of a group's channels
  int64_t step[kAxes], count[kAxes], batch_step, batch_count;  // of the blocks of results
  int64_t region_elements, rows_elements, operand_elements, sum_elements, result_elements;
  double growth;  // of the sums over those of the direct products
};

// False if a value was met that must not be filtered: the result is then to be computed anew.
bool run_minimal_filter_weight(const WeightFilterPlan& plan, const Resources& resources);

}  // namespace mxd::cpu
