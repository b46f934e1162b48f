#include "cpu/tap_sum.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "cpu/fill.h"
#include "cpu/panels.h"
#include "cpu/pixel_block.h"
#include "cpu/scratch.h"

namespace mxd::cpu {
namespace {

// Block sizes. The pixel block (kPixels x steps) and the accumulators (kPixels x channels) each
// take a quarter of the 1 MiB scratch floor, which is also a quarter of a common L2 cache; a row
// panel of one summation block stays in L1. They are fixed, because the order of summation must
// depend on the problem alone.
constexpr int64_t kPixels = 256;
constexpr int64_t kBlockBytes = int64_t(1) << 18;
constexpr int64_t kWantedJobs = 32;

struct Phase {
  const AxisTaps* axis[kAxes];
  std::vector<Box> boxes;
  std::vector<int64_t> first_block;  // of each box; one more entry holds the total
  int64_t spans = 0;                 // the blocks are shared out to this many jobs
  int64_t first_job = 0;

  int64_t blocks() const { return first_block.back(); }
  int64_t taps() const { return axis[0]->tap_count * axis[1]->tap_count * axis[2]->tap_count; }
};

// A tap of a phase, as an index per axis and as one number in the packed weights.
struct Tap {
  int64_t at[kAxes];
  int64_t flat;
};

struct Plan {
  Plan(const TapSum& tap_sum, const Resources& resources) : sum(tap_sum) {
    const Kernels& kernels = *sum.kernels;
    steps = kBlockBytes / (kPixels * kernels.acc_bytes);
    const int64_t channel_limit = kBlockBytes / (kPixels * kernels.acc_bytes);
    channel_blocks = ceil_div(sum.dst_channels, channel_limit);
    make_phases();
    spread_jobs();

    max_channels = ceil_div(sum.dst_channels, channel_blocks);
    const int64_t padded = ceil_div(max_channels, kernels.cols) * kernels.cols;
    int64_t most_taps = 0;
    for (const Phase& phase : phases) most_taps = std::max(most_taps, phase.taps());
    const int64_t all_weights = padded * most_taps * sum.src_channels * kernels.acc_bytes;
    const int64_t budget = resources.workspace_bytes / std::max(resources.threads->count(), 1) -
                           3 * kBlockBytes;
    weights_resident = all_weights <= std::max(budget, kBlockBytes);
    weight_bytes = weights_resident ? all_weights : kBlockBytes;
    scratch_bytes = align_up(weight_bytes) + 2 * align_up(kBlockBytes) +
                    align_up(padded * kernels.acc_bytes) + kAlignment;
  }

  const TapSum& sum;
  std::vector<Phase> phases;
  int64_t steps;            // of the summation that one block of panels holds
  int64_t channel_blocks;   // the dst channels are cut into this many
  int64_t max_channels;
  int64_t jobs = 0;
  bool weights_resident;    // a job's packed weights fit: packed once per job, not per block
  int64_t weight_bytes;
  int64_t scratch_bytes;

  const Phase& phase_of(int64_t job) const {
    const auto after = std::upper_bound(
        phases.begin(), phases.end(), job,
        [](int64_t wanted, const Phase& phase) { return wanted < phase.first_job; });
    return *(after - 1);
  }

 private:
  void make_phases() {
    for (const AxisTaps& a0 : sum.axes[0]) {
      for (const AxisTaps& a1 : sum.axes[1]) {
        for (const AxisTaps& a2 : sum.axes[2]) {
          Phase phase;
          phase.axis[0] = &a0;
          phase.axis[1] = &a1;
          phase.axis[2] = &a2;
          int64_t block = 0;
          for (const AxisRegion& r0 : a0.regions) {
            for (const AxisRegion& r1 : a1.regions) {
              for (const AxisRegion& r2 : a2.regions) {
                phase.boxes.push_back({{&a0, &a1, &a2}, {&r0, &r1, &r2}, sum.batch});
                phase.first_block.push_back(block);
                block += ceil_div(phase.boxes.back().pixels(), kPixels);
              }
            }
          }
          phase.first_block.push_back(block);
          phases.push_back(std::move(phase));
        }
      }
    }
  }

