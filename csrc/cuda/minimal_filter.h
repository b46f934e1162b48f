// Minimal filtering of forward passes and data gradients in float32: fewer products than the direct
// sum, between transforms that go through memory. docs/numerics.md has the formulas and what they
// cost in precision.
//
//   weights    U[point][term][row]   the transformed taps of every phase
//   source     V[point][term][tile]  the transformed source, of a block of tiles
//   products   M[point][row][tile]   a product of matrices for each point, by the kernel of
//   product.h results                          the points of a tile mapped to its results, and the
//   bias
//
// A *stage* does this for phases of one kind that read the same tiles or write the same results.
// Forward, its phases read the same tiles and are rows: (phase, filter). In the data gradient they
// all add to the same results and are terms: (phase, out channel).
//
// A value that must not be filtered raises a flag in memory, which nobody on the host looks at: the
// direct sum is launched behind the stages in any case, and returns at once if there is none.
#pragma once

#include <vector>

#include "core/filter_axes.h"
#include "cuda/product_plan.h"

namespace mxd::cuda {

constexpr int kMostFilterPhases = 8;  // of an axis
constexpr int kMostPoints = 4;        // of an axis

// What tells the phases of an axis apart (see core/filter_axes.h).
struct FilterPhase {
  int64_t src_begin, src_first, src_size, tap_first, dst_first, dst_begin, dst_end;
};

// And what they share. Tiles count those of an image.
struct FilterStageAxis {
  FilterKind kind = FilterKind::kSingle;
  int32_t taps = 1, results = 1, points = 1, tiles = 1, phases = 1;
  int64_t src_step = 1, tap_step = 1, dst_step = 1;
  FilterPhase phase[kMostFilterPhases] = {};
};

// Of V and M; a group and one of its points count as one group.
struct FilterStrides {
  int64_t group, channel, tile;
};

struct FilterParams {
  FilterStageAxis axis[kAxes];
  bool phases_are_rows = true;
  bool src_channels_fastest = false, dst_channels_fastest = false;  // in V, in M
  int32_t groups = 1, src_channels = 1, dst_channels = 1;           // channels of a group
  TensorView src, dst;
  WeightView weight;  // in_channel and out_channel are src's and dst's
  int64_t weight_group = 0;
  BiasView bias;
  float limit = 0;  // of the magnitudes of weights and source values
  int32_t* unsafe = nullptr;
  float *weights = nullptr, *source = nullptr, *products = nullptr;
  int32_t first_tile = 0, tiles = 0;  // of the block, over the batch

  MXD_HOST_DEVICE int32_t phases() const {
    return axis[0].phases * axis[1].phases * axis[2].phases;
  }
  MXD_HOST_DEVICE int32_t points() const {
    return axis[0].points * axis[1].points * axis[2].points;
  }
  MXD_HOST_DEVICE int32_t rows() const { return dst_channels * (phases_are_rows ? phases() : 1); }
  MXD_HOST_DEVICE int32_t terms() const { return src_channels * (phases_are_rows ? 1 : phases()); }
  MXD_HOST_DEVICE FilterStrides source_strides() const {
    return strides(terms(), src_channels_fastest);
  }
  MXD_HOST_DEVICE FilterStrides product_strides() const {
    return strides(rows(), dst_channels_fastest);
  }
  MXD_HOST_DEVICE FilterStrides strides(int64_t channels, bool channels_fastest) const {
    if (channels_fastest) return {channels, 1, int64_t(groups) * points() * channels};
    return {channels * tiles, tiles, 1};
  }
};

struct FilterStage {
  FilterParams params;  // but for the addresses and the block
  int32_t tiles = 0;    // over the batch
  int32_t block = 0;    // tiles at once

  int64_t weight_bytes() const;
  int64_t source_bytes() const;
  int64_t product_bytes() const;
  int64_t bytes() const { return weight_bytes() + source_bytes() + product_bytes(); }
};

struct FilterPlan {
  std::vector<FilterStage> stages;
  ProductPlan direct;         // where a value must not be filtered
  int64_t scratch_bytes = 0;  // the stages follow one another in it
  double gain = 1;            // how many times fewer the products are
  std::string unfiltered;     // why it cannot be done; the rest is empty then

  explicit operator bool() const { return !stages.empty(); }
};

FilterPlan plan_minimal_filter(Pass pass, const Problem& problem, const Device& device,
                               const Settings& settings);

void run_minimal_filter(const FilterPlan& plan, const Device& device, void* scratch,
                        CUstream_st* stream);

}  // namespace mxd::cuda
