#include "cpu/tap_sum.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <memory>

#include "cpu/fill.h"
#include "cpu/gathered_block.h"
#include "cpu/panels.h"
#include "cpu/result_store.h"
#include "cpu/scratch.h"
#include "cpu/tap_sum_plan.h"
#include "cpu/weight_panels.h"

namespace mxd::cpu {
namespace {

// Blocks whose plan a worker keeps for the next job.
constexpr int64_t kKeptBlocks = 64;

class Worker {
 public:
  // Sets `nonfinite` if it meets a weight that is not finite.
  Worker(const TapSumPlan& plan, std::atomic<bool>& nonfinite)
      : plan_(plan),
        nonfinite_(nonfinite),
        sum_(plan.sum),
        kernels_(*plan.sum.products),
        scratch_(plan.scratch_bytes),
        source_(scratch_.take<char>(plan.source_bytes)),
        zero_(scratch_.take<char>(plan.zero_bytes)),
        acc_(scratch_.take<char>(plan.acc_bytes + kAlignment)),
        weights_(plan, plan.prepared ? nullptr : scratch_.take<char>(plan.weight_bytes)),
        store_(plan, scratch_) {
    std::memset(zero_, 0, size_t(plan.zero_bytes));
    const bool several_jobs = sum_.groups * plan.channel_blocks > 1;
    const bool all_at_once = plan.chunks.size() == 1 && plan.slice_bundles >= plan.bundles;
    if (several_jobs && all_at_once && plan.blocks <= kKeptBlocks) {
      kept_.resize(size_t(plan.blocks));
    }
  }

  void operator()(int64_t job) {
    const int64_t span = job % plan_.spans;
    const int64_t part = job / plan_.spans % plan_.channel_blocks;
    const int64_t group = job / plan_.spans / plan_.channel_blocks;
    const int64_t begin = sum_.dst_channels * part / plan_.channel_blocks;
    const int64_t channels = sum_.dst_channels * (part + 1) / plan_.channel_blocks - begin;
    weights_.start_job(group, begin, channels);
    store_.start_job(group, begin, channels);
    src_ = static_cast<const char*>(sum_.src.data) + group * sum_.src_group * kernels_.elem_bytes;
    const int64_t last = plan_.blocks * (span + 1) / plan_.spans;
    for (int64_t block = plan_.blocks * span / plan_.spans; block < last; ++block) {
      if (kept_.empty()) {
        entries_.clear();
        run_block(*plan_.block(block), entries_);
      } else {
        Kept& kept = kept_[size_t(block)];
        if (!kept.block) kept.block = plan_.block(block);
        run_block(*kept.block, kept.entries);
      }
    }
    if (weights_.nonfinite()) nonfinite_ = true;
  }

 private:
  // The part of a bundle's rows that the accumulators hold at a time.
  struct Entry {
    int64_t index;
    Bundle bundle;
    Panels panels;
    std::vector<BundleTap> taps;       // those of the chunk
    std::vector<size_t> first_of_row;  // in taps, of each row of them, and the end
    std::vector<Segment> segments;
    std::vector<size_t> first_segment;  // of each tile, and the end
    int64_t acc;                        // element offset of the first panel's accumulators
  };

  // A block as the jobs before have left it: their groups and channels differ, the block does not.
  struct Kept {
    std::unique_ptr<ColumnBlock> block;
    std::vector<Entry> entries;
  };

  // `entries` are empty, or those of all bundles.
  void run_block(const ColumnBlock& block, std::vector<Entry>& entries) {
    if (plan_.whole_source) {
      char* dst = source_;
      for (const Chunk& chunk : plan_.chunks) {
        block.pack(kernels_, src_, chunk, dst);
        dst += align_up(plan_.source_elements(chunk) * kernels_.acc_bytes);
      }
    }
    for (int64_t first = 0; first < plan_.bundles; first += plan_.slice_bundles) {
      const int64_t last = std::min(first + plan_.slice_bundles, plan_.bundles);
      if (kept_.empty()) entries.clear();
      const bool fresh = entries.empty();
      for (int64_t b = first; fresh && b < last; ++b) {
        const Bundle bundle = plan_.bundle(b);
        entries.push_back({b, bundle, {}, {}, {}, {}, {}, 0});
      }
      for (Entry& entry : entries) entry.panels = weights_.panels(entry.bundle);
      // Grouped bundles differ in their panels, and all of them fit.
      const int64_t all = entries.front().panels.count();
      const int64_t step = plan_.grouped ? std::numeric_limits<int64_t>::max() : plan_.slice_panels;
      for (int64_t panel = 0; panel < all; panel += std::min(step, all)) {
        run_slice(block, entries, panel, plan_.grouped ? step : std::min(panel + step, all));
      }
    }
  }