  // Enough jobs for many threads: first by pixels, then, for small images, by channels.
  void spread_jobs() {
    const int64_t fixed = int64_t(phases.size()) * sum.groups;
    int64_t most_blocks = 1;
    for (const Phase& phase : phases) most_blocks = std::max(most_blocks, phase.blocks());
    const int64_t reachable = fixed * channel_blocks * most_blocks;
    if (reachable < kWantedJobs) {
      const int64_t narrowest = 4 * sum.kernels->max_rows;
      channel_blocks = std::max(
          channel_blocks, std::min(ceil_div(kWantedJobs, fixed * most_blocks),
                                   std::max<int64_t>(sum.dst_channels / narrowest, 1)));
    }
    for (Phase& phase : phases) {
      phase.spans =
          std::min(phase.blocks(), ceil_div(kWantedJobs, fixed * channel_blocks));
      phase.first_job = jobs;
      jobs += sum.groups * channel_blocks * phase.spans;
    }
  }
};

template <class Acc>
class Worker {
 public:
  explicit Worker(const Plan& plan)
      : plan_(plan), sum_(plan.sum), kernels_(*plan.sum.kernels),
        scratch_(new Scratch(plan.scratch_bytes)) {
    weights_ = scratch_->template take<Acc>(plan.weight_bytes / int64_t(sizeof(Acc)));
    pixels_ = scratch_->template take<Acc>(kBlockBytes / int64_t(sizeof(Acc)));
    acc_ = scratch_->template take<Acc>(kBlockBytes / int64_t(sizeof(Acc)));
    bias_ = scratch_->template take<Acc>(plan.max_channels);
  }

  void operator()(int64_t job) {
    const Phase& phase = plan_.phase_of(job);
    job -= phase.first_job;
    const int64_t span = job % phase.spans;
    const int64_t block = job / phase.spans % plan_.channel_blocks;
    group_ = job / phase.spans / plan_.channel_blocks;
    channel_begin_ = sum_.dst_channels * block / plan_.channel_blocks;
    const int64_t channel_end = sum_.dst_channels * (block + 1) / plan_.channel_blocks;
    const int64_t channels = channel_end - channel_begin_;
    const Panels channel_panels = sum_.lanes == Lanes::kPixels
                                      ? Panels::of_rows(kernels_, channels)
                                      : Panels::of_cols(kernels_, channels);
    load_bias(channels);
    if (plan_.weights_resident) {
      std::vector<Tap> taps;
      list_taps(phase, {{0, phase.axis[0]->tap_count}, {0, phase.axis[1]->tap_count},
                        {0, phase.axis[2]->tap_count}}, &taps);
      pack_weights(phase, taps, 0, sum_.src_channels, channel_panels);
    }
    const int64_t blocks = phase.blocks();
    for (int64_t b = blocks * span / phase.spans; b < blocks * (span + 1) / phase.spans; ++b) {
      run_block(phase, b, channel_panels);
    }
  }

 private:
  void load_bias(int64_t channels) {
    if (!sum_.bias.data) return;
    const int64_t first = group_ * sum_.dst_channels + channel_begin_;
    const char* bias = static_cast<const char*>(sum_.bias.data) +
                       first * sum_.bias.stride * kernels_.elem_bytes;
    kernels_.pack(bias_, channels, bias, channels, sum_.bias.stride, 1, 0);
  }

  // The taps of a box of tap indices, in the order of summation.
  static void list_taps(const Phase& phase, const Range (&range)[kAxes], std::vector<Tap>* taps) {
    taps->clear();
    for (int64_t t0 = range[0].begin; t0 < range[0].end; ++t0) {
      for (int64_t t1 = range[1].begin; t1 < range[1].end; ++t1) {
        for (int64_t t2 = range[2].begin; t2 < range[2].end; ++t2) {
          const int64_t flat =
              (t0 * phase.axis[1]->tap_count + t1) * phase.axis[2]->tap_count + t2;
          taps->push_back({{t0, t1, t2}, flat});
        }
      }
    }
  }

