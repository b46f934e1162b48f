// The contract between the drivers (compiled once, for any CPU) and the kernels (compiled once
// per instruction set, see isa/). A driver sees these primitives per element type:
//
//   pack   copies a strided block of a tensor into a dense panel of the accumulate type;
//   gemm   multiplies two panels into a tile of accumulators;
//   store  rounds a block of accumulators into a strided block of a tensor, adding the bias;
//   depthwise   is for layers of single channels, where panels do not pay.
//
// Panels. A panel holds `width` rows-or-columns of one operand, k outermost:
//
//        k=0: |e0 e1 .. e(width-1)|  k=1: |e0 e1 .. e(width-1)|  ...
//
// The *row* operand's panels are 1..max_rows wide, its elements are broadcast; the *column*
// operand's panels are exactly `vector` or `cols` (= 2 vectors) wide, its elements are vector
// lanes. A column operand need not be packed in panels: any rows `col_stride` apart will do.
#pragma once

#include <cstdint>

#include "core/geometry.h"
#include "cpu/depthwise_kernels.h"

namespace mxd::cpu {

// A stretch of the summation: `length` steps of the row panel, from step row_k, against as many
// steps of the column operand, from element col_offset + col_k * col_stride.
struct Segment {
  int64_t row_k;
  int64_t col_k;
  int64_t col_offset;
  int64_t length;
};

struct Kernels {
  const char* isa;     // "baseline", "avx2", "avx512"
  int max_rows;        // widest row panel
  int cols;            // widest column panel
  int vector;          // lanes of one vector of the accumulate type; cols = 2 * vector
  int64_t acc_bytes;   // 4 (float32, float16, bfloat16) or 8 (float64)
  int64_t elem_bytes;  // storage type

  // dst[k * width + i] = src[i * i_stride + k * k_stride] for i < rows, k < steps.
  // Writes nothing else: the caller owns (and zeroes) what lies at rows <= i < width.
  void (*pack)(void* dst, int64_t width, const void* src, int64_t rows, int64_t i_stride,
               int64_t steps, int64_t k_stride);

  // tile[r * tile_stride + c] (+)= sum over the segments of
  //     row[k * rows + r] * col[col_offset + k * col_stride + c],
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

  DepthwiseKernels depthwise;
};

}  // namespace mxd::cpu