  // Sums the panels [first, last) of the entries.
  void run_slice(const ColumnBlock& block, std::vector<Entry>& entries, int64_t first,
                 int64_t last) {
    const bool pixel_lanes = sum_.lanes == Lanes::kPixels;
    const Panels& columns = block.panels();
    int64_t acc = 0;
    for (Entry& entry : entries) {
      entry.acc = acc;
      const int64_t end = std::min(last, entry.panels.count());
      const int64_t width =
          entry.panels.begin(end - 1) + entry.panels.width(end - 1) - entry.panels.begin(first);
      acc += width * (pixel_lanes ? columns.padded_total() : columns.total());
    }
    char* next = source_;
    for (const Chunk& chunk : plan_.chunks) {
      packed_ = next;
      if (plan_.whole_source) {
        next += align_up(plan_.source_elements(chunk) * kernels_.acc_bytes);
      } else {
        block.pack(kernels_, src_, chunk, source_);
      }
      for (Entry& entry : entries) {
        const bool listed = plan_.chunks.size() == 1 && !entry.first_segment.empty();
        if (!listed) list_segments(block, chunk, entry);
      }
      if (plan_.home == WeightHome::kPerPanel) {
        for (int64_t panel = first; panel < last; ++panel) {
          weights_.pack_panel(panel, chunk);
          for (const Entry& entry : entries) multiply(block, chunk, entry, first, panel, last);
        }
      } else {
        for (const Entry& entry : entries) {
          for (int64_t panel = first; panel < std::min(last, entry.panels.count()); ++panel) {
            multiply(block, chunk, entry, first, panel, last);
          }
        }
      }
    }
    for (const Entry& entry : entries) {
      const int64_t end = std::min(last, entry.panels.count());
      store_.add(entry.index, entry.bundle, acc_ + entry.acc * kernels_.acc_bytes,
                 plan_.grouped ? Range{0, store_.channels()}
                               : Range{entry.panels.begin(first),
                                       entry.panels.begin(end - 1) + entry.panels.present(end - 1)},
                 pixel_lanes ? columns.padded_total()
                             : entry.panels.begin(end - 1) + entry.panels.width(end - 1) -
                                   entry.panels.begin(first));
    }
    store_.write(block.runs());
    store_.clear();
  }

  // Panels of the source that make a tile: two vectors of columns, or one panel of rows.
  int64_t tile_panels() const { return sum_.lanes == Lanes::kPixels ? 2 : 1; }

  // The steps of the summation of each tile with the entry's taps.
  void list_segments(const ColumnBlock& block, const Chunk& chunk, Entry& entry) {
    if (plan_.lines) {
      list_segments_of(static_cast<const LineBlock&>(block), chunk, entry);
    } else {
      list_segments_of(static_cast<const GatheredBlock&>(block), chunk, entry);
    }
  }

  template <class Block>  // asked too often for virtual calls
  void list_segments_of(const Block& block, const Chunk& chunk, Entry& entry) {
    entry.taps = weights_.taps(entry.bundle, chunk.shifts);
    find_rows(entry);
    entry.segments.clear();
    entry.first_segment.assign(1, 0);
    for (int64_t panel = 0; panel < block.panels().count(); panel += tile_panels()) {
      for (size_t r = 0; r + 1 < entry.first_of_row.size(); ++r) {
        const BundleTap* const first = &entry.taps[entry.first_of_row[r]];
        const BundleTap* const end = entry.taps.data() + entry.first_of_row[r + 1];
        if (end - first > 1 && block.packs_between() &&
            add_taps(block, chunk, first, end - first, panel, entry)) {
          continue;
        }
        for (const BundleTap* tap = first; tap < end; ++tap) {
          add_taps(block, chunk, tap, 1, panel, entry);
        }
      }
      entry.first_segment.push_back(entry.segments.size());
    }
  }