  // Packs channels [begin, end) of the taps: panel after panel, tap after tap within a panel.
  void pack_weights(const Phase& phase, const std::vector<Tap>& taps, int64_t begin, int64_t end,
                    const Panels& panels) {
    const int64_t channels = end - begin;
    const int64_t panel_steps = int64_t(taps.size()) * channels;
    for (int64_t panel = 0; panel < panels.count(); ++panel) {
      const int64_t width = panels.width(panel);
      Acc* dst = weights_ + panels.begin(panel) * panel_steps;
      if (panels.present(panel) < width) {
        std::memset(dst, 0, size_t(panel_steps * width) * sizeof(Acc));
      }
      for (const Tap& tap : taps) {
        int64_t offset =
            group_ * sum_.weight_group + begin * sum_.weight_src +
            (channel_begin_ + panels.begin(panel)) * sum_.weight_dst;
        for (int a = 0; a < kAxes; ++a) {
          const AxisTaps& axis = *phase.axis[a];
          offset += (axis.tap_begin + tap.at[a] * axis.tap_step) * sum_.weight_tap[a];
        }
        kernels_.pack(dst, width, sum_.weight + offset * kernels_.elem_bytes,
                      panels.present(panel), sum_.weight_dst, channels, sum_.weight_src);
        dst += channels * width;
      }
    }
  }

  // Packs channels [begin, end) of the source pixels that the taps reach; zeros outside.
  void pack_pixels(const PixelBlock& block, const std::vector<Tap>& taps, int64_t begin,
                   int64_t end, const Panels& panels) {
    const int64_t channels = end - begin;
    const int64_t panel_steps = int64_t(taps.size()) * channels;
    const char* src =
        static_cast<const char*>(sum_.src.data) +
        (group_ * sum_.src_channels + begin) * sum_.src.channel * kernels_.elem_bytes;
    size_t first = 0;
    for (int64_t panel = 0; panel < panels.count(); ++panel) {
      size_t last = first;
      while (last < block.pieces.size() && block.pieces[last].panel == panel) ++last;
      const int64_t width = panels.width(panel);
      Acc* dst = pixels_ + panels.begin(panel) * panel_steps;
      for (const Tap& tap : taps) {
        const bool gaps = panels.present(panel) < width || !covered(block, first, last, tap);
        if (gaps) std::memset(dst, 0, size_t(channels * width) * sizeof(Acc));
        const int64_t tap_offset = block.src_tap_offset(tap.at);
        for (size_t i = first; i < last; ++i) {
          const Piece& piece = block.pieces[i];
          const Range part = block.inside(piece, tap.at);
          if (part.begin >= part.end) continue;
          const int64_t offset = piece.src + tap_offset + part.begin * block.src_step;
          kernels_.pack(dst + piece.offset + part.begin, width, src + offset * kernels_.elem_bytes,
                        part.end - part.begin, block.src_step, channels, sum_.src.channel);
        }
        dst += channels * width;
      }
      first = last;
    }
  }

  static bool covered(const PixelBlock& block, size_t first, size_t last, const Tap& tap) {
    if (block.all_inside) return true;
    for (size_t i = first; i < last; ++i) {
      const Range part = block.inside(block.pieces[i], tap.at);
      if (part.end - part.begin < block.pieces[i].length) return false;
    }
    return true;
  }

