#include "cpu/minimal_filter_weight.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>

#include "cpu/panels.h"
#include "cpu/scratch.h"

namespace mxd::cpu {
namespace {

// What keeps the transformed blocks and the sums about as large as L2: for up to 16 products, for
// more.
constexpr int64_t kBlockTiles = 64;
constexpr int64_t kBlockChannels = 128;
constexpr int64_t kManyProducts = 16;

FilterKind kind_for(int64_t taps, int64_t results) {
  if (taps == 1) return FilterKind::kSingle;
  if (taps == 3) return FilterKind::kF32;
  return ceil_div(results, 3) * 4 < ceil_div(results, 2) * 3 ? FilterKind::kF23 : FilterKind::kF22;
}

WeightFilterAxis axis_of(const AxisTaps& phase) {
  const int64_t last = phase.tap_count - 1;
  return {kind_for(phase.tap_count, phase.dst_count),
          phase.src_begin - last,
          {phase.dst_begin, phase.dst_step, phase.dst_count},
          phase.tap_begin + last * phase.tap_step,
          -phase.tap_step};
}

void raise_to(std::atomic<uint32_t>& largest, uint32_t value) {
  uint32_t seen = largest.load(std::memory_order_relaxed);
  while (seen < value && !largest.compare_exchange_weak(seen, value)) {
  }
}

double magnitude(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return double(value);
}

}  // namespace

WeightFilterPlan::WeightFilterPlan(const Problem& p) : problem(p), kernels(kernels_for(p.dtype)) {
  const Geometry& g = problem.geometry;
  std::vector<AxisTaps> axes[kAxes];
  int64_t unit[kAxes], results[kAxes];
  for (int a = 0; a < kAxes; ++a) {
    axes[a] = forward_phases(g.axis[a]);
    unit[a] = 1;
    results[a] = 0;
    for (const AxisTaps& phase : axes[a]) {
      results[a] = std::max(results[a], phase.dst_count);
      const int64_t tile = taps_of(axis_of(phase).kind);
      if (unit[a] % tile != 0) unit[a] *= tile;
    }
  }
  int64_t products = 1;
  for (const AxisTaps& a0 : axes[0]) {
    for (const AxisTaps& a1 : axes[1]) {
      for (const AxisTaps& a2 : axes[2]) {
        phases.push_back({{axis_of(a0), axis_of(a1), axis_of(a2)}});
        products = std::max(products, phases.back().products());
      }
    }
  }
  const bool many = products > kManyProducts;
  channels = many ? kFilterChunk : kBlockChannels;
  channels = std::min(
      channels, ceil_div(std::max(g.in_channels, g.out_channels), kFilterChunk) * kFilterChunk);
  in_blocks = ceil_div(g.in_channels, channels);
  out_blocks = ceil_div(g.out_channels, channels);

  // The block grows from the innermost axis outwards.
  int64_t room = many ? kBlockTiles / 2 : kBlockTiles;
  for (int a = kAxes - 1; a >= 0; --a) {
    const int64_t units = ceil_div(results[a], unit[a]);
    const int64_t parts = ceil_div(units, std::max<int64_t>(std::min(units, room), 1));
    step[a] = ceil_div(units, parts) * unit[a];
    count[a] = ceil_div(results[a], step[a]);
    room /= ceil_div(units, parts);
  }
  batch_step = std::max<int64_t>(std::min(room, g.batch), 1);
  batch_count = ceil_div(g.batch, batch_step);

  region_elements = rows_elements = operand_elements = sum_elements = 0;
  growth = 1;
  for (const WeightFilterPhase& phase : phases) {
    for (const FilterMap map : {FilterMap::kSource, FilterMap::kTaps}) {
      const FilterRegion r = region(phase, map, {0, 0, 0});
      const FilterTiles t = tiles(phase, map, batch_step);
      region_elements = std::max(region_elements, batch_step * r.pixels() * kFilterChunk);
      rows_elements = std::max(rows_elements, tile_rows_elements(t, r));
      operand_elements = std::max(operand_elements, phase.products() * t.total() * channels);
    }
    sum_elements = std::max(sum_elements, phase.products() * channels * channels);
    double grown = 1;
    for (const WeightFilterAxis& axis : phase.axis) {
      grown *= growth_of(axis.kind);
    }
    growth = std::max(growth, grown);
  }
  result_elements = 2 * kMostProducts * channels;
}

int64_t WeightFilterPlan::worker_bytes() const {
  return (region_elements + rows_elements + 2 * operand_elements + sum_elements + result_elements) *
             4 +
         6 * kAlignment;
}

FilterTiles WeightFilterPlan::tiles(const WeightFilterPhase& phase, FilterMap map,
                                    int64_t images) const {
  FilterTiles tiles{map, {}, {}, {}, images};
  for (int a = 0; a < kAxes; ++a) {
    tiles.kind[a] = phase.axis[a].kind;
    tiles.step[a] = taps_of(phase.axis[a].kind);
    tiles.count[a] = step[a] / tiles.step[a];
  }
  return tiles;
}

FilterRegion WeightFilterPlan::region(const WeightFilterPhase& phase, FilterMap map,
                                      const int64_t (&begin)[kAxes]) const {
  FilterRegion region;
  const bool data = map == FilterMap::kSource;
  for (int a = 0; a < kAxes; ++a) {
    const WeightFilterAxis& axis = phase.axis[a];
    region.begin[a] = begin[a] + (data ? axis.data_begin : 0);
    region.size[a] = step[a] + (data ? results_of(axis.kind) - 1 : 0);
  }
  return region;
}

namespace {

class Worker {
 public:
  Worker(const WeightFilterPlan& plan, std::atomic<uint32_t>& largest_data,
         std::atomic<uint32_t>& largest_out)
      : plan_(plan),
        kernels_(plan.kernels),
        largest_data_(largest_data),
        largest_out_(largest_out),
        scratch_(new Scratch(plan.worker_bytes())) {
    region_ = scratch_->take<float>(plan.region_elements);
    rows_ = scratch_->take<float>(plan.rows_elements);
    data_ = scratch_->take<float>(plan.operand_elements);
    out_ = scratch_->take<float>(plan.operand_elements);
    sums_ = scratch_->take<float>(plan.sum_elements);
    results_ = scratch_->take<float>(plan.result_elements);
  }

