// Results of few channels: RGB, mask and audio heads, whose few rows leave a tile of the product
// kernel mostly empty, and whose phases would each bring the source again.
//
// Here all phases of the forward pass are rows of one product. On one axis, with
// o + pad = stride * q + phase, column q holds the `stride` results of all phases, and
//
//   result(q, phase) = sum over u of weight(tap(u, phase)) * source(origin + q + shift(u))
//
// so that a source element meets every phase in one step u. With a stride that divides the kernel
// every phase has a tap in every step; a row whose phase has none takes no part in the step. A
// dilation gives each step its own shift. The data gradient is the same with a single phase, its
// columns `stride` apart in the source.
#pragma once

#include "core/problem.h"
#include "cuda/digits.h"

struct CUstream_st;

namespace mxd::cuda {

struct FewAxis {
  int32_t phases = 1, kernel = 1, dilate = 1;
  int32_t steps = 1;                              // u < steps
  int32_t direction = -1;                         // of the source, as u grows
  int32_t origin = 0, column_step = 1, size = 1;  // in the source
  int32_t first = 0, count = 1;                   // result of column 0, phase 0; results
  int64_t source = 0, weight = 0, result = 0;     // strides, in elements

  MXD_DEVICE int32_t distance(int32_t u) const {
    return dilate >= phases ? u * dilate / phases : u;
  }
  MXD_DEVICE int32_t shift(int32_t u) const { return direction * distance(u); }
  // The tap by which the source of step u reaches a phase, or -1.
  MXD_DEVICE int32_t tap(int32_t u, int32_t phase) const {
    int32_t tap = distance(u) * phases + phase;
    if (dilate > 1) tap = tap % dilate == 0 ? tap / dilate : kernel;
    return tap < kernel ? tap : -1;
  }
};

struct FewChannelsParams {
  FewAxis axis[kAxes];
  Digits<int32_t> columns;  // image and column of each axis
  Digits<int32_t> terms;    // step of each axis and channel, these rounded up to whole packets
  Radix<int32_t, Other::kFirst> split_column;
  Radix<int32_t, Other::kLast> split_term;
  int32_t channels = 0, filters = 0;  // of the source and of the result, in a group
  int32_t rows = 0;                   // filter and phase of each axis
  bool filters_fastest = false;       // the order of a row's digits: as they lie in the result
  bool packets = false;               // channels of the source may be read 16 bytes at once
  int32_t run = 1;                    // rows that may be written at once: 1, 2 or 4
  int64_t groups = 1, column_tiles = 1, row_tiles = 1;

  const void* source = nullptr;
  const void* weight = nullptr;
  const void* bias = nullptr;  // null: none
  void* result = nullptr;
  int64_t source_batch = 0, source_channel = 0, source_group = 0;
  int64_t weight_channel = 0, weight_filter = 0, weight_group = 0;
  int64_t result_batch = 0, result_filter = 0, result_group = 0;
  int64_t bias_filter = 0, bias_group = 0;

  MXD_HOST_DEVICE int32_t column_count() const {
    return columns.other * columns.axis[0] * columns.axis[1] * columns.axis[2];
  }
  MXD_HOST_DEVICE int32_t term_count() const {
    return terms.other * terms.axis[0] * terms.axis[1] * terms.axis[2];
  }
  MXD_HOST_DEVICE int64_t jobs() const { return groups * column_tiles * row_tiles; }
};

// Steps on an axis at most.
constexpr int kMostSteps = 128;

// Rows that a block sums: one of these, of doubles but the last; and for how many columns.
constexpr int kFewRows[] = {4, 8, 12, 16};
constexpr int few_row_choices(DType dtype) { return dtype == DType::kFloat64 ? 3 : 4; }
constexpr int few_columns(int rows) { return rows == 4 ? 1024 : 512; }

struct FewChannelsPlan {
  FewChannelsParams params;
  int rows_each = 0;  // of kFewRows; 0: not for this problem

  explicit operator bool() const { return rows_each > 0; }
};

// The pass for this kernel, whether it pays or not; none for the weight gradient, and for sizes
// that the kernel's counters do not hold.
FewChannelsPlan plan_few_channels(Pass pass, const Problem& problem);

// Cuts it into tiles of so many rows.
void cut_rows(int rows_each, FewChannelsPlan& plan);

void run_few_channels(const FewChannelsPlan& plan, DType dtype, CUstream_st* stream);

// Defined by few_channels_*.cu, each for one T.
template <class T>
void launch_few_channels(const FewChannelsPlan& plan, CUstream_st* stream);

}  // namespace mxd::cuda
