#include "cpu/depthwise.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "cpu/fill.h"
#include "cpu/panels.h"
#include "cpu/scratch.h"

namespace mxd::cpu {
namespace {

constexpr int64_t kWantedJobs = 16;
constexpr int64_t kRowResults = 2048;  // accumulators of a piece of a row: half of an L1 cache

// The kernel of one (in, out) channel pair, in the accumulate type and in memory order.
template <class Acc>
void load_kernel(const Kernels& kernels, const char* weight, const int64_t (&stride)[kAxes],
                 const int64_t (&size)[kAxes], Acc* dst) {
  for (int64_t t0 = 0; t0 < size[0]; ++t0) {
    for (int64_t t1 = 0; t1 < size[1]; ++t1) {
      kernels.pack(dst, size[2], weight + (t0 * stride[0] + t1 * stride[1]) * kernels.elem_bytes,
                   size[2], stride[2], 1, 0);
      dst += size[2];
    }
  }
}

// A tap along a row: results [begin, end) of the row's phase meet the source from `src` on.
struct RowTap {
  Range results;
  int64_t src;  // source index of results.begin
  int64_t tap;  // place in the kernel's row
};

std::vector<RowTap> taps_of_row(const AxisTaps& taps, Range within) {
  std::vector<RowTap> row;
  for (int64_t j = 0; j < taps.tap_count; ++j) {
    const Range valid = valid_results(taps, j, within);
    if (valid.begin >= valid.end) continue;
    row.push_back({valid, taps.src_begin + valid.begin * taps.src_step + j * taps.src_tap_step,
                   taps.tap_begin + j * taps.tap_step});
  }
  return row;
}

template <class Acc>
Acc load_scalar(const Kernels& kernels, const char* at) {
  Acc value = 0;
  kernels.pack(&value, 1, at, 1, 1, 1, 0);
  return value;
}

// A unit of work is one dst channel of one batch entry.
template <class Acc>
class RowWorker {
 public:
  explicit RowWorker(const TapSum& sum)
      : sum_(sum),
        kernels_(*sum.kernels),
        scratch_(new Scratch(align_up(kRowResults * int64_t(sizeof(Acc))) +
                             align_up(sum.src_channels * sum.taps() * int64_t(sizeof(Acc))))) {
    acc_ = scratch_->template take<Acc>(kRowResults);
    kernel_ = scratch_->template take<Acc>(sum.src_channels * sum.taps());
    for (const AxisTaps& a2 : sum.axes[2]) {
      for (int64_t begin = 0; begin < a2.dst_count; begin += kRowResults) {
        const Range results{begin, std::min(begin + kRowResults, a2.dst_count)};
        parts_.push_back({&a2, results, taps_of_row(a2, results)});
      }
    }
  }

  // Computes a share of the rows of each phase.
  void operator()(int64_t unit, int64_t share, int64_t shares) {
    const int64_t channels = sum_.groups * sum_.dst_channels;
    const int64_t n = unit / channels;
    const int64_t channel = unit % channels;
    const int64_t group = channel / sum_.dst_channels;
    load_weights(group, channel % sum_.dst_channels);
    bias_ = sum_.bias.data
                ? load_scalar<Acc>(kernels_, static_cast<const char*>(sum_.bias.data) +
                                                 channel * sum_.bias.stride * kernels_.elem_bytes)
                : Acc(0);
    src_ =
        static_cast<const char*>(sum_.src.data) +
        (n * sum_.src.batch + group * sum_.src_channels * sum_.src.channel) * kernels_.elem_bytes;
    dst_ = static_cast<char*>(sum_.dst.data) +
           (n * sum_.dst.batch + channel * sum_.dst.channel) * kernels_.elem_bytes;
    for (const AxisTaps& a0 : sum_.axes[0]) {
      for (const AxisTaps& a1 : sum_.axes[1]) {
        const int64_t rows = a0.dst_count * a1.dst_count;
        for (int64_t row = rows * share / shares; row < rows * (share + 1) / shares; ++row) {
          for (const RowPart& part : parts_) {
            run_row(a0, row / a1.dst_count, a1, row % a1.dst_count, part);
          }
        }
      }
    }
  }

 private:
  // Up to kRowResults results of one phase of the innermost axis.
  struct RowPart {
    const AxisTaps* axis;
    Range results;
    std::vector<RowTap> taps;
  };

  void load_weights(int64_t group, int64_t dst_channel) {
    for (int64_t c = 0; c < sum_.src_channels; ++c) {
      const int64_t offset =
          group * sum_.weight_group + c * sum_.weight_src + dst_channel * sum_.weight_dst;
      load_kernel(kernels_, sum_.weight + offset * kernels_.elem_bytes, sum_.weight_tap,
                  sum_.kernel, kernel_ + c * sum_.taps());
    }
  }

