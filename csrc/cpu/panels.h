// How one operand of a block of work is cut into the panels that the gemm primitive reads.
#pragma once

#include <cstdint>

#include "cpu/kernels.h"

namespace mxd::cpu {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The least number of elements, of so many bytes each, that holds `count` and is an odd number of
// cache lines. Lines an even number of them apart would share few sets of the first cache.
constexpr int64_t odd_lines(int64_t count, int64_t bytes) {
  constexpr int64_t kCacheLine = 64;
  return (ceil_div(count * bytes, kCacheLine) | 1) * kCacheLine / bytes;
}

// Row panels have equal widths to within one, so that no register row is wasted: 64 rows become
// 13+13+13+13+12, not 14+14+14+14+8. Column panels are whole register tiles; the last one falls
// back to a single vector when that is enough.
class Panels {
 public:
  Panels() = default;
  static Panels of_rows(const Kernels& kernels, int64_t total) {
    const int64_t count = ceil_div(total, kernels.max_rows);
    return Panels(total, count, total / count, total % count, 0);
  }
  static Panels of_cols(const Kernels& kernels, int64_t total) {
    const int64_t count = ceil_div(total, kernels.cols);
    const int64_t rest = total - (count - 1) * kernels.cols;
    return Panels(total, count, kernels.cols, 0, rest <= kernels.vector ? kernels.vector : 0);
  }
  // Panels of a single vector: the gemm primitive takes any two of them as the columns of a tile.
  static Panels of_vectors(const Kernels& kernels, int64_t total) {
    return Panels(total, ceil_div(total, kernels.vector), kernels.vector, 0, 0);
  }

  int64_t total() const { return total_; }
  int64_t count() const { return count_; }
  int64_t begin(int64_t panel) const { return panel * width_ + (panel < wider_ ? panel : wider_); }
  int64_t width(int64_t panel) const {
    if (narrow_last_ && panel == count_ - 1) return narrow_last_;
    return width_ + (panel < wider_ ? 1 : 0);
  }
  // Elements of the panel that exist; the rest of the last column panel is padding.
  int64_t present(int64_t panel) const {
    const int64_t left = total_ - begin(panel);
    return left < width(panel) ? left : width(panel);
  }
  int64_t padded_total() const { return begin(count_ - 1) + width(count_ - 1); }

 private:
  Panels(int64_t total, int64_t count, int64_t width, int64_t wider, int64_t narrow_last)
      : total_(total), count_(count), width_(width), wider_(wider), narrow_last_(narrow_last) {}
  int64_t total_ = 0, count_ = 0, width_ = 0, wider_ = 0, narrow_last_ = 0;
};

}  // namespace mxd::cpu
