// Copies a weight into the order in which the product kernel reads it in whole lines: rows (see
// product.h) innermost, the taps outermost.
//
// A framework keeps the taps of a channel together, so that a tile of A for one tap would take one
// element of every line it touches. The copy reads such lines once, through shared memory:
//
//   a block copies a tile of kTile rows by kTile taps of one channel, read with the taps of a row
//   as neighbouring threads, written with the rows of a tap as neighbouring threads
#pragma once

#include "core/problem.h"
#include "cuda/element.h"
#include "cuda/tile.h"

struct CUstream_st;

namespace mxd::cuda {

// Strides are in elements; the copy's is 1 from row to row.
struct WeightCopyParams {
  const void* src = nullptr;
  void* dst = nullptr;
  int64_t rows = 0, channels = 0, groups = 1, taps[kAxes] = {1, 1, 1};
  int64_t src_row = 0, src_channel = 0, src_group = 0, src_tap[kAxes] = {0, 0, 0};
  int64_t dst_channel = 0, dst_group = 0, dst_tap = 0;

  MXD_HOST_DEVICE int64_t tap_count() const { return taps[0] * taps[1] * taps[2]; }
};

template <class T>
struct WeightCopy {
  using Params = WeightCopyParams;
  static constexpr int kThreads = 256;
  static constexpr int kTile = 32;
  static constexpr int kSteps = kTile * kTile / kThreads;
  struct Shared {
    Tile<T, kTile, kTile + 4 / int(sizeof(T)) + 1> tile;  // an odd number of words to a row
  };

  static MXD_HOST_DEVICE int64_t tiles(int64_t count) { return (count + kTile - 1) / kTile; }
  static MXD_HOST_DEVICE int64_t jobs(const Params& params) {
    return params.groups * params.channels * tiles(params.rows) * tiles(params.tap_count());
  }

  static MXD_DEVICE void run(const Params& params, Shared& shared) {
    const T* src = static_cast<const T*>(params.src);
    T* dst = static_cast<T*>(params.dst);
    const int64_t taps = params.tap_count();
    const int fast = thread_index() % kTile, slow = thread_index() / kTile;
    for (int64_t job = block_index(); job < jobs(params); job += block_count()) {
      int64_t rest = job;
      const int64_t first_tap = rest % tiles(taps) * kTile;
      rest /= tiles(taps);
      const int64_t first_row = rest % tiles(params.rows) * kTile;
      rest /= tiles(params.rows);
      const int64_t channel = rest % params.channels, group = rest / params.channels;
      const int64_t tap = first_tap + fast;
      const int64_t from = group * params.src_group + channel * params.src_channel +
                           tap / (params.taps[1] * params.taps[2]) * params.src_tap[0] +
                           tap / params.taps[2] % params.taps[1] * params.src_tap[1] +
                           tap % params.taps[2] * params.src_tap[2];
      MXD_UNROLL for (int step = 0; step < kSteps; ++step) {
        const int i = slow + step * (kThreads / kTile);
        if (tap < taps && first_row + i < params.rows) {
          shared.tile(i, fast) = read(src + from + (first_row + i) * params.src_row);
        }
      }
      barrier();
      MXD_UNROLL for (int step = 0; step < kSteps; ++step) {
        const int64_t to_tap = first_tap + slow + step * (kThreads / kTile);
        const int64_t row = first_row + fast;
        if (to_tap < taps && row < params.rows) {
          const T value = shared.tile(fast, int(to_tap - first_tap));
          write(dst + group * params.dst_group + channel * params.dst_channel +
                    to_tap * params.dst_tap + row,
                value);
        }
      }
      barrier();
    }
  }
};

// The same problem with its weight in the order of the copy, wherever that will be.
Problem with_rows_innermost(Pass pass, const Problem& problem);

// Copies the problem's weight, for the forward pass or the data gradient.
void copy_weight(Pass pass, const Problem& problem, void* copy, CUstream_st* stream);

}  // namespace mxd::cuda
