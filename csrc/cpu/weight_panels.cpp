#include "cpu/weight_panels.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace mxd::cpu {
namespace {

int64_t length(Range range) { return range.end - range.begin; }

}  // namespace

WeightPanels::WeightPanels(const TapSumPlan& plan, char* memory)
    : plan_(plan), memory_(memory), own_(memory) {
  if (plan.grouped || plan.home == WeightHome::kPerBundle) return;
  place_.assign(size_t(plan.sum.taps()), -1);
  int64_t place = 0;
  for (int64_t b = 0; b < plan.bundles; ++b) {
    for (BundleTap& tap : taps(plan.bundle(b), {0, plan.grid.shifts()})) {
      place_[size_t(tap.place)] = place++;
    }
  }
  for (int64_t& tap : place_) {  // taps that no phase has: packed all the same, and never read
    if (tap < 0) tap = place++;
  }
  step_offset_.resize(place_.size());
}

Panels WeightPanels::channel_panels() const {
  const Kernels& kernels = *plan_.sum.products;
  return plan_.sum.lanes == Lanes::kPixels ? Panels::of_rows(kernels, channels_)
                                           : Panels::of_cols(kernels, channels_);
}

Panels WeightPanels::panels(const Bundle& bundle) const {
  return plan_.grouped ? Panels::of_rows(*plan_.sum.products, bundle.phases() * channels_)
                       : channel_panels();
}

int64_t WeightPanels::first_weight() const {
  return group_ * plan_.sum.weight_group + begin_ * plan_.sum.weight_dst;
}

void WeightPanels::start_job(int64_t group, int64_t begin, int64_t channels) {
  group_ = group;
  begin_ = begin;
  channels_ = channels;
  if (plan_.home != WeightHome::kResident) return;
  if (plan_.grouped) find_bundles();
  if (!plan_.prepared) return pack_job(own_);
  const bool before = std::exchange(nonfinite_, false);
  kept_ = plan_.prepared->get(key(), plan_.weight_bytes, [this](char* memory) {
    pack_job(memory);
    return uint32_t(nonfinite_);
  });
  memory_ = kept_->start;
  nonfinite_ = before || kept_->summary != 0;
}

PreparedWeights::Key WeightPanels::key() const {
  const TapSum& sum = plan_.sum;
  PreparedWeights::Key key{int64_t(Algorithm::kTapSum),
                           int64_t(reinterpret_cast<intptr_t>(sum.products)),
                           int64_t(sum.lanes),
                           sum.src_channels,
                           group_,
                           begin_,
                           channels_,
                           sum.weight_group,
                           sum.weight_src,
                           sum.weight_dst};
  key.insert(key.end(), place_.begin(), place_.end());
  for (int a = 0; a < kAxes; ++a) {
    key.insert(key.end(), {sum.first_tap[a], sum.kernel[a], sum.weight_tap[a]});
    for (const PhaseGroup& group : plan_.grid.axis(a).groups) {
      key.push_back(int64_t(group.phases.size()));
      for (const int32_t phase : group.phases) {
        const AxisTaps& taps = *plan_.grid.axis(a).phases[size_t(phase)].taps;
        key.insert(key.end(), {taps.tap_begin, taps.tap_step, taps.tap_count});
      }
    }
  }
  for (const Chunk& chunk : plan_.chunks) key.push_back(chunk.channels.begin);
  return key;
}

void WeightPanels::find_bundles() {
  bundle_offset_.clear();
  int64_t offset = 0;
  for (int64_t b = 0; b < plan_.bundles; ++b) {
    bundle_offset_.push_back(offset);
    const Bundle bundle = plan_.bundle(b);
    offset += bundle.taps() * plan_.sum.src_steps() * panels(bundle).padded_total() *
              plan_.sum.products->acc_bytes;
  }
}

