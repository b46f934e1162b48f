// How a tap sum is cut into jobs, those into blocks of columns, and a block's sum into chunks.
#pragma once

#include <memory>
#include <vector>

#include "cpu/column_block.h"
#include "cpu/column_grid.h"
#include "cpu/line_block.h"
#include "cpu/tap_sum.h"

namespace mxd::cpu {

// A worker's scratch but for resident weights: together within the 1 MiB floor.
constexpr int64_t kSourceBytes = int64_t(1) << 19;       // the packed source of a chunk
constexpr int64_t kWholeSourceBytes = int64_t(1) << 21;  // of all chunks, if that is less
constexpr int64_t kAccBytes = int64_t(1) << 18;          // the accumulators of a slice
constexpr int64_t kAmpleAccBytes = int64_t(1) << 20;     // where the workspace allows
constexpr int64_t kPanelBytes = int64_t(1) << 17;  // weights of one panel, packed where needed
constexpr int64_t kLineBytes = int64_t(1) << 16;   // a line of results, its phases interleaved
constexpr int64_t kMostChannels = 2048;            // dst channels of a job

// What the rows of a product stand for: a group of phases on each axis (see ColumnGrid) times the
// dst channels, in the order (phase 0, phase 1, channel, phase 2).
struct Bundle {
  int64_t group_index[kAxes];
  const PhaseGroup* group[kAxes];

  int64_t phases() const {
    return int64_t(group[0]->phases.size() * group[1]->phases.size() * group[2]->phases.size());
  }
  int64_t taps() const { return group[0]->taps * group[1]->taps * group[2]->taps; }
  // The row of a phase (by its place in each group) and a channel.
  int64_t row(int64_t i0, int64_t i1, int64_t channel, int64_t i2, int64_t channels) const {
    const int64_t n1 = int64_t(group[1]->phases.size());
    const int64_t n2 = int64_t(group[2]->phases.size());
    return ((i0 * n1 + i1) * channels + channel) * n2 + i2;
  }
};

// Where packed weights are kept.
enum class WeightHome {
  kResident,   // all of a job's, packed before its first block
  kPerPanel,   // all taps of a panel's channels and a chunk, packed when they are needed
  kPerBundle,  // one bundle's taps of a panel and a chunk, packed when they are needed
};

// A job is a block of channels of one group times a share (span) of the columns. The number of jobs
// follows the number of threads; the order in which any one result is summed does not depend on it.
class TapSumPlan {
 public:
  // `exact`: no zero stands for a missing source pixel. A weight that is not finite would turn such
  // a zero into a NaN that the sum over the existing pixels does not have.
  TapSumPlan(const TapSum& sum, const Resources& resources, bool exact);

  // Elements of the packed source of a chunk, at most.
  int64_t source_elements(const Chunk& chunk) const;

  int64_t jobs() const { return sum.groups * channel_blocks * spans; }
  Bundle bundle(int64_t index) const;
  std::unique_ptr<ColumnBlock> block(int64_t index) const;

  const TapSum& sum;
  const ColumnGrid grid;
  bool grouped;  // some bundle has several phases
  int64_t bundles;
  int64_t most_rows;      // of a bundle, for one channel
  bool lines;             // LineBlock; else GatheredBlock
  int64_t block_columns;  // at most
  int64_t blocks;
  std::vector<Chunk> chunks;
  int64_t chunk_shifts;
  int64_t channel_blocks;
  int64_t max_channels;  // dst channels of a job
  int64_t spans;
  // A slice of the rows is what the accumulators hold: so many panels of channels of so many
  // bundles.
  int64_t acc_bytes;
  int64_t slice_panels;
  int64_t slice_bundles;
  int64_t zero_bytes;  // a vector of zeros for every channel of a chunk
  // Whether the packed source of all chunks is kept, so that all slices of a block can use it.
  bool whole_source;
  int64_t source_bytes;
  int64_t line_bytes;
  PreparedWeights* prepared = nullptr;  // where resident weights are kept, else in scratch
  WeightHome home;
  int64_t weight_bytes;
  int64_t scratch_bytes;

 private:
  void cut_columns(bool exact);
  bool sliding_pays() const;
  bool lines_pay() const;
  void cut_sum();
  void spread_jobs(int threads);
  int64_t whole_bytes() const;
  void cut_rows(const Resources& resources);
  void place_weights(const Resources& resources);

  struct Stretch {
    int64_t first_column, columns, first_block, blocks;
  };
  LineCut line_cut_;
  std::vector<Stretch> stretches_;  // gathered blocks do not reach across their ends
};

}  // namespace mxd::cpu
