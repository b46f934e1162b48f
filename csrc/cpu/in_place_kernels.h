// The primitive of sums whose source is read where it lies (see in_place_sum.h), part of the
// contract of kernels.h. Offsets and steps count elements.
#pragma once

#include <cstdint>

namespace mxd::cpu {

// A stretch of the summation: `length` steps of the source, its consecutive elements or, in pairs,
// every two of them, from the pixel's offset + src on, each against the lanes of a panel's weights,
// one step after the other from `weight` on.
struct SourceRun {
  int64_t src;
  int64_t weight;
  int64_t length;
};

// Results of as many pixels as a list has, of a panel of channels, in the accumulate type or, where
// sums are rounded, in the storage type:
//     dst[dst_offsets[p] + c] = start + sum over the runs of
//         src[src_offsets[p] + run.src + k] * weights[run.weight + k * width + c],   c < channels,
// summed in the order of the runs, where the sum starts from what dst holds, if `accumulate`, or
// from bias[c], or from zero. width is vectors * lanes; bias and weights are padded to it. All that
// for so many groups, whose operands begin a step behind each other's; several only of one vector.
struct InPlaceSum {
  const void* src;
  const int64_t* src_offsets;
  void* dst;
  const int64_t* dst_offsets;
  int64_t pixels;
  const void* weights;
  const SourceRun* runs;
  int64_t run_count;
  int64_t channels;
  int vectors;
  int lanes;
  const void* bias;  // may be null
  bool accumulate;
  bool rounds;  // not if it accumulates, and in whole vectors only
  int64_t groups;
  int64_t src_group, dst_group, weight_group;  // steps; that of the bias is width
};

struct InPlaceKernels {
  // Null where elements would have to be converted when they are read.
  void (*sum)(const InPlaceSum& sum);
  // dst[p * pixel + c] = src[c * c_stride + p * p_stride] for c < channels, and 0 for the others
  // below width, p < pixels; of the storage type.
  void (*copy)(void* dst, int64_t pixel, int64_t width, const void* src, int64_t channels,
               int64_t c_stride, int64_t pixels, int64_t p_stride);
  // dst[c * c_stride + p] = round(sums[p * sum_stride + c] + bias[c]) for c < channels, p < pixels.
  // The sums and the bias are of the accumulate type; bias may be null.
  void (*store)(void* dst, int64_t c_stride, const void* sums, int64_t sum_stride, int64_t pixels,
                int64_t channels, const void* bias);
  int vectors;      // of the widest panel
  int least_lanes;  // vectors may be narrower: down to so many lanes, in powers of two
};

}  // namespace mxd::cpu
