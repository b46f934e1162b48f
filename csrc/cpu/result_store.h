// Takes the accumulated results of a tap sum to their places in memory.
#pragma once

#include <vector>

#include "cpu/column_block.h"
#include "cpu/scratch.h"
#include "cpu/tap_sum_plan.h"

namespace mxd::cpu {

// The phases of the innermost axis interleave in memory. Where all of them are at hand and the
// results of a row are contiguous, their lines are merged before they are written; otherwise each
// phase is written by itself.
class ResultStore {
 public:
  ResultStore(const TapSumPlan& plan, Scratch& scratch);

  void start_job(int64_t group, int64_t begin, int64_t channels);
  int64_t channels() const { return channels_; }

  // Announces the accumulators of a bundle, for some of the job's channels. A line of them (a row
  // of the bundle with lanes along pixels, else a column's channels) has `stride` elements.
  void add(int64_t index, const Bundle& bundle, const char* acc, Range channels, int64_t stride);
  // Writes the columns of the runs, of all bundles announced since clear().
  void write(const std::vector<ColumnRun>& runs);
  void clear() { entries_.clear(); }

 private:
  struct Entry {
    int64_t index;
    Bundle bundle;
    const char* acc;
    Range channels;
    int64_t stride;
  };
  struct Member {  // where a phase of the innermost axis is
    int64_t group, place;
  };

  struct Line {  // results of one channel that follow each other, of all innermost phases
    int64_t columns;
    int64_t dst;          // element offset of the first result that exists, for channel 0
    int64_t first, last;  // the results that exist
  };
  struct LinePhase {
    const char* acc;  // of channel 0
    int64_t step;     // from one channel to the next, in bytes
  };

  const GridPhase& phase(const Bundle& bundle, int a, int64_t i) const {
    return plan_.grid.axis(a).phases[size_t(bundle.group[a]->phases[size_t(i)])];
  }
  void write_plain(const std::vector<ColumnRun>& runs);
  void write_phases(const Entry& entry, const ColumnRun& run, Range channels);
  void write_phase(const Entry& entry, const ColumnRun& run, Range channels, int64_t i0, int64_t i1,
                   int64_t i2);
  void write_lines(const std::vector<ColumnRun>& runs);
  void list_lines(const Entry* line, const ColumnRun& run);
  const char* bias(int64_t channel) const {
    return has_bias_ ? bias_ + channel * kernels_.acc_bytes : nullptr;
  }
  char* dst_of(const Entry& entry) const;

  const TapSumPlan& plan_;
  const TapSum& sum_;
  const Kernels& kernels_;
  char* line_;
  char* bias_;
  bool has_bias_ = false;
  bool plain_;        // one phase, whose rows lie behind each other in memory
  bool interleaves_;  // given whole lines of bundles
  std::vector<Member> members_;
  std::vector<const void*> rows_;
  std::vector<Line> lines_;             // of the block
  std::vector<LinePhase> line_phases_;  // of each line's phases
  int64_t group_ = 0;
  int64_t begin_ = 0;
  int64_t channels_ = 0;
  std::vector<Entry> entries_;
};

}  // namespace mxd::cpu
