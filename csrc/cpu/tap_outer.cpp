#include "cpu/tap_outer.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/cell_panels.h"
#include "cpu/fill.h"
#include "cpu/outer_plan.h"
#include "cpu/scratch.h"
#include "cpu/weight_store.h"

namespace mxd::cpu {
namespace {

// Room for the segments of so many rows is asked for at once; more is found when it is needed.
constexpr int64_t kFewRows = 8;

template <class Acc>
class Worker {
 public:
  explicit Worker(const OuterPlan& plan)
      : plan_(plan),
        kernels_(plan.kernels),
        scratch_(scratch_bytes(plan)),
        data_(scratch_.take<Acc>(plan.data_elements)),
        out_(scratch_.take<Acc>(plan.out_elements)),
        numbers_(scratch_.take<Acc>(plan.number_elements)),
        corner_(scratch_.take<Acc>(kernels_.max_rows * kernels_.cols)),
        data_panels_(kernels_, plan.problem.data, plan.data_axis),
        out_panels_(kernels_, plan.problem.out, plan.out_axis) {}

  static int64_t scratch_bytes(const OuterPlan& plan) {
    const int64_t acc = int64_t(sizeof(Acc));
    return align_up(plan.data_elements * acc) + align_up(plan.out_elements * acc) +
           align_up(plan.number_elements * acc) +
           align_up(plan.kernels.max_rows * plan.kernels.cols * acc);
  }

  // Sums one split of a tile into `sum`.
  void sum_tile(int64_t index, int64_t split, Acc* sum) {
    locate(index);
    const int64_t first = plan_.blocks * split / plan_.splits;
    const int64_t last = plan_.blocks * (split + 1) / plan_.splits;
    const auto finite = [&] { return all_finite(sum, tile_.step_count() * rows() * cols()); };
    in_pairs_ = plan_.pairs != nullptr;
    if (in_pairs_) {
      for (int64_t b = first; b < last; ++b) add_pairs(plan_.data_block(b), sum, b > first);
      if (finite()) return;  // else a zero may have met an Inf
      in_pairs_ = false;
    }
    clear_padding(data_panels_, plan_.data_steps, data_);
    clear_padding(out_panels_, plan_.out_steps, out_);
    for (int64_t b = first; b < last; ++b) add_block(plan_.data_block(b), false, sum, b > first);
    // A gap is a zero in out, which an Inf in data turns into a NaN.
    if (!out_panels_.any_gaps() || finite()) return;
    for (int64_t b = first; b < last; ++b) add_block(plan_.data_block(b), true, sum, b > first);
  }

  void store_tile(int64_t index, const Acc* sum) {
    locate(index);
    store_weight_tile(plan_, tile_, out_panels_, data_panels_.width(), sum);
  }

 private:
  // Inputs of a block that meet a cell with a pixel of some of a panel's entries, at one step j.
  struct Meeting {
    Range inputs[kAxes];
    bool listed = false;
    std::vector<Segment> segments;
  };

  void locate(int64_t index) {
    if (index == located_) return;
    located_ = index;
    tile_ = plan_.tile(index);
    data_panels_.arrange(plan_.data_entries(tile_), !plan_.lanes_are_entries, plan_.data_steps);
    out_panels_.arrange(plan_.out_entries(tile_), plan_.lanes_are_entries, plan_.out_steps);
    meetings_.resize(size_t(tile_.step_count()));
  }

  // What packing leaves alone, beside the last entries, must not slow down the arithmetic.
  static void clear_padding(const CellPanels& panels, int64_t steps, Acc* memory) {
    for (const CellPanels::Panel& panel : panels.panels()) {
      if (panel.present == panel.width) continue;
      std::memset(memory + panels.offset(panel), 0, size_t(panel.width * steps) * sizeof(Acc));
    }
  }

  // Adds the products of a block; of data that is not finite, if `careful`, only those that the
  // direct sum has.
  void add_block(const CellBlock& data, bool careful, Acc* sum, bool accumulate) {
    const CellBlock out = plan_.out_block(tile_, data);
    data_panels_.pack(data, data_);
    if (out.steps() > 0) out_panels_.pack(out, out_);
    for (Meeting& meeting : meetings_) meeting.listed = false;
    const bool exact = careful && !data_finite(data);
    for (const CellPanels::Panel& panel : out_panels_.panels()) {
      if (exact && panel.gaps) {
        add_exactly(data, out, panel, sum, accumulate);
      } else {
        find_meetings(data, out, panel.phases);
        add_panel(panel, sum, accumulate);
      }
    }
  }

