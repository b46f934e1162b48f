#include "cpu/engine.h"

#include <atomic>

#include "cpu/depthwise.h"
#include "cpu/fill.h"
#include "cpu/fold.h"
#include "cpu/in_place_sum.h"
#include "cpu/minimal_filter.h"
#include "cpu/minimal_filter_weight.h"
#include "cpu/scratch.h"
#include "cpu/tap_outer.h"
#include "cpu/tap_sum.h"

namespace mxd::cpu {
namespace {

std::atomic<bool> g_poison{false};  // set by tests only

// Preparing weights takes less than 5 % of a call with more source pixels.
constexpr int64_t kMostPreparedPixels = 8192;

Resources without_prepared(const Resources& resources) {
  return {resources.threads, resources.workspace_bytes, nullptr};
}

}  // namespace

bool poison_scratch() { return g_poison.load(std::memory_order_relaxed); }
void set_poison_scratch(bool poison) { g_poison.store(poison); }

void forward(const Problem& given, const Resources& all) {
  const Problem problem = folded(given);
  const bool few_pixels =
      problem.geometry.batch * problem.geometry.in_pixels() <= kMostPreparedPixels;
  const Resources resources = few_pixels ? all : without_prepared(all);
  const Choice choice = choose(Pass::kForward, problem, resources.workspace_bytes);
  count_run(choice.algorithm);
  if (choice.algorithm == Algorithm::kFill) {
    const Geometry& g = problem.geometry;
    fill_with_bias(kernels_for(problem.dtype), problem.out, problem.bias, g.batch,
                   g.groups * g.out_channels, {g.axis[0].out, g.axis[1].out, g.axis[2].out});
    return;
  }
  if (choice.algorithm == Algorithm::kMinimalFilter) {
    if (run_minimal_filter(FilterPlan(Pass::kForward, problem), resources)) return;
    count_run(Algorithm::kTapSum);
  }
  const TapSum sum = forward_tap_sum(problem, choice.lanes);
  if (choice.algorithm == Algorithm::kDepthwise) {
    run_depthwise(sum, resources);
  } else if (choice.algorithm == Algorithm::kInPlaceSum) {
    run_in_place_sum(sum, resources);
  } else {
    run_tap_sum(sum, resources);
  }
}

void data_gradient(const Problem& given, const Resources& resources) {
  const Problem problem = folded(given);
  const Choice choice = choose(Pass::kDataGradient, problem, resources.workspace_bytes);
  count_run(choice.algorithm);
  if (choice.algorithm == Algorithm::kFill) {
    const Geometry& g = problem.geometry;
    fill_with_bias(kernels_for(problem.dtype), problem.data, BiasView{}, g.batch,
                   g.groups * g.in_channels, {g.axis[0].in, g.axis[1].in, g.axis[2].in});
    return;
  }
  if (choice.algorithm == Algorithm::kMinimalFilter) {
    if (run_minimal_filter(FilterPlan(Pass::kDataGradient, problem), resources)) return;
    count_run(Algorithm::kTapSum);
  }
  const TapSum sum = data_gradient_tap_sum(problem, choice.lanes);
  if (choice.algorithm == Algorithm::kDepthwise) {
    run_depthwise(sum, resources);
  } else if (choice.algorithm == Algorithm::kInPlaceSum) {
    run_in_place_sum(sum, resources);
  } else {
    run_tap_sum(sum, resources);
  }
}

void weight_gradient(const Problem& given, const Resources& resources) {
  const Problem problem = folded(given);
  const Choice choice = choose(Pass::kWeightGradient, problem, resources.workspace_bytes);
  count_run(choice.algorithm);
  if (choice.algorithm == Algorithm::kFill) {
    const Geometry& g = problem.geometry;
    fill_weight_with_zero(kernels_for(problem.dtype), problem.weight, g.groups * g.in_channels,
                          g.out_channels, {g.axis[0].kernel, g.axis[1].kernel, g.axis[2].kernel});
    return;
  }
  if (choice.algorithm == Algorithm::kMinimalFilter) {
    if (run_minimal_filter_weight(WeightFilterPlan(problem), resources)) return;
    count_run(Algorithm::kTapOuter);
  }
  if (choice.algorithm == Algorithm::kDepthwise) {
    run_depthwise_weight(problem, choice.lanes, resources);
  } else {
    run_tap_outer(problem, choice.lanes, resources);
  }
}

}  // namespace mxd::cpu
