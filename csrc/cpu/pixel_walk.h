// Walks the result pixels of layers whose lanes are channels, and finds the taps that reach them.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/tap_sum.h"

namespace mxd::cpu {

// Evenly spaced result pixels that share their taps.
struct PixelSpan {
  const PixelTerm* terms;
  int64_t term_count;
  int64_t dst_step, src_step;
  int64_t pixels;
};

// A source row that meets a row of results, and its weights.
struct RowPair {
  const char* src;
  char* weight;
};

// Visits runs of result pixels with the terms that reach them. The weights of all taps lie
// `tap_bytes` apart.
class PixelWalk {
 public:
  PixelWalk(const TapSum& sum, int64_t tap_bytes, char* weights)
      : sum_(sum), elem_bytes_(sum.kernels->elem_bytes), tap_bytes_(tap_bytes), weights_(weights) {
    for (const AxisTaps& taps : sum.axes[2]) {
      const Range first = valid_results(taps, 0, {0, taps.dst_count});
      inner_.push_back(valid_results(taps, taps.tap_count - 1, first));
    }
    find_bundles();
  }

  // Whether neighbouring results share their sources, a few, in bundles.
  bool spreads() const { return !bundles_.empty(); }

  // visit(address): the source rows that meet a row of results.
  template <class Visit>
  void for_each_source(int64_t row, int64_t group, const Visit& visit) {
    if (start_row(row, group) < 0) return;
    for (const RowPair& pair : row_pairs_) visit(pair.src);
  }

  static int64_t rows(const TapSum& sum) { return sum.batch * sum.dst_size[0] * sum.dst_size[1]; }

  // visit(pixels, dst): the pixels of a result row, by those that share their taps, from the first
  // of some groups on; dst is the offset of the first result.
  template <class Visit>
  void for_each_run(int64_t row, int64_t group, const Visit& visit) {
    const int64_t dst = start_row(row, group);
    if (dst < 0) return;
    for (size_t p = 0; p < sum_.axes[2].size(); ++p) {
      const AxisTaps& a2 = sum_.axes[2][p];
      for (int64_t q = 0; q < a2.dst_count;) {
        const bool inside = q >= inner_[p].begin && q < inner_[p].end;
        make_terms(a2, q, inside ? Range{0, a2.tap_count} : valid_taps(a2, q));
        PixelSpan run;
        run.dst_step = a2.dst_step * sum_.dst.axis[2];
        run.terms = terms_.data();
        run.term_count = int64_t(terms_.size());
        run.src_step = a2.src_step * sum_.src.axis[2];
        run.pixels = inside ? inner_[p].end - q : 1;
        visit(run, dst + (a2.dst_begin + q * a2.dst_step) * sum_.dst.axis[2]);
        q += run.pixels;
      }
    }
  }

  // The same where the walk spreads: visit(pixels, dst) for results next to each other, whose terms
  // begin at the weights of the first.
  template <class Visit>
  void for_each_spread(int64_t row, int64_t group, const Visit& visit) {
    const int64_t dst = start_row(row, group);
    if (dst < 0) return;
    const int64_t stride = sum_.axes[2].front().dst_step;
    for (int64_t i = first_source_; i * stride + origin_ < sum_.dst_size[2]; ++i) {
      for (const Bundle& bundle : bundles_) {
        const int64_t begin = i * stride + origin_ + bundle.first_tap;
        const int64_t skipped = std::max<int64_t>(0, -begin);
        const int64_t end = std::min(begin + bundle.phases, sum_.dst_size[2]);
        if (begin + skipped >= end) continue;
        // Source i - j meets the taps first_tap + j * stride.
        const AxisTaps taps{0,
                            1,
                            1,
                            i,
                            1,
                            -1,
                            sum_.axes[2].front().src_size,
                            bundle.first_tap + skipped,
                            stride,
                            bundle.tap_count};
        make_terms(taps, 0, valid_taps(taps, 0));
        visit(PixelSpan{terms_.data(), int64_t(terms_.size()), sum_.dst.axis[2], 0,
                        end - begin - skipped},
              dst + (begin + skipped) * sum_.dst.axis[2]);
      }
    }
  }

 private:
  // Phases of axis 2 whose first taps follow each other, and that have equally many.
  struct Bundle {
    int64_t first_tap, phases, tap_count;
  };

