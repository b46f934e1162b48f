#include "cpu/weight_store.h"

#include <algorithm>
#include <vector>

namespace mxd::cpu {
namespace {

// Taps that lie next to each other both in the weight and among the accumulators.
struct TapRun {
  int64_t weight;  // offset of the first, of the first channel and filter
  int64_t sum;     // likewise
  int64_t length;
};

class Storer {
 public:
  Storer(const OuterPlan& plan, const WeightTile& tile, const CellPanels& entries,
         int64_t channel_width, const void* sum)
      : plan_(plan),
        kernels_(plan.kernels),
        weight_(plan.problem.weight),
        tile_(tile),
        entries_(entries),
        channel_width_(channel_width),
        sum_(static_cast<const char*>(sum)) {
    lanes_are_entries_ = plan.lanes_are_entries;
    entry_step_ = lanes_are_entries_ ? 1 : channel_width;
    channel_step_ = lanes_are_entries_ ? entries.width() : 1;
    filter_step_ = entries.set().channel_step() * entry_step_;
    channels_ = tile.channels.end - tile.channels.begin;
    filters_ = tile.filters.end - tile.filters.begin;
    const int64_t first = tile.group * plan.problem.geometry.in_channels + tile.channels.begin;
    base_ = first * weight_.in_channel + tile.filters.begin * weight_.out_channel;
  }

  void run() {
    list_taps();
    if (weight_.out_channel == 1 && filters_ > 1) {
      store_filter_runs();
    } else {
      for (size_t first = 0; first < taps_.size();) first = store_tap_runs(first);
    }
  }

 private:
  // All taps of the tile, in the order of the kernel.
  void list_taps() {
    int64_t j[kAxes], phase[kAxes];
    const Range* steps = tile_.steps;
    const Range* phases = tile_.phases;
    taps_.reserve(size_t(tile_.step_count() * (phases[0].end - phases[0].begin) *
                         (phases[1].end - phases[1].begin)));
    for (j[0] = steps[0].begin; j[0] < steps[0].end; ++j[0]) {
      for (phase[0] = phases[0].begin; has_tap(0, phase, j); ++phase[0]) {
        for (j[1] = steps[1].begin; j[1] < steps[1].end; ++j[1]) {
          for (phase[1] = phases[1].begin; has_tap(1, phase, j); ++phase[1]) {
            for (j[2] = steps[2].begin; j[2] < steps[2].end; ++j[2]) add_line(phase, j);
          }
        }
      }
    }
  }

  bool has_tap(int a, const int64_t (&phase)[kAxes], const int64_t (&j)[kAxes]) const {
    return phase[a] < std::min(tile_.phases[a].end, plan_.axis[a].phases_with(j[a]));
  }

  // The taps of the phases of the last axis.
  void add_line(int64_t (&phase)[kAxes], const int64_t (&j)[kAxes]) {
    int64_t step = 0, weight = 0;
    phase[2] = tile_.phases[2].begin;
    for (int a = 0; a < kAxes; ++a) {
      const Range steps = tile_.steps[a];
      const TapAxis& axis = plan_.axis[a];
      step = step * (steps.end - steps.begin) + j[a] - steps.begin;
      weight += (axis.first_tap + phase[a] + j[a] * axis.period) * weight_.tap[a];
    }
    const bool together =
        lanes_are_entries_ && entries_.set().phase_step() == 1 && weight_.tap[2] == 1;
    const int64_t matrix = channel_width_ * entries_.width();
    while (has_tap(2, phase, j)) {
      const int64_t end = std::min(tile_.phases[2].end, plan_.axis[2].phases_with(j[2]));
      const int64_t length = together ? end - phase[2] : 1;
      taps_.push_back({weight, step * matrix + entries_.place(phase, 0) * entry_step_, length});
      weight += length * weight_.tap[2];
      phase[2] += length;
    }
  }

  void copy(const Runs& runs, int64_t weight, int64_t dst_step, int64_t sum, int64_t src_step,
            int64_t steps) {
    kernels_.outer.store(static_cast<char*>(weight_.data) + (base_ + weight) * kernels_.elem_bytes,
                         dst_step, sum_ + sum * kernels_.acc_bytes, src_step, runs, steps);
  }

  // Where the filters are contiguous: those of one tap, channel after channel.
  void store_filter_runs() {
    const bool whole = filter_step_ == 1;
    for (int64_t f = 0; f < (whole ? 1 : filters_); ++f) offsets_.push_back(f * filter_step_);
    const int64_t length = whole ? filters_ : 1;
    const Runs runs{offsets_.data(), filters_ / length, length, length};
    for (const TapRun& run : taps_) {
      for (int64_t t = 0; t < run.length; ++t) {
        copy(runs, run.weight + t * weight_.tap[2], weight_.in_channel, run.sum + t * entry_step_,
             channel_step_, channels_);
      }
    }
  }

  // As many taps from `first` on as are contiguous, in runs of one length: filter after filter, or
  // channel after channel, along the lanes. Returns the first that is left.
  size_t store_tap_runs(size_t first) {
    const TapRun head = taps_[first];
    offsets_.clear();
    offsets_.reserve(taps_.size());
    size_t end = first;
    for (; end < taps_.size(); ++end) {
      const TapRun& run = taps_[end];
      if (run.length != head.length ||
          run.weight != head.weight + int64_t(end - first) * head.length) {
        break;
      }
      offsets_.push_back(run.sum);
    }
    const Runs runs{offsets_.data(), int64_t(offsets_.size()), head.length, head.length};
    if (lanes_are_entries_) {
      for (int64_t c = 0; c < channels_; ++c) {
        copy(runs, head.weight + c * weight_.in_channel, weight_.out_channel, c * channel_step_,
             filter_step_, filters_);
      }
    } else {
      for (int64_t f = 0; f < filters_; ++f) {
        copy(runs, head.weight + f * weight_.out_channel, weight_.in_channel, f * filter_step_,
             channel_step_, channels_);
      }
    }
    return end;
  }

  const OuterPlan& plan_;
  const Kernels& kernels_;
  const WeightView& weight_;
  const WeightTile& tile_;
  const CellPanels& entries_;
  const int64_t channel_width_;
  const char* sum_;
  bool lanes_are_entries_;
  int64_t entry_step_, channel_step_, filter_step_;  // among the accumulators
  int64_t channels_, filters_;
  int64_t base_;
  std::vector<TapRun> taps_;
  std::vector<int64_t> offsets_;  // among the accumulators, of the runs being stored
};

}  // namespace

void store_weight_tile(const OuterPlan& plan, const WeightTile& tile, const CellPanels& entries,
                       int64_t channel_width, const void* sum) {
  Storer(plan, tile, entries, channel_width, sum).run();
}

}  // namespace mxd::cpu
