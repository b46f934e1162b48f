#include "cuda/weight_copy.h"

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

void copy_weight(Pass pass, const Problem& problem, void* copy, CUstream_st* stream) {
  const Geometry& g = problem.geometry;
  const bool forward = pass == Pass::kForward;
  const WeightView& src = problem.weight;
  const WeightView dst = with_rows_innermost(pass, problem).weight;
  WeightCopyParams params;
  params.src = src.data;
  params.dst = copy;
  params.rows = forward ? g.out_channels : g.in_channels;
  params.channels = forward ? g.in_channels : g.out_channels;
  params.groups = g.groups;
  params.src_row = forward ? src.out_channel : src.in_channel;
  params.src_channel = forward ? src.in_channel : src.out_channel;
  params.src_group = g.in_channels * src.in_channel;
  params.dst_channel = forward ? dst.in_channel : dst.out_channel;
  params.dst_group = g.in_channels * dst.in_channel;
  params.dst_tap = dst.tap[kAxes - 1];
  for (int a = 0; a < kAxes; ++a) {
    params.taps[a] = g.axis[a].kernel;
    params.src_tap[a] = g.axis[a].kernel > 1 ? src.tap[a] : 0;
  }
  if (params.rows == 1) params.src_row = 0;
  if (params.channels == 1) params.src_channel = 0;
  if (params.groups == 1) params.src_group = 0;
  if (problem.dtype == DType::kFloat64) {
    launch<WeightCopy<double>>(params, WeightCopy<double>::jobs(params), stream);
  } else if (problem.dtype == DType::kFloat32) {
    launch<WeightCopy<float>>(params, WeightCopy<float>::jobs(params), stream);
  } else {  // of either kind: only bits are copied
    launch<WeightCopy<Half>>(params, WeightCopy<Half>::jobs(params), stream);
  }
}

}  // namespace mxd::cuda