  // The same in pairs, zeros at the ends of the rows.
  void add_pairs(const CellBlock& data, Acc* sum, bool accumulate) {
    const CellBlock out = plan_.out_block(tile_, data);
    const PairRows rows = plan_.data_rows(data);
    for (const CellPanels::Panel& panel : data_panels_.panels()) {
      Acc* dst = data_ + panel.begin * plan_.data_pairs;
      pack_pairs(data_panels_, panel, data, data.cells[2].begin, rows, false, dst);
      if (!rows.both_parities) continue;
      dst += rows.rows * rows.pairs * panel.width;
      pack_pairs(data_panels_, panel, data, data.cells[2].begin, rows, true, dst);
    }
    const int64_t first_cell = data.cells[2].begin + plan_.axis[2].reach * tile_.steps[2].begin;
    for (const CellPanels::Panel& panel : out_panels_.panels()) {
      if (out.steps() == 0) break;
      pack_pairs(out_panels_, panel, out, first_cell, plan_.out_rows(tile_, data, out), false,
                 out_ + panel.begin * plan_.out_pairs);
    }
    for (Meeting& meeting : meetings_) meeting.listed = false;
    for (const CellPanels::Panel& panel : out_panels_.panels()) {
      find_meetings(data, out, panel.phases);
      add_panel(panel, sum, accumulate);
    }
  }

  // Packs a panel's rows of pairs, which begin at a cell that the block need not have.
  void pack_pairs(const CellPanels& panels, const CellPanels::Panel& panel, const CellBlock& block,
                  int64_t first_cell, const PairRows& rows, bool odd, Acc* dst) {
    const int64_t images = block.images();
    Range cells = block.cells[2];
    if (!panel.gaps) {  // what it lacks has not been written
      const Range with = panels.cells_with(2, panel.phases[2]);
      cells = {std::max(cells.begin, with.begin), std::min(cells.end, with.end)};
      cells.end = std::max(cells.begin, cells.end);
    }
    if (!odd) {
      if (panel.present < panel.width) {
        std::memset(numbers_, 0, size_t(block.steps() * panel.width) * sizeof(Acc));
      }
      panels.pack_panel(panel, block, numbers_);
    }
    const int64_t begin = (cells.begin - first_cell) * images + odd;
    const int64_t end = (cells.end - first_cell) * images + odd;
    const Acc* src = numbers_ + (cells.begin - block.cells[2].begin) * images * panel.width;
    for (int64_t row = 0; row < rows.rows; ++row) {
      plan_.pairs->outer.pair(dst, panel.width, src, begin, end, rows.pairs);
      src += block.size(2) * images * panel.width;
      dst += rows.pairs * panel.width;
    }
  }

  // Lists for every step j which inputs meet the phases.
  void find_meetings(const CellBlock& data, const CellBlock& out, const Range (&phases)[kAxes]) {
    auto meeting = meetings_.begin();
    int64_t j[kAxes];
    for (j[0] = tile_.steps[0].begin; j[0] < tile_.steps[0].end; ++j[0]) {
      for (j[1] = tile_.steps[1].begin; j[1] < tile_.steps[1].end; ++j[1]) {
        for (j[2] = tile_.steps[2].begin; j[2] < tile_.steps[2].end; ++j[2]) {
          meet(data, out, phases, j, *meeting++);
        }
      }
    }
  }

