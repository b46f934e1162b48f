#include "cpu/tap_outer.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "core/tap_plan.h"
#include "cpu/fill.h"
#include "cpu/panels.h"
#include "cpu/scratch.h"

namespace mxd::cpu {
namespace {

// Block sizes, for float32 (float64 halves the channels). A slab of results, the input pixels that
// its taps reach, and the accumulators of a tile of the weight fill most of the 1 MiB scratch
// floor. They are fixed, because the order of summation must depend on the problem alone.
constexpr int64_t kSlabPixels = 256;
constexpr int64_t kReachPixels = 512;
constexpr int64_t kMostTaps = 64;
constexpr int64_t kSlabBytes = int64_t(1) << 18;
constexpr int64_t kReachBytes = int64_t(1) << 18;
constexpr int64_t kTileBytes = int64_t(1) << 17;
constexpr int64_t kWantedJobs = 16;
constexpr int64_t kLeastSlabsPerSplit = 4;

// The results [begin, end) of a phase on one axis and the inputs [first, last) that they meet.
struct Extent {
  int64_t begin, end;
  int64_t first, last;
  int64_t results() const { return end - begin; }
  int64_t inputs() const { return last - first; }
};

// A slab: whole batch entries, or a part of one.
struct Slab {
  int64_t batch_begin, batch_end;
  Extent axis[kAxes];
};

struct Phase {
  const AxisTaps* axis[kAxes];
  int64_t step[kAxes];  // results per slab
  int64_t batch_step;
  int64_t box_taps[kAxes];  // taps per job
  int64_t slabs, boxes;
  int64_t channel_rows, channel_cols;  // channels per job, of the row and of the column operand
  int64_t row_blocks, col_blocks;
  int64_t tiles;  // groups * boxes * row_blocks * col_blocks
  int64_t first_tile;
};

int64_t parts(int64_t total, int64_t step) { return ceil_div(total, step); }

struct Plan {
  Plan(const Problem& p, Lanes l) : problem(p), kernels(kernels_for(p.dtype)), lanes(l) {
    const Geometry& geometry = problem.geometry;
    rows_are_inputs = lanes == Lanes::kOutChannels;
    row_channels = rows_are_inputs ? geometry.in_channels : geometry.out_channels;
    col_channels = rows_are_inputs ? geometry.out_channels : geometry.in_channels;
    for (int a = 0; a < kAxes; ++a) axes[a] = forward_phases(geometry.axis[a]);
    for (const AxisTaps& a0 : axes[0]) {
      for (const AxisTaps& a1 : axes[1]) {
        for (const AxisTaps& a2 : axes[2]) add_phase(a0, a1, a2);
      }
    }
    int64_t slabs = 0;
    for (const Phase& phase : phases) slabs = std::max(slabs, phase.slabs);
    splits = 1;
    if (tiles > 0 && tiles < kWantedJobs) {
      splits =
          std::max<int64_t>(1, std::min(ceil_div(kWantedJobs, tiles), slabs / kLeastSlabsPerSplit));
    }
  }

