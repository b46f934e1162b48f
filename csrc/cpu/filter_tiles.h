// Bringing a tensor to minimal filtering: a region of it is packed, pixel after pixel with a chunk
// of channels each, and cut into tiles that are transformed along one axis after the other.
#pragma once

#include "core/filter_axes.h"
#include "core/tap_plan.h"
#include "core/tensor_view.h"
#include "cpu/filter_kernels.h"
#include "cpu/kernels.h"

namespace mxd::cpu {

constexpr int64_t kMostProducts = 64;  // four an axis

// Indices begin .. begin + size - 1 of the grids; they may lie outside.
struct FilterRegion {
  int64_t begin[kAxes], size[kAxes];
  int64_t pixels() const { return size[0] * size[1] * size[2]; }
};

// Copies `channels` <= kFilterChunk channels, from `channel` on, of a region of the images; zeros
// outside of the grid and for the channels of the chunk that do not exist. Returns the largest
// magnitude, as bits.
uint32_t pack_region(const Kernels& kernels, const TensorView& view,
                     const FilterGrid (&grid)[kAxes], Range images, int64_t channel,
                     int64_t channels, const FilterRegion& region, float* dst);

// Tiles of a packed region, `step` pixels apart on each axis.
struct FilterTiles {
  FilterMap map;  // of source values or of taps
  FilterKind kind[kAxes];
  int64_t step[kAxes];
  int64_t count[kAxes];
  int64_t images;

  int64_t total() const { return images * count[0] * count[1] * count[2]; }
  int64_t reads(int axis) const {
    return map == FilterMap::kSource ? products_of(kind[axis]) : taps_of(kind[axis]);
  }
};

// The elements that transform_tiles needs as `rows`.
int64_t tile_rows_elements(const FilterTiles& tiles, const FilterRegion& region);

// dst[t * product + tile * kFilterChunk + c] = value t of the transformed tile, for the first
// `channels` channels. `packed` is the first pixel of the first tile in the packed region.
void transform_tiles(const Kernels& kernels, const FilterTiles& tiles, const FilterRegion& region,
                     const float* packed, int64_t channels, float* rows, float* dst,
                     int64_t product);

}  // namespace mxd::cpu
