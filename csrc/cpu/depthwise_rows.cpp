#include "cpu/depthwise_rows.h"

#include <cstring>
#include <memory>

#include "cpu/depthwise_ways.h"
#include "cpu/panels.h"

namespace mxd::cpu {

// ---- bringing the source ------------------------------------------------------------------

void RowWalk::begin(int64_t piece, const char* src) {
  const TapSum& sum = plan_.sum;
  src_ = src;
  segment_begin_ = piece % plan_.segments * plan_.segment;
  count_ = std::min(plan_.segment, plan_.flat.results - segment_begin_);
  piece /= plan_.segments;
  results_.begin = piece % plan_.blocks * plan_.block_rows;
  results_.end = std::min(results_.begin + plan_.block_rows, sum.dst_size[1]);
  piece /= plan_.blocks;
  batch_ = piece / plan_.planes;
  plane_result_ = piece % plan_.planes;
  plane_ = sum.axes[0].data();
  for (; plane_result_ >= plane_->dst_count; ++plane_) plane_result_ -= plane_->dst_count;
  plane_taps_ = valid_taps(*plane_, plane_result_);
  src_rows_ = plan_.source_rows(results_);
  std::memset(sticky_, 0, kAlignment);
}

int64_t RowWalk::offset_of(int64_t row) const {
  const TensorView& dst = plan_.sum.dst;
  return batch_ * dst.batch + (plane_->dst_begin + plane_result_ * plane_->dst_step) * dst.axis[0] +
         (results_.begin + row) * dst.axis[1] + segment_begin_ / plan_.flat.width * dst.axis[2];
}

void RowWalk::bring(Range rows) {
  const TensorView& src = plan_.sum.src;
  const FlatAxis& flat = plan_.flat;
  brought_ = rows;
  // Pixels [begin, end) of a row exist.
  const int64_t first = flat.first_src + segment_begin_ / flat.repeat;
  const int64_t length = ceil_div(count_, kernels_.vector) * kernels_.vector + flat.slots.back();
  const int64_t pixels = ceil_div(length, flat.repeat);
  const int64_t begin = std::min(std::max<int64_t>(0, -first), pixels);
  const int64_t end = std::max(begin, std::min(pixels, flat.src_size - first));
  existing_ = {begin * flat.repeat, end * flat.repeat};
  RowExpansion expansion;
  expansion.dst = rows_;
  expansion.dst_row_step = plan_.pitch;
  expansion.src_row_step = src.axis[1];
  expansion.src_stride = src.axis[2];
  expansion.rows = rows.end - rows.begin;
  expansion.lead = existing_.begin;
  expansion.count = end - begin;
  expansion.repeat = flat.repeat;
  expansion.length = length;
  expansion.sticky = sticky_;
  for (int64_t c = 0; c < plan_.sum.src_channels; ++c) {
    for (int64_t j0 = plane_taps_.begin; j0 < plane_taps_.end; ++j0) {
      const int64_t i0 =
          plane_->src_begin + plane_result_ * plane_->src_step + j0 * plane_->src_tap_step;
      const int64_t offset = batch_ * src.batch + c * src.channel + i0 * src.axis[0] +
                             rows.begin * src.axis[1] + (first + begin) * src.axis[2];
      expansion.src = src_ + offset * kernels_.elem_bytes;
      kernels_.depthwise.expand(expansion);
      expansion.dst =
          static_cast<char*>(expansion.dst) + expansion.rows * plan_.pitch * kernels_.acc_bytes;
    }
  }
}

// The terms of result `result` of a phase of axis 1, for some of its taps.
void RowWalk::make_terms(const AxisTaps& a1, int64_t result, Range taps) {
  const TapSum& sum = plan_.sum;
  const FlatAxis& flat = plan_.flat;
  const int64_t planes = plane_taps_.end - plane_taps_.begin;
  const int64_t plane_rows = brought_.end - brought_.begin;
  const int64_t pattern = int64_t(flat.taps.size());
  RowTerm* term = terms_;
  for (int64_t c = 0; c < sum.src_channels; ++c) {
    for (int64_t j0 = 0; j0 < planes; ++j0) {
      const int64_t t0 =
          plane_->tap_begin + (plane_taps_.begin + j0) * plane_->tap_step - sum.first_tap[0];
      for (int64_t j1 = taps.begin; j1 < taps.end; ++j1) {
        const int64_t t1 = a1.tap_begin + j1 * a1.tap_step - sum.first_tap[1];
        const int64_t i1 = a1.src_begin + result * a1.src_step + j1 * a1.src_tap_step;
        const int64_t row = (c * planes + j0) * plane_rows + i1;
        const int64_t kernel_row = (c * sum.kernel[0] + t0) * sum.kernel[1] + t1;
        for (size_t s = 0; s < flat.slots.size(); ++s) {
          *term++ = {row * plan_.pitch + flat.slots[s],
                     kernel_row * pattern + int64_t(s) * flat.lanes()};
        }
      }
    }
  }
  term_count_ = term - terms_;
}

namespace {

// ---- forward and data gradient ------------------------------------------------------------

constexpr int64_t kWantedJobs = 16;

// Adds RowSum to one row as the direct sum has it: skips absent pixels and absent taps.
template <class Acc>
void add_row_exactly(const RowSum& sum, const FlatAxis& flat, int32_t no_tap, Range existing) {
  const int64_t lanes = flat.lanes();
  for (int64_t i = 0; i < sum.count; ++i) {
    Acc total = static_cast<const Acc*>(sum.dst)[i];
    for (int64_t t = 0; t < sum.term_count; ++t) {
      const int64_t slot = t % int64_t(flat.slots.size());
      const int64_t at = flat.slots[size_t(slot)] + i;
      if (at < existing.begin || at >= existing.end) continue;
      if (flat.taps[size_t(slot * lanes + i % lanes)] == no_tap) continue;
      total += static_cast<const Acc*>(sum.src)[sum.terms[t].src + i] *
               static_cast<const Acc*>(sum.weights)[sum.terms[t].weight + i % lanes];
    }
    static_cast<Acc*>(sum.dst)[i] = total;
  }
}

// A job is a share of the pieces of one result channel.
class RowWorker {
 public:
  explicit RowWorker(const RowPlan& plan)
      : plan_(plan),
        sum_(plan.sum),
        kernels_(*plan.sum.kernels),
        scratch_(new Scratch(scratch_bytes(plan))),
        walk_(plan, *scratch_),
        patterns_(scratch_->take<char>(plan.pattern_lanes() * kernels_.acc_bytes)),
        kernel_row_(scratch_->take<char>(kernel_row_bytes(plan))),
        results_(scratch_->take<char>(results_bytes(plan))),
        sticky_(scratch_->take<char>(kAlignment)),
        bias_(scratch_->take<char>(kAlignment)) {}