  // Rows of taps: those that are packed one after the other, at shifts that follow each other.
  static void find_rows(Entry& entry) {
    entry.first_of_row.clear();
    for (size_t t = 0; t < entry.taps.size(); ++t) {
      const BundleTap& tap = entry.taps[t];
      const BundleTap* const last = t ? &entry.taps[t - 1] : nullptr;
      if (!last || tap.place != last->place + 1 || tap.shift.outer != last->shift.outer ||
          tap.shift.inner != last->shift.inner + 1) {
        entry.first_of_row.push_back(t);
      }
    }
    entry.first_of_row.push_back(entry.taps.size());
  }

  // A row of taps of a tile. False if not all of its columns have a source at its ends: then the
  // taps are to be added one by one.
  template <class Block>
  bool add_taps(const Block& block, const Chunk& chunk, const BundleTap* taps, int64_t count,
                int64_t panel, Entry& entry) {
    const int64_t depth = chunk.depth();
    const Panels& columns = block.panels();
    const bool pixel_lanes = sum_.lanes == Lanes::kPixels;
    const bool pair = pixel_lanes && panel + 1 < columns.count();
    int64_t first = block.at(panel, taps[0].shift, chunk);
    int64_t second = pair ? block.at(panel + 1, taps[0].shift, chunk) : first;
    if (count > 1) {
      const TapShift& last = taps[count - 1].shift;
      if (first < 0 || second < 0 || block.at(panel, last, chunk) < 0) return false;
      if (pair && block.at(panel + 1, last, chunk) < 0) return false;
    }
    if (first < 0 && second < 0) return true;
    Segment next{0, 0, 0, count * depth, 0};
    if (pixel_lanes) {
      const int64_t zero = (zero_ - packed_) / kernels_.acc_bytes;
      if (first < 0) first = zero;
      if (second < 0) second = zero;
      next.row_k = taps[0].place * depth;
      next.col_offset = first;
      next.second = pair ? second - first : 0;
    } else {
      next.row_k = (first - columns.begin(panel) * chunk.steps()) / columns.width(panel);
      next.col_k = taps[0].place * depth;
    }
    if (entry.segments.size() > entry.first_segment.back()) {
      Segment& last = entry.segments.back();
      const int64_t done = last.length;
      const bool follows = pixel_lanes ? last.col_offset + done * block.step() == next.col_offset
                                       : last.col_k + done == next.col_k;
      if (follows && last.row_k + done == next.row_k && last.second == next.second) {
        last.length += next.length;
        return true;
      }
    }
    entry.segments.push_back(next);
    return true;
  }

  // One panel of weights with every panel of the source.
  void multiply(const ColumnBlock& block, const Chunk& chunk, const Entry& entry,
                int64_t first_panel, int64_t panel, int64_t last_panel) {
    const Panels& pixels = block.panels();
    const Panels& panels = entry.panels;
    const char* weights = weights_.get(entry.index, entry.bundle, entry.taps, panel, chunk);
    const int64_t width = panels.width(panel);
    const int64_t offset = panels.begin(panel) - panels.begin(first_panel);
    const int64_t end = std::min(last_panel, panels.count()) - 1;
    const int64_t stride = sum_.lanes == Lanes::kPixels
                               ? pixels.padded_total()
                               : panels.begin(end) + panels.width(end) - panels.begin(first_panel);
    char* acc = acc_ + entry.acc * kernels_.acc_bytes;
    for (size_t tile = 0; tile + 1 < entry.first_segment.size(); ++tile) {
      const Segment* segments = entry.segments.data() + entry.first_segment[tile];
      const int64_t count = int64_t(entry.first_segment[tile + 1] - entry.first_segment[tile]);
      if (count == 0 && !chunk.first()) continue;
      const int64_t p = int64_t(tile) * tile_panels();
      if (sum_.lanes == Lanes::kPixels) {
        const int cols = p + 1 < pixels.count() ? kernels_.cols : kernels_.vector;
        kernels_.gemm(int(width), cols, weights, packed_, block.step(), segments, count,
                      acc + (offset * stride + pixels.begin(p)) * kernels_.acc_bytes, stride,
                      !chunk.first());
      } else {
        kernels_.gemm(int(pixels.width(p)), int(width),
                      packed_ + pixels.begin(p) * chunk.steps() * kernels_.acc_bytes, weights,
                      width, segments, count,
                      acc + (pixels.begin(p) * stride + offset) * kernels_.acc_bytes, stride,
                      !chunk.first());
      }
    }
  }

