#include "cpu/tap_sum.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <memory>

#include "cpu/fill.h"
#include "cpu/panels.h"
#include "cpu/pixel_block.h"
#include "cpu/scratch.h"
#include "cpu/shifted_block.h"
#include "cpu/tap_sum_plan.h"

namespace mxd::cpu {
namespace {

template <class Acc>
class Worker {
 public:
  // Sets `nonfinite` if it meets a weight that is not finite. `exact` says that one was met: see
  // TapSumPlan::exact_blocks.
  Worker(const TapSumPlan& plan, bool exact, std::atomic<bool>& nonfinite)
      : plan_(plan),
        nonfinite_(nonfinite),
        sum_(plan.sum),
        kernels_(*plan.sum.kernels),
        scratch_(new Scratch(plan.scratch_bytes)) {
    weights_ = scratch_->template take<Acc>(plan.weight_bytes / int64_t(sizeof(Acc)));
    source_ = scratch_->template take<Acc>(plan.source_bytes / int64_t(sizeof(Acc)));
    acc_ = scratch_->template take<Acc>(plan.acc_bytes / int64_t(sizeof(Acc)));
    bias_ = scratch_->template take<Acc>(plan.max_channels);
    for (const Phase& phase : plan.phases) {
      if (exact) exact_.push_back(plan.exact_blocks(phase));
    }
  }

  void operator()(int64_t job) {
    const int64_t span = job % plan_.spans;
    const int64_t block = job / plan_.spans % plan_.channel_blocks;
    group_ = job / plan_.spans / plan_.channel_blocks;
    channel_begin_ = sum_.dst_channels * block / plan_.channel_blocks;
    const int64_t channels =
        sum_.dst_channels * (block + 1) / plan_.channel_blocks - channel_begin_;
    channels_ = sum_.lanes == Lanes::kPixels ? Panels::of_rows(kernels_, channels)
                                             : Panels::of_cols(kernels_, channels);
    load_bias(channels);
    if (plan_.weights_resident) pack_all_weights();
    // The phases take turns, a small part of the share each.
    const int64_t turns = ceil_div(plan_.most_blocks, plan_.spans);
    for (int64_t turn = span * turns; turn < (span + 1) * turns; ++turn) {
      for (const Phase& phase : plan_.phases) {
        const size_t p = size_t(&phase - plan_.phases.data());
        run_share(phase, exact_.empty() ? phase.blocks : exact_[p], turn, plan_.spans * turns);
      }
    }
  }

 private:
  static constexpr int64_t kBlockElements = kBlockBytes / int64_t(sizeof(Acc));

  void load_bias(int64_t channels) {
    if (!sum_.bias.data) return;
    const int64_t first = group_ * sum_.dst_channels + channel_begin_;
    const char* bias =
        static_cast<const char*>(sum_.bias.data) + first * sum_.bias.stride * kernels_.elem_bytes;
    kernels_.pack(bias_, channels, bias, channels, sum_.bias.stride, 1, 0);
  }

  // The taps of one region on each axis, in the order of summation.
  void list_taps(const Phase& phase, const AxisRegion (&region)[kAxes]) {
    box_taps_.clear();
    int64_t t[kAxes];
    for (t[0] = region[0].tap_begin; t[0] < region[0].tap_end; ++t[0]) {
      for (t[1] = region[1].tap_begin; t[1] < region[1].tap_end; ++t[1]) {
        for (t[2] = region[2].tap_begin; t[2] < region[2].tap_end; ++t[2]) {
          Tap tap{{t[0], t[1], t[2]}, 0, 0};
          for (int a = 0; a < kAxes; ++a) {
            const int64_t place =
                phase.axis[a]->tap_begin - sum_.first_tap[a] + t[a] * phase.axis[a]->tap_step;
            tap.flat = tap.flat * sum_.kernel[a] + place;
            tap.offset += place * sum_.weight_tap[a];
          }
          box_taps_.push_back(tap);
        }
      }
    }
  }

  // Element offset of src channel `src` of the first dst channel of a panel.
  int64_t weight_at(int64_t panel, int64_t src) const {
    return group_ * sum_.weight_group + src * sum_.weight_src +
           (channel_begin_ + channels_.begin(panel)) * sum_.weight_dst;
  }

