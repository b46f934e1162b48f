// Panels of an image of cells: the entries (phase, channel) of every cell of a block, packed as the
// gemm primitive reads them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/tap_plan.h"
#include "core/tensor_view.h"
#include "cpu/kernels.h"
#include "cpu/panels.h"

namespace mxd::cpu {

// One axis of an image of cells: cell c holds, for each of its phases, the pixel
//     c * stride - pad + phase * dilate
// if there is one. A plain image has cells of one phase, its pixels.
struct CellAxis {
  int64_t size = 1;  // pixels
  int64_t stride = 1, pad = 0, dilate = 1;

  int64_t pixel(int64_t cell, int64_t phase) const { return cell * stride - pad + phase * dilate; }
  // The cells that have a pixel of this phase. Neither end grows with the phase.
  Range cells_with(int64_t phase) const;
};

// What varies fastest among the entries of a cell: phases of the innermost axis or channels. The
// phases of the two outer axes vary slowest.
enum class Innermost { kPhases, kChannels };

// Some channels of some phases of an image.
struct EntrySet {
  int64_t channel_begin = 0;  // in the tensor
  int64_t channels = 1;
  Range phases[kAxes];
  Innermost innermost = Innermost::kChannels;
  int64_t axes_apart = 0;  // no panel spans phases of different index on the first so many axes

  int64_t phase_count(int axis) const { return phases[axis].end - phases[axis].begin; }
  int64_t count() const { return channels * phase_count(0) * phase_count(1) * phase_count(2); }
  int64_t band() const;  // entries that share panels
  // Places within a band from a channel, or a phase of the innermost axis, to the next.
  int64_t channel_step() const { return innermost == Innermost::kPhases ? phase_count(2) : 1; }
  int64_t phase_step() const { return innermost == Innermost::kPhases ? 1 : channels; }
};

// A box of cells of some images of the batch. Within a panel the batch is innermost, so that few
// long stretches of cells pair up even where the images are tiny.
struct CellBlock {
  Range batch;
  Range cells[kAxes];

  int64_t images() const { return batch.end - batch.begin; }
  int64_t size(int axis) const { return cells[axis].end - cells[axis].begin; }
  int64_t steps() const { return images() * size(0) * size(1) * size(2); }
  // The step of a cell in the first image.
  int64_t step(int64_t c0, int64_t c1, int64_t c2) const {
    return (((c0 - cells[0].begin) * size(1) + c1 - cells[1].begin) * size(2) + c2 -
            cells[2].begin) *
           images();
  }
};

class CellPanels {
 public:
  // Entries that lie next to each other in a panel: `run` phases of the innermost axis for each of
  // some channels, or the channels of one phase.
  struct Piece {
    int64_t place;         // of the first, in the panel
    int64_t phase[kAxes];  // of the first
    int64_t channel;       // the first, within the set
    int64_t channels, run;
  };
  struct Panel {
    int64_t begin;  // place of its first entry among all
    int64_t width, present;
    size_t first_piece, last_piece;
    size_t first_group, last_group;
    Range phases[kAxes];  // that its entries span
    bool gaps;            // some of its entries have no pixel in a cell where others have one
  };

  CellPanels(const Kernels& kernels, const TensorView& view, const CellAxis (&axis)[kAxes]);

  // `steps` is the most that a block will have.
  void arrange(const EntrySet& set, bool as_cols, int64_t steps);

  // Packs all entries of a block, or those of a panel. Where an entry has no pixel, a panel with
  // gaps holds 0; other panels are not written there.
  void pack(const CellBlock& block, void* dst) const;
  void pack_panel(const Panel& panel, const CellBlock& block, void* dst) const;

  const std::vector<Panel>& panels() const { return panels_; }
  const std::vector<Piece>& pieces() const { return pieces_; }
  const EntrySet& set() const { return set_; }
  bool any_gaps() const { return any_gaps_; }
  int64_t width() const { return width_; }  // of all panels together
  // Where a panel lies in the packed memory, in elements.
  int64_t offset(const Panel& panel) const { return panel.begin * steps_; }
  // The place of an entry among all.
  int64_t place(const int64_t (&phase)[kAxes], int64_t channel) const;
  // The cells that have a pixel of any of the phases.
  Range cells_with(int axis, Range phases) const;

 private:
  // Entries of a panel that one call packs: runs of one length, contiguous in memory.
  struct RunGroup {
    int64_t place;  // in the panel
    size_t first_offset;
    int64_t count, length;
  };
  struct Cells {
    Range axis[kAxes];
    bool empty = false;
  };
  // A panel's memory.
  struct Target {
    const CellBlock* block;
    int64_t width;
    char* memory;
  };

  void add_pieces(Panel& panel, int64_t begin, int64_t end);
  void group_runs(const Panel& panel);
  bool has_gaps(const Panel& panel) const;
  Range phase_cells(int axis, int64_t phase) const {
    return cells_[axis][size_t(phase - set_.phases[axis].begin)];
  }
  // Of an entry's pixel in a cell, from that of the first phases and channel.
  int64_t entry_offset(const int64_t (&phase)[kAxes], int64_t channel) const;
  Cells whole_cells(const Panel& panel, const CellBlock& block) const;
  void pack_whole(const Panel& panel, const Cells& whole, const Target& target) const;
  void pack_border(const Panel& panel, const Cells& whole, const Target& target) const;
  void pack_partial(const Panel& panel, const Cells& cells, const Target& target) const;
  void pack_phases(const Piece& piece, int64_t first, int64_t count, const Cells& cells,
                   const Target& target) const;
  void pack_cells(const Cells& cells, int64_t place, int64_t offset, const Runs& runs,
                  const Target& target) const;

  const Kernels& kernels_;
  const TensorView& view_;
  const CellAxis* axis_;
  EntrySet set_;
  int64_t band_ = 1, padded_band_ = 1, width_ = 0, steps_ = 0;
  bool any_gaps_ = false;
  std::vector<Panel> panels_;
  std::vector<Piece> pieces_;
  std::vector<RunGroup> groups_;
  std::vector<int64_t> offsets_, channel_offset_;
  std::vector<Range> cells_[kAxes];  // of each phase of the set
};

// The width of all panels of `set` together.
int64_t padded_entries(const Kernels& kernels, const EntrySet& set, bool as_cols);

}  // namespace mxd::cpu