  void operator()(int64_t job) {
    const Geometry& g = plan_.problem.geometry;
    const int64_t out_block = job % plan_.out_blocks;
    job /= plan_.out_blocks;
    const int64_t in_block = job % plan_.in_blocks;
    job /= plan_.in_blocks;
    const WeightFilterPhase& phase = plan_.phases[size_t(job) % plan_.phases.size()];
    group_ = job / int64_t(plan_.phases.size());
    in_ = {in_block * plan_.channels, std::min((in_block + 1) * plan_.channels, g.in_channels)};
    filters_ = {out_block * plan_.channels,
                std::min((out_block + 1) * plan_.channels, g.out_channels)};
    std::memset(sums_, 0, size_t(phase.products() * plan_.channels * plan_.channels) * 4);
    for (int64_t n = 0; n < plan_.batch_count; ++n) {
      const Range images{n * plan_.batch_step, std::min((n + 1) * plan_.batch_step, g.batch)};
      int64_t i[kAxes];
      for (i[0] = 0; i[0] < plan_.count[0]; ++i[0]) {
        for (i[1] = 0; i[1] < plan_.count[1]; ++i[1]) {
          for (i[2] = 0; i[2] < plan_.count[2]; ++i[2]) add_block(phase, images, i);
        }
      }
    }
    store(phase);
  }

 private:
  // The products of one block of tiles.
  void add_block(const WeightFilterPhase& phase, Range images, const int64_t (&index)[kAxes]) {
    int64_t begin[kAxes];
    FilterGrid data[kAxes], out[kAxes];
    for (int a = 0; a < kAxes; ++a) {
      begin[a] = index[a] * plan_.step[a];
      data[a] = {0, 1, plan_.problem.geometry.axis[a].in};
      out[a] = phase.axis[a].out;
    }
    const Geometry& g = plan_.problem.geometry;
    transform(phase, FilterMap::kSource, plan_.problem.data, data, images, begin,
              group_ * g.in_channels, in_, data_, largest_data_);
    transform(phase, FilterMap::kTaps, plan_.problem.out, out, images, begin,
              group_ * g.out_channels, filters_, out_, largest_out_);
    const int64_t tiles = plan_.tiles(phase, FilterMap::kSource, images.end - images.begin).total();
    for (int64_t t = 0; t < phase.products(); ++t) {
      for (int64_t r = 0; r < in_.end - in_.begin; r += kFilterChunk) {
        for (int64_t c = 0; c < filters_.end - filters_.begin; c += kFilterChunk) {
          multiply(std::min(kFilterChunk, in_.end - in_.begin - r),
                   std::min(kFilterChunk, filters_.end - filters_.begin - c),
                   data_ + (t * plan_.channels + r) * tiles,
                   out_ + (t * plan_.channels + c) * tiles, tiles,
                   sums_ + (t * plan_.channels + r) * plan_.channels + c);
        }
      }
    }
  }