void WeightPanels::pack_job(char* dst) {
  const int64_t acc_bytes = plan_.sum.products->acc_bytes;
  if (!plan_.grouped) {
    const Panels panels = channel_panels();
    for (int64_t panel = 0; panel < panels.count(); ++panel) {
      for (const Chunk& chunk : plan_.chunks) {
        if (chunk.shifts.begin > 0) continue;
        pack_all_taps(panels, panel, chunk, dst);
        dst += plan_.sum.taps() * chunk.depth() * panels.width(panel) * acc_bytes;
      }
    }
    return;
  }
  for (int64_t b = 0; b < plan_.bundles; ++b) {
    const Bundle bundle = plan_.bundle(b);
    const Panels panels = this->panels(bundle);
    const std::vector<BundleTap> taps = this->taps(bundle, {0, plan_.grid.shifts()});
    for (int64_t panel = 0; panel < panels.count(); ++panel) {
      for (const Chunk& chunk : plan_.chunks) {
        if (chunk.shifts.begin > 0) continue;
        pack_taps(bundle, taps, panels, panel, chunk, dst);
        dst += bundle.taps() * chunk.depth() * panels.width(panel) * acc_bytes;
      }
    }
  }
}

std::vector<BundleTap> WeightPanels::taps(const Bundle& bundle, Range shifts) const {
  const TapSum& sum = plan_.sum;
  const AxisTaps* axis[kAxes];
  for (int a = 0; a < kAxes; ++a) {
    axis[a] = plan_.grid.axis(a).phases[size_t(bundle.group[a]->phases[0])].taps;
  }
  std::vector<BundleTap> taps;
  taps.reserve(size_t(std::min(bundle.taps(), length(shifts))));
  int64_t place = 0;
  int64_t j[kAxes];
  for (j[0] = 0; j[0] < bundle.group[0]->taps; ++j[0]) {
    for (j[1] = 0; j[1] < bundle.group[1]->taps; ++j[1]) {
      for (j[2] = 0; j[2] < bundle.group[2]->taps; ++j[2]) {
        BundleTap tap{plan_.grid.shift(bundle.group[0]->shifts[j[0]], bundle.group[1]->shifts[j[1]],
                                       bundle.group[2]->shifts[j[2]]),
                      place, 0};
        const bool chosen = tap.shift.flat >= shifts.begin && tap.shift.flat < shifts.end;
        if (chosen || plan_.home == WeightHome::kResident) ++place;
        if (!chosen) continue;
        int64_t flat = 0;
        for (int a = 0; a < kAxes; ++a) {
          tap.offset += j[a] * axis[a]->tap_step * sum.weight_tap[a];
          const int64_t at = axis[a]->tap_begin - sum.first_tap[a] + j[a] * axis[a]->tap_step;
          flat = flat * sum.kernel[a] + at;
        }
        if (!place_.empty()) tap.place = place_[size_t(flat)] < 0 ? flat : place_[size_t(flat)];
        taps.push_back(tap);
      }
    }
  }
  return taps;
}

const char* WeightPanels::get(int64_t bundle_index, const Bundle& bundle,
                              const std::vector<BundleTap>& taps, int64_t panel,
                              const Chunk& chunk) {
  const TapSum& sum = plan_.sum;
  if (plan_.home == WeightHome::kPerPanel) return memory_;
  const Panels panels = this->panels(bundle);
  if (plan_.home == WeightHome::kPerBundle) {
    pack_taps(bundle, taps, panels, panel, chunk, own_);
    return own_;
  }
  const int64_t count = plan_.grouped ? bundle.taps() : sum.taps();
  const int64_t start = plan_.grouped ? bundle_offset_[size_t(bundle_index)] : 0;
  return memory_ + start +
         count * sum.products->acc_bytes *
             (panels.begin(panel) * sum.src_steps() + panels.width(panel) * chunk.first_step());
}

void WeightPanels::pack_panel(int64_t panel, const Chunk& chunk) {
  pack_all_taps(channel_panels(), panel, chunk, own_);
}

