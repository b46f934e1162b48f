// The contract between the drivers (compiled once, for any CPU) and the kernels (compiled once
// per instruction set, see isa/). A driver sees these primitives per element type:
//
//   pack   copies a strided block of a tensor into a dense panel of the accumulate type;
//   pack_scattered   the same, its steps put at any places;
//   pack_shifted   packs a run of pixels once for every shift that taps read it at;
//   gemm   multiplies two panels into a tile of accumulators;
//   store  rounds a block of accumulators into a strided block of a tensor, adding the bias;
//   interleave   merges lines of accumulators that alternate in memory;
//   depthwise   is for layers of single channels, where panels do not pay;
//   in_place   sums sources whose channels are contiguous without packing them.
//
// Panels. A panel holds `width` rows-or-columns of one operand, k outermost:
//
//        k=0: |e0 e1 .. e(width-1)|  k=1: |e0 e1 .. e(width-1)|  ...
//
// The *row* operand's panels are 1..max_rows wide, its elements are broadcast; the *column*
// operand's panels are exactly `vector` or `cols` (= 2 vectors) wide, its elements are vector
// lanes. A column operand need not be packed in panels: any rows `col_stride` apart will do.
//
// Pairs. Where the CPU multiplies bfloat16 by itself, the kernels of product_kernels_for pack two
// terms of the sum into an element: `terms` is 2, and step k of a panel holds steps 2k and 2k + 1
// of the source, or 0 behind the last. Elsewhere an element is one number of the accumulate type.
// Both take acc_bytes.
#pragma once

#include <cstdint>

#include "core/geometry.h"
#include "cpu/depthwise_kernels.h"
#include "cpu/filter_kernels.h"
#include "cpu/in_place_kernels.h"
#include "cpu/outer_kernels.h"

namespace mxd::cpu {

// A stretch of the summation: `length` steps of the row panel, from step row_k, against as many
// steps of the column operand, from element col_offset + col_k * col_stride. The second vector of
// columns lies `second` elements behind the first; 0 means right behind it.
struct Segment {
  int64_t row_k;
  int64_t col_k;
  int64_t col_offset;
  int64_t length;
  int64_t second = 0;
};

// One of several readings of a tensor: `count` elements, of which [begin, end) exist,
// 0 <= begin <= end <= count.
struct ShiftedRun {
  int64_t dst;
  int64_t src;
  int64_t count;
  int64_t begin;
  int64_t end;
};

struct Kernels {
  const char* isa;     // "baseline", "avx2", "avx512", "avx512_bf16"
  int max_rows;        // widest row panel
  int cols;            // widest column panel
  int vector;          // lanes of one vector of the accumulate type; cols = 2 * vector
  int64_t acc_bytes;   // 4 (float32, float16, bfloat16) or 8 (float64)
  int64_t elem_bytes;  // storage type
  int terms;           // of the sum, in an element of a panel

  // dst[k * width + i] = src[i * i_stride + k * k_stride] for i < rows, k < steps; with pairs, k
  // counts those of the source, and ceil(steps / 2) steps are written.
  // Writes nothing else: the caller owns (and zeroes) what lies at rows <= i < width.
  void (*pack)(void* dst, int64_t width, const void* src, int64_t rows, int64_t i_stride,
               int64_t steps, int64_t k_stride);

  // dst[dst_offsets[k] + i] = src[i * i_stride + k * k_stride] for i < rows, k < steps. The terms
  // of an element are term_stride apart: `present` of them, 1 <= present <= terms, the others are
  // 0.
  void (*pack_scattered)(void* dst, const int64_t* dst_offsets, const void* src, int64_t rows,
                         int64_t i_stride, int64_t steps, int64_t k_stride, int present,
                         int64_t term_stride);

  // For each shifted run r, each k < steps and each i < r.count:
  //     dst[r.dst + k * width + i] = src[r.src + i * i_stride + k * k_stride]
  // where r.begin <= i < r.end, and 0 elsewhere; pairs as in pack. One step after the other, since
  // the runs of a step are neighbours in memory.
  void (*pack_shifted)(void* dst, int64_t width, const void* src, int64_t i_stride, int64_t steps,
                       int64_t k_stride, const ShiftedRun* runs, int64_t run_count);

  // Whether none of the numbers in `count` consecutive elements of a panel is Inf or NaN.
  bool (*panel_finite)(const void* elements, int64_t count);

  // tile[r * tile_stride + c] (+)= sum over the segments of
  //     row[k * rows + r] * col[col_offset + k * col_stride + c],   c < vector; see Segment for
  //     more
  // summed in the order of the segments. 1 <= rows <= max_rows; cols is `vector` or `cols`. Adds
  // to the tile if `accumulate`, else overwrites it. No alignment is asked for.
  void (*gemm)(int rows, int cols, const void* row_panel, const void* col_operand,
               int64_t col_stride, const Segment* segments, int64_t segment_count, void* tile,
               int64_t tile_stride, bool accumulate);

  // dst[r * row_stride + c * col_stride] =
  //     round(acc[r * acc_row_stride + c] + bias[r * bias_row_stride + c * bias_col_stride]).
  // bias is of the accumulate type and may be null.
  void (*store)(void* dst, int64_t row_stride, int64_t col_stride, const void* acc,
                int64_t acc_row_stride, int64_t rows, int64_t cols, const void* bias,
                int64_t bias_row_stride, int64_t bias_col_stride);

  // dst[i * row_count + r] = rows[r][i] for i < count; rows and dst of the accumulate type. Counts
  // in whole vectors: reads and writes as if count were rounded up to one.
  void (*interleave)(void* dst, const void* const* rows, int64_t row_count, int64_t count);

  DepthwiseKernels depthwise;
  FilterKernels filter;  // all null for float64
  OuterKernels outer;
  InPlaceKernels in_place;
};

}  // namespace mxd::cpu