  void run_block(const Phase& phase, int64_t index, const Panels& channel_panels) {
    const auto after =
        std::upper_bound(phase.first_block.begin(), phase.first_block.end(), index);
    const size_t which = size_t(after - phase.first_block.begin()) - 1;
    const Box& box = phase.boxes[which];
    const int64_t begin = (index - phase.first_block[which]) * kPixels;
    const int64_t count = std::min(kPixels, box.pixels() - begin);
    const Panels pixel_panels = sum_.lanes == Lanes::kPixels ? Panels::of_cols(kernels_, count)
                                                             : Panels::of_rows(kernels_, count);
    PixelBlock block(box, sum_.src, sum_.dst);
    block.cut(begin, pixel_panels);
    const Panels& rows = sum_.lanes == Lanes::kPixels ? channel_panels : pixel_panels;
    const Panels& cols = sum_.lanes == Lanes::kPixels ? pixel_panels : channel_panels;

    list_taps(phase, {{box.region[0]->tap_begin, box.region[0]->tap_end},
                      {box.region[1]->tap_begin, box.region[1]->tap_end},
                      {box.region[2]->tap_begin, box.region[2]->tap_end}}, &box_taps_);
    // A block of the summation is one tap with part of its channels, or several whole taps.
    const int64_t channel_parts = ceil_div(sum_.src_channels, plan_.steps);
    const int64_t block_taps =
        channel_parts > 1 ? 1 : std::max<int64_t>(plan_.steps / sum_.src_channels, 1);
    bool accumulate = false;
    for (size_t t = 0; t < box_taps_.size(); t += size_t(block_taps)) {
      const size_t t_end = std::min(t + size_t(block_taps), box_taps_.size());
      taps_.assign(box_taps_.begin() + int64_t(t), box_taps_.begin() + int64_t(t_end));
      for (int64_t part = 0; part < channel_parts; ++part) {
        const int64_t c_begin = sum_.src_channels * part / channel_parts;
        const int64_t c_end = sum_.src_channels * (part + 1) / channel_parts;
        pack_pixels(block, taps_, c_begin, c_end, pixel_panels);
        if (!plan_.weights_resident) pack_weights(phase, taps_, c_begin, c_end, channel_panels);
        list_segments(c_begin, c_end);
        multiply(phase, rows, cols, c_end - c_begin, accumulate);
        accumulate = true;
      }
    }
    store_block(block, channel_panels.total(), cols.padded_total());
  }

  // Pairs the steps of the packed weights with those of the packed pixels.
  void list_segments(int64_t c_begin, int64_t c_end) {
    const int64_t length = c_end - c_begin;
    segments_.clear();
    for (size_t t = 0; t < taps_.size(); ++t) {
      const int64_t pixel_k = int64_t(t) * length;
      const int64_t weight_k =
          plan_.weights_resident ? taps_[t].flat * sum_.src_channels + c_begin : pixel_k;
      const Segment segment = sum_.lanes == Lanes::kPixels
                                  ? Segment{weight_k, pixel_k, length}
                                  : Segment{pixel_k, weight_k, length};
      if (!segments_.empty() && segments_.back().row_k + segments_.back().length == segment.row_k &&
          segments_.back().col_k + segments_.back().length == segment.col_k) {
        segments_.back().length += length;
      } else {
        segments_.push_back(segment);
      }
    }
  }

  void multiply(const Phase& phase, const Panels& rows, const Panels& cols, int64_t channels,
                bool accumulate) {
    const int64_t pixel_steps = int64_t(taps_.size()) * channels;
    const int64_t weight_steps =
        plan_.weights_resident ? phase.taps() * sum_.src_channels : pixel_steps;
    const bool pixel_lanes = sum_.lanes == Lanes::kPixels;
    const Acc* row_base = pixel_lanes ? weights_ : pixels_;
    const Acc* col_base = pixel_lanes ? pixels_ : weights_;
    const int64_t row_steps = pixel_lanes ? weight_steps : pixel_steps;
    const int64_t col_steps = pixel_lanes ? pixel_steps : weight_steps;
    const int64_t stride = cols.padded_total();
    for (int64_t r = 0; r < rows.count(); ++r) {
      for (int64_t c = 0; c < cols.count(); ++c) {
        kernels_.gemm(int(rows.width(r)), int(cols.width(c)), row_base + rows.begin(r) * row_steps,
                      col_base + cols.begin(c) * col_steps, segments_.data(),
                      int64_t(segments_.size()), acc_ + rows.begin(r) * stride + cols.begin(c),
                      stride, accumulate);
      }
    }
  }