  const TapSumPlan& plan_;
  std::atomic<bool>& nonfinite_;
  const TapSum& sum_;
  const Kernels& kernels_;
  Scratch scratch_;
  char* source_;
  char* zero_;  // the source of columns that have none, behind source_
  char* acc_;
  WeightPanels weights_;
  ResultStore store_;
  const char* src_ = nullptr;     // of the job's group
  const char* packed_ = nullptr;  // the source of the chunk at hand
  std::vector<Entry> entries_;    // of the slice, unless kept
  std::vector<Kept> kept_;        // all blocks, or none
};

// Narrows the kernel to the taps that the phases reach: a kernel may be far larger than that.
void narrow_kernel(TapSum& sum) {
  for (int a = 0; a < kAxes; ++a) {
    int64_t first = std::numeric_limits<int64_t>::max();
    int64_t last = -1;
    for (const AxisTaps& taps : sum.axes[a]) {
      first = std::min(first, taps.tap_begin);
      last = std::max(last, taps.tap_begin + (taps.tap_count - 1) * taps.tap_step);
    }
    sum.first_tap[a] = first;
    sum.kernel[a] = last - first + 1;
    sum.weight += first * sum.weight_tap[a] * sum.kernels->elem_bytes;
  }
}

// Whether it met a weight that is not finite.
bool run(const TapSumPlan& plan, const Resources& resources) {
  std::atomic<bool> nonfinite{false};
  for_each_job(*resources.threads, plan.jobs(), [&] { return Worker(plan, nonfinite); });
  return nonfinite;
}

TapSum make(const Problem& problem, Lanes lanes) {
  const Geometry& geometry = problem.geometry;
  TapSum sum;
  sum.kernels = &kernels_for(problem.dtype);
  sum.products = &product_kernels_for(problem.dtype);
  sum.lanes = lanes;
  sum.batch = geometry.batch;
  sum.groups = geometry.groups;
  sum.weight = static_cast<const char*>(problem.weight.data);
  sum.weight_group = geometry.in_channels * problem.weight.in_channel;
  for (int a = 0; a < kAxes; ++a) sum.weight_tap[a] = problem.weight.tap[a];
  return sum;
}

}  // namespace

bool phases_cover_results(const TapSum& sum) {
  for (int a = 0; a < kAxes; ++a) {
    int64_t covered = 0;
    for (const AxisTaps& taps : sum.axes[a]) covered += taps.dst_count;
    if (covered < sum.dst_size[a]) return false;
  }
  return true;
}

TapSum forward_tap_sum(const Problem& problem, Lanes lanes) {
  TapSum sum = make(problem, lanes);
  sum.src_channels = problem.geometry.in_channels;
  sum.dst_channels = problem.geometry.out_channels;
  sum.src = problem.data;
  sum.src_group = sum.src_channels * sum.src.channel;
  sum.dst = problem.out;
  sum.weight_src = problem.weight.in_channel;
  sum.weight_dst = problem.weight.out_channel;
  sum.bias = problem.bias;
  for (int a = 0; a < kAxes; ++a) {
    sum.axes[a] = forward_phases(problem.geometry.axis[a]);
    sum.dst_size[a] = problem.geometry.axis[a].out;
  }
  narrow_kernel(sum);
  return sum;
}

TapSum data_gradient_tap_sum(const Problem& problem, Lanes lanes) {
  TapSum sum = make(problem, lanes);
  sum.src_channels = problem.geometry.out_channels;
  sum.dst_channels = problem.geometry.in_channels;
  sum.src = problem.out;
  sum.src_group = sum.src_channels * sum.src.channel;
  sum.dst = problem.data;
  sum.weight_src = problem.weight.out_channel;
  sum.weight_dst = problem.weight.in_channel;
  for (int a = 0; a < kAxes; ++a) {
    sum.axes[a] = data_gradient_taps(problem.geometry.axis[a]);
    sum.dst_size[a] = problem.geometry.axis[a].in;
  }
  narrow_kernel(sum);
  return sum;
}

void run_tap_sum(const TapSum& sum, const Resources& resources) {
  if (!phases_cover_results(sum)) {
    fill_with_bias(*sum.kernels, sum.dst, sum.bias, sum.batch, sum.groups * sum.dst_channels,
                   sum.dst_size);
  }
  if (run(TapSumPlan(sum, resources, /*exact=*/false), resources)) {
    // All jobs again, whichever met the weight: how they share the channels depends on the threads.
    run(TapSumPlan(sum, resources, /*exact=*/true), resources);
  }
}

}  // namespace mxd::cpu
