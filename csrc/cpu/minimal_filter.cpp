#include "cpu/minimal_filter.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>

#include "cpu/filter_weights.h"
#include "cpu/scratch.h"

namespace mxd::cpu {
namespace {

// Results beyond this size are stored past the caches: 1.11x on 16 MB, 1.0x to 1.06x on 8 MB.
constexpr int64_t kLargeResult = int64_t(8) << 20;

float magnitude(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

class Worker {
 public:
  // `limit` bounds the bits of the source values; `unsafe` is set where one exceeds it.
  Worker(const FilterPlan& plan, const float* weights, uint32_t limit, std::atomic<bool>& unsafe)
      : plan_(plan),
        kernels_(*plan.kernels),
        weights_(weights),
        limit_(limit),
        unsafe_(unsafe),
        scratch_(new Scratch(plan.worker_bytes())) {
    region_ = scratch_->take<float>(plan.region_elements);
    rows_ = scratch_->take<float>(plan.rows_elements);
    source_ = scratch_->take<float>(plan.source_elements);
    products_ = scratch_->take<float>(plan.product_elements);
    results_ = scratch_->take<float>(plan.result_elements);
    staging_ = scratch_->take<float>(plan.staging_elements);
    bias_ = scratch_->take<float>(plan.block_channels);
  }

  void operator()(int64_t job) {
    if (unsafe_.load(std::memory_order_relaxed)) return;
    locate(job);
    load_bias();
    if (plan_.shared_source) pack_shared();
    for (size_t g = 0; g < plan_.groups.size(); ++g) {
      const FilterGroup& group = plan_.groups[g];
      if (g == 0 || !same_source(group, plan_.groups[g - 1])) transform_source(group);
      multiply(group);
      transform_results(group);
      if (int64_t(g + 1) % plan_.last_axis_groups == 0) store(group);
    }
  }

 private:
  void locate(int64_t job) {
    const int64_t dst_block = job % plan_.dst_blocks;
    job /= plan_.dst_blocks;
    panel_begin_ = plan_.columns.count() * dst_block / plan_.dst_blocks;
    panel_end_ = plan_.columns.count() * (dst_block + 1) / plan_.dst_blocks;
    channel_begin_ = plan_.columns.begin(panel_begin_);
    const int64_t last = panel_end_ - 1;
    channels_ = plan_.columns.begin(last) + plan_.columns.present(last) - channel_begin_;
    for (int a = kAxes - 1; a >= 0; --a) {
      range_[a] = plan_.block_range(a, job % plan_.count[a]);
      job /= plan_.count[a];
    }
    batch_ = plan_.batch_range(job % plan_.batch_count);
    conv_group_ = job / plan_.batch_count;
  }

  int64_t images() const { return batch_.end - batch_.begin; }

  void load_bias() {
    if (!plan_.bias.data) return;
    const int64_t first = conv_group_ * plan_.dst_channels + channel_begin_;
    const char* bias =
        static_cast<const char*>(plan_.bias.data) + first * plan_.bias.stride * kernels_.elem_bytes;
    kernels_.pack(bias_, channels_, bias, channels_, plan_.bias.stride, 1, 0);
  }

  // ---- source -----------------------------------------------------------------------------

  static bool same_source(const FilterGroup& a, const FilterGroup& b) {
    for (int i = 0; i < kAxes; ++i) {
      const FilterAxis &left = a.correlations[0].axis[i], &right = b.correlations[0].axis[i];
      if (left.kind != right.kind || left.src_begin != right.src_begin ||
          left.src.first != right.src.first || left.src.step != right.src.step) {
        return false;
      }
    }
    return true;
  }

  void pack_shared() {
    std::vector<Correlation> all;
    for (const FilterGroup& group : plan_.groups) all.push_back(group.correlations[0]);
    shared_ = plan_.region(all.data(), all.data() + all.size(), range_);
    for (int64_t c = 0; c < src_chunks(); ++c) {
      pack(all[0], shared_, c, region_ + c * images() * shared_.pixels() * kFilterChunk);
    }
  }

  int64_t src_chunks() const { return ceil_div(plan_.src_channels, kFilterChunk); }

  void pack(const Correlation& correlation, const FilterRegion& region, int64_t chunk, float* dst) {
    const FilterGrid grid[kAxes] = {correlation.axis[0].src, correlation.axis[1].src,
                                    correlation.axis[2].src};
    const int64_t first = chunk * kFilterChunk;
    const uint32_t largest =
        pack_region(kernels_, plan_.src, grid, batch_, conv_group_ * plan_.src_channels + first,
                    plan_.lengths[size_t(chunk)], region, dst);
    if (largest > limit_) unsafe_ = true;
  }

  void transform_source(const FilterGroup& group) {
    FilterTiles tiles{FilterMap::kSource, {}, {}, {}, images()};
    for (int a = 0; a < kAxes; ++a) {
      tiles_[a] = plan_.tiles(group, a, range_[a].end - range_[a].begin);
      tiles.kind[a] = group.kind[a];
      tiles.step[a] = results_of(group.kind[a]);
      tiles.count[a] = tiles_[a];
    }
    tile_count_ = tiles.total();
    const int64_t product = int64_t(plan_.lengths.size()) * tile_count_ * kFilterChunk;
    float* dst = source_;
    for (const Correlation& correlation : group.correlations) {
      const FilterRegion own = plan_.region(&correlation, &correlation + 1, range_);
      const FilterRegion& region = plan_.shared_source ? shared_ : own;
      int64_t origin = 0;
      for (int a = 0; a < kAxes; ++a) {
        origin = origin * region.size[a] + own.begin[a] - region.begin[a];
      }
      for (int64_t c = 0; c < src_chunks(); ++c) {
        const int64_t elements = images() * region.pixels() * kFilterChunk;
        if (!plan_.shared_source) pack(correlation, region, c, region_);
        const float* packed = plan_.shared_source ? region_ + c * elements : region_;
        transform_tiles(kernels_, tiles, region, packed + origin * kFilterChunk,
                        plan_.lengths[size_t(c)], rows_, dst, product);
        dst += tile_count_ * kFilterChunk;
      }
    }
  }

  void combine(FilterKind kind, FilterMap map, const FilterCombine& what) const {
    kernels_.filter.combine(kind, map, what);
  }

  // ---- products ---------------------------------------------------------------------------

  void multiply(const FilterGroup& group) {
    const Panels tiles = Panels::of_rows(kernels_, tile_count_);
    const int64_t chunks = int64_t(plan_.lengths.size());
    const int64_t padded = plan_.columns.padded_total();
    const float* weights =
        weights_ + group.weight_begin + conv_group_ * group.products() * plan_.steps * padded;
    for (int64_t t = 0; t < group.products(); ++t) {
      const float* source = source_ + t * chunks * tile_count_ * kFilterChunk;
      float* products = products_ + t * tile_count_ * plan_.block_channels;
      for (int64_t panel = panel_begin_; panel < panel_end_; ++panel) {
        const int64_t begin = plan_.columns.begin(panel);
        const float* col = weights + (t * padded + begin) * plan_.steps;
        const float* ahead = next_panel(weights, t, panel);
        for (int64_t r = 0; r < tiles.count(); ++r) {
          kernels_.filter.multiply(
              int(tiles.width(r)), int(plan_.columns.width(panel)),
              source + tiles.begin(r) * kFilterChunk, tile_count_ * kFilterChunk,
              plan_.lengths.data(), chunks, col, ahead + (r % 2) * plan_.steps * 16,
              products + tiles.begin(r) * plan_.block_channels + begin - channel_begin_,
              plan_.block_channels);
        }
      }
    }
  }

  // Where the weights lie that are multiplied after those of this panel.
  const float* next_panel(const float* weights, int64_t t, int64_t panel) const {
    const int64_t padded = plan_.columns.padded_total();
    if (panel + 1 == panel_end_) {
      ++t;
      panel = panel_begin_;
    } else {
      ++panel;
    }
    return weights + (t * padded + plan_.columns.begin(panel)) * plan_.steps;
  }

  // ---- results ----------------------------------------------------------------------------

  // Maps the products to the results, interleaved along the last axis as they lie in memory.
  void transform_results(const FilterGroup& group) {
    const int64_t p1 = products_of(group.kind[1]);
    const int64_t p2 = products_of(group.kind[2]);
    const int64_t m0 = results_of(group.kind[0]), m1 = results_of(group.kind[1]);
    const int64_t m2 = results_of(group.kind[2]);
    const int64_t width = plan_.block_channels;
    const int64_t product = tile_count_ * width;
    const int64_t row = tiles_[2] * width;  // a product of a row of tiles
    const FilterAxis& last = group.correlations[0].axis[2];
    float* planes = results_;
    float* rows = results_ + m0 * p1 * p2 * row;
    const float* at = products_;
    for (int64_t n = 0; n < images(); ++n) {
      for (int64_t u0 = 0; u0 < tiles_[0]; ++u0) {
        for (int64_t u1 = 0; u1 < tiles_[1]; ++u1, at += row) {
          const bool flat = group.kind[0] == FilterKind::kSingle;
          if (!flat) {
            combine(group.kind[0], FilterMap::kResult,
                    {planes, p1 * p2 * row, at, p1 * p2 * product, row, p1 * p2, row, product});
          }
          const int64_t plane_step = flat ? product : row;  // from one product to the next
          for (int64_t i0 = 0; i0 < m0; ++i0) {
            const float* plane = flat ? at : planes + i0 * p1 * p2 * row;
            const bool single = group.kind[1] == FilterKind::kSingle;
            if (!single) {
              combine(group.kind[1], FilterMap::kResult,
                      {rows, p2 * row, plane, p2 * plane_step, row, p2, row, plane_step});
            }
            for (int64_t i1 = 0; i1 < m1; ++i1) {
              const float* from = single ? plane : rows + i1 * p2 * row;
              const int64_t q0 = u0 * m0 + i0;
              const int64_t q1 = u1 * m1 + i1;
              if (q0 >= range_[0].end - range_[0].begin || q1 >= range_[1].end - range_[1].begin) {
                continue;
              }
              combine(group.kind[2], FilterMap::kResult,
                      {staged(n, q0, q1) + (last.dst_first - plan_.dst_low) * width,
                       last.dst_step * width, from, single ? plane_step : row, width, tiles_[2],
                       m2 * last.dst_step * width, width});
            }
          }
        }
      }
    }
  }

  float* staged(int64_t n, int64_t q0, int64_t q1) const {
    return staging_ + ((n * plan_.step[0] + q0) * plan_.step[1] + q1) * plan_.step[2] *
                          plan_.dst_step[2] * plan_.block_channels;
  }

  // Writes the staged rows: of this group's phase on the outer axes, and all results of the last.
  void store(const FilterGroup& group) {
    const FilterAxis(&axis)[kAxes] = group.correlations[0].axis;
    const TensorView& dst = plan_.dst;
    const float* bias = plan_.bias.data ? bias_ : nullptr;
    const bool past_caches = plan_.dst_bytes() >= kLargeResult;
    const int64_t origin = range_[2].begin * plan_.dst_step[2] + plan_.dst_low;
    const int64_t begin = std::max<int64_t>(origin, 0);
    const int64_t end =
        std::min(range_[2].end * plan_.dst_step[2] + plan_.dst_low, plan_.dst_size[2]);
    if (begin >= end) return;
    Range existing[2];
    for (int a = 0; a < 2; ++a) {
      existing[a] = {std::max(range_[a].begin, axis[a].dst_begin),
                     std::min(range_[a].end, axis[a].dst_end)};
    }
    const int64_t channel0 = conv_group_ * plan_.dst_channels + channel_begin_;
    for (int64_t n = 0; n < images(); ++n) {
      for (int64_t q0 = existing[0].begin; q0 < existing[0].end; ++q0) {
        for (int64_t q1 = existing[1].begin; q1 < existing[1].end; ++q1) {
          const int64_t offset = (batch_.begin + n) * dst.batch + channel0 * dst.channel +
                                 (axis[0].dst_first + q0 * axis[0].dst_step) * dst.axis[0] +
                                 (axis[1].dst_first + q1 * axis[1].dst_step) * dst.axis[1] +
                                 begin * dst.axis[2];
          char* at = static_cast<char*>(dst.data) + offset * kernels_.elem_bytes;
          const float* row = staged(n, q0 - range_[0].begin, q1 - range_[1].begin) +
                             (begin - origin) * plan_.block_channels;
          if (dst.axis[2] == 1 && dst.channel != 1) {
            kernels_.filter.store_turned(at, dst.channel, row, plan_.block_channels, channels_,
                                         end - begin, bias, past_caches);
          } else {
            kernels_.store(at, dst.axis[2], dst.channel, row, plan_.block_channels, end - begin,
                           channels_, bias, 0, 1);
          }
        }
      }
    }
  }

  const FilterPlan& plan_;
  const Kernels& kernels_;
  const float* weights_;
  const uint32_t limit_;
  std::atomic<bool>& unsafe_;
  std::unique_ptr<Scratch> scratch_;
  float* region_;    // packed source
  float* rows_;      // source transformed along the outer axes
  float* source_;    // transformed source: [product][chunk][tile][channel of the chunk]
  float* products_;  // [product][tile][channel]
  float* results_;   // products mapped along the outer axes
  float* staging_;   // results: [image][outer axes][last axis, interleaved][channel]
  float* bias_;
  // The job at hand.
  int64_t conv_group_ = 0, panel_begin_ = 0, panel_end_ = 0, channel_begin_ = 0, channels_ = 0;
  Range range_[kAxes], batch_;
  FilterRegion shared_;
  // The group at hand.
  int64_t tiles_[kAxes], tile_count_ = 0;
};

// What source values may be at most, given the weights: every sum of every map then stays finite.
uint32_t source_limit(const FilterPlan& plan, float largest_weight) {
  constexpr double kMost = 0x1p126;
  if (!(largest_weight <= 0x1p120f)) return 0;
  const double products = double(plan.steps) * plan.growth * double(largest_weight);
  return bits_of(float(std::min(0x1p120, products > 0 ? kMost / products : 0x1p120)));
}

}  // namespace

bool run_minimal_filter(const FilterPlan& plan, const Resources& resources) {
  const int64_t room = resources.workspace_bytes - (resources.weights ? 0 : plan.weight_bytes());
  // No more workers than the workspace has room for.
  const FewerThreads threads(*resources.threads,
                             std::max<int64_t>(room / plan.largest_worker_bytes(), 1));
  const auto transform = [&](char* memory) {
    return transform_weights(plan, threads, reinterpret_cast<float*>(memory));
  };
  std::shared_ptr<const PreparedWeights::Form> kept;
  std::unique_ptr<Scratch> scratch;
  const float* weights;
  float largest_weight;
  if (resources.weights) {
    kept = resources.weights->get(transformed_key(plan), plan.weight_bytes(), transform);
    weights = reinterpret_cast<const float*>(kept->start);
    largest_weight = magnitude(kept->summary);
  } else {
    scratch = std::make_unique<Scratch>(plan.weight_bytes());
    char* memory = scratch->take<char>(plan.weight_bytes());
    weights = reinterpret_cast<const float*>(memory);
    largest_weight = magnitude(transform(memory));
  }
  if (!(largest_weight <= 0x1p120f)) return false;
  const uint32_t limit = source_limit(plan, largest_weight);
  std::atomic<bool> unsafe{false};
  for_each_job(threads, plan.jobs(), [&] { return Worker(plan, weights, limit, unsafe); });
  return !unsafe;
}

}  // namespace mxd::cpu