  void add_phase(const AxisTaps& a0, const AxisTaps& a1, const AxisTaps& a2) {
    Phase phase;
    phase.axis[0] = &a0;
    phase.axis[1] = &a1;
    phase.axis[2] = &a2;
    // The slab grows from the innermost axis outwards; a box takes as many taps as the inputs
    // that they reach together allow.
    int64_t room = kSlabPixels;
    for (int a = kAxes - 1; a >= 0; --a) {
      phase.step[a] = std::max<int64_t>(std::min(phase.axis[a]->dst_count, room), 1);
      room /= phase.step[a];
    }
    phase.batch_step = std::max<int64_t>(std::min(problem.geometry.batch, room), 1);
    int64_t reach = phase.batch_step * phase.step[0] * phase.step[1] * phase.step[2];
    int64_t taps_left = kMostTaps;
    for (int a = kAxes - 1; a >= 0; --a) {
      const int64_t others = reach / phase.step[a];
      const int64_t spread = std::abs(phase.axis[a]->src_tap_step);
      const int64_t spare = kReachPixels / others - phase.step[a];
      const int64_t fitting = 1 + (spread ? spare / spread : taps_left);
      phase.box_taps[a] =
          std::max<int64_t>(std::min({phase.axis[a]->tap_count, fitting, taps_left}), 1);
      taps_left /= phase.box_taps[a];
      reach = others * (phase.step[a] + spread * (phase.box_taps[a] - 1));
    }
    const int64_t taps = phase.box_taps[0] * phase.box_taps[1] * phase.box_taps[2];
    // The tile of the weight: columns first, up to four register tiles, then rows.
    const int64_t row_limit =
        (rows_are_inputs ? kReachBytes / kReachPixels : kSlabBytes / kSlabPixels) /
        kernels.acc_bytes;
    const int64_t col_limit =
        (rows_are_inputs ? kSlabBytes / kSlabPixels : kReachBytes / kReachPixels) /
        kernels.acc_bytes;
    const int64_t tile = kTileBytes / kernels.acc_bytes / taps;
    int64_t cols = std::min<int64_t>(col_limit, 4 * kernels.cols);
    while (cols > kernels.cols && tile / cols < 2 * kernels.max_rows) cols /= 2;
    phase.col_blocks = parts(col_channels, cols);
    phase.channel_cols = ceil_div(col_channels, phase.col_blocks);
    const int64_t padded = ceil_div(phase.channel_cols, kernels.cols) * kernels.cols;
    phase.row_blocks =
        parts(row_channels, std::max<int64_t>(std::min(row_limit, tile / padded), 1));
    phase.channel_rows = ceil_div(row_channels, phase.row_blocks);

    phase.slabs = parts(problem.geometry.batch, phase.batch_step);
    phase.boxes = 1;
    for (int a = 0; a < kAxes; ++a) {
      phase.slabs *= parts(phase.axis[a]->dst_count, phase.step[a]);
      phase.boxes *= parts(phase.axis[a]->tap_count, phase.box_taps[a]);
    }
    phase.tiles = problem.geometry.groups * phase.boxes * phase.row_blocks * phase.col_blocks;
    phase.first_tile = tiles;
    tiles += phase.tiles;
    tile_elements = std::max(tile_elements, taps * phase.channel_rows * padded);
    phases.push_back(phase);
  }

  const Phase& phase_of(int64_t tile) const {
    const auto after = std::upper_bound(
        phases.begin(), phases.end(), tile,
        [](int64_t wanted, const Phase& phase) { return wanted < phase.first_tile; });
    return *(after - 1);
  }

  const Problem& problem;
  const Kernels& kernels;
  const Lanes lanes;
  bool rows_are_inputs;  // the row operand is data, the column operand out; else the reverse
  int64_t row_channels, col_channels;  // per group
  std::vector<AxisTaps> axes[kAxes];
  std::vector<Phase> phases;
  int64_t tiles = 0;
  int64_t tile_elements = 0;
  int64_t splits;  // each tile is summed in this many parts, added in order
};

template <class Acc>
class Worker {
 public:
  explicit Worker(const Plan& plan)
      : plan_(plan),
        kernels_(plan.kernels),
        scratch_(new Scratch(align_up(kReachBytes) + align_up(kSlabBytes))) {
    data_ = scratch_->template take<Acc>(kReachBytes / int64_t(sizeof(Acc)));
    out_ = scratch_->template take<Acc>(kSlabBytes / int64_t(sizeof(Acc)));
  }

  // Sums one split of a tile into `sum`.
  void sum_tile(int64_t tile, int64_t split, Acc* sum) {
    locate(tile);
    const Phase& phase = *phase_;
    std::memset(sum, 0, size_t(plan_.tile_elements) * sizeof(Acc));
    const int64_t first = phase.slabs * split / plan_.splits;
    const int64_t last = phase.slabs * (split + 1) / plan_.splits;
    for (int64_t s = first; s < last; ++s) add_slab(slab(s), sum);
  }

