#include "cpu/tap_sum_plan.h"

#include <algorithm>

#include "cpu/gathered_block.h"
#include "cpu/panels.h"
#include "cpu/scratch.h"

namespace mxd::cpu {
namespace {

constexpr int64_t kColumns = 256;  // of a block
// A sum of few steps takes less time than planning its block: 1.05x to 1.35x with larger ones.
constexpr int64_t kFewSteps = 128;
constexpr int64_t kColumnsOfFewSteps = 1024;
constexpr int64_t kMostShifts = 64;  // of a chunk
constexpr int64_t kJobsPerThread = 4;
constexpr double kMostPreparedBytes = 0x1p40;  // beyond: a kernel expanded from one element

// What packing a vector of the source costs, in rows of a register tile multiplied by a vector.
constexpr double kPackRows = 24;
// What sliding adds to the time of a product.
constexpr double kSlidingCost = 0.1;
// A chunk should have so many steps at a shift: one of a segment costs less the more there are.
constexpr int64_t kFairSteps = 16;

int64_t round_up(int64_t value, int64_t step) { return ceil_div(value, step) * step; }

int64_t groups_of(const ColumnGrid& grid, int a) { return int64_t(grid.axis(a).groups.size()); }

}  // namespace

TapSumPlan::TapSumPlan(const TapSum& tap_sum, const Resources& resources, bool exact)
    : sum(tap_sum), grid(tap_sum, exact) {
  bundles = groups_of(grid, 0) * groups_of(grid, 1) * groups_of(grid, 2);
  most_rows = 1;
  for (int a = 0; a < kAxes; ++a) {
    size_t most = 1;
    for (const PhaseGroup& group : grid.axis(a).groups) most = std::max(most, group.phases.size());
    most_rows *= int64_t(most);
  }
  grouped = most_rows > 1;
  cut_columns(exact);
  cut_sum();
  spread_jobs(resources.threads->count());
  cut_rows(resources);
  place_weights(resources);
}

Bundle TapSumPlan::bundle(int64_t index) const {
  Bundle bundle;
  for (int a = kAxes - 1; a >= 0; --a) {
    bundle.group_index[a] = index % groups_of(grid, a);
    bundle.group[a] = &grid.axis(a).groups[size_t(bundle.group_index[a])];
    index /= groups_of(grid, a);
  }
  return bundle;
}

std::unique_ptr<ColumnBlock> TapSumPlan::block(int64_t index) const {
  const Kernels& kernels = *sum.products;
  if (lines) return std::make_unique<LineBlock>(grid, sum.src, kernels, line_cut_, index);
  auto stretch =
      std::upper_bound(stretches_.begin(), stretches_.end(), index,
                       [](int64_t wanted, const Stretch& s) { return wanted < s.first_block; });
  --stretch;
  const int64_t begin = (index - stretch->first_block) * block_columns;
  const int64_t columns = std::min(block_columns, stretch->columns - begin);
  const Panels panels = sum.lanes == Lanes::kPixels ? Panels::of_vectors(kernels, columns)
                                                    : Panels::of_rows(kernels, columns);
  return std::make_unique<GatheredBlock>(grid, sum.src, stretch->first_column + begin, panels);
}

// Whether packing no copy for each shift makes up for tiles whose vectors cross cache lines.
bool TapSumPlan::sliding_pays() const {
  const double saved = double(line_cut_.channel_steps - line_cut_.channel_elements) /
                       double(line_cut_.columns(*sum.products));
  return saved * kPackRows > kSlidingCost * double(sum.taps() * sum.dst_channels);
}

// Whether packing whole lines, less often, makes up for the lanes that they waste.
bool TapSumPlan::lines_pay() const {
  const int64_t source = kSourceBytes / sum.products->acc_bytes;
  if (line_cut_.channel_elements * std::min(sum.src_steps(), kFairSteps) > source) return false;
  const double columns = double(grid.axis(2).columns);
  const double waste = double(line_cut_.row_vectors * sum.products->vector) / columns - 1;
  const double block = double(line_cut_.columns(*sum.products));
  const double saved = double(grid.shifts()) - double(line_cut_.channel_copied()) / block;
  const double gain = saved * kPackRows - waste * double(sum.taps() * sum.dst_channels);
  // Lines take less planning, unless their blocks are smaller and read the weights more often.
  return gain > 0 || (gain == 0 && block >= double(std::min(block_columns, grid.columns())));
}

void TapSumPlan::cut_columns(bool exact) {
  const Kernels& kernels = *sum.products;
  // Rows that cannot be split: those of a bundle and one panel, or all of a bundle of groups.
  const int64_t rows = sum.lanes != Lanes::kPixels ? kernels.cols
                       : grouped ? most_rows * std::min(sum.dst_channels, int64_t(kernels.max_rows))
                                 : int64_t(kernels.max_rows);
  const int64_t fitting = kAccBytes / kernels.acc_bytes / rows / kernels.cols * kernels.cols;
  const int64_t most = sum.taps() * sum.src_steps() <= kFewSteps ? kColumnsOfFewSteps : kColumns;
  block_columns = std::clamp(fitting, int64_t(kernels.cols), most);
  lines = false;
  if (!exact && sum.lanes == Lanes::kPixels && grid.sections().size() == 1 &&
      grid.sections()[0].run_axis == 2) {
    const int64_t elements =
        kSourceBytes / kernels.acc_bytes / std::min(sum.src_steps(), kFairSteps);
    const bool fair = sum.src_steps() >= kFairSteps;
    line_cut_ = LineCut(grid, kernels, block_columns, elements,
                        fair ? LineCopies::kSliding : LineCopies::kLong);
    if (line_cut_.slides() && !sliding_pays()) {
      line_cut_ = LineCut(grid, kernels, block_columns, elements, LineCopies::kVectors);
    }
    lines = lines_pay();
  }
  if (lines) {
    block_columns = line_cut_.columns(kernels);
    blocks = line_cut_.blocks;
    return;
  }
  if (!exact) {
    const int64_t parts = ceil_div(grid.columns(), block_columns);
    block_columns = round_up(ceil_div(grid.columns(), parts), kernels.cols);
  }
  blocks = 0;
  const auto add = [&](int64_t first, int64_t columns) {
    stretches_.push_back({first, columns, blocks, ceil_div(columns, block_columns)});
    blocks += stretches_.back().blocks;
  };
  if (exact) {
    for (const Section& section : grid.sections()) add(section.first, section.columns);
  } else {
    add(0, grid.columns());
  }
}

void TapSumPlan::cut_sum() {
  // Fixed sizes, because the order of summation must depend on the problem alone.
  const int64_t source = kSourceBytes / sum.products->acc_bytes;
  chunk_shifts = lines ? grid.shifts() : std::min(grid.shifts(), kMostShifts);
  const int64_t channel_elements = lines ? line_cut_.channel_steps : chunk_shifts * kColumns;
  const int64_t steps = sum.src_steps();
  const int64_t terms = sum.products->terms;
  const int64_t parts = ceil_div(steps, std::max<int64_t>(source / channel_elements, 1));
  for (int64_t part = 0; part < parts; ++part) {
    const Range channels{steps * part / parts * terms,
                         std::min(steps * (part + 1) / parts * terms, sum.src_channels)};
    for (int64_t first = 0; first < grid.shifts(); first += chunk_shifts) {
      chunks.push_back({channels, {first, std::min(first + chunk_shifts, grid.shifts())}, terms});
    }
  }
}

// Enough jobs for the threads: first by columns, then, for small images, by channels. Every job
// packs its weights, so one thread gets no more jobs than it must.
void TapSumPlan::spread_jobs(int threads) {
  channel_blocks = ceil_div(sum.dst_channels, kMostChannels);
  const int64_t wanted = threads > 1 ? kJobsPerThread * threads : 1;
  if (sum.groups * channel_blocks * blocks < wanted) {
    const int64_t narrowest = 4 * sum.products->max_rows;
    channel_blocks =
        std::max(channel_blocks, std::min(ceil_div(wanted, sum.groups * blocks),
                                          std::max<int64_t>(sum.dst_channels / narrowest, 1)));
  }
  spans = std::min(blocks, ceil_div(wanted, sum.groups * channel_blocks));
  max_channels = ceil_div(sum.dst_channels, channel_blocks);
}

// Of the packed source of all chunks; no more than a byte above the limit for keeping it.
int64_t TapSumPlan::whole_bytes() const {
  int64_t whole = 0;
  for (const Chunk& chunk : chunks) {
    whole = std::min(whole + align_up(source_elements(chunk) * sum.products->acc_bytes),
                     kWholeSourceBytes + 1);
  }
  return whole;
}

void TapSumPlan::cut_rows(const Resources& resources) {
  const Kernels& kernels = *sum.products;
  const bool pixel_lanes = sum.lanes == Lanes::kPixels;
  const int64_t channels = grouped       ? std::min(max_channels, int64_t(kernels.max_rows))
                           : pixel_lanes ? kernels.max_rows
                                         : kernels.cols;
  const int64_t unit = round_up(block_columns, kernels.cols) * channels * most_rows;
  const int64_t threads = std::max(resources.threads->count(), 1);
  const bool ample = resources.workspace_bytes / threads >= kScratchFloorBytes + kAmpleAccBytes;
  // Accumulators for more rows where their source would have to be packed again for each slice.
  const bool packed_again = chunks.size() > 1 && whole_bytes() > kWholeSourceBytes;
  const double needed =
      double(ceil_div(max_channels, channels) * unit * kernels.acc_bytes) * double(bundles);
  acc_bytes = int64_t(std::min(needed, double(ample && packed_again ? kAmpleAccBytes : kAccBytes)));
  const int64_t room = acc_bytes / kernels.acc_bytes;
  slice_bundles = std::clamp(room / unit, int64_t(1), bundles);
  // Whole lines of phases, which can be interleaved, if they fit.
  const int64_t line = groups_of(grid, 2);
  if (slice_bundles < bundles && slice_bundles >= line) slice_bundles -= slice_bundles % line;
  slice_panels = std::max<int64_t>(room / (unit * slice_bundles), 1);
}

int64_t TapSumPlan::source_elements(const Chunk& chunk) const {
  if (lines) return line_cut_.channel_elements * chunk.depth();
  return round_up(block_columns, sum.products->cols) * chunk.steps();
}

void TapSumPlan::place_weights(const Resources& resources) {
  const Kernels& kernels = *sum.products;
  const bool pixel_lanes = sum.lanes == Lanes::kPixels;
  const int64_t padded = pixel_lanes ? max_channels : round_up(max_channels, kernels.cols);
  int64_t depth = 0;
  for (const Chunk& chunk : chunks) depth = std::max(depth, chunk.depth());
  zero_bytes = align_up(depth * kernels.vector * kernels.acc_bytes);
  const int64_t threads = std::max(resources.threads->count(), 1);
  const int64_t whole = whole_bytes();
  const bool several_slices =
      slice_bundles < bundles || slice_panels * kernels.max_rows < max_channels;
  whole_source = chunks.size() == 1 ||
                 (several_slices && whole <= kWholeSourceBytes &&
                  resources.workspace_bytes / threads >= kScratchFloorBytes + acc_bytes + whole);
  source_bytes = whole;
  if (!whole_source) {
    source_bytes = 0;
    for (const Chunk& chunk : chunks) {
      source_bytes = std::max(source_bytes, align_up(source_elements(chunk) * kernels.acc_bytes));
    }
  }
  line_bytes =
      std::min(kLineBytes, int64_t(grid.axis(2).phases.size()) *
                               round_up(block_columns, kernels.vector) * kernels.acc_bytes);
  const int64_t floor = source_bytes + zero_bytes + acc_bytes + kPanelBytes + line_bytes +
                        2 * align_up(padded * kernels.acc_bytes) + 8 * kAlignment;
  // In floating point: a kernel expanded from one element can have more taps than bytes exist.
  const double channel_bytes = double(sum.kernel[0]) * double(sum.kernel[1]) *
                               double(sum.kernel[2]) * double(kernels.acc_bytes);
  const double all = channel_bytes * double(padded) * double(sum.src_steps());
  const double panel = channel_bytes * double(chunks.front().depth() + 1) *
                       double(pixel_lanes ? kernels.max_rows : kernels.cols);
  const int64_t budget = resources.workspace_bytes / threads - (floor - kPanelBytes);
  const bool panel_fits = !grouped && slice_bundles == bundles && chunk_shifts == grid.shifts() &&
                          panel <= double(kPanelBytes);
  if (resources.weights && all <= kMostPreparedBytes) prepared = resources.weights;
  // With one block to a job every weight is read once, and best packed when it is. Bundles that
  // share panels would read lines of memory that have weights of all of them.
  const bool read_once = blocks == spans && (panel_fits || grouped);
  if (prepared || all <= double(kPanelBytes) || (all <= double(budget) && !read_once)) {
    home = WeightHome::kResident;
  } else {
    home = panel_fits ? WeightHome::kPerPanel : WeightHome::kPerBundle;
  }
  // No more than is needed: memory that is not asked for costs a small call no time.
  weight_bytes = home == WeightHome::kResident ? int64_t(all) : kPanelBytes;
  scratch_bytes = floor - kPanelBytes + (prepared ? 0 : align_up(weight_bytes));
}

}  // namespace mxd::cpu
