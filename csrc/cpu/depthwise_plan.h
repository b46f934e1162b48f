// Depthwise rows: how the taps of an axis become a correlation of step 1 along contiguous results,
// and how the rows of a channel are cut into pieces.
//
// Forward, result o of a row meets tap t at input i where  o = i * stride + t * dilate - pad. Let
// every input pixel be repeated `stride` times in a row of its own. Then o meets t at a distance
// that, within one *slot* of taps, is the same for all o, and which tap of the slot it is depends
// on o modulo the stride alone:
//
//     stride 2, kernel 4, pad 1      results     o0    o1    o2    o3    o4   ...
//                                    slot 0   x0 w1 x1 w0 x1 w1 x2 w0 x2 w1   ...
//                                    slot 1         x0 w2 x0 w3 x1 w2 x1 w3   ...
//
// So whole vectors of results, as they lie in memory, are sums over the slots of a vector of
// pixels times a vector of weights that recurs with a short period: nothing is interleaved.
//
// The data gradient is the transpose: whole vectors of out's gradient times the same weights,
// summed over the slots, give `stride` partial sums for each input pixel, to be contracted.
//
// Zeros stand for pixels outside the source and for taps that a slot does not have. A value that
// is not finite would turn them into NaN: whoever meets one starts over, skipping them.
#pragma once

#include <vector>

#include "cpu/tap_sum.h"

namespace mxd::cpu {

// A tap connects  dst = src * stride + shift  (forward)  or  src = dst * stride + shift.
struct ShiftedTap {
  int64_t shift;
  int64_t tap;
};

// The taps of an axis from the least to the greatest shift.
struct ShiftRange {
  bool forward;
  int64_t stride, least, greatest;
};

// The innermost axis.
struct FlatAxis {
  FlatAxis(const TapSum& sum, int64_t no_tap);

  int64_t lanes() const { return int64_t(taps.size() / slots.size()); }

  int64_t repeat = 1;     // copies of a source pixel in a row
  int64_t width = 1;      // results that are contracted into one
  int64_t results = 0;    // of a row, before that
  int64_t first_src = 0;  // source pixel that a row begins with: before the source, if negative
  int64_t src_size = 0;
  int64_t period = 1;          // of the weights, in vectors
  std::vector<int64_t> slots;  // where the source of each slot begins in a row
  std::vector<int32_t> taps;   // slot by slot, the tap of each lane of the period, or no_tap
};

// A piece of work is a block of result rows, or a segment of them where rows are long, for one
// position on the outermost axis. Results that need no contraction are summed at once, from all
// source rows of the block; others are partial sums in scratch, to which chunks of source rows are
// added as they stream by.
struct RowPlan {
  explicit RowPlan(const TapSum& sum);

  int64_t pieces() const { return sum.batch * planes * blocks * segments; }
  // Source rows on axis 1, from the first to the last that a tap of the result rows reaches.
  Range source_rows(Range results) const;
  int64_t pattern_lanes() const {
    return sum.src_channels * sum.kernel[0] * sum.kernel[1] * int64_t(flat.taps.size());
  }
  bool contracts() const { return flat.width > 1; }

  const TapSum& sum;
  FlatAxis flat;
  ShiftRange shifts;   // of axis 1
  int64_t planes = 0;  // results of axis 0
  int64_t block_rows, blocks;
  int64_t segment, segments;  // flat results, a multiple of the period
  int64_t pitch;              // elements from one source row to the next
  int64_t chunk_rows;         // source rows of axis 1 in scratch
  int64_t src_planes;         // times so many
  int64_t most_terms;
};

}  // namespace mxd::cpu