  void store_tile(int64_t tile, const Acc* sum) {
    locate(tile);
    const Geometry& geometry = plan_.problem.geometry;
    const WeightView& weight = plan_.problem.weight;
    const bool inputs = plan_.rows_are_inputs;
    const int64_t in_begin = group_ * geometry.in_channels + (inputs ? row_begin_ : col_begin_);
    const int64_t out_begin = inputs ? col_begin_ : row_begin_;
    const int64_t tile_stride = rows_.total() * cols_.padded_total();
    for_each_tap([&](const int64_t(&tap)[kAxes], int64_t index) {
      int64_t offset = in_begin * weight.in_channel + out_begin * weight.out_channel;
      for (int a = 0; a < kAxes; ++a) {
        offset += (phase_->axis[a]->tap_begin + tap[a] * phase_->axis[a]->tap_step) * weight.tap[a];
      }
      kernels_.store(static_cast<char*>(weight.data) + offset * kernels_.elem_bytes,
                     inputs ? weight.in_channel : weight.out_channel,
                     inputs ? weight.out_channel : weight.in_channel, sum + index * tile_stride,
                     cols_.padded_total(), rows_.total(), cols_.total(), nullptr, 0, 0);
    });
  }

 private:
  void locate(int64_t tile) {
    phase_ = &plan_.phase_of(tile);
    const Phase& phase = *phase_;
    tile -= phase.first_tile;
    const int64_t col = tile % phase.col_blocks;
    const int64_t row = tile / phase.col_blocks % phase.row_blocks;
    int64_t box = tile / phase.col_blocks / phase.row_blocks % phase.boxes;
    group_ = tile / phase.col_blocks / phase.row_blocks / phase.boxes;
    for (int a = kAxes - 1; a >= 0; --a) {
      const int64_t count = parts(phase.axis[a]->tap_count, phase.box_taps[a]);
      taps_[a].begin = box % count * phase.box_taps[a];
      taps_[a].end = std::min(taps_[a].begin + phase.box_taps[a], phase.axis[a]->tap_count);
      box /= count;
    }
    row_begin_ = plan_.row_channels * row / phase.row_blocks;
    col_begin_ = plan_.col_channels * col / phase.col_blocks;
    rows_ =
        Panels::of_rows(kernels_, plan_.row_channels * (row + 1) / phase.row_blocks - row_begin_);
    cols_ =
        Panels::of_cols(kernels_, plan_.col_channels * (col + 1) / phase.col_blocks - col_begin_);
  }

  Slab slab(int64_t index) const {
    const Phase& phase = *phase_;
    Slab slab;
    for (int a = kAxes - 1; a >= 0; --a) {
      const AxisTaps& axis = *phase.axis[a];
      const int64_t count = parts(axis.dst_count, phase.step[a]);
      Extent& extent = slab.axis[a];
      extent.begin = index % count * phase.step[a];
      extent.end = std::min(extent.begin + phase.step[a], axis.dst_count);
      index /= count;
      const int64_t tap0 = taps_[a].begin * axis.src_tap_step;
      const int64_t tap1 = (taps_[a].end - 1) * axis.src_tap_step;
      extent.first = std::max<int64_t>(axis.src_begin + extent.begin + std::min(tap0, tap1), 0);
      extent.last = std::min(axis.src_begin + extent.end + std::max(tap0, tap1), axis.src_size);
      extent.last = std::max(extent.last, extent.first);
    }
    slab.batch_begin = index * phase.batch_step;
    slab.batch_end = std::min(slab.batch_begin + phase.batch_step, plan_.problem.geometry.batch);
    return slab;
  }

  template <class Visit>
  void for_each_tap(const Visit& visit) const {
    int64_t index = 0;
    for (int64_t t0 = taps_[0].begin; t0 < taps_[0].end; ++t0) {
      for (int64_t t1 = taps_[1].begin; t1 < taps_[1].end; ++t1) {
        for (int64_t t2 = taps_[2].begin; t2 < taps_[2].end; ++t2) {
          const int64_t tap[kAxes] = {t0, t1, t2};
          visit(tap, index++);
        }
      }
    }
  }

