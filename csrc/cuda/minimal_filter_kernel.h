// The transforms of minimal filtering: a thread does one tile of one channel, or one kernel of one
// phase, in registers.
//
// A tile is a cube of kPlanes x 4 x 4 values, whatever its kinds: what they leave unused is never
// read or written. kPlanes is 1 where the first axis has nothing to filter, else 4.
#pragma once

#include "cuda/element.h"
#include "cuda/minimal_filter.h"

namespace mxd::cuda {

// ---- the maps of an axis, in place --------------------------------------------------------------
//
// The halves stand behind the products: integers stay integers, and a subnormal tap loses nothing.

struct SourceMap {
  static MXD_DEVICE void apply(FilterKind kind, float& a, float& b, float& c, float& d) {
    if (kind == FilterKind::kF22) {
      a = a - b;
      c = c - b;
    } else if (kind != FilterKind::kSingle) {
      const float second = b, third = c;
      a = a - third;
      b = second + third;
      c = third - second;
      d = d - second;
    }
  }
};

struct TapsMap {
  static MXD_DEVICE void apply(FilterKind kind, float& a, float& b, float& c, float& d) {
    if (kind == FilterKind::kF22) {
      c = b;
      b = a + b;
    } else if (kind == FilterKind::kF32) {
      d = b;
      c = a - b;
      b = a + b;
    } else if (kind == FilterKind::kF23) {
      const float ends = a + c, middle = b;
      d = c;
      b = ends + middle;
      c = ends - middle;
    }
  }
};

struct ResultMap {
  static MXD_DEVICE void apply(FilterKind kind, float& a, float& b, float& c, float& d) {
    if (kind == FilterKind::kF22) {
      a = a + b;
      b = b + c;
    } else if (kind != FilterKind::kSingle) {
      const float sum = (b + c) * 0.5f, difference = (b - c) * 0.5f;
      a = a + sum;
      b = kind == FilterKind::kF32 ? difference : d + difference;
      c = d + sum;
    }
  }
};

template <int kPlanes>
struct FilterTile {
  float at[kPlanes][kMostPoints][kMostPoints];

  template <class Map>
  MXD_DEVICE void map(const FilterStageAxis (&axis)[kAxes]) {
    MXD_UNROLL for (int i = 0; i < kPlanes; ++i) {
      MXD_UNROLL for (int j = 0; j < kMostPoints; ++j) {
        Map::apply(axis[2].kind, at[i][j][0], at[i][j][1], at[i][j][2], at[i][j][3]);
      }
      MXD_UNROLL for (int j = 0; j < kMostPoints; ++j) {
        Map::apply(axis[1].kind, at[i][0][j], at[i][1][j], at[i][2][j], at[i][3][j]);
      }
    }
    if constexpr (kPlanes > 1) {
      MXD_UNROLL for (int i = 0; i < kMostPoints; ++i) {
        MXD_UNROLL for (int j = 0; j < kMostPoints; ++j) {
          Map::apply(axis[0].kind, at[0][i][j], at[1][i][j], at[2][i][j], at[3][i][j]);
        }
      }
    }
  }

  // Calls visit(value, i0, i1, i2) for all of the cube.
  template <class Visit>
  MXD_DEVICE void each(const Visit& visit) {
    MXD_UNROLL for (int i = 0; i < kPlanes; ++i) {
      MXD_UNROLL for (int j = 0; j < kMostPoints; ++j) {
        MXD_UNROLL for (int k = 0; k < kMostPoints; ++k) visit(at[i][j][k], i, j, k);
      }
    }
  }

  // The transformed values, from or to every `step`-th element.
  MXD_DEVICE void load(const FilterStageAxis (&axis)[kAxes], const float* from, int64_t step) {
    each([&](float& value, int i, int j, int k) {
      value = is_point(axis, i, j, k) ? read(from + point(axis, i, j, k) * step) : 0.0f;
    });
  }
  MXD_DEVICE void store(const FilterStageAxis (&axis)[kAxes], float* to, int64_t step) {
    each([&](float& value, int i, int j, int k) {
      if (is_point(axis, i, j, k)) write(to + point(axis, i, j, k) * step, value);
    });
  }

 private:
  static MXD_DEVICE bool is_point(const FilterStageAxis (&axis)[kAxes], int i, int j, int k) {
    return i < axis[0].points && j < axis[1].points && k < axis[2].points;
  }
  static MXD_DEVICE int point(const FilterStageAxis (&axis)[kAxes], int i, int j, int k) {
    return (i * axis[1].points + j) * axis[2].points + k;
  }
};

// The phase of each axis.
struct PhaseIndex {
  int32_t of[kAxes];

