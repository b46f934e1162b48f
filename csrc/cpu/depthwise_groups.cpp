#include <algorithm>
#include <cstring>
#include <memory>

#include "cpu/depthwise_ways.h"
#include "cpu/panels.h"
#include "cpu/pixel_walk.h"
#include "cpu/scratch.h"

namespace mxd::cpu {
namespace {

constexpr int64_t kWantedJobs = 64;
constexpr int64_t kWeightBytes = int64_t(1) << 19;  // of a chunk of groups, all its taps

// How many groups share a vector.
int64_t side_of(const Kernels& kernels, int64_t src_channels, int64_t dst_channels) {
  return kernels.vector / std::max(src_channels, dst_channels);
}

// A chunk of groups, in sets that share vectors, and its weights: [tap][set][row][lane], where the
// lanes are the channels of the other operand of each group of the set, side by side.
class ChunkWorker {
 public:
  ChunkWorker(const TapSum& sum, int64_t sets, int64_t rows)
      : sum_(sum),
        kernels_(*sum.kernels),
        side_(side_of(kernels_, sum.src_channels, sum.dst_channels)),
        rows_(rows),
        sets_(sets),
        scratch_(new Scratch(align_up(sum.taps() * tap_bytes()) + align_up(bias_bytes()))),
        weights_(scratch_->take<char>(sum.taps() * tap_bytes())),
        bias_(scratch_->take<char>(bias_bytes())),
        walk_(sum, tap_bytes(), weights_) {}

  // Forward pass and data gradient: rows [begin, end) of the groups from `group` on.
  void sum_rows(int64_t group, Range rows) {
    const int64_t groups = std::min(sets_ * side_, sum_.groups - group);
    if (group != loaded_) load(group, groups);
    loaded_ = group;
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      walk_.for_each_run(row, group, [&](const PixelSpan& span, int64_t offset) {
        kernels_.depthwise.group_sum(run_of(span, offset, groups));
      });
    }
  }

  // Weight gradient: all rows.
  void outer_rows(int64_t group, const WeightView& weight) {
    const int64_t groups = std::min(sets_ * side_, sum_.groups - group);
    std::memset(weights_, 0, size_t(sum_.taps() * tap_bytes()));
    for (int64_t row = 0; row < PixelWalk::rows(sum_); ++row) {
      walk_.for_each_run(row, group, [&](const PixelSpan& span, int64_t offset) {
        kernels_.depthwise.group_outer(run_of(span, offset, groups));
      });
    }
    for_each_block(groups, sum_.src_channels, [&](const int64_t(&tap)[kAxes], int64_t g, char* at) {
      int64_t offset = (group + g) * sum_.src_channels * weight.in_channel;
      for (int a = 0; a < kAxes; ++a) offset += (sum_.first_tap[a] + tap[a]) * weight.tap[a];
      kernels_.store(static_cast<char*>(weight.data) + offset * kernels_.elem_bytes,
                     weight.out_channel, weight.in_channel, at, kernels_.vector, sum_.dst_channels,
                     sum_.src_channels, nullptr, 0, 0);
    });
  }

 private:
  int64_t tap_bytes() const { return sets_ * rows_ * kernels_.vector * kernels_.acc_bytes; }
  int64_t bias_bytes() const { return sets_ * side_ * sum_.dst_channels * kernels_.acc_bytes; }

  GroupRun run_of(const PixelSpan& span, int64_t offset, int64_t groups) const {
    return {static_cast<char*>(sum_.dst.data) + offset * kernels_.elem_bytes,
            span.dst_step,
            span.terms,
            span.term_count,
            span.src_step,
            span.pixels,
            groups,
            side_,
            sum_.src_channels,
            sum_.dst_channels,
            sum_.bias.data ? bias_ : nullptr};
  }

  void load(int64_t group, int64_t groups) {
    std::memset(weights_, 0, size_t(sum_.taps() * tap_bytes()));
    for_each_block(groups, sum_.dst_channels, [&](const int64_t(&tap)[kAxes], int64_t g, char* at) {
      int64_t offset = (group + g) * sum_.weight_group;
      for (int a = 0; a < kAxes; ++a) offset += tap[a] * sum_.weight_tap[a];
      kernels_.pack(at, kernels_.vector, sum_.weight + offset * kernels_.elem_bytes,
                    sum_.dst_channels, sum_.weight_dst, sum_.src_channels, sum_.weight_src);
    });
    if (sum_.bias.data) {
      const int64_t first = group * sum_.dst_channels * sum_.bias.stride;
      kernels_.pack(bias_, groups * sum_.dst_channels,
                    static_cast<const char*>(sum_.bias.data) + first * kernels_.elem_bytes,
                    groups * sum_.dst_channels, sum_.bias.stride, 1, 0);
    }
  }