  void run_row(const AxisTaps& a0, int64_t q0, const AxisTaps& a1, int64_t q1,
               const RowPart& part) {
    const AxisTaps& a2 = *part.axis;
    const int64_t count = part.results.end - part.results.begin;
    const int64_t step = a2.src_step * sum_.src.axis[2];
    std::fill(acc_, acc_ + count, Acc(0));
    for (int64_t c = 0; c < sum_.src_channels; ++c) {
      for_each_row(a0, q0, a1, q1, [&](const char* row, int64_t kernel_row) {
        row += c * sum_.src.channel * kernels_.elem_bytes;
        const Acc* weights = kernel_ + c * sum_.taps() + kernel_row * sum_.kernel[2];
        for (const RowTap& tap : part.taps) {
          kernels_.add_scaled(acc_ + (tap.results.begin - part.results.begin),
                              row + tap.src * sum_.src.axis[2] * kernels_.elem_bytes, step,
                              double(weights[tap.tap - sum_.first_tap[2]]),
                              tap.results.end - tap.results.begin);
        }
      });
    }
    const int64_t offset = (a0.dst_begin + q0 * a0.dst_step) * sum_.dst.axis[0] +
                           (a1.dst_begin + q1 * a1.dst_step) * sum_.dst.axis[1] +
                           (a2.dst_begin + part.results.begin * a2.dst_step) * sum_.dst.axis[2];
    kernels_.store(dst_ + offset * kernels_.elem_bytes, 0, a2.dst_step * sum_.dst.axis[2], acc_, 0,
                   1, count, &bias_, 0, 0);
  }

  // The source rows that meet a row of results, with the row of the kernel that they meet it by.
  template <class Visit>
  void for_each_row(const AxisTaps& a0, int64_t q0, const AxisTaps& a1, int64_t q1,
                    const Visit& visit) {
    for (int64_t j0 = 0; j0 < a0.tap_count; ++j0) {
      const int64_t i0 = a0.src_begin + q0 * a0.src_step + j0 * a0.src_tap_step;
      if (i0 < 0 || i0 >= a0.src_size) continue;
      for (int64_t j1 = 0; j1 < a1.tap_count; ++j1) {
        const int64_t i1 = a1.src_begin + q1 * a1.src_step + j1 * a1.src_tap_step;
        if (i1 < 0 || i1 >= a1.src_size) continue;
        const int64_t t0 = a0.tap_begin + j0 * a0.tap_step - sum_.first_tap[0];
        const int64_t t1 = a1.tap_begin + j1 * a1.tap_step - sum_.first_tap[1];
        visit(src_ + (i0 * sum_.src.axis[0] + i1 * sum_.src.axis[1]) * kernels_.elem_bytes,
              t0 * sum_.kernel[1] + t1);
      }
    }
  }

  const TapSum& sum_;
  const Kernels& kernels_;
  std::unique_ptr<Scratch> scratch_;
  Acc* acc_;
  Acc* kernel_;
  std::vector<RowPart> parts_;
  // The unit at hand.
  Acc bias_ = 0;
  const char* src_ = nullptr;
  char* dst_ = nullptr;
};

template <class Acc>
void run(const TapSum& sum, const Resources& resources) {
  const int64_t units = sum.batch * sum.groups * sum.dst_channels;
  const int64_t shares = ceil_div(kWantedJobs, std::max<int64_t>(units, 1));
  for_each_job(*resources.threads, units * shares, [&] {
    return [shares, worker = RowWorker<Acc>(sum)](int64_t job) mutable {
      worker(job / shares, job % shares, shares);
    };
  });
}

// The kernel of one (in, out) channel pair, summed over the rows of out.
template <class Acc>
class KernelWorker {
 public:
  KernelWorker(const Problem& problem, const Kernels& kernels,
               const std::vector<AxisTaps> (&axes)[kAxes])
      : problem_(problem), kernels_(kernels), axes_(axes) {
    for (const AxisTaps& a2 : axes[2]) {
      rows_.push_back({&a2, taps_of_row(a2, {0, a2.dst_count})});
    }
  }

  // Sums into `sum`, one element per tap.
  void operator()(int64_t in_channel, int64_t out_channel, Acc* sum) const {
    std::fill(sum, sum + problem_.geometry.taps(), Acc(0));
    const char* data = static_cast<const char*>(problem_.data.data) +
                       in_channel * problem_.data.channel * kernels_.elem_bytes;
    const char* out = static_cast<const char*>(problem_.out.data) +
                      out_channel * problem_.out.channel * kernels_.elem_bytes;
    for (int64_t n = 0; n < problem_.geometry.batch; ++n) {
      for (const AxisTaps& a0 : axes_[0]) {
        for (const AxisTaps& a1 : axes_[1]) {
          const int64_t rows = a0.dst_count * a1.dst_count;
          for (int64_t row = 0; row < rows; ++row) {
            add_row(data + n * problem_.data.batch * kernels_.elem_bytes,
                    out + n * problem_.out.batch * kernels_.elem_bytes, a0, row / a1.dst_count, a1,
                    row % a1.dst_count, sum);
          }
        }
      }
    }
  }

