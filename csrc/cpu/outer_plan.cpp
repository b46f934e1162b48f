#include "cpu/outer_plan.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace mxd::cpu {
namespace {

// The blocks of pixels are fixed by the problem, because the order of every sum must be: long
// enough for a register tile to stay at its products, short enough for panels to stay in the first
// caches.
constexpr int64_t kBlockPixels = 384;
constexpr int64_t kBlockCells = 1024;
// The steps j of a tile: of all axes together, and the cells that they may span from a pixel.
constexpr int64_t kMostSteps = 64;
constexpr int64_t kMostSpan = 256;

// A worker's buffers, which decide how large a tile is: with `kBuffers` and the sums of a tile that
// is summed in parts, together the 1 MiB scratch floor. A tile does not change how its weights are
// summed; larger ones pack less often.
struct Buffers {
  int64_t tile_bytes, data_bytes, out_bytes;
};
constexpr Buffers kBuffers{int64_t(1) << 18, int64_t(3) << 16, int64_t(5) << 16};
constexpr int64_t kLargerTimes = 4;  // where the workspace allows

constexpr int64_t kWantedJobs = 16;
constexpr int64_t kLeastBlocksPerSplit = 4;

int64_t size_of(Range range) { return range.end - range.begin; }

// `total` in as few pieces of at most `most` as possible, of nearly equal sizes, which are
// multiples of `grain` where that fits.
Cut even_cut(int64_t total, int64_t most, int64_t grain) {
  if (total <= most) return {total, total};
  if (most > grain) most -= most % grain;
  const int64_t step = ceil_div(total, ceil_div(total, most));
  return {total, std::min(most, most > grain ? ceil_div(step, grain) * grain : step)};
}

}  // namespace

TapAxis::TapAxis(const Axis& axis) : in(axis.in) {
  const int64_t g = std::gcd(axis.stride, axis.dilate);
  period = axis.stride / g;
  reach = axis.dilate / g;
  // Tap t lies beyond the border for every input unless
  //     pad - (in - 1) * stride <= t * dilate <= pad + out - 1.
  const int64_t last = std::min(axis.kernel - 1, (axis.pad + axis.out - 1) / axis.dilate);
  const int64_t least = axis.pad - (axis.in - 1) * axis.stride;
  first_tap = std::min(last, least > 0 ? ceil_div(least, axis.dilate) : 0);
  kernel = last - first_tap + 1;
  out = {axis.out, axis.stride, axis.pad - first_tap * axis.dilate, axis.dilate};
  phases = std::min(kernel, period);
  steps = ceil_div(kernel, period);
}

int64_t WeightTile::step_count() const {
  return size_of(steps[0]) * size_of(steps[1]) * size_of(steps[2]);
}

OuterPlan::OuterPlan(const Problem& problem, Lanes lanes, const Resources& resources)
    : problem(problem),
      kernels(kernels_for(problem.dtype)),
      lanes_are_entries(lanes == Lanes::kOutChannels) {
  for (int a = 0; a < kAxes; ++a) {
    axis[a] = TapAxis(problem.geometry.axis[a]);
    out_axis[a] = axis[a].out;
    data_axis[a].size = axis[a].in;
  }
  choose_entry_order();
  cut_steps();
  cut_pixels();
  choose_pairs();
  cut_weight(1);
  splits = 1;
  if (tiles < kWantedJobs) {
    splits =
        std::max<int64_t>(1, std::min(ceil_div(kWantedJobs, tiles), blocks / kLeastBlocksPerSplit));
  }
  const int64_t threads = resources.threads->count();
  cut_weight(kLargerTimes);
  const bool fits = threads * scratch_bytes() <= resources.workspace_bytes;
  if (!fits || (threads > 1 && tiles * splits < 4 * threads)) cut_weight(1);
}

int64_t OuterPlan::scratch_bytes() const {
  return (data_elements + out_elements + number_elements + (splits > 1 ? 2 : 1) * tile_elements) *
         kernels.acc_bytes;
}

// The phases of the innermost axis lie next to each other in memory if its pixels do. Side by side
// in a panel they waste some products where they do not have equally many taps, and at the border.
void OuterPlan::choose_entry_order() {
  const TapAxis& last = axis[2];
  const TensorView& out = problem.out;
  innermost = Innermost::kChannels;
  if (last.phases == 1 || out.channel == 1 || out.axis[2] != 1 || last.out.dilate != 1) return;
  const double waste =
      double(last.steps * last.phases) / double(last.kernel) * (1 + 1 / double(2 * last.in));
  const bool fills = problem.geometry.out_channels >= kernels.vector;
  if (!fills || waste < 1.17) innermost = Innermost::kPhases;
}

