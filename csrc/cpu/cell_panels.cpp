#include "cpu/cell_panels.h"

#include <algorithm>
#include <cstring>

#include "cpu/kernels.h"

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
  band_ = set.band();
  const Panels panels = panels_of(kernels_, as_cols, band_);
  padded_band_ = panels.padded_total();
  channel_offset_.resize(size_t(set.channels));
  for (int64_t c = 0; c < set.channels; ++c) channel_offset_[size_t(c)] = c * view_.channel;
  panels_.clear();
  pieces_.clear();
  groups_.clear();
  offsets_.clear();
  offsets_.reserve(size_t(set.count()));
  any_gaps_ = false;
  width_ = 0;
  for (int64_t first = 0; first < set.count(); first += band_) {
    for (int64_t p = 0; p < panels.count(); ++p) {
      Panel panel{
          width_, panels.width(p), panels.present(p), pieces_.size(), 0, groups_.size(), 0, {},
          false};
      add_pieces(panel, first + panels.begin(p), first + panels.begin(p) + panel.present);
      panel.last_piece = pieces_.size();
      group_runs(panel);
      panel.last_group = groups_.size();
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
  return {phase_cells(axis, phases.end - 1).begin, phase_cells(axis, phases.begin).end};
}

int64_t CellPanels::entry_offset(const int64_t (&phase)[kAxes], int64_t channel) const {
  int64_t offset = channel * view_.channel;
  for (int a = 0; a < kAxes; ++a) {
    offset += (phase[a] - set_.phases[a].begin) * axis_[a].dilate * view_.axis[a];
  }
  return offset;
}

// Lists the entries of a panel as runs that are contiguous in memory, as many of one length as
// follow each other together.
void CellPanels::group_runs(const Panel& panel) {
  const bool channels_contiguous = view_.channel == 1;
  const bool phases_contiguous = axis_[2].dilate * view_.axis[2] == 1;
  for (size_t i = panel.first_piece; i < panel.last_piece; ++i) {
    const Piece& piece = pieces_[i];
    int64_t phase[kAxes] = {piece.phase[0], piece.phase[1], piece.phase[2]};
    int64_t length = piece.run;
    if (piece.run == 1 && channels_contiguous) length = piece.channels;
    if (piece.run > 1 && !phases_contiguous) length = 1;
    for (int64_t e = 0; e < piece.channels * piece.run; e += length) {
      phase[2] = piece.phase[2] + e % piece.run;
      const int64_t place = piece.place + e;
      const bool first = groups_.size() == panel.first_group;
      if (first || groups_.back().length != length) {
        groups_.push_back({place, offsets_.size(), 0, length});
      }
      ++groups_.back().count;
      offsets_.push_back(entry_offset(phase, piece.channel + e / piece.run));
    }
  }
}

bool CellPanels::has_gaps(const Panel& panel) const {
  for (int a = 0; a < kAxes; ++a) {
    const Range first = phase_cells(a, panel.phases[a].begin);
    const Range last = phase_cells(a, panel.phases[a].end - 1);
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

// The cells of a block in which every entry of the panel has its pixel.
CellPanels::Cells CellPanels::whole_cells(const Panel& panel, const CellBlock& block) const {
  Cells whole;
  for (int a = 0; a < kAxes; ++a) {
    const Range phases = panel.phases[a];
    whole.axis[a] = intersect(
        block.cells[a], {phase_cells(a, phases.begin).begin, phase_cells(a, phases.end - 1).end});
    if (whole.axis[a].begin == whole.axis[a].end) whole.empty = true;
  }
  return whole;
}

void CellPanels::pack(const CellBlock& block, void* dst) const {
  for (const Panel& panel : panels_) {
    pack_panel(panel, block, static_cast<char*>(dst) + offset(panel) * kernels_.acc_bytes);
  }
}

void CellPanels::pack_panel(const Panel& panel, const CellBlock& block, void* dst) const {
  const Target target{&block, panel.width, static_cast<char*>(dst)};
  const Cells whole = whole_cells(panel, block);
  if (!whole.empty) pack_whole(panel, whole, target);
  if (panel.gaps) pack_border(panel, whole, target);
}

void CellPanels::pack_whole(const Panel& panel, const Cells& whole, const Target& target) const {
  for (size_t g = panel.first_group; g < panel.last_group; ++g) {
    const RunGroup& group = groups_[g];
    const Runs runs{offsets_.data() + group.first_offset, group.count, group.length, group.length};
    pack_cells(whole, group.place, 0, runs, target);
  }
}

// Packs runs of entries, given by their offsets from that of the first phases and channel, for some
// cells.
void CellPanels::pack_cells(const Cells& cells, int64_t place, int64_t offset, const Runs& runs,
                            const Target& target) const {
  const CellBlock& block = *target.block;
  int64_t images = block.images();
  int64_t dst_step = images * target.width;
  int64_t src_step = axis_[2].stride * view_.axis[2];
  Range lines = cells.axis[1];
  int64_t length = cells.axis[2].end - cells.axis[2].begin;
  if (block.steps() == images) {  // one cell an image: the images are the line
    length = images;
    images = 1;
    dst_step = target.width;
    src_step = view_.batch;
  } else if (length == block.size(2) && axis_[1].stride * view_.axis[1] == length * src_step) {
    length *= lines.end - lines.begin;  // the lines follow each other on both sides
    lines.end = lines.begin + 1;
  }
  for (int64_t n = 0; n < images; ++n) {
    for (int64_t c0 = cells.axis[0].begin; c0 < cells.axis[0].end; ++c0) {
      for (int64_t c1 = lines.begin; c1 < lines.end; ++c1) {
        const int64_t c2 = cells.axis[2].begin;
        const int64_t src = offset + (block.batch.begin + n) * view_.batch +
                            set_.channel_begin * view_.channel +
                            axis_[0].pixel(c0, set_.phases[0].begin) * view_.axis[0] +
                            axis_[1].pixel(c1, set_.phases[1].begin) * view_.axis[1] +
                            axis_[2].pixel(c2, set_.phases[2].begin) * view_.axis[2];
        const int64_t at = (block.step(c0, c1, c2) + n) * target.width + place;
        kernels_.outer.pack(target.memory + at * kernels_.acc_bytes, dst_step,
                            static_cast<const char*>(view_.data) + src * kernels_.elem_bytes,
                            src_step, runs, length);
      }
    }
  }
}

// The other cells of the block: 0 for entries that have no pixel there.
void CellPanels::pack_border(const Panel& panel, const Cells& whole, const Target& target) const {
  const Range* all = target.block->cells;
  const auto pack = [&](Range c0, Range c1, Range c2) {
    if (c0.begin < c0.end && c1.begin < c1.end && c2.begin < c2.end) {
      pack_partial(panel, {{c0, c1, c2}, false}, target);
    }
  };
  if (whole.empty) return pack(all[0], all[1], all[2]);
  const Range* in = whole.axis;
  pack({all[0].begin, in[0].begin}, all[1], all[2]);
  pack({in[0].end, all[0].end}, all[1], all[2]);
  pack(in[0], {all[1].begin, in[1].begin}, all[2]);
  pack(in[0], {in[1].end, all[1].end}, all[2]);
  pack(in[0], in[1], {all[2].begin, in[2].begin});
  pack(in[0], in[1], {in[2].end, all[2].end});
}

void CellPanels::pack_partial(const Panel& panel, const Cells& cells, const Target& target) const {
  const CellBlock& block = *target.block;
  const int64_t length = (cells.axis[2].end - cells.axis[2].begin) * block.images();
  for (int64_t c0 = cells.axis[0].begin; c0 < cells.axis[0].end; ++c0) {
    for (int64_t c1 = cells.axis[1].begin; c1 < cells.axis[1].end; ++c1) {
      const int64_t at = block.step(c0, c1, cells.axis[2].begin) * target.width;
      std::memset(target.memory + at * kernels_.acc_bytes, 0,
                  size_t(length * target.width * kernels_.acc_bytes));
    }
  }
  for (size_t i = panel.first_piece; i < panel.last_piece; ++i) {
    const Piece& piece = pieces_[i];
    // Where it has some of its phases of the last axis, and where all of them.
    Cells some = cells;
    for (int a = 0; a < 2; ++a) {
      some.axis[a] = intersect(cells.axis[a], phase_cells(a, piece.phase[a]));
      if (some.axis[a].begin == some.axis[a].end) some.empty = true;
    }
    if (some.empty) continue;
    const Range all = intersect(
        cells.axis[2],
        {phase_cells(2, piece.phase[2]).begin, phase_cells(2, piece.phase[2] + piece.run - 1).end});
    pack_phases(piece, 0, piece.run, {{some.axis[0], some.axis[1], all}, false}, target);
    if (piece.run == 1) continue;
    for (const Range& edge :
         {Range{cells.axis[2].begin, all.begin}, {all.end, cells.axis[2].end}}) {
      for (int64_t r = 0; r < piece.run; ++r) {
        some.axis[2] = intersect(edge, phase_cells(2, piece.phase[2] + r));
        pack_phases(piece, r, 1, some, target);
      }
    }
  }
}

// Packs some phases of the last axis of a piece, from its phase `first` on.
void CellPanels::pack_phases(const Piece& piece, int64_t first, int64_t count, const Cells& cells,
                             const Target& target) const {
  if (cells.axis[2].begin >= cells.axis[2].end) return;
  const int64_t phase_step = axis_[2].dilate * view_.axis[2];
  if (count > 1 && phase_step != 1) {
    for (int64_t r = 0; r < count; ++r) pack_phases(piece, first + r, 1, cells, target);
    return;
  }
  const int64_t phase[kAxes] = {piece.phase[0], piece.phase[1], piece.phase[2] + first};
  pack_cells(cells, piece.place + first, entry_offset(phase, piece.channel),
             {channel_offset_.data(), piece.channels, count, piece.run}, target);
}

}  // namespace mxd::cpu
