// How a tap sum is cut into jobs, and those into blocks.
#pragma once

#include <vector>

#include "cpu/box.h"
#include "cpu/tap_sum.h"

namespace mxd::cpu {

// Block sizes. The packed source and the accumulators of a block each take a quarter of the 1 MiB
// scratch floor, which is also a quarter of a common L2 cache. They are fixed, because the order
// of summation must depend on the problem alone.
constexpr int64_t kBlockBytes = int64_t(1) << 18;
constexpr int64_t kGatheredPixels = 256;
constexpr int64_t kShiftedPositions = 512;

// A box and how its source is brought to the tiles.
struct BoxPlan {
  Box box;
  bool shifted;         // ShiftedGrid; else PixelBlock
  int64_t size[kAxes];  // results per block, if shifted
  int64_t blocks;
  int64_t first_block = 0;
  int64_t positions = 0;         // per block, if shifted
  int64_t channel_elements = 0;  // of the copy of the source, if shifted
};

// The boxes of a phase, their blocks numbered through.
struct Blocks {
  void add(BoxPlan plan) {
    plan.first_block = count;
    count += plan.blocks;
    boxes.push_back(plan);
  }

  std::vector<BoxPlan> boxes;
  int64_t count = 0;
};

struct Phase {
  const AxisTaps* axis[kAxes];
  Blocks blocks;
  int64_t results = 0;  // that some tap reaches: those in the boxes
};

// A job is a share (span) of the blocks of every phase, for one block of channels of one group: it
// packs their weights once, and visits the phases in turn, so that results which interleave in
// memory are written while they are in cache. The number of jobs follows the number of threads;
// the order in which any one result is summed does not depend on it.
struct TapSumPlan {
  TapSumPlan(const TapSum& sum, const Resources& resources);

  int64_t jobs() const { return sum.groups * channel_blocks * spans; }

  // The boxes of a phase cut so finely that no zero stands for a missing source pixel. A weight
  // that is not finite would turn such a zero into a NaN that the sum over the existing pixels
  // does not have.
  Blocks exact_blocks(const Phase& phase) const;

  const TapSum& sum;
  std::vector<Phase> phases;
  int64_t channel_blocks;  // the dst channels are cut into this many
  int64_t max_channels;    // in one of them
  int64_t
      counted_channels;     // what the summation's blocks are sized for: never fewer than a job has
  int64_t gathered_steps;   // of the summation that a block of gathered pixels holds
  int64_t most_blocks = 0;  // of any phase
  int64_t spans;
  bool weights_resident;  // a job's packed weights fit: packed once per job, not per block
  int64_t weight_bytes;
  int64_t source_bytes;  // of the packed source and the accumulators of a block
  int64_t acc_bytes;
  int64_t scratch_bytes;

 private:
  std::vector<Box> cheapest_boxes(const AxisTaps* const (&axis)[kAxes],
                                  const RegionList* const (&cut)[kAxes]) const;
  double cost_of(const Box& box) const;
  BoxPlan plan_box(const Box& box) const;
  void make_phases();
  void spread_jobs(int threads);
  void size_blocks();
};

}  // namespace mxd::cpu
