#include <cmath>
#include <cstring>
#include <memory>

#include "cpu/depthwise_rows.h"
#include "cpu/depthwise_ways.h"
#include "cpu/panels.h"

namespace mxd::cpu {
namespace {

// RowOuter for one row of gradients of the accumulate type: skips absent pixels.
template <class Acc>
void outer_row_exactly(const RowOuter& outer, const FlatAxis& flat, Range existing) {
  const int64_t lanes = flat.lanes();
  for (int64_t t = 0; t < outer.term_count; ++t) {
    const int64_t slot = flat.slots[size_t(t % int64_t(flat.slots.size()))];
    for (int64_t i = 0; i < outer.count; ++i) {
      if (slot + i < existing.begin || slot + i >= existing.end) continue;
      static_cast<Acc*>(outer.sums)[outer.terms[t].weight + i % lanes] +=
          static_cast<const Acc*>(outer.src)[outer.terms[t].src + i] *
          static_cast<const Acc*>(outer.grad)[i];
    }
  }
}

// A job is the kernel of one (in, out) channel pair, its sums laid out as they recur along the
// lanes.
template <class Acc>
class KernelWorker {
 public:
  KernelWorker(const Problem& problem, const RowPlan& plan)
      : problem_(problem),
        plan_(plan),
        kernels_(*plan.sum.kernels),
        scratch_(new Scratch(RowWalk::scratch_bytes(plan) +
                             align_up(plan.pattern_lanes() * int64_t(sizeof(Acc))) +
                             align_up(plan.segment * int64_t(sizeof(Acc))) +
                             align_up((plan.sum.kernel[2] + 1) * int64_t(sizeof(Acc))))),
        walk_(plan, *scratch_),
        sums_(scratch_->template take<Acc>(plan.pattern_lanes())),
        grad_row_(scratch_->template take<Acc>(plan.segment)),
        kernel_row_(scratch_->template take<Acc>(plan.sum.kernel[2] + 1)) {}

  void operator()(int64_t job) {
    const Geometry& g = problem_.geometry;
    const int64_t pairs = g.in_channels * g.out_channels;
    const int64_t in_channel = job / pairs * g.in_channels + job % pairs / g.out_channels;
    const int64_t filter = job % g.out_channels;
    const char* data = static_cast<const char*>(problem_.data.data) +
                       in_channel * problem_.data.channel * kernels_.elem_bytes;
    const char* grad =
        static_cast<const char*>(problem_.out.data) +
        (job / pairs * g.out_channels + filter) * problem_.out.channel * kernels_.elem_bytes;
    sum_pieces(data, grad, false);
    const int64_t lanes = plan_.pattern_lanes();
    if (!std::all_of(sums_, sums_ + lanes, [](Acc sum) { return std::isfinite(sum); })) {
      sum_pieces(data, grad, true);
    }
    store(in_channel * problem_.weight.in_channel + filter * problem_.weight.out_channel);
  }

 private:
  void sum_pieces(const char* data, const char* grad, bool exactly) {
    std::fill(sums_, sums_ + plan_.pattern_lanes(), Acc(0));
    for (int64_t piece = 0; piece < plan_.pieces(); ++piece) {
      walk_.begin(piece, data);
      walk_.bring(walk_.source_rows());
      walk_.for_each_group([&](const RowGroup& rows) { add_rows(rows, grad, exactly); });
    }
  }

  void add_rows(const RowGroup& rows, const char* grad, bool exactly) {
    RowOuter outer{rows.src,
                   rows.src_row_step,
                   grad + rows.dst * kernels_.elem_bytes,
                   rows.dst_row_step,
                   plan_.flat.period,
                   rows.terms,
                   rows.term_count,
                   sums_,
                   rows.rows,
                   rows.count};
    const int64_t stride = problem_.out.axis[2];
    if (stride == 1 && !exactly) {
      kernels_.depthwise.row_outer(outer);
      return;
    }
    outer.grad = grad_row_;
    outer.rows = 1;
    for (int64_t r = 0; r < rows.rows; ++r) {
      outer.src = static_cast<const Acc*>(rows.src) + r * rows.src_row_step;
      kernels_.pack(grad_row_, rows.count,
                    grad + (rows.dst + r * rows.dst_row_step) * kernels_.elem_bytes, rows.count,
                    stride, 1, 0);
      if (exactly) {
        outer_row_exactly<Acc>(outer, plan_.flat, rows.existing);
      } else {
        kernels_.depthwise.row_outer_acc(outer);
      }
    }
  }

  // Adds up the lanes of each tap; `offset` is that of the pair's kernel.
  void store(int64_t offset) {
    const TapSum& sum = plan_.sum;
    const WeightView& weight = problem_.weight;
    const Acc* lane = sums_;
    for (int64_t t0 = 0; t0 < sum.kernel[0]; ++t0) {
      for (int64_t t1 = 0; t1 < sum.kernel[1]; ++t1) {
        std::fill(kernel_row_, kernel_row_ + sum.kernel[2] + 1, Acc(0));
        for (const int32_t tap : plan_.flat.taps) kernel_row_[tap] += *lane++;
        const int64_t at = offset + (sum.first_tap[0] + t0) * weight.tap[0] +
                           (sum.first_tap[1] + t1) * weight.tap[1] +
                           sum.first_tap[2] * weight.tap[2];
        kernels_.store(static_cast<char*>(weight.data) + at * kernels_.elem_bytes, 0, weight.tap[2],
                       kernel_row_, 0, 1, sum.kernel[2], nullptr, 0, 0);
      }
    }
  }

  const Problem& problem_;
  const RowPlan& plan_;
  const Kernels& kernels_;
  std::unique_ptr<Scratch> scratch_;
  RowWalk walk_;
  Acc* sums_;
  Acc* grad_row_;
  Acc* kernel_row_;
};

template <class Acc>
void run(const Problem& problem, const RowPlan& plan, const Resources& resources) {
  const Geometry& g = problem.geometry;
  const int64_t kernels = g.groups * g.in_channels * g.out_channels;
  for_each_job(*resources.threads, kernels, [&] {
    return [worker = KernelWorker<Acc>(problem, plan)](int64_t job) mutable { worker(job); };
  });
}

}  // namespace

void run_depthwise_rows_weight(const Problem& problem, TapSum sum, const Resources& resources) {
  sum.src_channels = 1;  // a pair at a time
  const RowPlan plan(sum);
  if (sum.kernels->acc_bytes == 8) {
    run<double>(problem, plan, resources);
  } else {
    run<float>(problem, plan, resources);
  }
}

}  // namespace mxd::cpu
