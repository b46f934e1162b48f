#include "ops/described_problem.h"

namespace mxd::ops {
namespace {

// The strides of a packed tensor; size picks the axis size.
void pack(int64_t channels, const Geometry& geometry, int64_t Axis::*size, bool channels_last,
          int64_t& first, int64_t& channel, int64_t* axes) {
  int64_t step = channels_last ? channels : 1;
  for (int a = kAxes; a-- > 0;) {
    axes[a] = step;
    step *= geometry.axis[a].*size;
  }
  channel = channels_last ? 1 : step;
  first = channels_last ? step : step * channels;
}

}  // namespace

Pass pass_named(const std::string& name) {
  return name == "forward"         ? Pass::kForward
         : name == "data_gradient" ? Pass::kDataGradient
                                   : Pass::kWeightGradient;
}

Problem described_problem(const std::string& dtype, int64_t batch, int64_t groups,
                          int64_t in_channels, int64_t out_channels,
                          const std::vector<AxisTuple>& axes, bool channels_last) {
  Problem problem;
  problem.dtype = dtype == "float64"    ? DType::kFloat64
                  : dtype == "float16"  ? DType::kFloat16
                  : dtype == "bfloat16" ? DType::kBFloat16
                                        : DType::kFloat32;
  Geometry& g = problem.geometry;
  g.batch = batch;
  g.groups = groups;
  g.in_channels = in_channels / groups;
  g.out_channels = out_channels / groups;
  for (size_t a = 0; a < axes.size(); ++a) {
    Axis& axis = g.axis[size_t(kAxes) - axes.size() + a];
    std::tie(axis.in, axis.out, axis.kernel, axis.stride, axis.dilate, axis.pad) = axes[a];
  }
  pack(in_channels, g, &Axis::in, channels_last, problem.data.batch, problem.data.channel,
       problem.data.axis);
  pack(out_channels, g, &Axis::out, channels_last, problem.out.batch, problem.out.channel,
       problem.out.axis);
  pack(g.out_channels, g, &Axis::kernel, channels_last, problem.weight.in_channel,
       problem.weight.out_channel, problem.weight.tap);
  return problem;
}

}  // namespace mxd::ops