  // Without dilation the result  i * stride + origin + t  of every tap t < stride is met by the
  // sources i, i - 1, ... at t, t + stride, ...: those of neighbouring t are neighbours.
  void find_bundles() {
    const std::vector<AxisTaps>& phases = sum_.axes[2];
    const int64_t stride = phases.front().dst_step;
    std::vector<AxisTaps> sorted = phases;
    std::sort(sorted.begin(), sorted.end(),
              [](const AxisTaps& a, const AxisTaps& b) { return a.tap_begin < b.tap_begin; });
    const auto origin = [stride](const AxisTaps& taps) {
      return taps.dst_begin - taps.src_begin * stride - taps.tap_begin;
    };
    origin_ = origin(sorted.front());
    for (const AxisTaps& taps : sorted) {
      if (taps.tap_step != stride || taps.src_tap_step != -1 || origin(taps) != origin_) {
        return bundles_.clear();
      }
      Bundle* last = bundles_.empty() ? nullptr : &bundles_.back();
      if (last && last->first_tap + last->phases == taps.tap_begin &&
          last->tap_count == taps.tap_count) {
        ++last->phases;
      } else {
        bundles_.push_back({taps.tap_begin, 1, taps.tap_count});
      }
    }
    int64_t terms = 0;
    for (const Bundle& bundle : bundles_) terms = std::max(terms, bundle.tap_count);
    for (int a = 0; a < 2; ++a) {
      int64_t most = 0;
      for (const AxisTaps& taps : sum_.axes[a]) most = std::max(most, taps.tap_count);
      terms = std::min(terms, kSpreadTerms + 1) * std::min(most, kSpreadTerms + 1);
    }
    const bool shared = bundles_.size() * 4 <= phases.size() && stride <= sum_.dst_size[2];
    // The first whose results are not all before the row.
    first_source_ = -(origin_ + sorted.back().tap_begin) / stride - 1;
    if (!shared || terms > kSpreadTerms) bundles_.clear();
  }

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

  // Finds the sources of a row of results, and its offset: negative where no phase covers it.
  int64_t start_row(int64_t row, int64_t group) {
    const int64_t o1 = row % sum_.dst_size[1];
    const int64_t o0 = row / sum_.dst_size[1] % sum_.dst_size[0];
    const int64_t n = row / sum_.dst_size[1] / sum_.dst_size[0];
    const Found f0 = find(sum_.axes[0], o0);
    const Found f1 = find(sum_.axes[1], o1);
    if (!f0.phase || !f1.phase) return -1;
    row_pairs_.clear();
    for (int64_t j0 = f0.taps.begin; j0 < f0.taps.end; ++j0) {
      for (int64_t j1 = f1.taps.begin; j1 < f1.taps.end; ++j1) {
        const auto [i0, t0] = place(f0, j0);
        const auto [i1, t1] = place(f1, j1);
        const int64_t src = n * sum_.src.batch + group * sum_.src_channels * sum_.src.channel +
                            i0 * sum_.src.axis[0] + i1 * sum_.src.axis[1];
        const int64_t row = (t0 - sum_.first_tap[0]) * sum_.kernel[1] + t1 - sum_.first_tap[1];
        const int64_t weight = (row * sum_.kernel[2] - sum_.first_tap[2]) * tap_bytes_;
        row_pairs_.push_back(
            {static_cast<const char*>(sum_.src.data) + src * elem_bytes_, weights_ + weight});
      }
    }
    return n * sum_.dst.batch + group * sum_.dst_channels * sum_.dst.channel +
           o0 * sum_.dst.axis[0] + o1 * sum_.dst.axis[1];
  }
  struct Place {
    int64_t src, tap;
  };
  static Place place(const Found& f, int64_t j) {
    return {f.phase->src_begin + f.result * f.phase->src_step + j * f.phase->src_tap_step,
            f.phase->tap_begin + j * f.phase->tap_step};
  }

  void make_terms(const AxisTaps& a2, int64_t q, Range taps) {
    const int64_t src_step = sum_.src.axis[2] * elem_bytes_;
    const int64_t src = (a2.src_begin + q * a2.src_step + taps.begin * a2.src_tap_step) * src_step;
    const int64_t weight = (a2.tap_begin + taps.begin * a2.tap_step) * tap_bytes_;
    const int64_t count = std::max<int64_t>(0, taps.end - taps.begin);
    terms_.resize(row_pairs_.size() * size_t(count));
    PixelTerm* term = terms_.data();
    for (const RowPair& row : row_pairs_) {
      PixelTerm next{row.src + src, row.weight + weight};
      for (int64_t j = 0; j < count; ++j) {
        *term++ = next;
        next.src = static_cast<const char*>(next.src) + a2.src_tap_step * src_step;
        next.weight = static_cast<char*>(next.weight) + a2.tap_step * tap_bytes_;
      }
    }
  }

  const TapSum& sum_;
  int64_t elem_bytes_, tap_bytes_;
  char* weights_;
  std::vector<Range> inner_;  // of each phase of axis 2: the results that every tap reaches
  std::vector<Bundle> bundles_;
  int64_t origin_ = 0, first_source_ = 0;
  std::vector<RowPair> row_pairs_;
  std::vector<PixelTerm> terms_;
};

}  // namespace mxd::cpu