  // Zeroes a weight panel of which not all columns exist.
  void clear_padding(int64_t panel, int64_t steps, Acc* dst) const {
    const int64_t width = channels_.width(panel);
    if (channels_.present(panel) < width) {
      std::memset(dst, 0, size_t(steps * width) * sizeof(Acc));
    }
  }

  // Packs src channels [begin, end) of the taps: panel after panel, tap after tap within a panel.
  void pack_weights(const std::vector<Tap>& taps, int64_t begin, int64_t end) {
    const int64_t steps = end - begin;
    const int64_t panel_steps = int64_t(taps.size()) * steps;
    for (int64_t panel = 0; panel < channels_.count(); ++panel) {
      const int64_t width = channels_.width(panel);
      Acc* dst = weights_ + channels_.begin(panel) * panel_steps;
      clear_padding(panel, panel_steps, dst);
      for (const Tap& tap : taps) {
        kernels_.pack(dst, width,
                      sum_.weight + (weight_at(panel, begin) + tap.offset) * kernels_.elem_bytes,
                      channels_.present(panel), sum_.weight_dst, steps, sum_.weight_src);
        dst += steps * width;
      }
    }
    look_for_nonfinite(panel_steps * channels_.padded_total());
  }

  // The same for all taps and channels, in the order of the kernel.
  void pack_all_weights() {
    const int64_t* stride = sum_.weight_tap;
    const bool taps_evenly_spaced =
        (sum_.kernel[1] == 1 || stride[1] == sum_.kernel[2] * stride[2]) &&
        (sum_.kernel[0] == 1 || stride[0] == sum_.kernel[1] * sum_.kernel[2] * stride[2]);
    if (!taps_evenly_spaced || sum_.weight_dst == 1 || sum_.weight_src == 1) {
      const AxisTaps whole[kAxes] = {whole_axis(0), whole_axis(1), whole_axis(2)};
      const Phase phase{{&whole[0], &whole[1], &whole[2]}, {}, 0};
      list_taps(phase,
                {{0, 0, 0, sum_.kernel[0]}, {0, 0, 0, sum_.kernel[1]}, {0, 0, 0, sum_.kernel[2]}});
      pack_weights(box_taps_, 0, sum_.src_channels);
      return;
    }
    // One channel at a time, all its taps: they lie next to each other in memory.
    const int64_t taps = sum_.taps();
    for (int64_t panel = 0; panel < channels_.count(); ++panel) {
      const int64_t width = channels_.width(panel);
      Acc* dst = weights_ + channels_.begin(panel) * taps * sum_.src_channels;
      clear_padding(panel, taps * sum_.src_channels, dst);
      for (int64_t c = 0; c < sum_.src_channels; ++c) {
        kernels_.pack(dst + c * width, sum_.src_channels * width,
                      sum_.weight + weight_at(panel, c) * kernels_.elem_bytes,
                      channels_.present(panel), sum_.weight_dst, taps, stride[2]);
      }
    }
    look_for_nonfinite(taps * sum_.src_channels * channels_.padded_total());
  }

  AxisTaps whole_axis(int a) const {
    AxisTaps taps;
    taps.tap_begin = sum_.first_tap[a];
    taps.tap_count = sum_.kernel[a];
    return taps;
  }

  // Looks at the first `elements` packed weights: a product with 0 that is not 0 gives them away.
  void look_for_nonfinite(int64_t elements) {
    constexpr int kLanes = 16;  // independent sums, for the compiler to vectorise
    Acc sums[kLanes] = {};
    int64_t i = 0;
    for (; i + kLanes <= elements; i += kLanes) {
      for (int l = 0; l < kLanes; ++l) sums[l] += weights_[i + l] * Acc(0);
    }
    for (; i < elements; ++i) sums[0] += weights_[i] * Acc(0);
    if (!std::all_of(sums, sums + kLanes, [](Acc sum) { return sum == 0; })) nonfinite_ = true;
  }

