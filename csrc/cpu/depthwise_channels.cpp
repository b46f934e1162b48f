#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "cpu/depthwise_ways.h"
#include "cpu/panels.h"
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

// A source row that meets a row of results, and its weights.
struct RowPair {
  const char* src;
  char* weight;
};

// Visits runs of result pixels with the terms that reach them. Weights lie as [tap][channel of the
// chunk], in the accumulate type.
class PixelWalk {
 public:
  PixelWalk(const TapSum& sum, int64_t chunk, char* weights)
      : sum_(sum), kernels_(*sum.kernels), chunk_(chunk), weights_(weights) {
    for (const AxisTaps& taps : sum.axes[2]) {
      const Range first = valid_results(taps, 0, {0, taps.dst_count});
      inner_.push_back(valid_results(taps, taps.tap_count - 1, first));
    }
  }

  static int64_t rows(const TapSum& sum) { return sum.batch * sum.dst_size[0] * sum.dst_size[1]; }

  // visit(run): the pixels of a result row, by those that share their taps; run.dst is not set, but
  // the offset of the first is visit's second argument.
  template <class Visit>
  void for_each_run(int64_t row, int64_t channel, const Visit& visit) {
    const int64_t o1 = row % sum_.dst_size[1];
    const int64_t o0 = row / sum_.dst_size[1] % sum_.dst_size[0];
    const int64_t n = row / sum_.dst_size[1] / sum_.dst_size[0];
    if (!find_rows(n, channel, o0, o1)) return;
    const int64_t dst = n * sum_.dst.batch + channel * sum_.dst.channel + o0 * sum_.dst.axis[0] +
                        o1 * sum_.dst.axis[1];
    for (size_t p = 0; p < sum_.axes[2].size(); ++p) {
      const AxisTaps& a2 = sum_.axes[2][p];
      for (int64_t q = 0; q < a2.dst_count;) {
        const bool inside = q >= inner_[p].begin && q < inner_[p].end;
        make_terms(a2, q, inside ? Range{0, a2.tap_count} : valid_taps(a2, q));
        PixelRun run{};
        run.dst_step = a2.dst_step * sum_.dst.axis[2];
        run.terms = terms_.data();
        run.term_count = int64_t(terms_.size());
        run.src_step = a2.src_step * sum_.src.axis[2];
        run.pixels = inside ? inner_[p].end - q : 1;
        run.channels = std::min(chunk_, sum_.groups - channel);
        visit(run, dst + (a2.dst_begin + q * a2.dst_step) * sum_.dst.axis[2]);
        q += run.pixels;
      }
    }
  }

 private:
  // A result on an axis: its phase, its place there, and the taps that reach it.
  struct Found {
    const AxisTaps* phase;
    int64_t result;
    Range taps;
  };
  static Found find(const std::vector<AxisTaps>& phases, int64_t result) {
    const int64_t step = phases.front().dst_step;
    const auto phase = std::lower_bound(
        phases.begin(), phases.end(), result % step,
        [](const AxisTaps& taps, int64_t residue) { return taps.dst_begin < residue; });
    if (phase == phases.end() || phase->dst_begin != result % step) return {nullptr, 0, {}};
    return {&*phase, result / step, valid_taps(*phase, result / step)};
  }

  // False where no phase covers the row.
  bool find_rows(int64_t n, int64_t channel, int64_t o0, int64_t o1) {
    const Found f0 = find(sum_.axes[0], o0);
    const Found f1 = find(sum_.axes[1], o1);
    if (!f0.phase || !f1.phase) return false;
    row_pairs_.clear();
    for (int64_t j0 = f0.taps.begin; j0 < f0.taps.end; ++j0) {
      for (int64_t j1 = f1.taps.begin; j1 < f1.taps.end; ++j1) {
        const auto [i0, t0] = place(f0, j0);
        const auto [i1, t1] = place(f1, j1);
        const int64_t src = n * sum_.src.batch + channel * sum_.src.channel +
                            i0 * sum_.src.axis[0] + i1 * sum_.src.axis[1];
        const int64_t row = (t0 - sum_.first_tap[0]) * sum_.kernel[1] + t1 - sum_.first_tap[1];
        const int64_t weight = (row * sum_.kernel[2] - sum_.first_tap[2]) * chunk_;
        row_pairs_.push_back({static_cast<const char*>(sum_.src.data) + src * kernels_.elem_bytes,
                              weights_ + weight * kernels_.acc_bytes});
      }
    }
    return true;
  }
  struct Place {
    int64_t src, tap;
  };
  static Place place(const Found& f, int64_t j) {
    return {f.phase->src_begin + f.result * f.phase->src_step + j * f.phase->src_tap_step,
            f.phase->tap_begin + j * f.phase->tap_step};
  }

