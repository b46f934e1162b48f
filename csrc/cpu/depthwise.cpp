#include "cpu/depthwise.h"

#include "cpu/depthwise_ways.h"
#include "cpu/fill.h"

namespace mxd::cpu {

bool depthwise_fits(const Problem& problem, Pass pass, Lanes lanes) {
  if (lanes == Lanes::kPixels) return rows_fit(problem, pass);
  const Geometry& g = problem.geometry;
  return g.in_channels * g.out_channels == 1 ? channels_fit(problem) : groups_fit(problem);
}

void run_depthwise(const TapSum& sum, const Resources& resources) {
  if (!phases_cover_results(sum)) {
    fill_with_bias(*sum.kernels, sum.dst, sum.bias, sum.batch, sum.groups * sum.dst_channels,
                   sum.dst_size);
  }
  if (sum.lanes == Lanes::kPixels) {
    run_depthwise_rows(sum, resources);
  } else if (sum.src_channels * sum.dst_channels > 1) {
    run_depthwise_groups(sum, resources);
  } else {
    run_depthwise_channels(sum, resources);
  }
}

void run_depthwise_weight(const Problem& problem, Lanes lanes, const Resources& resources) {
  const Geometry& g = problem.geometry;
  const TapSum sum = forward_tap_sum(problem, lanes);
  if (sum.taps() < g.taps()) {
    fill_weight_with_zero(*sum.kernels, problem.weight, g.groups * g.in_channels, g.out_channels,
                          {g.axis[0].kernel, g.axis[1].kernel, g.axis[2].kernel});
  }
  if (lanes == Lanes::kPixels) {
    run_depthwise_rows_weight(problem, sum, resources);
  } else if (sum.src_channels * sum.dst_channels > 1) {
    run_depthwise_groups_weight(problem, sum, resources);
  } else {
    run_depthwise_channels_weight(problem, sum, resources);
  }
}

}  // namespace mxd::cpu