  void operator()(int64_t job, int64_t shares) {
    const int64_t channel = job / shares;
    const int64_t share = job % shares;
    const int64_t group = channel / sum_.dst_channels;
    load_weights(group, channel % sum_.dst_channels);
    if (sum_.bias.data) {
      kernels_.pack(bias_, 1,
                    static_cast<const char*>(sum_.bias.data) +
                        channel * sum_.bias.stride * kernels_.elem_bytes,
                    1, 1, 1, 0);
    }
    const char* src = static_cast<const char*>(sum_.src.data) +
                      group * sum_.src_channels * sum_.src.channel * kernels_.elem_bytes;
    dst_ = static_cast<char*>(sum_.dst.data) + channel * sum_.dst.channel * kernels_.elem_bytes;
    const int64_t pieces = plan_.pieces();
    for (int64_t p = pieces * share / shares; p < pieces * (share + 1) / shares; ++p) {
      walk_.begin(p, src);
      if (plan_.contracts()) {
        sum_in_parts(!weights_finite_);
        if (weights_finite_ && !walk_.finite()) sum_in_parts(true);
      } else {
        walk_.bring(walk_.source_rows());
        const bool exactly = !weights_finite_ || !walk_.finite();
        walk_.for_each_group([&](const RowGroup& rows) { sum_at_once(rows, exactly); });
      }
    }
  }

 private:
  static int64_t kernel_row_bytes(const RowPlan& plan) {
    return (plan.sum.kernel[2] + 1 + plan.sum.kernels->vector) * plan.sum.kernels->acc_bytes;
  }
  static int64_t results_bytes(const RowPlan& plan) {
    const int64_t rows = plan.contracts() ? plan.block_rows : 1;
    return (rows * plan.segment + 2 * plan.sum.kernels->vector) * plan.sum.kernels->acc_bytes;
  }
  static int64_t scratch_bytes(const RowPlan& plan) {
    return RowWalk::scratch_bytes(plan) +
           align_up(plan.pattern_lanes() * plan.sum.kernels->acc_bytes) +
           align_up(kernel_row_bytes(plan)) + align_up(results_bytes(plan)) + 2 * kAlignment;
  }

  // Lays the kernel out as it recurs along the lanes.
  void load_weights(int64_t group, int64_t dst_channel) {
    std::memset(sticky_, 0, kAlignment);
    char* pattern = patterns_;
    const int64_t lanes = int64_t(plan_.flat.taps.size());
    for (int64_t c = 0; c < sum_.src_channels; ++c) {
      for (int64_t t0 = 0; t0 < sum_.kernel[0]; ++t0) {
        for (int64_t t1 = 0; t1 < sum_.kernel[1]; ++t1) {
          const int64_t offset = group * sum_.weight_group + c * sum_.weight_src +
                                 dst_channel * sum_.weight_dst + t0 * sum_.weight_tap[0] +
                                 t1 * sum_.weight_tap[1];
          kernels_.depthwise.expand({kernel_row_, 0, sum_.weight + offset * kernels_.elem_bytes, 0,
                                     sum_.weight_tap[2], 1, 0, sum_.kernel[2], 1,
                                     sum_.kernel[2] + 1, sticky_});
          kernels_.depthwise.arrange(pattern, kernel_row_, plan_.flat.taps.data(), lanes);
          pattern += lanes * kernels_.acc_bytes;
        }
      }
    }
    weights_finite_ = RowWalk::is_finite(sticky_, kernels_);
  }

