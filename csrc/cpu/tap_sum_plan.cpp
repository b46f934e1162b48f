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

// What a box costs beyond its multiply-adds, in those: planning it and starting its loops.
constexpr double kBoxProducts = 30000;

// Fewer rows of a register tile than this take as long: their sums wait for each other.
constexpr int64_t kLeastBusyRows = 4;

std::vector<Box> boxes_of(const AxisTaps* const (&axis)[kAxes], int64_t batch,
                          const RegionList* const (&regions)[kAxes]) {
  std::vector<Box> boxes;
  boxes.reserve(regions[0]->size() * regions[1]->size() * regions[2]->size());
  for (const AxisRegion& r0 : *regions[0]) {
    for (const AxisRegion& r1 : *regions[1]) {
      for (const AxisRegion& r2 : *regions[2]) {
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
  size_blocks();
  scratch_bytes = align_up(weight_bytes) + align_up(source_bytes) + align_up(acc_bytes) +
                  align_up(padded * kernels.acc_bytes) + kAlignment;
}

Blocks TapSumPlan::exact_blocks(const Phase& phase) const {
  const RegionList regions[kAxes] = {exact_regions(*phase.axis[0]), exact_regions(*phase.axis[1]),
                                     exact_regions(*phase.axis[2])};
  Blocks blocks;
  for (const Box& box : boxes_of(phase.axis, sum.batch, {&regions[0], &regions[1], &regions[2]})) {
    blocks.add({box, false, {}, ceil_div(box.pixels(), kGatheredPixels)});
  }
  return blocks;
}

// Cut as `regions` says or not at all: boxes of few pixels leave lanes empty.
std::vector<Box> TapSumPlan::cheapest_boxes(const AxisTaps* const (&axis)[kAxes],
                                            const RegionList* const (&cut)[kAxes]) const {
  std::vector<Box> boxes = boxes_of(axis, sum.batch, cut);
  if (boxes.size() == 1) return boxes;
  Box whole{{axis[0], axis[1], axis[2]}, {}, sum.batch};
  for (int a = 0; a < kAxes; ++a) {
    whole.region[a] = {0, axis[a]->dst_count, 0, axis[a]->tap_count};
  }
  double cost = 0;
  for (const Box& box : boxes) cost += cost_of(box);
  if (cost_of(whole) < cost) boxes = {whole};
  return boxes;
}

// In multiply-adds of one group, whole register tiles counted.
double TapSumPlan::cost_of(const Box& box) const {
  const int64_t pixels = sum.lanes == Lanes::kPixels
                             ? Panels::of_cols(*sum.kernels, box.pixels()).padded_total()
                             : std::max(box.pixels(), kLeastBusyRows);
  double products = double(pixels) * double(sum.src_channels) * double(sum.dst_channels);
  for (const AxisRegion& region : box.region) products *= double(region.taps());
  return products + kBoxProducts;
}

BoxPlan TapSumPlan::plan_box(const Box& box) const {
  BoxPlan plan{box, false, {1, 1, 1}, ceil_div(box.pixels(), kGatheredPixels)};
  if (sum.lanes != Lanes::kPixels || box.pixels() == 0) return plan;
  for (int a = 0; a < kAxes; ++a) {
    if (std::min(box.region[a].taps(), box.taps[a]->src_step) > kMostResidues) return plan;
  }
  // The block grows from the innermost axis outwards while its positions fit.
  const Kernels& kernels = *sum.kernels;
  ShiftedGrid grid(box, plan.size, kernels);
  int64_t blocks = box.batch;
  int64_t span = 1;   // positions from the first result to the last, so far
  int64_t pitch = 1;  // positions from one result to the next on this axis
  for (int a = kAxes - 1; a >= 0; --a) {
    const int64_t fitting = std::min((kShiftedPositions - span) / pitch + 1, box.results(a));
    const int64_t parts = ceil_div(box.results(a), fitting);
    plan.size[a] = ceil_div(box.results(a), parts);
    blocks *= ceil_div(box.results(a), plan.size[a]);
    span += (plan.size[a] - 1) * pitch;
    pitch *= grid.line(a) + plan.size[a] - 1;
    if (pitch > kBlockBytes) return plan;  // the taps reach too far
  }
  grid.resize(plan.size);
  const int64_t channels = kBlockBytes / kernels.acc_bytes / grid.channel_elements();
  if (channels < std::min(sum.src_channels, kLeastShiftedChannels)) return plan;
  const double results = double(plan.size[0] * plan.size[1] * plan.size[2]);
  const double waste =
      double(Panels::of_cols(kernels, grid.positions()).padded_total()) / results - 1;
  const double gathering = box.taps[2]->src_step == 1 ? kGatherRows : kStepGatherRows;
  if (waste * double(sum.dst_channels) < gathering) {
    plan.shifted = true;
    plan.blocks = blocks;
    plan.positions = grid.positions();
    plan.channel_elements = grid.channel_elements();
  }
  return plan;
}

void TapSumPlan::make_phases() {
  std::vector<RegionList> cuts[kAxes];  // of each phase of an axis
  for (int a = 0; a < kAxes; ++a) {
    cuts[a].reserve(sum.axes[a].size());
    for (const AxisTaps& taps : sum.axes[a]) cuts[a].push_back(regions(taps));
  }
  phases.reserve(sum.axes[0].size() * sum.axes[1].size() * sum.axes[2].size());
  for (size_t i0 = 0; i0 < sum.axes[0].size(); ++i0) {
    for (size_t i1 = 0; i1 < sum.axes[1].size(); ++i1) {
      for (size_t i2 = 0; i2 < sum.axes[2].size(); ++i2) {
        Phase& phase = phases.emplace_back();
        phase.axis[0] = &sum.axes[0][i0];
        phase.axis[1] = &sum.axes[1][i1];
        phase.axis[2] = &sum.axes[2][i2];
        const std::vector<Box> boxes =
            cheapest_boxes(phase.axis, {&cuts[0][i0], &cuts[1][i1], &cuts[2][i2]});
        phase.blocks.boxes.reserve(boxes.size());
        for (const Box& box : boxes) {
          phase.blocks.add(plan_box(box));
          phase.results += box.pixels();
        }
      }
    }
  }
}

// kBlockBytes each, or what the largest block of a small call takes: memory that is not asked for
// costs no time. Holds for exact_blocks, too: their boxes have no more pixels than a phase.
void TapSumPlan::size_blocks() {
  const Kernels& kernels = *sum.kernels;
  const auto whole_tiles = [&](int64_t count) {
    return ceil_div(count, kernels.cols) * kernels.cols;
  };
  const int64_t channels = std::min(sum.src_channels, kBlockBytes);
  const double all_steps = double(sum.kernel[0]) * double(sum.kernel[1]) * double(sum.kernel[2]) *
                           double(sum.src_channels);
  const int64_t most_steps = int64_t(std::min(double(gathered_steps), all_steps));
  int64_t source = 0, columns = 0;
  for (const Phase& phase : phases) {
    const int64_t pixels = whole_tiles(std::min(phase.results, kGatheredPixels));
    columns = std::max(columns, pixels);
    source = std::max(source, pixels * most_steps);
    for (const BoxPlan& plan : phase.blocks.boxes) {
      columns = std::max(columns, whole_tiles(plan.positions));
      source = std::max(source, plan.channel_elements * channels);
    }
  }
  source_bytes = std::min(source * kernels.acc_bytes, kBlockBytes);
  acc_bytes = std::min(columns * whole_tiles(max_channels) * kernels.acc_bytes, kBlockBytes);
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
