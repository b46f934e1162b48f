#include "cpu/fold.h"

namespace mxd::cpu {
namespace {

bool is_pointwise(const Axis& axis) {
  return axis.kernel == 1 && axis.stride == 1 && axis.pad == 0 && axis.in == axis.out;
}

// Whether axis `outer` goes on where axis `inner` of `size` elements ends.
bool contiguous(const TensorView& view, int outer, int inner, int64_t size) {
  return view.axis[outer] == size * view.axis[inner];
}

void fold_pointwise_axes(Problem& problem) {
  Axis* axis = problem.geometry.axis;
  for (int outer = 0; outer + 1 < kAxes; ++outer) {
    const int inner = outer + 1;
    if (axis[outer].in == 1 || !is_pointwise(axis[outer]) || !is_pointwise(axis[inner])) continue;
    if (!contiguous(problem.data, outer, inner, axis[inner].in)) continue;
    if (!contiguous(problem.out, outer, inner, axis[inner].out)) continue;
    axis[inner].in *= axis[outer].in;
    axis[inner].out *= axis[outer].out;
    axis[outer] = Axis{};
  }
}

void fold_single_pixel(Problem& problem) {
  Geometry& geometry = problem.geometry;
  int64_t taps = 1;
  for (int a = kAxes - 1; a >= 0; --a) {
    const Axis& axis = geometry.axis[a];
    if (axis.in != 1 || axis.pad != 0 || axis.out != axis.kernel || axis.dilate != 1) return;
    const bool dense =
        axis.kernel == 1 || (problem.weight.tap[a] == taps && problem.out.axis[a] == taps);
    if (!dense) return;
    taps *= axis.kernel;
  }
  const bool channels_follow = problem.weight.out_channel == taps && problem.out.channel == taps;
  if (taps == 1 || !channels_follow || problem.bias.data) return;
  geometry.out_channels *= taps;
  problem.weight.out_channel = problem.out.channel = 1;
  for (Axis& axis : geometry.axis) axis = Axis{};
}

}  // namespace

Problem folded(const Problem& problem) {
  Problem simpler = problem;
  fold_pointwise_axes(simpler);
  fold_single_pixel(simpler);
  return simpler;
}

}  // namespace mxd::cpu
