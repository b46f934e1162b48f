#include "cpu/pixel_block.h"

#include <algorithm>

namespace mxd::cpu {

PixelBlock::PixelBlock(const Box& b, const TensorView& src, const TensorView& dst)
    : box(b), all_inside(true), src_(src), dst_(dst), run_axis_(-1) {
  for (int a = 0; a < kAxes; ++a) {
    const AxisRegion& region = *box.region[a];
    if (region.results() > 1) run_axis_ = a;
    const Range whole{region.begin, region.end};
    for (const int64_t tap : {region.tap_begin, region.tap_end - 1}) {
      const Range valid = valid_results(*box.taps[a], tap, whole);
      all_inside = all_inside && valid.begin == whole.begin && valid.end == whole.end;
    }
  }
  if (run_axis_ < 0) {
    src_step = src.batch;
    dst_step = dst.batch;
  } else {
    src_step = src.axis[run_axis_] * box.taps[run_axis_]->src_step;
    dst_step = dst.axis[run_axis_] * box.taps[run_axis_]->dst_step;
  }
}

void PixelBlock::cut(int64_t begin, const Panels& panels) {
  pieces.clear();
  const int64_t e0 = box.region[0]->results();
  const int64_t e1 = box.region[1]->results();
  const int64_t e2 = box.region[2]->results();
  const int64_t run = run_axis_ < 0 ? box.batch : box.region[run_axis_]->results();
  int64_t panel = 0;
  for (int64_t pixel = 0; pixel < panels.total();) {
    while (pixel >= panels.begin(panel) + panels.width(panel)) ++panel;
    const int64_t p = begin + pixel;
    const int64_t n = p / (e2 * e1 * e0);
    Piece piece;
    piece.panel = panel;
    piece.offset = pixel - panels.begin(panel);
    piece.pixel = pixel;
    piece.at[0] = p / (e2 * e1) % e0;
    piece.at[1] = p / e2 % e1;
    piece.at[2] = p % e2;
    const int64_t along = run_axis_ < 0 ? n : piece.at[run_axis_];
    piece.length = std::min({run - along, panels.present(panel) - piece.offset});
    piece.src = n * src_.batch;
    piece.dst = n * dst_.batch;
    for (int a = 0; a < kAxes; ++a) {
      const AxisTaps& taps = *box.taps[a];
      piece.at[a] += box.region[a]->begin;
      piece.src += (taps.src_begin + piece.at[a] * taps.src_step) * src_.axis[a];
      piece.dst += (taps.dst_begin + piece.at[a] * taps.dst_step) * dst_.axis[a];
    }
    pieces.push_back(piece);
    pixel += piece.length;
  }
}

Range PixelBlock::inside(const Piece& piece, const int64_t (&tap)[kAxes]) const {
  Range part{0, piece.length};
  if (all_inside) return part;
  for (int a = 0; a < kAxes; ++a) {
    const bool along_run = a == run_axis_;
    const Range here{piece.at[a], piece.at[a] + (along_run ? piece.length : 1)};
    const Range valid = valid_results(*box.taps[a], tap[a], here);
    if (valid.begin >= valid.end) return {0, 0};
    if (along_run) part = {valid.begin - here.begin, valid.end - here.begin};
  }
  return part;
}

int64_t PixelBlock::src_tap_offset(const int64_t (&tap)[kAxes]) const {
  int64_t offset = 0;
  for (int a = 0; a < kAxes; ++a) offset += tap[a] * box.taps[a]->src_tap_step * src_.axis[a];
  return offset;
}

}  // namespace mxd::cpu
