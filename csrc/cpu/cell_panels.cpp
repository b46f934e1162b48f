#include "cpu/cell_panels.h"

#include <algorithm>
#include <cstring>

namespace mxd::cpu {
namespace {

int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0 ? 1 : 0); }  // b > 0

// What b leaves of a; nothing is left at a's beginning.
Range intersect(Range a, Range b) {
  const Range both{std::max(a.begin, b.begin), std::min(a.end, b.end)};
  return both.begin < both.end ? both : Range{a.begin, a.begin};
}

Panels panels_of(const Kernels& kernels, bool as_cols, int64_t entries) {
  return as_cols ? Panels::of_cols(kernels, entries) : Panels::of_rows(kernels, entries);
}

}  // namespace

Range CellAxis::cells_with(int64_t phase) const {
  const int64_t shift = phase * dilate - pad;  // pixel of cell 0
  const int64_t begin = -floor_div(shift, stride);
  return {begin, std::max(begin, floor_div(size - 1 - shift, stride) + 1)};
}

int64_t EntrySet::band() const {
  int64_t entries = channels;
  for (int a = int(axes_apart); a < kAxes; ++a) entries *= phase_count(a);
  return entries;
}

int64_t padded_entries(const Kernels& kernels, const EntrySet& set, bool as_cols) {
  return panels_of(kernels, as_cols, set.band()).padded_total() * (set.count() / set.band());
}

CellPanels::CellPanels(const Kernels& kernels, const TensorView& view,
                       const CellAxis (&axis)[kAxes])
    : kernels_(kernels), view_(view), axis_(axis) {}

void CellPanels::arrange(const EntrySet& set, bool as_cols, int64_t steps) {
  set_ = set;
  steps_ = steps;
  for (int a = 0; a < kAxes; ++a) {
    cells_[a].clear();
    for (int64_t p = set.phases[a].begin; p < set.phases[a].end; ++p) {
      cells_[a].push_back(axis_[a].cells_with(p));
    }
  }
  channel_offset_.resize(size_t(set.channels));
  for (int64_t c = 0; c < set.channels; ++c) channel_offset_[size_t(c)] = c * view_.channel;
  band_ = set.band();
  const Panels panels = panels_of(kernels_, as_cols, band_);
  padded_band_ = panels.padded_total();
  panels_.clear();
  pieces_.clear();
  any_gaps_ = false;
  width_ = 0;
  for (int64_t first = 0; first < set.count(); first += band_) {
    for (int64_t p = 0; p < panels.count(); ++p) {
      Panel panel{width_, panels.width(p), panels.present(p), pieces_.size(), 0, {}, false};
      add_pieces(panel, first + panels.begin(p), first + panels.begin(p) + panel.present);
      panel.last_piece = pieces_.size();
      panel.gaps = has_gaps(panel);
      any_gaps_ |= panel.gaps;
      panels_.push_back(panel);
      width_ += panel.width;
    }
  }
}

// Cuts the entries [begin, end) where the phase of an outer axis changes, and those of one such
// phase into whole runs with the rest before and after them.
void CellPanels::add_pieces(Panel& panel, int64_t begin, int64_t end) {
  const bool phases_innermost = set_.innermost == Innermost::kPhases;
  const int64_t run = phases_innermost ? set_.phase_count(2) : 1;
  const int64_t alike = phases_innermost ? set_.channels * run : set_.channels;
  for (int a = 0; a < kAxes; ++a) panel.phases[a] = {set_.phases[a].end, set_.phases[a].begin};
  for (int64_t entry = begin; entry < end;) {
    int64_t outer = entry / alike;
    const int64_t within = entry % alike;
    int64_t length = std::min(end - entry, alike - within);
    Piece piece{entry - begin, {}, within / run, 0, run};
    if (within % run != 0 || length < run) {
      length = std::min(length, run - within % run);
      piece.run = length;
      piece.channels = 1;
    } else {
      length -= length % run;
      piece.channels = length / run;
    }
    piece.phase[2] = set_.phases[2].begin;
    if (phases_innermost) {
      piece.phase[2] += within % run;
    } else {
      piece.phase[2] += outer % set_.phase_count(2);
      outer /= set_.phase_count(2);
    }
    piece.phase[1] = set_.phases[1].begin + outer % set_.phase_count(1);
    piece.phase[0] = set_.phases[0].begin + outer / set_.phase_count(1);
    for (int a = 0; a < kAxes; ++a) {
      const int64_t last = piece.phase[a] + (a == 2 ? piece.run : 1);
      panel.phases[a].begin = std::min(panel.phases[a].begin, piece.phase[a]);
      panel.phases[a].end = std::max(panel.phases[a].end, last);
    }
    pieces_.push_back(piece);
    entry += length;
  }
}

Range CellPanels::cells_with(int axis, Range phases) const {
  const int64_t base = set_.phases[axis].begin;
  return {cells_[axis][size_t(phases.end - 1 - base)].begin,
          cells_[axis][size_t(phases.begin - base)].end};
}

bool CellPanels::has_gaps(const Panel& panel) const {
  for (int a = 0; a < kAxes; ++a) {
    const Range first = cells_[a][size_t(panel.phases[a].begin - set_.phases[a].begin)];
    const Range last = cells_[a][size_t(panel.phases[a].end - 1 - set_.phases[a].begin)];
    if (first.begin != last.begin || first.end != last.end) return true;
  }
  return false;
}

