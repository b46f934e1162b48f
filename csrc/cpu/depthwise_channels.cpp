#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "cpu/depthwise_ways.h"
#include "cpu/panels.h"
#include "cpu/pixel_walk.h"
#include "cpu/scratch.h"

namespace mxd::cpu {
namespace {

constexpr int64_t kWantedJobs = 64;
constexpr int64_t kWeightBytes = int64_t(1) << 19;  // of a chunk of channels, all its taps

// Channels whose weights a worker holds. Channels are independent: no sum depends on the cut.
int64_t channels_of_chunk(const Kernels& kernels, int64_t channels, int64_t taps, int64_t most) {
  const int64_t vectors = kWeightBytes / (taps * kernels.vector * kernels.acc_bytes);
  most = ceil_div(std::min(most, channels), kernels.vector);
  return std::min(channels, std::min(vectors, most) * kernels.vector);
}

// A source no larger is likely to be in a cache: reading it ahead takes longer (0.8x).
constexpr double kCachedSourceBytes = 0xcp20;

double source_bytes(const TapSum& sum) {
  double bytes = double(sum.batch) * double(sum.groups) * double(sum.kernels->elem_bytes);
  for (const std::vector<AxisTaps>& phases : sum.axes) bytes *= double(phases.front().src_size);
  return bytes;
}

// A chunk of channels and its weights.
class ChunkWorker {
 public:
  ChunkWorker(const TapSum& sum, int64_t chunk)
      : sum_(sum),
        kernels_(*sum.kernels),
        chunk_(chunk),
        tap_step_(odd_lines(chunk, kernels_.acc_bytes)),
        scratch_(new Scratch(align_up(sum.taps() * tap_step_ * kernels_.acc_bytes) +
                             align_up(chunk * kernels_.acc_bytes))),
        weights_(scratch_->take<char>(sum.taps() * tap_step_ * kernels_.acc_bytes)),
        bias_(scratch_->take<char>(chunk * kernels_.acc_bytes)),
        walk_(sum, tap_step_ * kernels_.acc_bytes, weights_),
        reads_ahead_(chunk == sum.groups && sum.src.axis[2] == sum.groups &&
                     source_bytes(sum) > kCachedSourceBytes) {}

  // Forward pass and data gradient: rows [begin, end) of the channels from `channel` on.
  void sum_rows(int64_t channel, Range rows) {
    const int64_t count = std::min(chunk_, sum_.groups - channel);
    if (channel != loaded_) load(channel, count);
    loaded_ = channel;
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      if (walk_.spreads()) {
        walk_.for_each_spread(row, channel, [&](const PixelSpan& span, int64_t offset) {
          PixelRun run = run_of(span, offset, count);
          run.weight_step = tap_step_;
          kernels_.depthwise.pixel_spread(run);
        });
        continue;
      }
      read_ahead(row, channel, count);
      walk_.for_each_run(row, channel, [&](const PixelSpan& span, int64_t offset) {
        sum_.products->depthwise.pixel_sum(run_of(span, offset, count));
      });
    }
  }

  // Weight gradient: all rows.
  void outer_rows(int64_t channel, const WeightView& weight) {
    const int64_t count = std::min(chunk_, sum_.groups - channel);
    std::memset(weights_, 0, size_t(sum_.taps() * tap_step_ * kernels_.acc_bytes));
    for (int64_t row = 0; row < PixelWalk::rows(sum_); ++row) {
      walk_.for_each_run(row, channel, [&](const PixelSpan& span, int64_t offset) {
        kernels_.depthwise.pixel_outer(run_of(span, offset, count));
      });
    }
    for_each_kernel_row([&](int64_t t0, int64_t t1, char* row) {
      const int64_t offset =
          channel * weight.in_channel + (sum_.first_tap[0] + t0) * weight.tap[0] +
          (sum_.first_tap[1] + t1) * weight.tap[1] + sum_.first_tap[2] * weight.tap[2];
      kernels_.store(static_cast<char*>(weight.data) + offset * kernels_.elem_bytes, weight.tap[2],
                     weight.in_channel, row, tap_step_, sum_.kernel[2], count, nullptr, 0, 0);
    });
  }