  void run_share(const Phase& phase, const Blocks& blocks, int64_t share, int64_t shares) {
    const int64_t begin = blocks.count * share / shares;
    const int64_t end = blocks.count * (share + 1) / shares;
    auto plan = std::upper_bound(
        blocks.boxes.begin(), blocks.boxes.end(), begin,
        [](int64_t wanted, const BoxPlan& box) { return wanted < box.first_block; });
    if (begin == end) return;
    for (--plan; plan != blocks.boxes.end(); ++plan) {
      const int64_t from = std::max(begin - plan->first_block, int64_t(0));
      const int64_t to = std::min(end - plan->first_block, plan->blocks);
      if (from >= to) break;
      list_taps(phase, plan->box.region);
      if (plan->shifted) {
        run_shifted(*plan, from, to);
      } else {
        for (int64_t block = from; block < to; ++block) run_gathered(plan->box, block);
      }
    }
  }

  const char* source_at(int64_t channel) const {
    return static_cast<const char*>(sum_.src.data) +
           (group_ * sum_.src_channels + channel) * sum_.src.channel * kernels_.elem_bytes;
  }

  void run_gathered(const Box& box, int64_t block) {
    const int64_t begin = block * kGatheredPixels;
    const int64_t count = std::min(kGatheredPixels, box.pixels() - begin);
    const bool pixel_lanes = sum_.lanes == Lanes::kPixels;
    const Panels pixels =
        pixel_lanes ? Panels::of_cols(kernels_, count) : Panels::of_rows(kernels_, count);
    const PixelBlock source(box, sum_.src, sum_.dst, begin, pixels);
    // A step of the summation is one tap with part of its channels, or several whole taps.
    const int64_t parts = ceil_div(sum_.src_channels, plan_.gathered_steps);
    const int64_t step_taps =
        parts > 1 ? 1 : std::max<int64_t>(plan_.gathered_steps / sum_.src_channels, 1);
    bool accumulate = false;
    for (size_t t = 0; t < box_taps_.size(); t += size_t(step_taps)) {
      taps_.assign(box_taps_.begin() + int64_t(t),
                   box_taps_.begin() + int64_t(std::min(t + size_t(step_taps), box_taps_.size())));
      for (int64_t part = 0; part < parts; ++part) {
        const int64_t c_begin = sum_.src_channels * part / parts;
        const int64_t c_end = sum_.src_channels * (part + 1) / parts;
        const int64_t steps = int64_t(taps_.size()) * (c_end - c_begin);
        source.pack(kernels_, source_at(c_begin), sum_.src.channel, c_end - c_begin, taps_, pixels,
                    reinterpret_cast<char*>(source_));
        if (!plan_.weights_resident) pack_weights(taps_, c_begin, c_end);
        segments_.clear();
        for (size_t i = 0; i < taps_.size(); ++i) {
          const int64_t pixel_k = int64_t(i) * (c_end - c_begin);
          const int64_t weight_k = weight_step(i, c_begin, c_end);
          append(pixel_lanes ? Segment{weight_k, pixel_k, 0, c_end - c_begin}
                             : Segment{pixel_k, weight_k, 0, c_end - c_begin});
        }
        const int64_t weight_steps =
            plan_.weights_resident ? sum_.taps() * sum_.src_channels : steps;
        if (pixel_lanes) {
          multiply(channels_, weights_, weight_steps, pixels, source_, steps, accumulate);
        } else {
          multiply(pixels, source_, steps, channels_, weights_, weight_steps, accumulate);
        }
        accumulate = true;
      }
    }
    const int64_t acc_stride = pixel_lanes ? pixels.padded_total() : channels_.padded_total();
    store(source.pieces(), source.dst_step(), acc_stride);
  }