int64_t CellPanels::place(const int64_t (&phase)[kAxes], int64_t channel) const {
  int64_t outer = 0;
  for (int a = 0; a < 2; ++a) {
    outer = outer * set_.phase_count(a) + phase[a] - set_.phases[a].begin;
  }
  const int64_t p2 = phase[2] - set_.phases[2].begin;
  const int64_t entry = outer * set_.channels * set_.phase_count(2) + p2 * set_.phase_step() +
                        channel * set_.channel_step();
  return entry / band_ * padded_band_ + entry % band_;
}

// Cells of a row of one image: c0, c1 and [cells.begin, cells.end).
struct CellPanels::Line {
  int64_t c0, c1;
  Range cells;
  int64_t offset;  // of the image and the first channel, in elements
  int64_t images;
};

// The cells of the line in which the piece has all its pixels.
Range CellPanels::whole_cells(const Piece& piece, const Line& line) const {
  const int64_t cell[] = {line.c0, line.c1};
  for (int a = 0; a < 2; ++a) {
    const int64_t pixel = axis_[a].pixel(cell[a], piece.phase[a]);
    if (pixel < 0 || pixel >= axis_[a].size) return {line.cells.begin, line.cells.begin};
  }
  const size_t p2 = size_t(piece.phase[2] - set_.phases[2].begin);
  return intersect(line.cells,
                   {cells_[2][p2].begin, cells_[2][p2 + size_t(piece.run) - 1].end});
}

void CellPanels::pack_line(const Panel& panel, const Line& line, char* dst) const {
  const int64_t dst_step = line.images * panel.width;
  const auto at = [&](int64_t cell) {
    return dst + (cell - line.cells.begin) * dst_step * kernels_.acc_bytes;
  };
  Range whole = line.cells;
  for (size_t i = panel.first_piece; i < panel.last_piece; ++i) {
    whole = intersect(whole, whole_cells(pieces_[i], line));
  }
  if (panel.gaps) {
    const auto clear = [&](Range cells) {
      for (int64_t c = cells.begin; c < cells.end; ++c) {
        std::memset(at(c), 0, size_t(panel.width * kernels_.acc_bytes));
      }
    };
    clear({line.cells.begin, whole.begin});
    clear({whole.end, line.cells.end});
  }
  const int64_t src_step = axis_[2].stride * view_.axis[2];
  for (size_t i = panel.first_piece; i < panel.last_piece; ++i) {
    const Piece& piece = pieces_[i];
    const int64_t base = line.offset + piece.channel * view_.channel +
                         axis_[0].pixel(line.c0, piece.phase[0]) * view_.axis[0] +
                         axis_[1].pixel(line.c1, piece.phase[1]) * view_.axis[1];
    const auto copy = [&](Range cells, int64_t phase, int64_t run) {
      Runs runs{channel_offset_.data(), piece.channels, run, piece.run};
      if (piece.run == 1 && view_.channel == 1) runs = {channel_offset_.data(), 1, piece.channels,
                                                        piece.channels};
      const int64_t src = base + axis_[2].pixel(cells.begin, phase) * view_.axis[2];
      kernels_.regroup.pack(
          at(cells.begin) + (piece.place + phase - piece.phase[2]) * kernels_.acc_bytes, dst_step,
          static_cast<const char*>(view_.data) + src * kernels_.elem_bytes, src_step, runs,
          cells.end - cells.begin);
    };
    const Range mine = whole_cells(piece, line);
    if (mine.begin < mine.end) copy(mine, piece.phase[2], piece.run);
    if (piece.run == 1) continue;
    // The cells at the border, which have some of the run's pixels.
    const auto copy_border = [&](Range cells) {
      for (int64_t c = cells.begin; c < cells.end; ++c) {
        Range run{piece.phase[2], piece.phase[2] + piece.run};
        while (run.begin < run.end && axis_[2].pixel(c, run.begin) < 0) ++run.begin;
        while (run.begin < run.end && axis_[2].pixel(c, run.end - 1) >= axis_[2].size) --run.end;
        if (run.begin < run.end) copy({c, c + 1}, run.begin, run.end - run.begin);
      }
    };
    const int64_t pixel0 = axis_[0].pixel(line.c0, piece.phase[0]);
    const int64_t pixel1 = axis_[1].pixel(line.c1, piece.phase[1]);
    if (pixel0 < 0 || pixel0 >= axis_[0].size || pixel1 < 0 || pixel1 >= axis_[1].size) continue;
    copy_border({line.cells.begin, mine.begin});
    copy_border({mine.end, line.cells.end});
  }
}

void CellPanels::pack(const CellBlock& block, void* dst) const {
  for (const Panel& panel : panels_) {
    char* base = static_cast<char*>(dst) + offset(panel) * kernels_.acc_bytes;
    for (int64_t n = 0; n < block.images(); ++n) {
      const int64_t offset =
          (block.batch.begin + n) * view_.batch + set_.channel_begin * view_.channel;
      for (int64_t c0 = block.cells[0].begin; c0 < block.cells[0].end; ++c0) {
        for (int64_t c1 = block.cells[1].begin; c1 < block.cells[1].end; ++c1) {
          const int64_t step = block.step(c0, c1, block.cells[2].begin) + n;
          pack_line(panel, {c0, c1, block.cells[2], offset, block.images()},
                    base + step * panel.width * kernels_.acc_bytes);
        }
      }
    }
  }
}

}  // namespace mxd::cpu
