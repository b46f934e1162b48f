#include "cpu/filter_weights.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>

#include "cpu/scratch.h"

namespace mxd::cpu {
namespace {

void raise_to(std::atomic<uint32_t>& largest, uint32_t value) {
  uint32_t seen = largest.load(std::memory_order_relaxed);
  while (seen < value && !largest.compare_exchange_weak(seen, value)) {
  }
}

// A job does some source channels of one panel, for all groups and correlations.
class WeightWorker {
 public:
  WeightWorker(const FilterPlan& plan, float* weights, std::atomic<uint32_t>& largest)
      : plan_(plan),
        kernels_(*plan.kernels),
        weights_(weights),
        largest_(largest),
        scratch_(new Scratch(plan.weight_worker_bytes())) {
    const int64_t most = plan.weight_channels * kernels_.cols;
    taps_ = scratch_->take<float>(plan.geometry.taps() * most);
    rows_ = scratch_->take<float>(kMostProducts * most);
    planes_ = scratch_->take<float>(kMostProducts * most);
  }

  static int64_t jobs(const FilterPlan& plan) {
    return plan.geometry.groups * plan.columns.count() *
           ceil_div(plan.src_channels, plan.weight_channels);
  }

  void operator()(int64_t job) {
    const int64_t parts = ceil_div(plan_.src_channels, plan_.weight_channels);
    const int64_t first = job % parts * plan_.weight_channels;
    const int64_t panel = job / parts % plan_.columns.count();
    const int64_t conv_group = job / parts / plan_.columns.count();
    const int64_t channels = std::min(plan_.weight_channels, plan_.src_channels - first);
    const int64_t width = plan_.columns.width(panel);
    count_ = channels * width;
    padded_ = ceil_div(count_, kFilterLanes) * kFilterLanes;
    pack(conv_group, panel, first, channels);
    const int64_t product = plan_.steps * plan_.columns.padded_total();
    for (const FilterGroup& group : plan_.groups) {
      if (!group.owns_weights) continue;
      float* dst = weights_ + group.weight_begin + conv_group * group.products() * product +
                   plan_.columns.begin(panel) * plan_.steps + first * width;
      for (const Correlation& correlation : group.correlations) {
        transform(group, correlation, dst, product);
        dst += plan_.src_channels * width;
      }
    }
  }

 private:
  // Copies the kernel: tap after tap, channel after channel.
  void pack(int64_t conv_group, int64_t panel, int64_t first, int64_t channels) {
    const WeightView& w = plan_.weight;
    const Geometry& g = plan_.geometry;
    const int64_t width = plan_.columns.width(panel);
    const int64_t present = plan_.columns.present(panel);
    const int64_t taps = g.taps();
    const char* src =
        static_cast<const char*>(w.data) + (conv_group * plan_.weight_group + first * w.in_channel +
                                            plan_.columns.begin(panel) * w.out_channel) *
                                               kernels_.elem_bytes;
    if (present < width || count_ < padded_) std::memset(taps_, 0, size_t(taps * padded_) * 4);
    const int64_t line = g.axis[2].kernel, plane = line * g.axis[1].kernel;
    if (w.tap[2] == 1 && w.tap[1] == line && w.tap[0] == plane) {
      for (int64_t c = 0; c < channels; ++c) {
        kernels_.pack(taps_ + c * width, padded_, src + c * w.in_channel * kernels_.elem_bytes,
                      present, w.out_channel, taps, 1);
      }
    } else {
      for (int64_t t = 0; t < taps; ++t) {
        const int64_t offset =
            t / plane * w.tap[0] + t / line % g.axis[1].kernel * w.tap[1] + t % line * w.tap[2];
        kernels_.pack(taps_ + t * padded_, width, src + offset * kernels_.elem_bytes, present,
                      w.out_channel, channels, w.in_channel);
      }
    }
    raise_to(largest_, kernels_.filter.largest(taps_, taps * padded_));
  }

  // One axis after the other, the innermost first.
  void transform(const FilterGroup& group, const Correlation& correlation, float* dst,
                 int64_t dst_step) {
    const auto& combine = kernels_.filter.combine;
    const FilterMap map = FilterMap::kTaps;
    const FilterAxis(&axis)[kAxes] = correlation.axis;
    const int64_t r0 = taps_of(group.kind[0]), r1 = taps_of(group.kind[1]);
    const int64_t p1 = products_of(group.kind[1]), p2 = products_of(group.kind[2]);
    const int64_t row = p2 * padded_;
    for (int64_t e0 = 0; e0 < r0; ++e0) {
      for (int64_t e1 = 0; e1 < r1; ++e1) {
        const int64_t t0 = axis[0].tap_first + e0 * axis[0].tap_step;
        const int64_t t1 = axis[1].tap_first + e1 * axis[1].tap_step;
        const int64_t tap =
            (t0 * plan_.geometry.axis[1].kernel + t1) * plan_.geometry.axis[2].kernel +
            axis[2].tap_first;
        combine(group.kind[2], map,
                {rows_ + (e0 * r1 + e1) * row, padded_, taps_ + tap * padded_,
                 axis[2].tap_step * padded_, padded_, 1, 0, 0});
      }
    }
    combine(group.kind[1], map, {planes_, row, rows_, row, row, r0, p1 * row, r1 * row});
    const int64_t plane = p1 * row;
    const bool whole = count_ == padded_;
    combine(group.kind[0], map,
            {whole ? dst : rows_, p1 * p2 * (whole ? dst_step : padded_), planes_, plane, padded_,
             p1 * p2, whole ? dst_step : padded_, padded_});
    for (int64_t t = 0; !whole && t < group.products(); ++t) {
      std::memcpy(dst + t * dst_step, rows_ + t * padded_, size_t(count_) * 4);
    }
  }

  const FilterPlan& plan_;
  const Kernels& kernels_;
  float* weights_;
  std::atomic<uint32_t>& largest_;
  std::unique_ptr<Scratch> scratch_;
  float* taps_;    // of the kernel
  float* rows_;    // transformed along the last axis
  float* planes_;  // and the one before
  int64_t count_ = 0, padded_ = 0;
};

}  // namespace

uint32_t transform_weights(const FilterPlan& plan, const Threads& threads, float* weights) {
  std::atomic<uint32_t> largest{0};
  for_each_job(threads, WeightWorker::jobs(plan),
               [&] { return WeightWorker(plan, weights, largest); });
  return largest;
}

PreparedWeights::Key transformed_key(const FilterPlan& plan) {
  const WeightView& w = plan.weight;
  PreparedWeights::Key key{int64_t(Algorithm::kMinimalFilter),
                           int64_t(reinterpret_cast<intptr_t>(plan.kernels)),
                           plan.geometry.groups,
                           plan.src_channels,
                           plan.dst_channels,
                           plan.weight_group,
                           w.in_channel,
                           w.out_channel};
  for (int a = 0; a < kAxes; ++a) {
    key.insert(key.end(), {plan.geometry.axis[a].kernel, w.tap[a]});
  }
  for (const FilterGroup& group : plan.groups) {
    for (int a = 0; a < kAxes; ++a) key.push_back(int64_t(group.kind[a]));
    key.push_back(int64_t(group.correlations.size()));
    for (const Correlation& correlation : group.correlations) {
      for (const FilterAxis& axis : correlation.axis) {
        key.insert(key.end(), {axis.tap_first, axis.tap_step});
      }
    }
  }
  return key;
}

}  // namespace mxd::cpu