  // Shifted blocks of one box: the channels are the rows, positions of the grid the columns.
  void run_shifted(const BoxPlan& plan, int64_t from, int64_t to) {
    const Box& box = plan.box;
    const ShiftedGrid grid(box, plan.size, kernels_);
    const int64_t parts =
        ceil_div(sum_.src_channels,
                 kBlockElements / std::max(grid.channel_elements(), plan_.counted_channels));
    const int64_t channels = ceil_div(sum_.src_channels, parts);
    const int64_t step_taps =
        std::max<int64_t>(kBlockElements / (channels * plan_.counted_channels), 1);
    const int64_t count[kAxes] = {ceil_div(box.results(0), plan.size[0]),
                                  ceil_div(box.results(1), plan.size[1]),
                                  ceil_div(box.results(2), plan.size[2])};
    for (int64_t block = from; block < to; ++block) {
      const int64_t at[kAxes] = {block / count[2] / count[1] % count[0],
                                 block / count[2] % count[1], block % count[2]};
      const int64_t n = block / count[2] / count[1] / count[0];
      int64_t begin[kAxes];
      int64_t size[kAxes];
      for (int a = 0; a < kAxes; ++a) {
        begin[a] = box.region[a].begin + at[a] * plan.size[a];
        size[a] = std::min(plan.size[a], box.region[a].end - begin[a]);
      }
      const Panels positions =
          Panels::of_cols(kernels_, grid.position(size[0] - 1, size[1] - 1) + size[2]);
      bool accumulate = false;
      for (int64_t part = 0; part < parts; ++part) {
        const int64_t c_begin = sum_.src_channels * part / parts;
        const int64_t c_end = sum_.src_channels * (part + 1) / parts;
        grid.pack(kernels_, sum_.src, source_at(c_begin) + n * sum_.src.batch * kernels_.elem_bytes,
                  c_end - c_begin, begin, reinterpret_cast<char*>(source_));
        for (size_t t = 0; t < box_taps_.size(); t += size_t(step_taps)) {
          const size_t t_end = std::min(t + size_t(step_taps), box_taps_.size());
          taps_.assign(box_taps_.begin() + int64_t(t), box_taps_.begin() + int64_t(t_end));
          if (!plan_.weights_resident) pack_weights(taps_, c_begin, c_end);
          segments_.clear();
          for (size_t i = 0; i < taps_.size(); ++i) {
            append({weight_step(i, c_begin, c_end), 0, grid.tap_offset(taps_[i]), c_end - c_begin});
          }
          const int64_t weight_steps = plan_.weights_resident
                                           ? sum_.taps() * sum_.src_channels
                                           : int64_t(taps_.size()) * (c_end - c_begin);
          multiply(channels_, weights_, weight_steps, positions, source_, 1, accumulate,
                   grid.channel_elements());
          accumulate = true;
        }
      }
      pieces_.clear();
      for (int64_t q0 = 0; q0 < size[0]; ++q0) {
        for (int64_t q1 = 0; q1 < size[1]; ++q1) {
          const int64_t q[kAxes] = {begin[0] + q0, begin[1] + q1, begin[2]};
          Piece piece{grid.position(q0, q1), size[2], n * sum_.dst.batch};
          for (int a = 0; a < kAxes; ++a) {
            piece.dst += (box.taps[a]->dst_begin + q[a] * box.taps[a]->dst_step) * sum_.dst.axis[a];
          }
          pieces_.push_back(piece);
        }
      }
      store(pieces_, box.taps[2]->dst_step * sum_.dst.axis[2], positions.padded_total());
    }
  }

  // Where channel c_begin of the i-th tap of taps_ lies in a packed weight panel.
  int64_t weight_step(size_t i, int64_t c_begin, int64_t c_end) const {
    return plan_.weights_resident ? taps_[i].flat * sum_.src_channels + c_begin
                                  : int64_t(i) * (c_end - c_begin);
  }

  // Adds a segment, as part of the one before where it continues it.
  void append(const Segment& next) {
    if (!segments_.empty()) {
      Segment& last = segments_.back();
      if (last.row_k + last.length == next.row_k && last.col_k + last.length == next.col_k &&
          last.col_offset == next.col_offset) {
        last.length += next.length;
        return;
      }
    }
    segments_.push_back(next);
  }

  // One step of the summation, tile by tile. A panel starts `steps` times its first element into
  // its operand; `col_stride` 0 means that the columns are packed in panels.
  void multiply(const Panels& rows, const Acc* row_base, int64_t row_steps, const Panels& cols,
                const Acc* col_base, int64_t col_steps, bool accumulate, int64_t col_stride = 0) {
    const int64_t stride = cols.padded_total();
    for (int64_t r = 0; r < rows.count(); ++r) {
      for (int64_t c = 0; c < cols.count(); ++c) {
        kernels_.gemm(int(rows.width(r)), int(cols.width(c)), row_base + rows.begin(r) * row_steps,
                      col_base + cols.begin(c) * col_steps, col_stride ? col_stride : cols.width(c),
                      segments_.data(), int64_t(segments_.size()),
                      acc_ + rows.begin(r) * stride + cols.begin(c), stride, accumulate);
      }
    }
  }

