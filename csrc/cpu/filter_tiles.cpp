#include "cpu/filter_tiles.h"

#include <algorithm>
#include <cstring>

#include "cpu/panels.h"

namespace mxd::cpu {

uint32_t pack_region(const Kernels& kernels, const TensorView& view,
                     const FilterGrid (&grid)[kAxes], Range images, int64_t channel,
                     int64_t channels, const FilterRegion& region, float* dst) {
  const int64_t image_count = images.end - images.begin;
  const int64_t elements = image_count * region.pixels() * kFilterChunk;
  Range inside[kAxes];
  bool whole = channels == kFilterChunk;
  for (int a = 0; a < kAxes; ++a) {
    inside[a].begin = std::min(std::max<int64_t>(-region.begin[a], 0), region.size[a]);
    inside[a].end =
        std::max(std::min(grid[a].size - region.begin[a], region.size[a]), inside[a].begin);
    whole = whole && inside[a].begin == 0 && inside[a].end == region.size[a];
  }
  if (!whole) std::memset(dst, 0, size_t(elements) * 4);
  const auto offset_of = [&](int a, int64_t index) {
    return (grid[a].first + (region.begin[a] + index) * grid[a].step) * view.axis[a];
  };
  const int64_t line = inside[2].end - inside[2].begin;
  for (int64_t n = 0; n < image_count && line > 0; ++n) {
    for (int64_t i0 = inside[0].begin; i0 < inside[0].end; ++i0) {
      for (int64_t i1 = inside[1].begin; i1 < inside[1].end; ++i1) {
        const int64_t offset = (images.begin + n) * view.batch + channel * view.channel +
                               offset_of(0, i0) + offset_of(1, i1) + offset_of(2, inside[2].begin);
        const int64_t pixel =
            ((n * region.size[0] + i0) * region.size[1] + i1) * region.size[2] + inside[2].begin;
        kernels.pack(dst + pixel * kFilterChunk, kFilterChunk,
                     static_cast<const char*>(view.data) + offset * kernels.elem_bytes, channels,
                     view.channel, line, grid[2].step * view.axis[2]);
      }
    }
  }
  return kernels.filter.largest(dst, elements);
}

int64_t tile_rows_elements(const FilterTiles& tiles, const FilterRegion& region) {
  return (products_of(tiles.kind[0]) * region.size[1] + products_of(tiles.kind[1])) *
         region.size[2] * kFilterChunk;
}

void transform_tiles(const Kernels& kernels, const FilterTiles& tiles, const FilterRegion& region,
                     const float* packed, int64_t channels, float* rows, float* dst,
                     int64_t product) {
  const auto combine = kernels.filter.combine;
  const int64_t row = region.size[2] * kFilterChunk;
  const int64_t plane = region.size[1] * row;
  const int64_t image = region.size[0] * plane;
  const int64_t p0 = products_of(tiles.kind[0]), p1 = products_of(tiles.kind[1]);
  const int64_t p2 = products_of(tiles.kind[2]);
  // What the tiles read of a row, and of a plane from its first to its last element.
  const int64_t row_run = ((tiles.count[2] - 1) * tiles.step[2] + tiles.reads(2)) * kFilterChunk;
  const int64_t plane_run =
      ((tiles.count[1] - 1) * tiles.step[1] + tiles.reads(1) - 1) * row + row_run;
  const bool flat = tiles.kind[0] == FilterKind::kSingle;
  const bool single = tiles.kind[1] == FilterKind::kSingle;
  const int64_t padded = ceil_div(channels, kFilterLanes) * kFilterLanes;
  float* planes = rows + p1 * row;
  int64_t tile = 0;
  for (int64_t n = 0; n < tiles.images; ++n) {
    for (int64_t u0 = 0; u0 < tiles.count[0]; ++u0) {
      const float* at = packed + n * image + u0 * tiles.step[0] * plane;
      if (!flat) {
        combine(tiles.kind[0], tiles.map, {planes, plane, at, plane, plane_run, 1, 0, 0});
      }
      for (int64_t u1 = 0; u1 < tiles.count[1]; ++u1, tile += tiles.count[2]) {
        for (int64_t t0 = 0; t0 < p0; ++t0) {
          const float* from = (flat ? at : planes + t0 * plane) + u1 * tiles.step[1] * row;
          if (!single) combine(tiles.kind[1], tiles.map, {rows, row, from, row, row_run, 1, 0, 0});
          for (int64_t t1 = 0; t1 < p1; ++t1) {
            combine(tiles.kind[2], tiles.map,
                    {dst + (t0 * p1 + t1) * p2 * product + tile * kFilterChunk, product,
                     single ? from : rows + t1 * row, kFilterChunk, padded, tiles.count[2],
                     kFilterChunk, tiles.step[2] * kFilterChunk});
          }
        }
      }
    }
  }
}

}  // namespace mxd::cpu