// As many steps j together as possible: data and out are packed for all of them.
void OuterPlan::cut_steps() {
  int64_t step_room = kMostSteps, span_room = kMostSpan;
  for (int a = kAxes - 1; a >= 0; --a) {
    const TapAxis& t = axis[a];
    const int64_t most = std::min(step_room, 1 + (span_room - 1) / t.reach);
    steps[a] = even_cut(t.steps, most, 1);
    step_room /= steps[a].step;
    span_room /= 1 + t.reach * (steps[a].step - 1);
  }
}

// Blocks grow from the innermost axis outwards, then over the batch.
void OuterPlan::cut_pixels() {
  int64_t spread[kAxes];  // cells beyond those of the first step
  int64_t pixels = 1, cells = 1;
  for (int a = 0; a < kAxes; ++a) {
    spread[a] = axis[a].reach * (steps[a].step - 1);
    cells *= 1 + spread[a];
  }
  for (int a = kAxes - 1; a >= 0; --a) {
    const int64_t others = cells / (1 + spread[a]);
    const int64_t most = std::min(kBlockPixels / pixels, kBlockCells / others - spread[a]);
    box[a] = even_cut(axis[a].in, std::max<int64_t>(most, 1), 1);
    pixels *= box[a].step;
    cells = others * (box[a].step + spread[a]);
  }
  const int64_t most = std::min(kBlockPixels / pixels, kBlockCells / cells);
  batch = even_cut(problem.geometry.batch, std::max<int64_t>(most, 1), 1);
  data_steps = pixels * batch.step;
  out_steps = cells * batch.step;
  blocks = batch.pieces() * box[0].pieces() * box[1].pieces() * box[2].pieces();
}

bool OuterPlan::both_parities(int64_t images) const {
  return steps[2].step > 1 && axis[2].reach * images % 2 == 1;
}

PairRows OuterPlan::data_rows(const CellBlock& data) const {
  return {data.size(0) * data.size(1), data.size(2) * data.images(), both_parities(data.images())};
}

PairRows OuterPlan::out_rows(const WeightTile& tile, const CellBlock& data,
                             const CellBlock& out) const {
  const int64_t cells = data.size(2) + axis[2].reach * (size_of(tile.steps[2]) - 1);
  return {out.size(0) * out.size(1), cells * data.images(), both_parities(data.images())};
}

// Short rows waste more on zeros than pairs save.
void OuterPlan::choose_pairs() {
  constexpr int64_t kLeastRow = 4;
  pairs = &product_kernels_for(problem.dtype);
  data_pairs = out_pairs = 0;
  if (!pairs->outer.pair || box[2].step * batch.step < kLeastRow) {
    pairs = nullptr;
    return;
  }
  for (const int64_t images : {batch.step, batch.step - 1}) {  // the last block may have less
    if (images == 0) continue;
    const bool both = both_parities(images);
    const PairRows data(box[0].step * box[1].step, box[2].step * images, both);
    data_pairs = std::max(data_pairs, (both ? 2 : 1) * data.rows * data.pairs);
    const auto cells = [this](int a) { return box[a].step + axis[a].reach * (steps[a].step - 1); };
    const PairRows out(cells(0) * cells(1), cells(2) * images, both);
    out_pairs = std::max(out_pairs, out.rows * out.pairs);
  }
}

// A tile is about as wide in entries as in channels: then neither operand is packed too often.
void OuterPlan::cut_weight(int64_t times) {
  const Geometry& g = problem.geometry;
  const int64_t acc = kernels.acc_bytes;
  const int64_t products =
      times * kBuffers.tile_bytes / acc / (steps[0].step * steps[1].step * steps[2].step);
  const int64_t entry_grain = lanes_are_entries ? kernels.cols : kernels.max_rows;
  const int64_t channel_grain = lanes_are_entries ? 1 : kernels.cols;
  EntrySet data_set;
  for (Range& range : data_set.phases) range = {0, 1};
  const auto channel_width = [&](int64_t count) {
    data_set.channels = count;
    return padded_entries(kernels, data_set, !lanes_are_entries);
  };
  int64_t wanted =
      std::max(int64_t(std::sqrt(double(products))), products / channel_width(g.in_channels));
  wanted = std::min(wanted, times * kBuffers.out_bytes / acc / std::max(out_steps, out_pairs));
  // Filters are cut first, then phases from the outside: a tile that has all phases of a filter
  // has all its taps, which are stored together.
  for (int a = 0; a < kAxes; ++a) phases[a] = {axis[a].phases, axis[a].phases};
  int64_t phase_count = phases[0].step * phases[1].step * phases[2].step;
  const int64_t together = innermost == Innermost::kPhases ? phases[2].step : 1;
  const int64_t grain = ceil_div(entry_grain, together);
  filters = even_cut(g.out_channels, std::max(wanted / phase_count, ceil_div(grain, 2)), grain);
  for (int a = 0; a < kAxes && filters.step * phase_count > 2 * wanted; ++a) {
    const int64_t others = filters.step * phase_count / phases[a].step;
    phases[a] = even_cut(axis[a].phases, std::max<int64_t>(wanted / others, 1), 1);
    phase_count = phases[0].step * phases[1].step * phases[2].step;
  }
  const int64_t entries = choose_panels();
  const int64_t most_steps = std::max(data_steps, data_pairs);
  const int64_t room = std::min(products / entries, times * kBuffers.data_bytes / acc / most_steps);
  channels = even_cut(g.in_channels, std::max(room, int64_t(kernels.max_rows)), channel_grain);
  const int64_t width = channel_width(channels.step);
  data_elements = width * most_steps;
  out_elements = entries * std::max(out_steps, out_pairs);
  number_elements = pairs ? kernels.cols * std::max(data_steps, out_steps) : 0;
  tile_elements = steps[0].step * steps[1].step * steps[2].step * entries * width;
  tiles = g.groups * channels.pieces() * filters.pieces();
  for (int a = 0; a < kAxes; ++a) tiles *= phases[a].pieces() * steps[a].pieces();
}