  // Finds which inputs meet the phases at the step: none, if none of these has a tap.
  void meet(const CellBlock& data, const CellBlock& out, const Range (&phases)[kAxes],
            const int64_t (&j)[kAxes], Meeting& meeting) {
    bool same = meeting.listed;
    for (int a = 0; a < kAxes; ++a) {
      const TapAxis& axis = plan_.axis[a];
      const Range with{phases[a].begin, std::min(phases[a].end, axis.phases_with(j[a]))};
      const Range cells = with.begin < with.end ? out_panels_.cells_with(a, with) : Range{};
      const int64_t shift = axis.reach * j[a];
      Range inputs{std::max(cells.begin - shift, data.cells[a].begin),
                   std::min(cells.end - shift, data.cells[a].end)};
      if (in_pairs_ && a == 2 && inputs.begin < inputs.end) inputs = data.cells[2];  // and zeros
      same = same && inputs.begin == meeting.inputs[a].begin && inputs.end == meeting.inputs[a].end;
      meeting.inputs[a] = inputs;
    }
    if (!same) list_segments(data, out, j, meeting);
  }

  void list_segments(const CellBlock& data, const CellBlock& out, const int64_t (&j)[kAxes],
                     Meeting& meeting) {
    meeting.listed = true;
    meeting.segments.clear();
    const Range* in = meeting.inputs;
    if (in[0].begin >= in[0].end || in[1].begin >= in[1].end || in[2].begin >= in[2].end) return;
    int64_t shift[kAxes];
    for (int a = 0; a < kAxes; ++a) shift[a] = plan_.axis[a].reach * j[a];
    const int64_t length = (in[2].end - in[2].begin) * data.images();
    const int64_t rows = (in[0].end - in[0].begin) * (in[1].end - in[1].begin);
    meeting.segments.reserve(size_t(std::min(rows, kFewRows)));
    if (in_pairs_) return list_rows_of_pairs(data, out, j, meeting);
    for (int64_t i0 = in[0].begin; i0 < in[0].end; ++i0) {
      for (int64_t i1 = in[1].begin; i1 < in[1].end; ++i1) {
        const int64_t data_k = data.step(i0, i1, in[2].begin);
        const int64_t out_k = out.step(i0 + shift[0], i1 + shift[1], in[2].begin + shift[2]);
        append(plan_.lanes_are_entries ? Segment{data_k, out_k, 0, length}
                                       : Segment{out_k, data_k, 0, length},
               meeting.segments);
      }
    }
  }

  void list_rows_of_pairs(const CellBlock& data, const CellBlock& out, const int64_t (&j)[kAxes],
                          Meeting& meeting) {
    const PairRows data_rows = plan_.data_rows(data);
    const int64_t out_pairs = plan_.out_rows(tile_, data, out).pairs;
    const int64_t shift = plan_.axis[2].reach * (j[2] - tile_.steps[2].begin) * data.images();
    const bool odd = shift % 2 == 1;
    const int64_t length = data_rows.pairs_of(odd);
    const auto row_of = [](const CellBlock& block, int64_t c0, int64_t c1) {
      return (c0 - block.cells[0].begin) * block.size(1) + c1 - block.cells[1].begin;
    };
    for (int64_t i0 = meeting.inputs[0].begin; i0 < meeting.inputs[0].end; ++i0) {
      for (int64_t i1 = meeting.inputs[1].begin; i1 < meeting.inputs[1].end; ++i1) {
        const int64_t data_row = row_of(data, i0, i1) + (odd ? data_rows.rows : 0);
        const int64_t out_row =
            row_of(out, i0 + plan_.axis[0].reach * j[0], i1 + plan_.axis[1].reach * j[1]);
        const int64_t data_k = data_row * data_rows.pairs;
        const int64_t out_k = out_row * out_pairs + shift / 2;
        append(plan_.lanes_are_entries ? Segment{data_k, out_k, 0, length}
                                       : Segment{out_k, data_k, 0, length},
               meeting.segments);
      }
    }
  }

  static void append(const Segment& segment, std::vector<Segment>& segments) {
    if (!segments.empty()) {
      Segment& last = segments.back();
      if (last.row_k + last.length == segment.row_k && last.col_k + last.length == segment.col_k) {
        last.length += segment.length;
        return;
      }
    }
    segments.push_back(segment);
  }

  // The rows and columns of the tile at step j.
  int64_t rows() const {
    return plan_.lanes_are_entries ? data_panels_.width() : out_panels_.width();
  }
  int64_t cols() const {
    return plan_.lanes_are_entries ? out_panels_.width() : data_panels_.width();
  }