  MXD_DEVICE PhaseIndex(const FilterStageAxis (&axis)[kAxes], int32_t phase) {
    MXD_UNROLL for (int a = kAxes - 1; a >= 0; --a) {
      of[a] = phase % axis[a].phases;
      phase /= axis[a].phases;
    }
  }
};

// Which tile of which image.
struct TileIndex {
  int32_t of[kAxes], image;

  MXD_DEVICE TileIndex(const FilterStageAxis (&axis)[kAxes], int32_t tile) {
    MXD_UNROLL for (int a = kAxes - 1; a >= 0; --a) {
      of[a] = tile % axis[a].tiles;
      tile /= axis[a].tiles;
    }
    image = tile;
  }
};

// A group, one of its channels, and a tile of the block.
struct ItemIndex {
  int32_t group, channel, tile;

  MXD_DEVICE ItemIndex(int32_t item, int32_t channels, int32_t tiles, bool channels_fastest) {
    if (channels_fastest) {
      channel = item % channels;
      tile = item / channels % tiles;
      group = item / channels / tiles;
    } else {
      tile = item % tiles;
      channel = item / tiles % channels;
      group = item / tiles / channels;
    }
  }
};

MXD_DEVICE bool must_not_be_filtered(const FilterParams& params, float value) {
  return !(value <= params.limit && value >= -params.limit);
}

// ---- the kernels --------------------------------------------------------------------------------

// Lowers the flag.
struct FilterBegin {
  using Params = FilterParams;
  static constexpr int kThreads = 32;
  struct Shared {};

  static MXD_DEVICE void run(const Params& params, Shared&) {
    if (thread_index() == 0) write(params.unsafe, int32_t(0));
  }
};

// Runs Body::item for every item.
template <class Body>
struct FilterItems {
  using Params = FilterParams;
  static constexpr int kThreads = 256;
  struct Shared {};

  static int64_t jobs(const Params& params) {
    return (Body::items(params) + kThreads - 1) / kThreads;
  }
  static MXD_DEVICE void run(const Params& params, Shared&) {
    const int64_t items = Body::items(params);
    for (int64_t first = block_index() * kThreads; first < items;
         first += block_count() * kThreads) {
      const int64_t item = first + thread_index();
      if (item < items) Body::item(params, int32_t(item));
    }
  }
};

// Neighbouring threads have neighbouring rows.
template <int kPlanes>
struct FilterWeights {
  static MXD_HOST_DEVICE int64_t items(const FilterParams& params) {
    return int64_t(params.groups) * params.terms() * params.rows();
  }

  static MXD_DEVICE void item(const FilterParams& params, int32_t item) {
    const FilterStageAxis(&axis)[kAxes] = params.axis;
    const int32_t matrix = params.terms() * params.rows();
    const int32_t group = item / matrix, row = item % matrix % params.rows();
    const int32_t term = item % matrix / params.rows();
    const PhaseIndex phase(
        axis, params.phases_are_rows ? row / params.dst_channels : term / params.src_channels);
    const float* from = static_cast<const float*>(params.weight.data) +
                        group * params.weight_group +
                        term % params.src_channels * params.weight.in_channel +
                        row % params.dst_channels * params.weight.out_channel;
    int64_t step[kAxes];
    MXD_UNROLL for (int a = 0; a < kAxes; ++a) {
      from += axis[a].phase[phase.of[a]].tap_first * params.weight.tap[a];
      step[a] = axis[a].tap_step * params.weight.tap[a];
    }
    FilterTile<kPlanes> tile;
    bool unsafe = false;
    tile.each([&](float& value, int i, int j, int k) {
      const bool there = i < axis[0].taps && j < axis[1].taps && k < axis[2].taps;
      value = there ? read(from + i * step[0] + j * step[1] + k * step[2]) : 0.0f;
      unsafe = unsafe || must_not_be_filtered(params, value);
    });
    if (unsafe) write(params.unsafe, int32_t(1));
    tile.template map<TapsMap>(axis);
    tile.store(axis, params.weights + int64_t(group) * params.points() * matrix + item % matrix,
               matrix);
  }
};

template <int kPlanes>
struct FilterSource {
  static MXD_HOST_DEVICE int64_t items(const FilterParams& params) {
    return int64_t(params.groups) * params.terms() * params.tiles;
  }

