// The weights of a tap sum, packed into the panels that the gemm primitive reads.
//
// Without groups of phases, a panel is a stretch of dst channels, and the taps of a chunk lie in it
// bundle after bundle, so that all phases read the same panels. With groups, a panel is a
// stretch of a bundle's rows, and the taps are the bundle's own.
#pragma once

#include <vector>

#include "cpu/panels.h"
#include "cpu/tap_sum_plan.h"

namespace mxd::cpu {

// A tap of a bundle.
struct BundleTap {
  TapShift shift;
  int64_t place;   // among the taps that are packed together
  int64_t offset;  // of its weight, from that of the bundle's first tap, in elements
};

class WeightPanels {
 public:
  // `memory` has plan.weight_bytes; it is null where plan.prepared keeps the weights.
  WeightPanels(const TapSumPlan& plan, char* memory);

  // Turns to dst channels [begin, begin + channels) of a group; packs them all if resident.
  void start_job(int64_t group, int64_t begin, int64_t channels);

  // Of a bundle: of its rows where phases are grouped, else of the job's channels.
  Panels panels(const Bundle& bundle) const;
  // Its taps whose shift lies in the range, in the order of the kernel.
  std::vector<BundleTap> taps(const Bundle& bundle, Range shifts) const;

  // The packed weights of a chunk: step (tap, channel) is tap.place * channels + channel. `taps`
  // are those of the bundle that the chunk has.
  const char* get(int64_t bundle_index, const Bundle& bundle, const std::vector<BundleTap>& taps,
                  int64_t panel, const Chunk& chunk);
  // Where weights are packed per panel: makes get() find this one, for any bundle.
  void pack_panel(int64_t panel, const Chunk& chunk);

  // Whether a weight that is not finite was packed.
  bool nonfinite() const { return nonfinite_; }

 private:
  struct Run {  // of a panel's rows
    int64_t row, count, offset, stride;
  };

  // The packed weights of the job as plan.prepared knows them: all that their order depends on.
  PreparedWeights::Key key() const;
  void pack_job(char* dst);
  void find_bundles();
  Panels channel_panels() const;
  int64_t first_weight() const;
  void pack_all_taps(const Panels& panels, int64_t panel, const Chunk& chunk, char* dst);
  std::vector<Run> runs(const Bundle& bundle, const Panels& panels, int64_t panel) const;
  // Packs the taps one after the other.
  void pack_taps(const Bundle& bundle, const std::vector<BundleTap>& taps, const Panels& panels,
                 int64_t panel, const Chunk& chunk, char* dst);
  void look_for_nonfinite(const char* panel, int64_t elements);

  const TapSumPlan& plan_;
  const char* memory_;  // of what was packed last
  char* own_;           // memory to pack to
  int64_t group_ = 0;
  int64_t begin_ = 0;                   // first dst channel of the job, within the group
  int64_t channels_ = 0;                // of the job
  std::vector<int64_t> place_;          // of each tap of the kernel, unless grouped or per bundle
  std::vector<int64_t> step_offset_;    // of each tap of the kernel in the panel being packed
  std::vector<int64_t> bundle_offset_;  // resident and grouped: bytes
  bool nonfinite_ = false;
  std::shared_ptr<const PreparedWeights::Form> kept_;  // memory_, where that is prepared
};

}  // namespace mxd::cpu
