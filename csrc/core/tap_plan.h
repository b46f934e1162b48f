// The tap plan: per axis, which taps reach which results, as dense progressions.
//
// Forward. Outputs of one residue class r = (o + pad) mod stride (a *phase*) are reached only by
// the taps t with t * dilate = r (mod stride). With g = gcd(stride, dilate) these are
// t0, t0 + stride/g, t0 + 2 stride/g, ...  and exist only if g divides r. The q-th output of the
// phase meets its j-th tap at input  src_begin + q - (dilate/g) * j.  So every phase is a dense
// correlation of step 1 over the input; no zero is inserted and none is multiplied.
//
// Data gradient. Every input is reached by every tap, at output  i * stride - pad + t * dilate:
// one progression with step `stride` in the source.
//
// Both are the same shape of work, described by AxisTaps.
#pragma once

#include <cstdint>
#include <vector>

#include "core/geometry.h"

namespace mxd {

struct Range {
  int64_t begin = 0;
  int64_t end = 0;
};

// dst[dst_begin + q * dst_step]  +=  src[src_begin + q * src_step + j * src_tap_step]
//                                    * w[tap_begin + j * tap_step],
// for 0 <= q < dst_count, 0 <= j < tap_count, where the source index is in [0, src_size).
struct AxisTaps {
  int64_t dst_begin = 0, dst_step = 1, dst_count = 0;
  int64_t src_begin = 0, src_step = 1, src_tap_step = 0, src_size = 0;
  int64_t tap_begin = 0, tap_step = 1, tap_count = 0;
};

// How many candidates forward_phases looks at: bounded by the kernel, the stride and the output.
int64_t phase_candidates(const Axis& axis);

// The non-empty phases of the forward pass, in the order of their first output. Outputs in no
// phase have no tap: they hold the bias alone.
std::vector<AxisTaps> forward_phases(const Axis& axis);

// The data gradient's single progression (empty when no tap reaches any input).
std::vector<AxisTaps> data_gradient_taps(const Axis& axis);

// Results q in `within` whose source index for tap j lies inside the source.
Range valid_results(const AxisTaps& taps, int64_t tap, Range within);

// The taps whose source index for result q lies inside the source.
Range valid_taps(const AxisTaps& taps, int64_t result);

}  // namespace mxd