  void add_slab(const Slab& slab, Acc* sum) {
    const Problem& problem = plan_.problem;
    const Geometry& geometry = problem.geometry;
    int64_t size[kAxes], start[kAxes], step[kAxes];
    for (int a = 0; a < kAxes; ++a) {
      size[a] = slab.axis[a].inputs();
      start[a] = slab.axis[a].first;
      step[a] = 1;
      if (size[a] == 0) return;
    }
    const bool inputs = plan_.rows_are_inputs;
    pack_box(problem.data, slab, start, step, size, geometry.in_channels,
             inputs ? row_begin_ : col_begin_, inputs ? rows_ : cols_, data_);
    const int64_t data_steps = (slab.batch_end - slab.batch_begin) * size[0] * size[1] * size[2];
    for (int a = 0; a < kAxes; ++a) {
      const AxisTaps& axis = *phase_->axis[a];
      size[a] = slab.axis[a].results();
      start[a] = axis.dst_begin + slab.axis[a].begin * axis.dst_step;
      step[a] = axis.dst_step;
    }
    pack_box(problem.out, slab, start, step, size, geometry.out_channels,
             inputs ? col_begin_ : row_begin_, inputs ? cols_ : rows_, out_);
    const int64_t out_steps = (slab.batch_end - slab.batch_begin) * size[0] * size[1] * size[2];

    const Acc* row_base = inputs ? data_ : out_;
    const Acc* col_base = inputs ? out_ : data_;
    const int64_t row_steps = inputs ? data_steps : out_steps;
    const int64_t col_steps = inputs ? out_steps : data_steps;
    const int64_t stride = cols_.padded_total();
    for_each_tap([&](const int64_t(&tap)[kAxes], int64_t index) {
      list_segments(slab, tap);
      if (segments_.empty()) return;
      Acc* tile = sum + index * rows_.total() * stride;
      for (int64_t r = 0; r < rows_.count(); ++r) {
        for (int64_t c = 0; c < cols_.count(); ++c) {
          kernels_.gemm(int(rows_.width(r)), int(cols_.width(c)),
                        row_base + rows_.begin(r) * row_steps,
                        col_base + cols_.begin(c) * col_steps, cols_.width(c), segments_.data(),
                        int64_t(segments_.size()), tile + rows_.begin(r) * stride + cols_.begin(c),
                        stride, true);
        }
      }
    });
  }

  // Packs a box of pixels, channel panel after channel panel, pixels in order within a panel.
  void pack_box(const TensorView& view, const Slab& slab, const int64_t (&start)[kAxes],
                const int64_t (&step)[kAxes], const int64_t (&size)[kAxes], int64_t group_channels,
                int64_t channel_begin, const Panels& panels, Acc* dst) {
    // Lines that follow each other in memory are packed as one.
    int64_t line = size[2];
    int64_t lines1 = size[1];
    const int64_t line_stride = view.axis[2] * step[2];
    if (size[1] > 1 && view.axis[1] * step[1] == line * line_stride) {
      line *= lines1;
      lines1 = 1;
    }
    const int64_t channel0 = group_ * group_channels + channel_begin;
    for (int64_t panel = 0; panel < panels.count(); ++panel) {
      const int64_t width = panels.width(panel);
      const int64_t present = panels.present(panel);
      const int64_t steps = (slab.batch_end - slab.batch_begin) * size[0] * size[1] * size[2];
      if (present < width) std::memset(dst, 0, size_t(steps * width) * sizeof(Acc));
      for (int64_t n = slab.batch_begin; n < slab.batch_end; ++n) {
        for (int64_t i0 = 0; i0 < size[0]; ++i0) {
          for (int64_t i1 = 0; i1 < lines1; ++i1) {
            const int64_t offset =
                n * view.batch + (channel0 + panels.begin(panel)) * view.channel +
                (start[0] + i0 * step[0]) * view.axis[0] +
                (start[1] + i1 * step[1]) * view.axis[1] + start[2] * view.axis[2];
            kernels_.pack(dst, width,
                          static_cast<const char*>(view.data) + offset * kernels_.elem_bytes,
                          present, view.channel, line, line_stride);
            dst += line * width;
          }
        }
      }
    }
  }

