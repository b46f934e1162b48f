#include "cpu/pixel_block.h"

#include <algorithm>
#include <cstring>

namespace mxd::cpu {

PixelBlock::PixelBlock(const Box& box, const TensorView& src, const TensorView& dst, int64_t begin,
                       const Panels& panels)
    : box_(box), src_(src), all_inside_(box.all_inside()) {
  for (int a = 0; a < kAxes; ++a) {
    if (box.results(a) > 1) run_axis_ = a;
  }
  src_step_ = src.batch;
  dst_step_ = dst.batch;
  if (run_axis_ >= 0) {
    src_step_ = src.axis[run_axis_] * box.taps[run_axis_]->src_step;
    dst_step_ = dst.axis[run_axis_] * box.taps[run_axis_]->dst_step;
  }
  const int64_t e0 = box.results(0);
  const int64_t e1 = box.results(1);
  const int64_t e2 = box.results(2);
  const int64_t whole = run_axis_ < 0 ? box.batch : box.results(run_axis_);
  int64_t panel = 0;
  for (int64_t pixel = 0; pixel < panels.total();) {
    while (pixel >= panels.begin(panel) + panels.width(panel)) ++panel;
    const int64_t p = begin + pixel;
    const int64_t n = p / (e2 * e1 * e0);
    Run run;
    run.panel = panel;
    run.offset = pixel - panels.begin(panel);
    run.at[0] = p / (e2 * e1) % e0;
    run.at[1] = p / e2 % e1;
    run.at[2] = p % e2;
    const int64_t along = run_axis_ < 0 ? n : run.at[run_axis_];
    run.length = std::min(whole - along, panels.present(panel) - run.offset);
    run.src = n * src.batch;
    Piece piece{pixel, run.length, n * dst.batch};
    for (int a = 0; a < kAxes; ++a) {
      const AxisTaps& taps = *box.taps[a];
      run.at[a] += box.region[a].begin;
      run.src += (taps.src_begin + run.at[a] * taps.src_step) * src.axis[a];
      piece.dst += (taps.dst_begin + run.at[a] * taps.dst_step) * dst.axis[a];
    }
    runs_.push_back(run);
    pieces_.push_back(piece);
    pixel += run.length;
  }
}

Range PixelBlock::inside(const Run& run, const Tap& tap) const {
  Range part{0, run.length};
  if (all_inside_) return part;
  for (int a = 0; a < kAxes; ++a) {
    const bool along_run = a == run_axis_;
    const Range here{run.at[a], run.at[a] + (along_run ? run.length : 1)};
    const Range valid = valid_results(*box_.taps[a], tap.at[a], here);
    if (valid.begin >= valid.end) return {0, 0};
    if (along_run) part = {valid.begin - here.begin, valid.end - here.begin};
  }
  return part;
}

bool PixelBlock::covers(size_t first, size_t last, const Tap& tap) const {
  if (all_inside_) return true;
  for (size_t i = first; i < last; ++i) {
    const Range part = inside(runs_[i], tap);
    if (part.end - part.begin < runs_[i].length) return false;
  }
  return true;
}

void PixelBlock::pack(const Kernels& kernels, const char* src, int64_t channel_stride,
                      int64_t channels, const std::vector<Tap>& taps, const Panels& panels,
                      char* dst) const {
  size_t first = 0;
  for (int64_t panel = 0; panel < panels.count(); ++panel) {
    size_t last = first;
    while (last < runs_.size() && runs_[last].panel == panel) ++last;
    const int64_t width = panels.width(panel);
    for (const Tap& tap : taps) {
      const bool gaps = panels.present(panel) < width || !covers(first, last, tap);
      if (gaps) std::memset(dst, 0, size_t(channels * width * kernels.acc_bytes));
      int64_t tap_offset = 0;
      for (int a = 0; a < kAxes; ++a) {
        tap_offset += tap.at[a] * box_.taps[a]->src_tap_step * src_.axis[a];
      }
      for (size_t i = first; i < last; ++i) {
        const Run& run = runs_[i];
        const Range part = inside(run, tap);
        if (part.begin >= part.end) continue;
        const int64_t offset = run.src + tap_offset + part.begin * src_step_;
        kernels.pack(dst + (run.offset + part.begin) * kernels.acc_bytes, width,
                     src + offset * kernels.elem_bytes, part.end - part.begin, src_step_, channels,
                     channel_stride);
      }
      dst += channels * width * kernels.acc_bytes;
    }
    first = last;
  }
}

}  // namespace mxd::cpu