  // visit(tap, group of the chunk, its weights), which are so many lanes wide.
  template <class Visit>
  void for_each_block(int64_t groups, int64_t lanes, const Visit& visit) {
    int64_t tap[kAxes];
    char* at = weights_;
    for (tap[0] = 0; tap[0] < sum_.kernel[0]; ++tap[0]) {
      for (tap[1] = 0; tap[1] < sum_.kernel[1]; ++tap[1]) {
        for (tap[2] = 0; tap[2] < sum_.kernel[2]; ++tap[2], at += tap_bytes()) {
          for (int64_t g = 0; g < groups; ++g) {
            const int64_t place = g / side_ * rows_ * kernels_.vector + g % side_ * lanes;
            visit(tap, g, at + place * kernels_.acc_bytes);
          }
        }
      }
    }
  }

  const TapSum& sum_;
  const Kernels& kernels_;
  int64_t side_, rows_, sets_;
  std::unique_ptr<Scratch> scratch_;
  char* weights_;
  char* bias_;
  PixelWalk walk_;
  int64_t loaded_ = -1;
};

// Sets whose weights a worker holds. Groups are independent: no sum depends on the cut.
int64_t sets_of_chunk(const TapSum& sum, int64_t rows, int64_t most) {
  const Kernels& kernels = *sum.kernels;
  const int64_t bytes = sum.taps() * rows * kernels.vector * kernels.acc_bytes;
  return std::max<int64_t>(1, std::min(most, kWeightBytes / bytes));
}

int64_t sets_of(const TapSum& sum) {
  return ceil_div(sum.groups, side_of(*sum.kernels, sum.src_channels, sum.dst_channels));
}

}  // namespace

bool groups_fit(const Problem& problem) {
  const Geometry& g = problem.geometry;
  const Kernels& kernels = kernels_for(problem.dtype);
  if (!kernels.depthwise.group_sum || g.groups < 2) return false;
  if (side_of(kernels, g.in_channels, g.out_channels) < 2) return false;
  double bytes = double(std::max(g.in_channels, g.out_channels)) * double(kernels.vector) *
                 double(kernels.acc_bytes);
  for (const Axis& axis : g.axis) bytes *= double(axis.kernel);
  return bytes <= double(kWeightBytes);
}

void run_depthwise_groups(const TapSum& sum, const Resources& resources) {
  const int64_t sets = sets_of_chunk(sum, sum.src_channels, sets_of(sum));
  const int64_t chunks = ceil_div(sets_of(sum), sets);
  const int64_t side = side_of(*sum.kernels, sum.src_channels, sum.dst_channels);
  const int64_t rows = PixelWalk::rows(sum);
  const int64_t shares = std::min(ceil_div(kWantedJobs, chunks), rows);
  for_each_job(*resources.threads, chunks * shares, [&] {
    return [=, worker = ChunkWorker(sum, sets, sum.src_channels)](int64_t job) mutable {
      const int64_t share = job % shares;
      worker.sum_rows(job / shares * sets * side,
                      {rows * share / shares, rows * (share + 1) / shares});
    };
  });
}

void run_depthwise_groups_weight(const Problem& problem, const TapSum& sum,
                                 const Resources& resources) {
  const int64_t share = ceil_div(sets_of(sum), resources.threads->count());
  const int64_t sets = sets_of_chunk(sum, sum.dst_channels, share);
  const int64_t side = side_of(*sum.kernels, sum.src_channels, sum.dst_channels);
  for_each_job(*resources.threads, ceil_div(sets_of(sum), sets), [&] {
    return [&, sets, side, worker = ChunkWorker(sum, sets, sum.dst_channels)](int64_t job) mutable {
      worker.outer_rows(job * sets * side, problem.weight);
    };
  });
}

}  // namespace mxd::cpu