 private:
  // Reads new source rows from end to end: the hardware then fetches far ahead, as it cannot where
  // the sums go through the pixels of several rows at once.
  void read_ahead(int64_t row, int64_t channel, int64_t count) {
    if (!reads_ahead_) return;
    const int64_t pixels = sum_.axes[2].front().src_size;
    const int64_t bytes = ((pixels - 1) * sum_.src.axis[2] + count) * kernels_.elem_bytes;
    rows_now_.clear();
    walk_.for_each_source(row, channel, [&](const char* src) {
      rows_now_.push_back(src);
      if (std::find(rows_before_.begin(), rows_before_.end(), src) != rows_before_.end()) return;
      for (int64_t i = 0; i < bytes; i += kAlignment) {
        [[maybe_unused]] const volatile char touched = src[i];
      }
    });
    rows_before_.swap(rows_now_);
  }

  PixelRun run_of(const PixelSpan& span, int64_t offset, int64_t channels) const {
    return {static_cast<char*>(sum_.dst.data) + offset * kernels_.elem_bytes,
            span.dst_step,
            span.terms,
            span.term_count,
            span.src_step,
            span.pixels,
            channels,
            sum_.bias.data ? bias_ : nullptr,
            0};
  }

  void load(int64_t channel, int64_t count) {
    for_each_kernel_row([&](int64_t t0, int64_t t1, char* row) {
      const int64_t offset =
          channel * sum_.weight_group + t0 * sum_.weight_tap[0] + t1 * sum_.weight_tap[1];
      kernels_.pack(row, tap_step_, sum_.weight + offset * kernels_.elem_bytes, count,
                    sum_.weight_group, sum_.kernel[2], sum_.weight_tap[2]);
    });
    if (sum_.bias.data) {
      const char* bias = static_cast<const char*>(sum_.bias.data);
      kernels_.pack(bias_, chunk_, bias + channel * sum_.bias.stride * kernels_.elem_bytes, count,
                    sum_.bias.stride, 1, 0);
    }
  }

  template <class Visit>
  void for_each_kernel_row(const Visit& visit) {
    char* row = weights_;
    for (int64_t t0 = 0; t0 < sum_.kernel[0]; ++t0) {
      for (int64_t t1 = 0; t1 < sum_.kernel[1]; ++t1) {
        visit(t0, t1, row);
        row += sum_.kernel[2] * tap_step_ * kernels_.acc_bytes;
      }
    }
  }

  const TapSum& sum_;
  const Kernels& kernels_;
  int64_t chunk_;
  int64_t tap_step_;  // from the weights of a tap to those of the next
  std::unique_ptr<Scratch> scratch_;
  char* weights_;
  char* bias_;
  PixelWalk walk_;
  int64_t loaded_ = -1;
  bool reads_ahead_;
  std::vector<const char*> rows_before_, rows_now_;
};

}  // namespace

bool channels_fit(const Problem& problem) {
  const Geometry& g = problem.geometry;
  const Kernels& kernels = kernels_for(problem.dtype);
  const double taps =
      double(g.axis[0].kernel) * double(g.axis[1].kernel) * double(g.axis[2].kernel);
  return taps * double(kernels.vector * kernels.acc_bytes) <= double(kWeightBytes);
}

void run_depthwise_channels(const TapSum& sum, const Resources& resources) {
  const int64_t chunk = channels_of_chunk(*sum.kernels, sum.groups, sum.taps(), sum.groups);
  const int64_t chunks = ceil_div(sum.groups, chunk);
  const int64_t rows = PixelWalk::rows(sum);
  const int64_t shares = std::min(ceil_div(kWantedJobs, chunks), rows);
  for_each_job(*resources.threads, chunks * shares, [&] {
    return [=, worker = ChunkWorker(sum, chunk)](int64_t job) mutable {
      const int64_t share = job % shares;
      worker.sum_rows(job / shares * chunk, {rows * share / shares, rows * (share + 1) / shares});
    };
  });
}

void run_depthwise_channels_weight(const Problem& problem, const TapSum& sum,
                                   const Resources& resources) {
  const int64_t share = ceil_div(sum.groups, resources.threads->count());
  const int64_t chunk = channels_of_chunk(*sum.kernels, sum.groups, sum.taps(), share);
  for_each_job(*resources.threads, ceil_div(sum.groups, chunk), [&] {
    return [&, chunk, worker = ChunkWorker(sum, chunk)](int64_t job) mutable {
      worker.outer_rows(job * chunk, problem.weight);
    };
  });
}

}  // namespace mxd::cpu
