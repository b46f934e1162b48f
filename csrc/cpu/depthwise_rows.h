// Walks the pieces of a RowPlan: brings their source rows to scratch and finds the rows of results
// that share their terms.
#pragma once

#include <algorithm>
#include <cmath>

#include "cpu/depthwise_plan.h"
#include "cpu/scratch.h"

namespace mxd::cpu {

// Result rows with the same taps.
struct RowGroup {
  const void* src;  // of the terms, from row to row src_row_step
  int64_t src_row_step;
  const RowTerm* terms;
  int64_t term_count;
  int64_t dst, dst_row_step;  // offset of the first result of the first row, in elements
  int64_t first, step;        // of the result rows, counted from the first of the piece
  int64_t rows;
  int64_t count;   // flat results of a row
  Range existing;  // the elements of a source row that hold pixels of the source
};

class RowWalk {
 public:
  static int64_t scratch_bytes(const RowPlan& plan) {
    const int64_t acc = plan.sum.kernels->acc_bytes;
    return align_up(plan.src_planes * plan.chunk_rows * plan.pitch * acc) +
           align_up(plan.most_terms * int64_t(sizeof(RowTerm))) + kAlignment;
  }
  RowWalk(const RowPlan& plan, Scratch& scratch)
      : plan_(plan),
        kernels_(*plan.sum.kernels),
        rows_(scratch.take<char>(plan.src_planes * plan.chunk_rows * plan.pitch *
                                 kernels_.acc_bytes)),
        terms_(scratch.take<RowTerm>(plan.most_terms)),
        sticky_(scratch.take<char>(kAlignment)) {}

  // Begins a piece of the channels from `src` on.
  void begin(int64_t piece, const char* src);
  Range source_rows() const { return src_rows_; }
  Range result_rows() const { return results_; }
  int64_t count() const { return count_; }  // flat results of a row
  int64_t offset_of(int64_t row) const;     // of the first result of a row of the piece

  // Brings source rows, at most chunk_rows of them.
  void bring(Range rows);

  // Whether everything brought since `begin` is finite.
  bool finite() const { return is_finite(sticky_, kernels_); }

  // Visits the result rows of the piece, by groups: visit(const RowGroup&). Their terms are those
  // of the source rows brought last.
  template <class Visit>
  void for_each_group(const Visit& visit);

  // Whether `expand` has found what it read finite.
  static bool is_finite(const void* sticky, const Kernels& kernels) {
    for (int l = 0; l < kernels.vector; ++l) {
      const double value = kernels.acc_bytes == 8 ? static_cast<const double*>(sticky)[l]
                                                  : double(static_cast<const float*>(sticky)[l]);
      if (std::isnan(value)) return false;
    }
    return true;
  }

 private:
  void make_terms(const AxisTaps& a1, int64_t result, Range taps);

  const RowPlan& plan_;
  const Kernels& kernels_;
  char* rows_;
  RowTerm* terms_;
  char* sticky_;
  // The piece at hand.
  const AxisTaps* plane_ = nullptr;  // the phase of axis 0
  int64_t plane_result_ = 0;         // and its result there
  Range plane_taps_;
  int64_t batch_ = 0;
  Range results_;   // on axis 1
  Range src_rows_;  // that they need
  Range brought_;   // of those
  const char* src_ = nullptr;
  int64_t segment_begin_ = 0, count_ = 0;
  Range existing_;
  int64_t term_count_ = 0;
};

template <class Visit>
void RowWalk::for_each_group(const Visit& visit) {
  for (AxisTaps a1 : plan_.sum.axes[1]) {
    // The rows in scratch are all the source there is.
    a1.src_begin -= brought_.begin;
    a1.src_size = brought_.end - brought_.begin;
    const auto first_from = [&a1](int64_t row) {
      const int64_t beyond = std::max<int64_t>(0, row - a1.dst_begin);
      return std::min((beyond + a1.dst_step - 1) / a1.dst_step, a1.dst_count);
    };
    Range all{first_from(results_.begin), first_from(results_.end)};
    const Range first_tap = valid_results(a1, 0, all);
    const Range last_tap = valid_results(a1, a1.tap_count - 1, all);
    const Range inner{std::max(first_tap.begin, last_tap.begin),
                      std::min(first_tap.end, last_tap.end)};
    if (plan_.contracts()) {  // other rows get nothing from these source rows
      all = {std::min(first_tap.begin, last_tap.begin),
             std::min(all.end, std::max(first_tap.end, last_tap.end))};
    }
    for (int64_t q = all.begin; q < all.end;) {
      const bool inside = q >= inner.begin && q < inner.end;
      const int64_t rows = inside ? inner.end - q : 1;
      make_terms(a1, q, inside ? Range{0, a1.tap_count} : valid_taps(a1, q));
      const int64_t first = a1.dst_begin + q * a1.dst_step - results_.begin;
      visit(RowGroup{rows_, a1.src_step * plan_.pitch, terms_, term_count_, offset_of(first),
                     a1.dst_step * plan_.sum.dst.axis[1], first, a1.dst_step, rows, count_,
                     existing_});
      q += rows;
    }
  }
}

}  // namespace mxd::cpu