  void make_terms(const AxisTaps& a2, int64_t q, Range taps) {
    terms_.clear();
    const int64_t src_step = sum_.src.axis[2] * kernels_.elem_bytes;
    const int64_t weight_step = chunk_ * kernels_.acc_bytes;
    for (const RowPair& row : row_pairs_) {
      for (int64_t j = taps.begin; j < taps.end; ++j) {
        terms_.push_back(
            {row.src + (a2.src_begin + q * a2.src_step + j * a2.src_tap_step) * src_step,
             row.weight + (a2.tap_begin + j * a2.tap_step) * weight_step});
      }
    }
  }

  const TapSum& sum_;
  const Kernels& kernels_;
  int64_t chunk_;
  char* weights_;
  std::vector<Range> inner_;  // of each phase of axis 2: the results that every tap reaches
  std::vector<RowPair> row_pairs_;
  std::vector<PixelTerm> terms_;
};

// A chunk of channels and its weights.
class ChunkWorker {
 public:
  ChunkWorker(const TapSum& sum, int64_t chunk)
      : sum_(sum),
        kernels_(*sum.kernels),
        chunk_(chunk),
        scratch_(new Scratch(align_up(sum.taps() * chunk * kernels_.acc_bytes) +
                             align_up(chunk * kernels_.acc_bytes))),
        weights_(scratch_->take<char>(sum.taps() * chunk * kernels_.acc_bytes)),
        bias_(scratch_->take<char>(chunk * kernels_.acc_bytes)),
        walk_(sum, chunk, weights_) {}

  // Forward pass and data gradient: rows [begin, end) of the channels from `channel` on.
  void sum_rows(int64_t channel, Range rows) {
    const int64_t count = std::min(chunk_, sum_.groups - channel);
    if (channel != loaded_) load(channel, count);
    loaded_ = channel;
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      walk_.for_each_run(row, channel, [&](PixelRun& run, int64_t offset) {
        run.dst = static_cast<char*>(sum_.dst.data) + offset * kernels_.elem_bytes;
        run.bias = sum_.bias.data ? bias_ : nullptr;
        kernels_.depthwise.pixel_sum(run);
      });
    }
  }

  // Weight gradient: all rows.
  void outer_rows(int64_t channel, const WeightView& weight) {
    const int64_t count = std::min(chunk_, sum_.groups - channel);
    std::memset(weights_, 0, size_t(sum_.taps() * chunk_ * kernels_.acc_bytes));
    for (int64_t row = 0; row < PixelWalk::rows(sum_); ++row) {
      walk_.for_each_run(row, channel, [&](PixelRun& run, int64_t offset) {
        run.dst = static_cast<char*>(sum_.dst.data) + offset * kernels_.elem_bytes;
        kernels_.depthwise.pixel_outer(run);
      });
    }
    for_each_kernel_row([&](int64_t t0, int64_t t1, char* row) {
      const int64_t offset =
          channel * weight.in_channel + (sum_.first_tap[0] + t0) * weight.tap[0] +
          (sum_.first_tap[1] + t1) * weight.tap[1] + sum_.first_tap[2] * weight.tap[2];
      kernels_.store(static_cast<char*>(weight.data) + offset * kernels_.elem_bytes, weight.tap[2],
                     weight.in_channel, row, chunk_, sum_.kernel[2], count, nullptr, 0, 0);
    });
  }

 private:
  void load(int64_t channel, int64_t count) {
    for_each_kernel_row([&](int64_t t0, int64_t t1, char* row) {
      const int64_t offset =
          channel * sum_.weight_group + t0 * sum_.weight_tap[0] + t1 * sum_.weight_tap[1];
      kernels_.pack(row, chunk_, sum_.weight + offset * kernels_.elem_bytes, count,
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
        row += sum_.kernel[2] * chunk_ * kernels_.acc_bytes;
      }
    }
  }

  const TapSum& sum_;
  const Kernels& kernels_;
  int64_t chunk_;
  std::unique_ptr<Scratch> scratch_;
  char* weights_;
  char* bias_;
  PixelWalk walk_;
  int64_t loaded_ = -1;
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
