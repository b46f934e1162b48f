// The primitives of depthwise layers (see depthwise.h), part of the contract of kernels.h. Rows
// are of the accumulate type unless said otherwise; offsets and steps count elements.
#pragma once

#include <cstdint>

namespace mxd::cpu {

// A tap slot of a row: where its source and its weights begin.
struct RowTerm {
  int64_t src;
  int64_t weight;
};

// Rows of a source of the storage type, each pixel repeated:
//     dst[r][lead + i * repeat + k] = src[r][i * src_stride]  for i < count, k < repeat,
// and zeros before and after, up to `length`. May write up to a vector more. Adds NaN to the vector
// *sticky if a pixel is not finite.
struct RowExpansion {
  void* dst;
  int64_t dst_row_step;
  const void* src;
  int64_t src_row_step, src_stride;
  int64_t rows;
  int64_t lead, count, repeat, length;
  void* sticky;
};

// Rows that share their terms:
//     dst[r][i] = start + sum over terms of
//                 src[r][term.src + i] * weights[term.weight + i % (period * vector)],
// where the sum starts from what dst holds, if `accumulate`, or from *bias, or from zero.
// The source may be read, and must be defined, up to the next whole vector of i.
struct RowSum {
  const void* src;
  int64_t src_row_step;
  const void* weights;
  int64_t period;  // of the weights, in vectors
  const RowTerm* terms;
  int64_t term_count;
  bool accumulate;
  const void* bias;  // may be null
  void* dst;
  int64_t dst_row_step;
  int64_t rows;
  int64_t count;  // results of a row
};

// The transpose of RowSum in its weights: with j = i % (period * vector),
//     sums[term.weight + j] += sum over rows, and i of equal j, of src[r][term.src + i] *
//     grad[r][i].
struct RowOuter {
  const void* src;
  int64_t src_row_step;
  const void* grad;
  int64_t grad_row_step;
  int64_t period;
  const RowTerm* terms;
  int64_t term_count;
  void* sums;
  int64_t rows;
  int64_t count;
};

// A tap of pixels whose channels are contiguous.
struct PixelTerm {
  const void* src;  // of the storage type, for the first pixel
  void* weight;     // of the accumulate type, for all pixels
};

constexpr int64_t kSpreadTerms = 8;

// Evenly spaced pixels that share their taps.
struct PixelRun {
  void* dst;
  int64_t dst_step;  // from pixel to pixel
  const PixelTerm* terms;
  int64_t term_count;
  int64_t src_step;
  int64_t pixels;
  int64_t channels;
  const void* bias;         // of each channel, or null
  int64_t weight_step = 0;  // from pixel to pixel, for pixel_spread
};

// Evenly spaced pixels that share their taps, of groups of few channels: the results of `side`
// groups lie next to each other in a vector, set by set of so many groups.
struct GroupRun {
  void* dst;
  int64_t dst_step;  // from pixel to pixel
  const PixelTerm* terms;
  int64_t term_count;
  int64_t src_step;
  int64_t pixels;
  int64_t groups, side;
  int64_t src_channels, dst_channels;  // of a group; times `side` they fit a vector
  const void* bias;                    // of each result channel, or null
};

struct DepthwiseKernels {
  void (*expand)(const RowExpansion& expansion);

  // dst[i] = src[index[i]] for i < count.
  void (*arrange)(void* dst, const void* src, const int32_t* index, int64_t count);

  // dst into the storage type, or into the accumulate type.
  void (*row_sum)(const RowSum& sum);
  void (*row_sum_acc)(const RowSum& sum);

  // row[i] = the sum of row[i * width .. i * width + width) for i < count. May read up to a vector
  // beyond, and overwrites whatever it has read.
  void (*contract)(void* row, int64_t count, int64_t width);

  // grad of the storage type, or of the accumulate type.
  void (*row_outer)(const RowOuter& outer);
  void (*row_outer_acc)(const RowOuter& outer);

  // dst[c] = bias[c] + sum over terms of src[c] * weight[c], for every pixel and channel. Where
  // pairs are multiplied, each weight is a number of the storage type.
  void (*pixel_sum)(const PixelRun& run);

  // The same for pixels that share their source, not their weights: these are weight_step apart.
  // At most kSpreadTerms terms.
  void (*pixel_spread)(const PixelRun& run);

  // weight[c] += sum over pixels of src[c] * dst[c], for every term and channel.
  void (*pixel_outer)(const PixelRun& run);

  // With channel c = (set * side + s) * dst_channels + f of dst, or k of src_channels:
  //     dst[c(s, f)] = bias[c] + sum over terms and k of
  //                    src[c(s, k)] * weight[(set * src_channels + k) * vector + s * dst_channels +
  //                    f].
  // Null where lanes cannot be picked by a vector of places.
  void (*group_sum)(const GroupRun& run);

  // weight[(set * dst_channels + f) * vector + s * src_channels + k] += sum over pixels of
  //     src[c(s, k)] * dst[c(s, f)], for every term; the other lanes are undefined.
  void (*group_outer)(const GroupRun& run);
};

}  // namespace mxd::cpu