  void store_block(const PixelBlock& block, int64_t channels, int64_t acc_stride) {
    const int64_t channel0 = group_ * sum_.dst_channels + channel_begin_;
    char* dst = static_cast<char*>(sum_.dst.data) +
                channel0 * sum_.dst.channel * kernels_.elem_bytes;
    const Acc* bias = sum_.bias.data ? bias_ : nullptr;
    for (const Piece& piece : block.pieces) {
      char* at = dst + piece.dst * kernels_.elem_bytes;
      if (sum_.lanes == Lanes::kPixels) {
        kernels_.store(at, sum_.dst.channel, block.dst_step, acc_ + piece.pixel, acc_stride,
                       channels, piece.length, bias, 1, 0);
      } else {
        kernels_.store(at, block.dst_step, sum_.dst.channel, acc_ + piece.pixel * acc_stride,
                       acc_stride, piece.length, channels, bias, 0, 1);
      }
    }
  }

  const Plan& plan_;
  const TapSum& sum_;
  const Kernels& kernels_;
  std::unique_ptr<Scratch> scratch_;
  Acc* weights_;
  Acc* pixels_;
  Acc* acc_;
  Acc* bias_;
  int64_t group_ = 0;
  int64_t channel_begin_ = 0;
  std::vector<Tap> box_taps_;
  std::vector<Tap> taps_;
  std::vector<Segment> segments_;
};

// Whether the phases reach every result; if not, the others hold the bias alone.
bool covers_all(const TapSum& sum) {
  for (int a = 0; a < kAxes; ++a) {
    int64_t covered = 0;
    for (const AxisTaps& taps : sum.axes[a]) {
      for (const AxisRegion& region : taps.regions) covered += region.results();
    }
    if (covered < sum.dst_size[a]) return false;
  }
  return true;
}

TapSum make(const Problem& problem, Lanes lanes) {
  const Geometry& geometry = problem.geometry;
  TapSum sum;
  sum.kernels = &kernels_for(problem.dtype);
  sum.lanes = lanes;
  sum.batch = geometry.batch;
  sum.groups = geometry.groups;
  sum.weight = static_cast<const char*>(problem.weight.data);
  sum.weight_group = geometry.in_channels * problem.weight.in_channel;
  for (int a = 0; a < kAxes; ++a) sum.weight_tap[a] = problem.weight.tap[a];
  return sum;
}

}  // namespace

TapSum forward_tap_sum(const Problem& problem, Lanes lanes) {
  TapSum sum = make(problem, lanes);
  sum.src_channels = problem.geometry.in_channels;
  sum.dst_channels = problem.geometry.out_channels;
  sum.src = problem.data;
  sum.dst = problem.out;
  sum.weight_src = problem.weight.in_channel;
  sum.weight_dst = problem.weight.out_channel;
  sum.bias = problem.bias;
  for (int a = 0; a < kAxes; ++a) {
    sum.axes[a] = forward_phases(problem.geometry.axis[a]);
    sum.dst_size[a] = problem.geometry.axis[a].out;
  }
  return sum;
}

TapSum data_gradient_tap_sum(const Problem& problem, Lanes lanes) {
  TapSum sum = make(problem, lanes);
  sum.src_channels = problem.geometry.out_channels;
  sum.dst_channels = problem.geometry.in_channels;
  sum.src = problem.out;
  sum.dst = problem.data;
  sum.weight_src = problem.weight.out_channel;
  sum.weight_dst = problem.weight.in_channel;
  for (int a = 0; a < kAxes; ++a) {
    sum.axes[a] = data_gradient_taps(problem.geometry.axis[a]);
    sum.dst_size[a] = problem.geometry.axis[a].in;
  }
  return sum;
}

void run_tap_sum(const TapSum& sum, const Resources& resources) {
  if (!covers_all(sum)) {
    fill_with_bias(*sum.kernels, sum.dst, sum.bias, sum.batch, sum.groups * sum.dst_channels,
                   sum.dst_size);
  }
  const Plan plan(sum, resources);
  if (sum.kernels->acc_bytes == 8) {
    for_each_job(*resources.threads, plan.jobs, [&plan] { return Worker<double>(plan); });
  } else {
    for_each_job(*resources.threads, plan.jobs, [&plan] { return Worker<float>(plan); });
  }
}

}  // namespace mxd::cpu