void WeightPanels::pack_all_taps(const Panels& panels, int64_t panel, const Chunk& chunk,
                                 char* dst) {
  const TapSum& sum = plan_.sum;
  const Kernels& kernels = *sum.products;
  const int64_t width = panels.width(panel);
  const int64_t present = panels.present(panel);
  const int64_t channels = chunk.channel_count();
  const int64_t steps = chunk.depth();
  const char* weight = sum.weight + (first_weight() + panels.begin(panel) * sum.weight_dst +
                                     chunk.channels.begin * sum.weight_src) *
                                        kernels.elem_bytes;
  if (present < width) {
    std::memset(dst, 0, size_t(sum.taps() * steps * width * kernels.acc_bytes));
  }
  const int64_t* stride = sum.weight_tap;
  const bool evenly_spaced =
      (sum.kernel[1] == 1 || stride[1] == sum.kernel[2] * stride[2]) &&
      (sum.kernel[0] == 1 || stride[0] == sum.kernel[1] * sum.kernel[2] * stride[2]);
  for (size_t tap = 0; tap < place_.size(); ++tap) step_offset_[tap] = place_[tap] * steps * width;
  if (evenly_spaced && sum.weight_dst != 1 && sum.weight_src != 1) {
    // One step at a time, all its taps: they lie next to each other in memory.
    for (int64_t c = 0; c < channels; c += kernels.terms) {
      const int terms = int(std::min<int64_t>(channels - c, kernels.terms));
      kernels.pack_scattered(dst + c / kernels.terms * width * kernels.acc_bytes,
                             step_offset_.data(), weight + c * sum.weight_src * kernels.elem_bytes,
                             present, sum.weight_dst, sum.taps(), stride[2], terms, sum.weight_src);
    }
  } else {
    const int64_t* to = step_offset_.data();
    for (int64_t t0 = 0; t0 < sum.kernel[0]; ++t0) {
      for (int64_t t1 = 0; t1 < sum.kernel[1]; ++t1) {
        for (int64_t t2 = 0; t2 < sum.kernel[2]; ++t2) {
          const int64_t offset = t0 * stride[0] + t1 * stride[1] + t2 * stride[2];
          kernels.pack(dst + *to++ * kernels.acc_bytes, width, weight + offset * kernels.elem_bytes,
                       present, sum.weight_dst, channels, sum.weight_src);
        }
      }
    }
  }
  look_for_nonfinite(dst, sum.taps() * steps * width);
}

std::vector<WeightPanels::Run> WeightPanels::runs(const Bundle& bundle, const Panels& panels,
                                                  int64_t panel) const {
  const TapSum& sum = plan_.sum;
  const auto phase_offset = [&](int a, int64_t i) {
    const PhaseGroup& group = *bundle.group[a];
    const AxisTaps& taps = *plan_.grid.axis(a).phases[size_t(group.phases[size_t(i)])].taps;
    return (taps.tap_begin - sum.first_tap[a]) * sum.weight_tap[a];
  };
  const int64_t n1 = int64_t(bundle.group[1]->phases.size());
  const int64_t n2 = int64_t(bundle.group[2]->phases.size());
  std::vector<Run> runs;
  for (int64_t i = 0; i < panels.present(panel); ++i) {
    const int64_t row = panels.begin(panel) + i;
    const int64_t line = row / n2 / channels_;
    const int64_t offset = phase_offset(0, line / n1) + phase_offset(1, line % n1) +
                           row / n2 % channels_ * sum.weight_dst + phase_offset(2, row % n2);
    if (!runs.empty()) {
      Run& last = runs.back();
      const int64_t step = offset - (last.offset + (last.count - 1) * last.stride);
      if (last.count == 1) last.stride = step;
      if (step == last.stride) {
        ++last.count;
        continue;
      }
    }
    runs.push_back({i, 1, offset, 0});
  }
  return runs;
}

void WeightPanels::pack_taps(const Bundle& bundle, const std::vector<BundleTap>& taps,
                             const Panels& panels, int64_t panel, const Chunk& chunk, char* dst) {
  const TapSum& sum = plan_.sum;
  const Kernels& kernels = *sum.products;
  const int64_t width = panels.width(panel);
  const int64_t steps = chunk.depth();
  const int64_t elements = int64_t(taps.size()) * steps * width;
  const std::vector<Run> panel_runs = runs(bundle, panels, panel);
  if (panels.present(panel) < width) std::memset(dst, 0, size_t(elements * kernels.acc_bytes));
  char* to = dst;
  for (const BundleTap& tap : taps) {
    for (const Run& run : panel_runs) {
      const int64_t offset =
          first_weight() + run.offset + tap.offset + chunk.channels.begin * sum.weight_src;
      kernels.pack(to + run.row * kernels.acc_bytes, width,
                   sum.weight + offset * kernels.elem_bytes, run.count, run.stride,
                   chunk.channel_count(), sum.weight_src);
    }
    to += steps * width * kernels.acc_bytes;
  }
  look_for_nonfinite(dst, elements);
}

void WeightPanels::look_for_nonfinite(const char* panel, int64_t elements) {
  nonfinite_ = nonfinite_ || !plan_.sum.products->panel_finite(panel, elements);
}

}  // namespace mxd::cpu
