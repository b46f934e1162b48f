#include "cuda/weight_copy.h"

#include <algorithm>
#include <limits>

#include "cuda/launch.h"

namespace mxd::cuda {

Problem with_rows_innermost(Pass pass, const Problem& problem) {
  const Geometry& g = problem.geometry;
  Problem arranged = problem;
  WeightView& weight = arranged.weight;
  if (pass == Pass::kForward) {
    weight.out_channel = 1;
    weight.in_channel = g.out_channels;
  } else {
    weight.in_channel = 1;
    weight.out_channel = g.groups * g.in_channels;
  }
  int64_t stride = g.groups * g.in_channels * g.out_channels;
  for (int a = kAxes - 1; a >= 0; --a) {
    weight.tap[a] = stride;
    stride *= g.axis[a].kernel;
  }
  return arranged;
}

WeightCopyParams plan_weight_copy(Pass pass, const Problem& problem) {
  const Geometry& g = problem.geometry;
  const bool forward = pass == Pass::kForward;
  const WeightView& src = problem.weight;
  const WeightView dst = with_rows_innermost(pass, problem).weight;
  WeightCopyParams params;
  params.src = src.data;
  params.groups = g.groups;
  params.src_group = g.groups > 1 ? g.in_channels * src.in_channel : 0;
  params.dst_group = g.in_channels * dst.in_channel;
  // A digit of a single value is never stepped over: any stride may be written there.
  const auto stride_of = [](int64_t stride, int64_t count) { return count > 1 ? stride : 0; };
  for (int a = 0; a < kAxes; ++a) {
    params.taps[a] = int32_t(g.axis[a].kernel);
    params.src_tap[a] = stride_of(src.tap[a], g.axis[a].kernel);
  }
  WeightDigit in{g.in_channels, stride_of(src.in_channel, g.in_channels), dst.in_channel, 1};
  WeightDigit out{g.out_channels, stride_of(src.out_channel, g.out_channels), dst.out_channel, 1};
  // For the order alone: the nearest of the taps' neighbours.
  int64_t nearest = 0;
  for (const int64_t stride : params.src_tap) {
    if (stride != 0 && (nearest == 0 || stride < nearest)) nearest = stride;
  }
  WeightDigit tap{g.taps(), nearest, dst.tap[kAxes - 1], 1};
  enum { kRow, kChannel, kTap };
  const WeightDigit digits[3] = {forward ? out : in, forward ? in : out, tap};
  int order[3] = {kTap, kChannel, kRow};
  const auto rank = [&](int d) {  // digits of one value read nothing: last
    return digits[d].count > 1 ? digits[d].src : std::numeric_limits<int64_t>::max();
  };
  std::stable_sort(order, order + 3, [&](int a, int b) { return rank(a) < rank(b); });
  int64_t room = WeightCopy<float>::kMostCells / WeightCopy<float>::kRows;
  for (int d = 0; d < 3; ++d) {
    params.digit[d] = digits[order[d]];
    WeightDigit& digit = params.digit[d];
    const int64_t least = order[d] == kRow ? WeightCopy<float>::kRows : 1;
    // Rows fill what the digits before them have left.
    digit.box = int32_t(std::max(least, std::min(digit.count, least * room)));
    room = std::max<int64_t>(room * least / digit.box, 1);
    if (order[d] == kRow) params.row = d;
    if (order[d] == kTap) params.tap = d;
  }
  return params;
}

void copy_weight(Pass pass, const Problem& problem, void* copy, CUstream_st* stream) {
  WeightCopyParams params = plan_weight_copy(pass, problem);
  params.dst = copy;
  if (problem.dtype == DType::kFloat64) {
    launch<WeightCopy<double>>(params, WeightCopy<double>::jobs(params), stream);
  } else if (problem.dtype == DType::kFloat32) {
    launch<WeightCopy<float>>(params, WeightCopy<float>::jobs(params), stream);
  } else {  // of either kind: only bits are copied
    launch<WeightCopy<Half>>(params, WeightCopy<Half>::jobs(params), stream);
  }
}

}  // namespace mxd::cuda