// Panels of as few phases as fill them. Returns the width of all.
int64_t OuterPlan::choose_panels() {
  EntrySet set;
  set.channels = filters.step;
  for (int a = 0; a < kAxes; ++a) set.phases[a] = {0, phases[a].step};
  set.innermost = innermost;
  const auto fills = [&](int64_t entries) {
    if (!lanes_are_entries) return 2 * entries > kernels.max_rows;
    return 10 * entries >= 9 * Panels::of_cols(kernels, entries).padded_total();
  };
  axes_apart = innermost == Innermost::kPhases ? 2 : 3;
  for (; axes_apart > 0; --axes_apart) {
    set.axes_apart = axes_apart;
    if (fills(set.band())) break;
  }
  set.axes_apart = axes_apart;
  return padded_entries(kernels, set, lanes_are_entries);
}

WeightTile OuterPlan::tile(int64_t index) const {
  const auto next = [&index](const Cut& cut) {
    const Range piece = cut.piece(index % cut.pieces());
    index /= cut.pieces();
    return piece;
  };
  WeightTile tile;
  tile.channels = next(channels);
  for (int a = 0; a < kAxes; ++a) tile.steps[a] = next(steps[a]);
  for (int a = 0; a < kAxes; ++a) tile.phases[a] = next(phases[a]);
  tile.filters = next(filters);
  tile.group = index;
  return tile;
}

EntrySet OuterPlan::data_entries(const WeightTile& tile) const {
  EntrySet set;
  set.channel_begin = tile.group * problem.geometry.in_channels + tile.channels.begin;
  set.channels = tile.channel_count();
  for (Range& range : set.phases) range = {0, 1};
  return set;
}

EntrySet OuterPlan::out_entries(const WeightTile& tile) const {
  EntrySet set;
  set.channel_begin = tile.group * problem.geometry.out_channels + tile.filters.begin;
  set.channels = size_of(tile.filters);
  for (int a = 0; a < kAxes; ++a) set.phases[a] = tile.phases[a];
  set.innermost = innermost;
  set.axes_apart = axes_apart;
  return set;
}

CellBlock OuterPlan::data_block(int64_t index) const {
  CellBlock block;
  for (int a = kAxes - 1; a >= 0; --a) {
    block.cells[a] = box[a].piece(index % box[a].pieces());
    index /= box[a].pieces();
  }
  block.batch = batch.piece(index);
  return block;
}

CellBlock OuterPlan::out_block(const WeightTile& tile, const CellBlock& data) const {
  CellBlock block;
  block.batch = data.batch;
  for (int a = 0; a < kAxes; ++a) {
    const int64_t first = out_axis[a].cells_with(tile.phases[a].end - 1).begin;
    const int64_t last = out_axis[a].cells_with(tile.phases[a].begin).end;
    const int64_t begin = data.cells[a].begin + axis[a].reach * tile.steps[a].begin;
    const int64_t end = data.cells[a].end + axis[a].reach * (tile.steps[a].end - 1);
    block.cells[a].begin = std::max(begin, first);
    block.cells[a].end = std::max(block.cells[a].begin, std::min(end, last));
  }
  return block;
}

bool OuterPlan::skips_taps() const {
  for (int a = 0; a < kAxes; ++a) {
    if (axis[a].kernel < problem.geometry.axis[a].kernel) return true;
  }
  return false;
}

}  // namespace mxd::cpu