  void multiply(const CellPanels::Panel& data, const CellPanels::Panel& out,
                const std::vector<Segment>& segments, Acc* dst, int64_t stride, bool accumulate) {
    const bool entries = plan_.lanes_are_entries;
    const Acc* data_panel =
        data_ + (in_pairs_ ? data.begin * plan_.data_pairs : data_panels_.offset(data));
    const Acc* out_panel =
        out_ + (in_pairs_ ? out.begin * plan_.out_pairs : out_panels_.offset(out));
    const Kernels& kernels = in_pairs_ ? *plan_.pairs : kernels_;
    kernels.gemm(int(entries ? data.width : out.width), int(entries ? out.width : data.width),
                 entries ? data_panel : out_panel, entries ? out_panel : data_panel,
                 entries ? out.width : data.width, segments.data(), int64_t(segments.size()), dst,
                 stride, accumulate);
  }

  Acc* corner_of(const CellPanels::Panel& data, const CellPanels::Panel& out, int64_t j, Acc* sum) {
    const int64_t row = plan_.lanes_are_entries ? data.begin : out.begin;
    const int64_t col = plan_.lanes_are_entries ? out.begin : data.begin;
    return sum + (j * rows() + row) * cols() + col;
  }

  // All steps of one pair of panels in turn: both stay in the first cache.
  void add_panel(const CellPanels::Panel& out, Acc* sum, bool accumulate) {
    for (const CellPanels::Panel& data : data_panels_.panels()) {
      for (size_t j = 0; j < meetings_.size(); ++j) {
        const std::vector<Segment>& segments = meetings_[j].segments;
        if (accumulate && segments.empty()) continue;
        Acc* corner = corner_of(data, out, int64_t(j), sum);
        if (accumulate) fetch_corner(data, out, corner);
        multiply(data, out, segments, corner, cols(), accumulate);
      }
    }
  }

  // The sums come from a farther cache than the panels: they have the time of the products.
  void fetch_corner(const CellPanels::Panel& data, const CellPanels::Panel& out,
                    const Acc* corner) const {
    const bool entries = plan_.lanes_are_entries;
    const int64_t height = entries ? data.width : out.width;
    const int64_t width = (entries ? out.width : data.width) * int64_t(sizeof(Acc));
    for (int64_t r = 0; r < height; ++r) {
      const char* row = reinterpret_cast<const char*>(corner + r * cols());
      for (int64_t i = 0; i < width; i += kAlignment) __builtin_prefetch(row + i);
    }
  }

  // Phase by phase, over the inputs that meet a pixel of that very phase. The products that are
  // left out would all be zeros, so the sums that stay finite have the same bits.
  void add_exactly(const CellBlock& data, const CellBlock& out, const CellPanels::Panel& panel,
                   Acc* sum, bool accumulate) {
    for (size_t i = panel.first_piece; i < panel.last_piece; ++i) {
      const CellPanels::Piece& piece = out_panels_.pieces()[i];
      for (int64_t r = 0; r < piece.run; ++r) {
        Range phases[kAxes];
        for (int a = 0; a < kAxes; ++a) phases[a] = {piece.phase[a], piece.phase[a] + 1};
        phases[2] = {piece.phase[2] + r, piece.phase[2] + r + 1};
        find_meetings(data, out, phases);
        for (const CellPanels::Panel& channels : data_panels_.panels()) {
          for (size_t j = 0; j < meetings_.size(); ++j) {
            multiply(channels, panel, meetings_[j].segments, corner_, kernels_.cols, false);
            Acc* dst = corner_of(channels, panel, int64_t(j), sum);
            for (int64_t c = 0; c < piece.channels; ++c) {
              add_entry(channels, piece.place + c * piece.run + r, dst, accumulate);
            }
          }
        }
      }
    }
  }

  // Takes one entry's row or column of the corner over into the tile.
  void add_entry(const CellPanels::Panel& channels, int64_t place, Acc* dst, bool accumulate) {
    for (int64_t c = 0; c < channels.width; ++c) {
      const int64_t row = plan_.lanes_are_entries ? c : place;
      const int64_t col = plan_.lanes_are_entries ? place : c;
      const Acc sum = corner_[row * kernels_.cols + col];
      Acc& total = dst[row * cols() + col];
      total = accumulate ? total + sum : sum;
    }
  }

