#include "cpu/tap_sum_plan.h"

#include <algorithm>

#include "cpu/panels.h"
#include "cpu/scratch.h"
#include "cpu/shifted_block.h"

namespace mxd::cpu {
namespace {

constexpr int64_t kJobsPerThread = 4;

// What gathering adds to the multiply-adds of a pixel, in rows of the register tile: measured
// 0.27 ns an element where the source is contiguous, 0.5 ns where it has a step, against 0.03 ns
// for a row of the tile.
constexpr double kGatherRows = 10;
constexpr double kStepGatherRows = 18;

// A shifted block holds a grid for each residue of the source index: beyond so many on one axis
// there is too little in each.
constexpr int64_t kMostResidues = 64;

// A shifted block must hold this many channels to be worth its overhead.
constexpr int64_t kLeastShiftedChannels = 8;

std::vector<Box> boxes_of(const AxisTaps* const (&axis)[kAxes], int64_t batch,
                          const std::vector<AxisRegion> (&regions)[kAxes]) {
  std::vector<Box> boxes;
  for (const AxisRegion& r0 : regions[0]) {
    for (const AxisRegion& r1 : regions[1]) {
      for (const AxisRegion& r2 : regions[2]) {
        boxes.push_back({{axis[0], axis[1], axis[2]}, {r0, r1, r2}, batch});
      }
    }
  }
  return boxes;
}

}  // namespace

TapSumPlan::TapSumPlan(const TapSum& tap_sum, const Resources& resources) : sum(tap_sum) {
  const Kernels& kernels = *sum.kernels;
  gathered_steps = kBlockBytes / (kGatheredPixels * kernels.acc_bytes);
  const int64_t positions = sum.lanes == Lanes::kPixels ? kShiftedPositions : kGatheredPixels;
  channel_blocks = ceil_div(sum.dst_channels, kBlockBytes / (positions * kernels.acc_bytes));
  counted_channels =
      ceil_div(ceil_div(sum.dst_channels, channel_blocks), kernels.cols) * kernels.cols;
  make_phases();
  spread_jobs(resources.threads->count());

  max_channels = ceil_div(sum.dst_channels, channel_blocks);
  const int64_t padded = ceil_div(max_channels, kernels.cols) * kernels.cols;
  // In floating point: a kernel expanded from one element can have more taps than bytes exist.
  const double all_weights = double(padded) * double(sum.kernel[0]) * double(sum.kernel[1]) *
                             double(sum.kernel[2]) * double(sum.src_channels * kernels.acc_bytes);
  const int64_t budget =
      resources.workspace_bytes / std::max(resources.threads->count(), 1) - 3 * kBlockBytes;
  weights_resident = all_weights <= double(std::max(budget, kBlockBytes));
  weight_bytes = weights_resident ? int64_t(all_weights) : kBlockBytes;
  scratch_bytes = align_up(weight_bytes) + 2 * align_up(kBlockBytes) +
                  align_up(padded * kernels.acc_bytes) + kAlignment;
}

Blocks TapSumPlan::exact_blocks(const Phase& phase) const {
  const std::vector<AxisRegion> regions[kAxes] = {
      exact_regions(*phase.axis[0]), exact_regions(*phase.axis[1]), exact_regions(*phase.axis[2])};
  Blocks blocks;
  for (const Box& box : boxes_of(phase.axis, sum.batch, regions)) {
    blocks.add({box, false, {}, ceil_div(box.pixels(), kGatheredPixels)});
  }
  return blocks;
}

BoxPlan TapSumPlan::plan_box(const Box& box) const {
  BoxPlan plan{box, false, {1, 1, 1}, ceil_div(box.pixels(), kGatheredPixels)};
  if (sum.lanes != Lanes::kPixels || box.pixels() == 0) return plan;
  for (int a = 0; a < kAxes; ++a) {
    if (std::min(box.region[a].taps(), box.taps[a]->src_step) > kMostResidues) return plan;
  }
  // The block grows from the innermost axis outwards while its positions fit.
  const Kernels& kernels = *sum.kernels;
  const ShiftedGrid one(box, plan.size, kernels);
  int64_t blocks = box.batch;
  int64_t span = 1;   // positions from the first result to the last, so far
  int64_t pitch = 1;  // positions from one result to the next on this axis
  for (int a = kAxes - 1; a >= 0; --a) {
    const int64_t fitting = std::min((kShiftedPositions - span) / pitch + 1, box.results(a));
    const int64_t parts = ceil_div(box.results(a), fitting);
    plan.size[a] = ceil_div(box.results(a), parts);
    blocks *= ceil_div(box.results(a), plan.size[a]);
    span += (plan.size[a] - 1) * pitch;
    pitch *= plan.size[a] + one.line(a) - 1;
    if (pitch > kBlockBytes) return plan;  // the taps reach too far
  }
  const ShiftedGrid grid(box, plan.size, kernels);
  const int64_t channels = kBlockBytes / kernels.acc_bytes / grid.channel_elements();
  if (channels < std::min(sum.src_channels, kLeastShiftedChannels)) return plan;
  const double results = double(plan.size[0] * plan.size[1] * plan.size[2]);
  const double waste =
      double(Panels::of_cols(kernels, grid.positions()).padded_total()) / results - 1;
  const double gathering = box.taps[2]->src_step == 1 ? kGatherRows : kStepGatherRows;
  if (waste * double(sum.dst_channels) < gathering) {
    plan.shifted = true;
    plan.blocks = blocks;
  }
  return plan;
}

void TapSumPlan::make_phases() {
  for (const AxisTaps& a0 : sum.axes[0]) {
    for (const AxisTaps& a1 : sum.axes[1]) {
      for (const AxisTaps& a2 : sum.axes[2]) {
        Phase phase;
        phase.axis[0] = &a0;
        phase.axis[1] = &a1;
        phase.axis[2] = &a2;
        for (const Box& box :
             boxes_of(phase.axis, sum.batch, {regions(a0), regions(a1), regions(a2)})) {
          phase.blocks.add(plan_box(box));
          phase.results += box.pixels();
        }
        phases.push_back(std::move(phase));
      }
    }
  }
}

// Enough jobs for the threads: first by pixels, then, for small images, by channels. Every job
// packs its weights, so one thread gets no more jobs than it must.
void TapSumPlan::spread_jobs(int threads) {
  for (const Phase& phase : phases) most_blocks = std::max(most_blocks, phase.blocks.count);
  const int64_t wanted = threads > 1 ? kJobsPerThread * threads : 1;
  const int64_t most_spans = std::max<int64_t>(most_blocks, 1);
  if (sum.groups * channel_blocks * most_spans < wanted) {
    const int64_t narrowest = 4 * sum.kernels->max_rows;
    channel_blocks =
        std::max(channel_blocks, std::min(ceil_div(wanted, sum.groups * most_spans),
                                          std::max<int64_t>(sum.dst_channels / narrowest, 1)));
  }
  spans = std::min(most_blocks, ceil_div(wanted, sum.groups * channel_blocks));
}

}  // namespace mxd::cpu
