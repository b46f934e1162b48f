#include "cuda/fold.h"

#include <initializer_list>

namespace mxd::cuda {
namespace {

bool is_single_pixel(const Geometry& g) {
  for (const Axis& axis : g.axis) {
    const bool apart = axis.dilate == 1 || axis.kernel == 1;
    if (axis.in != 1 || axis.pad != 0 || axis.out != axis.kernel || !apart) return false;
  }
  return true;
}

// The step from one (filter, tap) to the next if the strides are those of one digit, else 0. The
// filters come first, or last, where they change fastest.
int64_t step_of(const Geometry& g, int64_t filter, const int64_t (&tap)[kAxes], bool filters_last) {
  const int64_t counts[kAxes + 1] = {g.out_channels, g.axis[0].kernel, g.axis[1].kernel,
                                     g.axis[2].kernel};
  const int64_t strides[kAxes + 1] = {filter, tap[0], tap[1], tap[2]};
  int64_t step = 0, count = 1;
  for (int i = 0; i <= kAxes; ++i) {
    // From the fastest digit to the slowest.
    const int digit = filters_last ? (i == 0 ? 0 : kAxes + 1 - i) : kAxes - i;
    if (counts[digit] == 1) continue;
    if (step == 0) step = strides[digit];
    if (strides[digit] != step * count) return 0;
    count *= counts[digit];
  }
  return step;
}

}  // namespace

Problem fold_taps(const Problem& problem) {
  const Geometry& g = problem.geometry;
  const int64_t taps = g.taps();
  if (taps == 1 || problem.bias.data != nullptr || !is_single_pixel(g)) return problem;
  for (const bool filters_last : {false, true}) {
    const int64_t weight = step_of(g, problem.weight.out_channel, problem.weight.tap, filters_last);
    const int64_t out = step_of(g, problem.out.channel, problem.out.axis, filters_last);
    // Groups are a whole number of filters apart in the output.
    const bool groups_follow =
        g.groups == 1 || problem.out.channel * g.out_channels == out * g.out_channels * taps;
    if (weight <= 0 || out <= 0 || !groups_follow) continue;
    Problem folded = problem;
    folded.geometry.out_channels *= taps;
    for (Axis& axis : folded.geometry.axis) axis = Axis{};
    folded.weight.out_channel = weight;
    folded.out.channel = out;
    return folded;
  }
  return problem;
}

}  // namespace mxd::cuda