  bool all_finite(const Acc* values, int64_t count) const {
    return kernels_.outer.all_finite(values, count);
  }

  bool data_finite(const CellBlock& data) const {
    for (const CellPanels::Panel& panel : data_panels_.panels()) {
      if (!all_finite(data_ + data_panels_.offset(panel), data.steps() * panel.width)) return false;
    }
    return true;
  }

  const OuterPlan& plan_;
  const Kernels& kernels_;
  Scratch scratch_;
  Acc* data_;
  Acc* out_;
  Acc* numbers_;  // a panel that is to be packed in pairs
  Acc* corner_;
  bool in_pairs_ = false;
  CellPanels data_panels_, out_panels_;
  // The tile at hand.
  int64_t located_ = -1;
  WeightTile tile_;
  std::vector<Meeting> meetings_;  // one for each step j
};

// One worker computes all splits of a tile, one after the other.
template <class Acc>
class WholeTileWorker {
 public:
  explicit WholeTileWorker(const OuterPlan& plan)
      : plan_(plan),
        worker_(plan),
        scratch_((plan.splits > 1 ? 2 : 1) * align_up(plan.tile_elements * int64_t(sizeof(Acc)))),
        total_(scratch_.take<Acc>(plan.tile_elements)),
        part_(plan.splits > 1 ? scratch_.take<Acc>(plan.tile_elements) : nullptr) {}

  void operator()(int64_t tile) {
    worker_.sum_tile(tile, 0, total_);
    for (int64_t split = 1; split < plan_.splits; ++split) {
      worker_.sum_tile(tile, split, part_);
      for (int64_t i = 0; i < plan_.tile_elements; ++i) total_[i] += part_[i];
    }
    worker_.store_tile(tile, total_);
  }

 private:
  const OuterPlan& plan_;
  Worker<Acc> worker_;
  Scratch scratch_;
  Acc* total_;
  Acc* part_;
};

template <class Acc>
void run(const OuterPlan& plan, const Resources& resources) {
  const int64_t stride = align_up(plan.tile_elements * int64_t(sizeof(Acc))) / int64_t(sizeof(Acc));
  const int64_t partial_bytes = plan.tiles * plan.splits * stride * int64_t(sizeof(Acc));
  const int64_t worker_bytes = Worker<Acc>::scratch_bytes(plan);
  const bool fits = partial_bytes + kAlignment + resources.threads->count() * worker_bytes <=
                    resources.workspace_bytes;
  const bool share_tiles = plan.splits > 1 && plan.tiles < resources.threads->count() && fits;
  if (!share_tiles) {
    for_each_job(*resources.threads, plan.tiles, [&plan] { return WholeTileWorker<Acc>(plan); });
    return;
  }
  Scratch scratch(partial_bytes + kAlignment);
  Acc* partial = scratch.take<Acc>(partial_bytes / int64_t(sizeof(Acc)));
  for_each_job(*resources.threads, plan.tiles * plan.splits, [&] {
    return [&, worker = Worker<Acc>(plan)](int64_t job) mutable {
      worker.sum_tile(job / plan.splits, job % plan.splits, partial + job * stride);
    };
  });
  Worker<Acc> worker(plan);
  for (int64_t tile = 0; tile < plan.tiles; ++tile) {
    Acc* total = partial + tile * plan.splits * stride;
    for (int64_t split = 1; split < plan.splits; ++split) {
      const Acc* part = total + split * stride;
      for (int64_t i = 0; i < plan.tile_elements; ++i) total[i] += part[i];
    }
    worker.store_tile(tile, total);
  }
}

}  // namespace

void run_tap_outer(const Problem& problem, Lanes lanes, const Resources& resources) {
  const OuterPlan plan(problem, lanes, resources);
  if (plan.skips_taps()) {
    const Geometry& g = problem.geometry;
    fill_weight_with_zero(plan.kernels, problem.weight, g.groups * g.in_channels, g.out_channels,
                          {g.axis[0].kernel, g.axis[1].kernel, g.axis[2].kernel});
  }
  if (plan.kernels.acc_bytes == 8) {
    run<double>(plan, resources);
  } else {
    run<float>(plan, resources);
  }
}

}  // namespace mxd::cpu