  void store(const std::vector<Piece>& pieces, int64_t dst_step, int64_t acc_stride) {
    const int64_t channel0 = group_ * sum_.dst_channels + channel_begin_;
    char* dst =
        static_cast<char*>(sum_.dst.data) + channel0 * sum_.dst.channel * kernels_.elem_bytes;
    const Acc* bias = sum_.bias.data ? bias_ : nullptr;
    for (const Piece& piece : pieces) {
      char* at = dst + piece.dst * kernels_.elem_bytes;
      if (sum_.lanes == Lanes::kPixels) {
        kernels_.store(at, sum_.dst.channel, dst_step, acc_ + piece.pixel, acc_stride,
                       channels_.total(), piece.length, bias, 1, 0);
      } else {
        kernels_.store(at, dst_step, sum_.dst.channel, acc_ + piece.pixel * acc_stride, acc_stride,
                       piece.length, channels_.total(), bias, 0, 1);
      }
    }
  }

  const TapSumPlan& plan_;
  std::atomic<bool>& nonfinite_;
  const TapSum& sum_;
  const Kernels& kernels_;
  std::unique_ptr<Scratch> scratch_;
  Acc* weights_;
  Acc* source_;
  Acc* acc_;
  Acc* bias_;
  std::vector<Blocks> exact_;  // of each phase; empty unless asked for
  // The job at hand.
  int64_t group_ = 0;
  int64_t channel_begin_ = 0;
  Panels channels_;
  std::vector<Tap> box_taps_;  // of the box
  std::vector<Tap> taps_;      // of the step of the summation
  std::vector<Segment> segments_;
  std::vector<Piece> pieces_;
};

// Narrows the kernel to the taps that the phases reach: a kernel may be far larger than that.
void narrow_kernel(TapSum& sum) {
  for (int a = 0; a < kAxes; ++a) {
    int64_t first = std::numeric_limits<int64_t>::max();
    int64_t last = -1;
    for (const AxisTaps& taps : sum.axes[a]) {
      first = std::min(first, taps.tap_begin);
      last = std::max(last, taps.tap_begin + (taps.tap_count - 1) * taps.tap_step);
    }
    sum.first_tap[a] = first;
    sum.kernel[a] = last - first + 1;
    sum.weight += first * sum.weight_tap[a] * sum.kernels->elem_bytes;
  }
}

template <class Acc>
void run_jobs(const TapSumPlan& plan, const Resources& resources) {
  std::atomic<bool> nonfinite{false};
  for_each_job(*resources.threads, plan.jobs(),
               [&] { return Worker<Acc>(plan, /*exact=*/false, nonfinite); });
  // All jobs again, whichever met the weight: how they share the channels depends on the threads.
  if (nonfinite) {
    for_each_job(*resources.threads, plan.jobs(),
                 [&] { return Worker<Acc>(plan, /*exact=*/true, nonfinite); });
  }
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

bool phases_cover_results(const TapSum& sum) {
  for (int a = 0; a < kAxes; ++a) {
    int64_t covered = 0;
    for (const AxisTaps& taps : sum.axes[a]) covered += taps.dst_count;
    if (covered < sum.dst_size[a]) return false;
  }
  return true;
}

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
  narrow_kernel(sum);
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
  narrow_kernel(sum);
  return sum;
}

void run_tap_sum(const TapSum& sum, const Resources& resources) {
  const TapSumPlan plan(sum, resources);
  int64_t written = 0;
  for (const Phase& phase : plan.phases) written += phase.results;
  if (written < sum.batch * sum.dst_size[0] * sum.dst_size[1] * sum.dst_size[2]) {
    fill_with_bias(*sum.kernels, sum.dst, sum.bias, sum.batch, sum.groups * sum.dst_channels,
                   sum.dst_size);
  }
  if (sum.kernels->acc_bytes == 8) {
    run_jobs<double>(plan, resources);
  } else {
    run_jobs<float>(plan, resources);
  }
}

}  // namespace mxd::cpu
