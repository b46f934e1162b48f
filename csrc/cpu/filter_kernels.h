// The primitives of minimal filtering: a part of the Kernels table, for sums in float32.
//
// Minimal filtering maps the p source values that the m results of a tile read, and the r taps, to
// p values each, multiplies those, and maps the products to the results.
#pragma once

#include <cstdint>

#include "core/filter_kind.h"

namespace mxd::cpu {

// Which of its three linear maps: the source values, the taps, the products.
enum class FilterMap { kSource, kTaps, kResult };

// A map applied to vectors: value e of its argument lies src_step elements after value e-1, each a
// run of `count` elements (a multiple of kFilterLanes); the whole is done `repeat` times.
struct FilterCombine {
  float* dst;
  int64_t dst_step;
  const float* src;
  int64_t src_step;
  int64_t count;
  int64_t repeat;
  int64_t dst_repeat, src_repeat;
};

constexpr int64_t kFilterLanes = 16;  // what counts are multiples of: the widest vector's lanes

// Source channels lie in chunks of so many: the row operand of a product is read as
// row[chunk * row_chunk + r * kFilterChunk + k], so that every row is at a constant distance.
constexpr int64_t kFilterChunk = 64;

struct FilterKernels {
  void (*combine)(FilterKind kind, FilterMap map, const FilterCombine& combine);

  // tile[r * tile_stride + c] = sum over the chunks and k < lengths[chunk] of
  //     row[chunk * row_chunk + r * kFilterChunk + k] * col[step * cols + c],
  // where `step` counts through all chunks. Meanwhile a line of 64 bytes at `ahead`, and those
  // that follow it, are fetched into the cache, one a step. 1 <= rows <= max_rows; cols is `vector`
  // or `cols`.
  void (*multiply)(int rows, int cols, const float* row, int64_t row_chunk, const int64_t* lengths,
                   int64_t chunks, const float* col, const float* ahead, float* tile,
                   int64_t tile_stride);

  // tile[r * tile_stride + c] += sum over k < steps of row[k * kFilterChunk + r] *
  // col[k * kFilterChunk + c]. 1 <= rows <= max_rows; cols is `vector` or `cols`.
  void (*accumulate)(int rows, int cols, const float* row, const float* col, int64_t steps,
                     float* tile, int64_t tile_stride);

  // dst[f * dst_stride + x] = round(acc[x * acc_stride + f] + bias[f]); bias may be null. Reads
  // the rows of acc up to a multiple of kFilterLanes. `past_caches` asks for stores that do not
  // read the lines first: for results too large to stay in a cache.
  void (*store_turned)(void* dst, int64_t dst_stride, const float* acc, int64_t acc_stride,
                       int64_t channels, int64_t pixels, const float* bias, bool past_caches);

  // The largest magnitude among `count` values, a multiple of kFilterLanes, as the bits of a
  // float: those of an infinity or a NaN are larger than those of any number.
  uint32_t (*largest)(const float* values, int64_t count);
};

}  // namespace mxd::cpu