 private:
  void add_row(const char* data, const char* out, const AxisTaps& a0, int64_t q0,
               const AxisTaps& a1, int64_t q1, Acc* sum) const {
    const Geometry& geometry = problem_.geometry;
    const int64_t(&stride)[kAxes] = problem_.data.axis;
    out += ((a0.dst_begin + q0 * a0.dst_step) * problem_.out.axis[0] +
            (a1.dst_begin + q1 * a1.dst_step) * problem_.out.axis[1]) *
           kernels_.elem_bytes;
    for (int64_t j0 = 0; j0 < a0.tap_count; ++j0) {
      const int64_t i0 = a0.src_begin + q0 + j0 * a0.src_tap_step;
      if (i0 < 0 || i0 >= a0.src_size) continue;
      for (int64_t j1 = 0; j1 < a1.tap_count; ++j1) {
        const int64_t i1 = a1.src_begin + q1 + j1 * a1.src_tap_step;
        if (i1 < 0 || i1 >= a1.src_size) continue;
        const int64_t kernel_row = (a0.tap_begin + j0 * a0.tap_step) * geometry.axis[1].kernel +
                                   a1.tap_begin + j1 * a1.tap_step;
        const char* row = data + (i0 * stride[0] + i1 * stride[1]) * kernels_.elem_bytes;
        for (const Row& a2 : rows_) {
          add_taps(row, out, a2, sum + kernel_row * geometry.axis[2].kernel);
        }
      }
    }
  }

  struct Row {
    const AxisTaps* axis;
    std::vector<RowTap> taps;
  };

  void add_taps(const char* row, const char* out, const Row& a2, Acc* sum) const {
    const int64_t out_stride = problem_.out.axis[2];
    for (const RowTap& tap : a2.taps) {
      const int64_t result = a2.axis->dst_begin + tap.results.begin * a2.axis->dst_step;
      sum[tap.tap] +=
          Acc(kernels_.dot(row + tap.src * problem_.data.axis[2] * kernels_.elem_bytes,
                           problem_.data.axis[2], out + result * out_stride * kernels_.elem_bytes,
                           out_stride * a2.axis->dst_step, tap.results.end - tap.results.begin));
    }
  }

  const Problem& problem_;
  const Kernels& kernels_;
  const std::vector<AxisTaps> (&axes_)[kAxes];
  std::vector<Row> rows_;
};

template <class Acc>
void run_weight(const Problem& problem, const Kernels& kernels, const Resources& resources) {
  const Geometry& geometry = problem.geometry;
  const std::vector<AxisTaps> axes[kAxes] = {forward_phases(geometry.axis[0]),
                                             forward_phases(geometry.axis[1]),
                                             forward_phases(geometry.axis[2])};
  const KernelWorker<Acc> worker(problem, kernels, axes);
  const int64_t taps = geometry.taps();
  const int64_t pairs = geometry.in_channels * geometry.out_channels;
  const int64_t units = geometry.groups * pairs;
  for_each_job(*resources.threads, units, [&] {
    auto scratch = std::make_unique<Scratch>(align_up(taps * int64_t(sizeof(Acc))));
    Acc* sum = scratch->template take<Acc>(taps);
    return [&, sum, owner = std::move(scratch)](int64_t unit) {
      const int64_t group = unit / pairs;
      const int64_t in_channel =
          group * geometry.in_channels + unit % pairs / geometry.out_channels;
      const int64_t filter = unit % geometry.out_channels;
      const int64_t out_channel = group * geometry.out_channels + filter;
      worker(in_channel, out_channel, sum);
      const WeightView& weight = problem.weight;
      const int64_t offset = in_channel * weight.in_channel + filter * weight.out_channel;
      const Acc* row = sum;
      for (int64_t t0 = 0; t0 < geometry.axis[0].kernel; ++t0) {
        for (int64_t t1 = 0; t1 < geometry.axis[1].kernel; ++t1) {
          char* dst = static_cast<char*>(weight.data) +
                      (offset + t0 * weight.tap[0] + t1 * weight.tap[1]) * kernels.elem_bytes;
          kernels.store(dst, 0, weight.tap[2], row, 0, 1, geometry.axis[2].kernel, nullptr, 0, 0);
          row += geometry.axis[2].kernel;
        }
      }
    };
  });
}

}  // namespace

void run_depthwise(const TapSum& sum, const Resources& resources) {
  if (!phases_cover_results(sum)) {
    fill_with_bias(*sum.kernels, sum.dst, sum.bias, sum.batch, sum.groups * sum.dst_channels,
                   sum.dst_size);
  }
  if (sum.kernels->acc_bytes == 8) {
    run<double>(sum, resources);
  } else {
    run<float>(sum, resources);
  }
}

void run_depthwise_weight(const Problem& problem, const Resources& resources) {
  const Kernels& kernels = kernels_for(problem.dtype);
  if (kernels.acc_bytes == 8) {
    run_weight<double>(problem, kernels, resources);
  } else {
    run_weight<float>(problem, kernels, resources);
  }
}

}  // namespace mxd::cpu
