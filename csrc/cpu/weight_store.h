// From the accumulators of a tile to the weight's memory.
#pragma once

#include "cpu/cell_panels.h"
#include "cpu/outer_plan.h"

namespace mxd::cpu {

// `sum` holds for each step j of the tile a matrix of channels and entries of out: the entries in
// the places of `entries`, the channels padded to `channel_width`; the lanes are contiguous.
void store_weight_tile(const OuterPlan& plan, const WeightTile& tile, const CellPanels& entries,
                       int64_t channel_width, const void* sum);

}  // namespace mxd::cpu