  // [product][chunk][tile][channel of the chunk]
  void transform(const WeightFilterPhase& phase, FilterMap map, const TensorView& view,
                 const FilterGrid (&grid)[kAxes], Range images, const int64_t (&begin)[kAxes],
                 int64_t group_channel, Range channels, float* dst,
                 std::atomic<uint32_t>& largest) {
    const FilterTiles tiles = plan_.tiles(phase, map, images.end - images.begin);
    const FilterRegion region = plan_.region(phase, map, begin);
    for (int64_t c = channels.begin; c < channels.end; c += kFilterChunk) {
      const int64_t present = std::min(kFilterChunk, channels.end - c);
      raise_to(largest, pack_region(kernels_, view, grid, images, group_channel + c, present,
                                    region, region_));
      transform_tiles(kernels_, tiles, region, region_, present, rows_,
                      dst + (c - channels.begin) * tiles.total(), plan_.channels * tiles.total());
    }
  }

  void multiply(int64_t row_channels, int64_t col_channels, const float* row, const float* col,
                int64_t tiles, float* sum) const {
    const Panels rows = Panels::of_rows(kernels_, row_channels);
    const Panels cols = Panels::of_cols(kernels_, col_channels);
    for (int64_t r = 0; r < rows.count(); ++r) {
      for (int64_t c = 0; c < cols.count(); ++c) {
        kernels_.filter.accumulate(
            int(rows.width(r)), int(cols.width(c)), row + rows.begin(r), col + cols.begin(c), tiles,
            sum + rows.begin(r) * plan_.channels + cols.begin(c), plan_.channels);
      }
    }
  }

  // Maps the sums of the products to the taps, one input channel at a time.
  void store(const WeightFilterPhase& phase) {
    const auto combine = kernels_.filter.combine;
    const WeightView& weight = plan_.problem.weight;
    const WeightFilterAxis(&axis)[kAxes] = phase.axis;
    const int64_t p1 = products_of(axis[1].kind), p2 = products_of(axis[2].kind);
    const int64_t m0 = results_of(axis[0].kind), m1 = results_of(axis[1].kind);
    const int64_t m2 = results_of(axis[2].kind);
    const int64_t width = plan_.channels;
    const int64_t product = width * width;
    float* first = results_;
    float* second = results_ + kMostProducts * width;
    for (int64_t c = 0; c < in_.end - in_.begin; ++c) {
      combine(axis[0].kind, FilterMap::kResult,
              {first, p1 * p2 * width, sums_ + c * width, p1 * p2 * product, width, p1 * p2, width,
               product});
      combine(axis[1].kind, FilterMap::kResult,
              {second, p2 * width, first, p2 * width, p2 * width, m0, m1 * p2 * width,
               p1 * p2 * width});
      combine(axis[2].kind, FilterMap::kResult,
              {first, width, second, width, width, m0 * m1, m2 * width, p2 * width});
      for (int64_t e = 0; e < m0 * m1; ++e) {
        const int64_t offset =
            (group_ * plan_.problem.geometry.in_channels + in_.begin + c) * weight.in_channel +
            filters_.begin * weight.out_channel +
            (axis[0].tap_first + e / m1 * axis[0].tap_step) * weight.tap[0] +
            (axis[1].tap_first + e % m1 * axis[1].tap_step) * weight.tap[1] +
            axis[2].tap_first * weight.tap[2];
        kernels_.store(static_cast<char*>(weight.data) + offset * kernels_.elem_bytes,
                       axis[2].tap_step * weight.tap[2], weight.out_channel, first + e * m2 * width,
                       width, m2, filters_.end - filters_.begin, nullptr, 0, 0);
      }
    }
  }

  const WeightFilterPlan& plan_;
  const Kernels& kernels_;
  std::atomic<uint32_t>& largest_data_;
  std::atomic<uint32_t>& largest_out_;
  std::unique_ptr<Scratch> scratch_;
  float* region_;   // packed data or output gradients
  float* rows_;     // transformed along the outer axes
  float* data_;     // transformed
  float* out_;      // transformed
  float* sums_;     // [product][input channel][output channel]
  float* results_;  // of one input channel
  // The job at hand.
  int64_t group_ = 0;
  Range in_, filters_;
};

}  // namespace

bool run_minimal_filter_weight(const WeightFilterPlan& plan, const Resources& resources) {
  // No more workers than the workspace has room for.
  const FewerThreads threads(*resources.threads,
                             std::max<int64_t>(resources.workspace_bytes / plan.worker_bytes(), 1));
  std::atomic<uint32_t> data{0}, out{0};
  for_each_job(threads, plan.jobs(), [&] { return Worker(plan, data, out); });
  // Every value is finite, and so then was every sum of every map?
  const double x = magnitude(data), g = magnitude(out);
  double tiles = double(plan.problem.geometry.batch);
  for (int a = 0; a < kAxes; ++a) tiles *= double(plan.count[a] * plan.step[a]);
  return x <= 0x1p120 && g <= 0x1p120 && x * g * tiles * plan.growth <= 0x1p126;
}

}  // namespace mxd::cpu