  // Pairs the packed pixels of data and out that meet at this tap, line by line.
  void list_segments(const Slab& slab, const int64_t (&tap)[kAxes]) {
    segments_.clear();
    Range valid[kAxes];
    int64_t shift[kAxes];  // from a result's index to its input's
    for (int a = 0; a < kAxes; ++a) {
      const AxisTaps& axis = *phase_->axis[a];
      valid[a] = valid_results(axis, tap[a], {slab.axis[a].begin, slab.axis[a].end});
      if (valid[a].begin >= valid[a].end) return;
      shift[a] = axis.src_begin + tap[a] * axis.src_tap_step;
    }
    const Extent* e = slab.axis;
    for (int64_t n = 0; n < slab.batch_end - slab.batch_begin; ++n) {
      for (int64_t q0 = valid[0].begin; q0 < valid[0].end; ++q0) {
        for (int64_t q1 = valid[1].begin; q1 < valid[1].end; ++q1) {
          const int64_t data_line =
              (n * e[0].inputs() + q0 + shift[0] - e[0].first) * e[1].inputs() + q1 + shift[1] -
              e[1].first;
          const int64_t out_line =
              (n * e[0].results() + q0 - e[0].begin) * e[1].results() + q1 - e[1].begin;
          const int64_t data_k = data_line * e[2].inputs() + valid[2].begin + shift[2] - e[2].first;
          const int64_t out_k = out_line * e[2].results() + valid[2].begin - e[2].begin;
          const int64_t length = valid[2].end - valid[2].begin;
          append(plan_.rows_are_inputs ? Segment{data_k, out_k, 0, length}
                                       : Segment{out_k, data_k, 0, length});
        }
      }
    }
  }

  void append(const Segment& segment) {
    if (!segments_.empty() && segments_.back().row_k + segments_.back().length == segment.row_k &&
        segments_.back().col_k + segments_.back().length == segment.col_k) {
      segments_.back().length += segment.length;
    } else {
      segments_.push_back(segment);
    }
  }

  const Plan& plan_;
  const Kernels& kernels_;
  std::unique_ptr<Scratch> scratch_;
  Acc* data_;
  Acc* out_;
  // The tile at hand.
  const Phase* phase_ = nullptr;
  int64_t group_ = 0;
  int64_t row_begin_ = 0, col_begin_ = 0;
  Panels rows_, cols_;
  Range taps_[kAxes];
  std::vector<Segment> segments_;
};

// One worker computes all splits of a tile, one after the other.
template <class Acc>
class WholeTileWorker {
 public:
  explicit WholeTileWorker(const Plan& plan)
      : plan_(plan),
        worker_(plan),
        scratch_(new Scratch(2 * align_up(plan.tile_elements * int64_t(sizeof(Acc))))),
        total_(scratch_->template take<Acc>(plan.tile_elements)),
        part_(scratch_->template take<Acc>(plan.tile_elements)) {}

  void operator()(int64_t tile) {
    worker_.sum_tile(tile, 0, total_);
    for (int64_t split = 1; split < plan_.splits; ++split) {
      worker_.sum_tile(tile, split, part_);
      for (int64_t i = 0; i < plan_.tile_elements; ++i) total_[i] += part_[i];
    }
    worker_.store_tile(tile, total_);
  }

 private:
  const Plan& plan_;
  Worker<Acc> worker_;
  std::unique_ptr<Scratch> scratch_;
  Acc* total_;
  Acc* part_;
};

template <class Acc>
void run(const Plan& plan, const Resources& resources) {
  const int64_t stride = align_up(plan.tile_elements * int64_t(sizeof(Acc))) / int64_t(sizeof(Acc));
  const int64_t partial_bytes = plan.tiles * plan.splits * stride * int64_t(sizeof(Acc));
  const int64_t worker_bytes = align_up(kReachBytes) + align_up(kSlabBytes);
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

bool reaches_all_taps(const Plan& plan) {
  for (int a = 0; a < kAxes; ++a) {
    int64_t reached = 0;
    for (const AxisTaps& taps : plan.axes[a]) reached += taps.tap_count;
    if (reached < plan.problem.geometry.axis[a].kernel) return false;
  }
  return true;
}

}  // namespace

void run_tap_outer(const Problem& problem, Lanes lanes, const Resources& resources) {
  const Plan plan(problem, lanes);
  if (!reaches_all_taps(plan)) {
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