  RowSum row_sum_of(const RowGroup& rows) const {
    RowSum sum;
    sum.src = rows.src;
    sum.src_row_step = rows.src_row_step;
    sum.weights = patterns_;
    sum.period = plan_.flat.period;
    sum.terms = rows.terms;
    sum.term_count = rows.term_count;
    sum.accumulate = false;
    sum.bias = bias();
    sum.dst = dst_ + rows.dst * kernels_.elem_bytes;
    sum.dst_row_step = rows.dst_row_step;
    sum.rows = rows.rows;
    sum.count = rows.count;
    return sum;
  }

  const void* bias() const { return sum_.bias.data ? bias_ : nullptr; }

  // All terms of the rows are here.
  void sum_at_once(const RowGroup& rows, bool exactly) {
    RowSum sum = row_sum_of(rows);
    if (sum_.dst.axis[2] == 1 && !exactly) {
      kernels_.depthwise.row_sum(sum);
      return;
    }
    sum.bias = nullptr;
    sum.dst = results_;
    sum.rows = 1;
    for (int64_t r = 0; r < rows.rows; ++r) {
      sum.src = static_cast<const char*>(rows.src) + r * rows.src_row_step * kernels_.acc_bytes;
      if (exactly) {
        std::memset(results_, 0, size_t(rows.count * kernels_.acc_bytes));
        add_row_exactly(sum, rows.existing);
      } else {
        kernels_.depthwise.row_sum_acc(sum);
      }
      store_row(rows.dst + r * rows.dst_row_step, results_, rows.count);
    }
  }

  // All rows of a piece, as their source rows stream by.
  void sum_in_parts(bool exactly) {
    const Range results = walk_.result_rows();
    const int64_t rows = results.end - results.begin;
    const int64_t row_bytes = plan_.segment * kernels_.acc_bytes;
    std::memset(results_, 0, size_t(rows * row_bytes));
    const Range src = walk_.source_rows();
    for (int64_t begin = src.begin; begin < src.end; begin += plan_.chunk_rows) {
      walk_.bring({begin, std::min(begin + plan_.chunk_rows, src.end)});
      walk_.for_each_group([&](const RowGroup& group) { add_rows(group, exactly); });
    }
    const int64_t count = walk_.count() / plan_.flat.width;
    for (int64_t r = 0; r < rows; ++r) {
      kernels_.depthwise.contract(results_ + r * row_bytes, count, plan_.flat.width);
      store_row(walk_.offset_of(r), results_ + r * row_bytes, count);
    }
  }

  void add_rows(const RowGroup& rows, bool exactly) {
    if (rows.term_count == 0) return;
    RowSum sum = row_sum_of(rows);
    sum.accumulate = true;
    sum.dst = results_ + rows.first * plan_.segment * kernels_.acc_bytes;
    sum.dst_row_step = rows.step * plan_.segment;
    if (!exactly) {
      kernels_.depthwise.row_sum_acc(sum);
      return;
    }
    for (int64_t r = 0; r < rows.rows; ++r) {
      add_row_exactly(sum, rows.existing);
      sum.src = static_cast<const char*>(sum.src) + sum.src_row_step * kernels_.acc_bytes;
      sum.dst = static_cast<char*>(sum.dst) + sum.dst_row_step * kernels_.acc_bytes;
    }
  }

  void add_row_exactly(const RowSum& sum, Range existing) {
    const int32_t no_tap = int32_t(sum_.kernel[2]);
    if (kernels_.acc_bytes == 8) {
      mxd::cpu::add_row_exactly<double>(sum, plan_.flat, no_tap, existing);
    } else {
      mxd::cpu::add_row_exactly<float>(sum, plan_.flat, no_tap, existing);
    }
  }

  void store_row(int64_t offset, const void* results, int64_t count) {
    kernels_.store(dst_ + offset * kernels_.elem_bytes, 0, sum_.dst.axis[2], results, 0, 1, count,
                   bias(), 0, 0);
  }

  const RowPlan& plan_;
  const TapSum& sum_;
  const Kernels& kernels_;
  std::unique_ptr<Scratch> scratch_;
  RowWalk walk_;
  char* patterns_;
  char* kernel_row_;
  char* results_;
  char* sticky_;
  char* bias_;
  // The channel at hand.
  bool weights_finite_ = true;
  char* dst_ = nullptr;
};

}  // namespace

void run_depthwise_rows(const TapSum& sum, const Resources& resources) {
  const RowPlan plan(sum);
  const int64_t channels = sum.groups * sum.dst_channels;
  const int64_t shares = std::min(ceil_div(kWantedJobs, channels), plan.pieces());
  for_each_job(*resources.threads, channels * shares, [&] {
    return [shares, worker = RowWorker(plan)](int64_t job) mutable { worker(job, shares); };
  });
}

}  // namespace mxd::cpu