  static MXD_DEVICE void item(const FilterParams& params, int32_t item) {
    const FilterStageAxis(&axis)[kAxes] = params.axis;
    const ItemIndex index(item, params.terms(), params.tiles, params.src_channels_fastest);
    const TileIndex place(axis, params.first_tile + index.tile);
    // Phases that are rows all read what the first one reads.
    const PhaseIndex phase(axis, index.channel / params.src_channels);
    const int64_t channel =
        int64_t(index.group) * params.src_channels + index.channel % params.src_channels;
    const float* from = static_cast<const float*>(params.src.data) +
                        place.image * params.src.batch + channel * params.src.channel;
    int64_t begin[kAxes], step[kAxes];
    MXD_UNROLL for (int a = 0; a < kAxes; ++a) {
      const FilterPhase& own = axis[a].phase[phase.of[a]];
      begin[a] = own.src_begin + int64_t(place.of[a]) * axis[a].results;
      step[a] = axis[a].src_step * params.src.axis[a];
      from += own.src_first * params.src.axis[a] + begin[a] * step[a];
    }
    const auto there = [&](int a, int i) {
      const int64_t at = begin[a] + i;
      return i < axis[a].points && at >= 0 && at < axis[a].phase[phase.of[a]].src_size;
    };
    FilterTile<kPlanes> tile;
    bool unsafe = false;
    tile.each([&](float& value, int i, int j, int k) {
      value = there(0, i) && there(1, j) && there(2, k)
                  ? read(from + i * step[0] + j * step[1] + k * step[2])
                  : 0.0f;
      unsafe = unsafe || must_not_be_filtered(params, value);
    });
    if (unsafe) write(params.unsafe, int32_t(1));
    tile.template map<SourceMap>(axis);
    const FilterStrides at = params.source_strides();
    tile.store(axis,
               params.source + int64_t(index.group) * params.points() * at.group +
                   index.channel * at.channel + index.tile * at.tile,
               at.group);
  }
};

// A thread writes the results of all phases of its tile, which lie side by side.
template <int kPlanes>
struct FilterResults {
  static MXD_HOST_DEVICE int64_t items(const FilterParams& params) {
    return int64_t(params.groups) * params.dst_channels * params.tiles;
  }

  static MXD_DEVICE void item(const FilterParams& params, int32_t item) {
    const FilterStageAxis(&axis)[kAxes] = params.axis;
    const ItemIndex index(item, params.dst_channels, params.tiles, params.dst_channels_fastest);
    const TileIndex place(axis, params.first_tile + index.tile);
    const int64_t channel = int64_t(index.group) * params.dst_channels + index.channel;
    const FilterStrides from = params.product_strides();
    const float* products = params.products + int64_t(index.group) * params.points() * from.group +
                            index.channel * from.channel + index.tile * from.tile;
    float* to = static_cast<float*>(params.dst.data) + place.image * params.dst.batch +
                channel * params.dst.channel;
    const float* bias = static_cast<const float*>(params.bias.data);
    const float more = bias ? read(bias + channel * params.bias.stride) : 0.0f;
    const int32_t phases = params.phases_are_rows ? params.phases() : 1;
    MXD_NO_UNROLL for (int32_t p = 0; p < phases; ++p) {
      const PhaseIndex phase(axis, p);
      FilterTile<kPlanes> tile;
      // Anew: or the places of all points are kept in registers from phase to phase.
      tile.load(axis, products + int64_t(p) * params.dst_channels * from.channel, anew(from.group));
      tile.template map<ResultMap>(axis);
      const auto result = [&](int a, int i) {  // which one of the phase's, on an axis
        return int64_t(place.of[a]) * axis[a].results + i;
      };
      const auto there = [&](int a, int i) {
        const FilterPhase& own = axis[a].phase[phase.of[a]];
        const int64_t q = result(a, i);
        return i < axis[a].results && q >= own.dst_begin && q < own.dst_end;
      };
      const auto offset = [&](int a, int i) {
        return (axis[a].phase[phase.of[a]].dst_first + result(a, i) * axis[a].dst_step) *
               params.dst.axis[a];
      };
      tile.each([&](float& value, int i, int j, int k) {
        if (there(0, i) && there(1, j) && there(2, k)) {
          write(to + offset(0, i) + offset(1, j) + offset(2, k), value + more);
        }
      });
    }
  }
};

}  // namespace mxd::cuda
