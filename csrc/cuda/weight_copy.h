// Copies a weight into the order in which the product kernel reads it in whole lines: rows (see
// product.h) innermost, the taps outermost.
//
// A framework keeps the taps of a channel together, so that a tile of A for one tap would take one
// element of every line it touches. The copy reads such lines once, through shared memory:
//
//   a block copies a box of rows, channels and taps, at most kMostCells of them
//   read    as they lie in the weight: neighbouring threads have neighbours of the digit with the
//           smallest stride, and all of that digit that the box has room for is in it
//   write   as they lie in the copy: the threads of a warp have kRows rows and more of one tap
//
// With 2 x 2 taps a box of the forward pass is 256 rows of 4 taps, one run of memory; that of the
// data gradient 32 rows of 8 channels of 4 taps, runs of 32 elements.
#pragma once

#include "core/problem.h"
#include "cuda/element.h"
#include "cuda/tile.h"

struct CUstream_st;

namespace mxd::cuda {

// A row, channel or tap.
struct WeightDigit {
  int64_t count = 1, src = 0, dst = 0;  // strides in elements; a tap's in the weight are apart
  int32_t box = 1;                      // how many of them a block copies
};

struct WeightCopyParams {
  const void* src = nullptr;
  void* dst = nullptr;
  WeightDigit digit[3];      // in the order of their strides in the weight, the smallest first
  int32_t row = 0, tap = 0;  // which of them is which
  int32_t taps[kAxes] = {1, 1, 1};
  int64_t src_tap[kAxes] = {0, 0, 0};
  int64_t groups = 1, src_group = 0, dst_group = 0;
};

template <class T>
struct WeightCopy {
  using Params = WeightCopyParams;
  static constexpr int kThreads = 256;
  static constexpr int kRows = 32;  // of a box at least, whether there are so many or not
  static constexpr int kMostCells = 1024;
  struct Shared {
    // Lines of rows, of an odd length: what is read along another digit lands in other banks.
    Tile<T, 1, kMostCells + kMostCells / kRows> cells;
  };

  static MXD_HOST_DEVICE int64_t boxes(const WeightDigit& digit) {
    return (digit.count + digit.box - 1) / digit.box;
  }
  static MXD_HOST_DEVICE int64_t jobs(const Params& params) {
    return params.groups * boxes(params.digit[0]) * boxes(params.digit[1]) * boxes(params.digit[2]);
  }

  static MXD_DEVICE int64_t tap_offset(const Params& params, int32_t tap) {
    const int32_t t2 = tap % params.taps[2], rest = tap / params.taps[2];
    const int32_t t1 = rest % params.taps[1], t0 = rest / params.taps[1];
    return t0 * params.src_tap[0] + t1 * params.src_tap[1] + t2 * params.src_tap[2];
  }

  static MXD_DEVICE void run(const Params& params, Shared& shared) {
    const int32_t box[3] = {params.digit[0].box, params.digit[1].box, params.digit[2].box};
    const int32_t cells = box[0] * box[1] * box[2];
    const int32_t rows = params.row == 0 ? box[0] : params.row == 1 ? box[1] : box[2];
    const int32_t pitch = rows | 1;
    for (int64_t job = block_index(); job < jobs(params); job += block_count()) {
      int64_t first[3], rest = job;
      MXD_UNROLL for (int d = 0; d < 3; ++d) {
        first[d] = rest % boxes(params.digit[d]) * box[d];
        rest /= boxes(params.digit[d]);
      }
      const T* src = static_cast<const T*>(params.src) + rest * params.src_group;
      T* dst = static_cast<T*>(params.dst) + rest * params.dst_group;
      for (int32_t i = thread_index(); i < cells; i += kThreads) {
        const int32_t at[3] = {i % box[0], i / box[0] % box[1], i / box[0] / box[1]};
        int64_t from = 0;
        bool there = true;
        MXD_UNROLL for (int d = 0; d < 3; ++d) {
          const int64_t index = first[d] + at[d];
          there = there && index < params.digit[d].count;
          from +=
              d == params.tap ? tap_offset(params, int32_t(index)) : index * params.digit[d].src;
        }
        if (there) shared.cells(0, place(params, box, at, pitch)) = read(src + from);
      }
      barrier();
      for (int32_t i = thread_index(); i < cells; i += kThreads) {
        int32_t at[3] = {0, 0, 0};
        int32_t others = i / rows;
        int64_t to = 0;
        bool there = true;
        MXD_UNROLL for (int d = 0; d < 3; ++d) {
          at[d] = d == params.row ? i % rows : others % box[d];
          if (d != params.row) others /= box[d];
          const int64_t index = first[d] + at[d];
          there = there && index < params.digit[d].count;
          to += index * params.digit[d].dst;
        }
        if (there) {
          const T value = shared.cells(0, place(params, box, at, pitch));
          write(dst + to, value);
        }
      }
      barrier();
    }
  }

  static MXD_DEVICE int place(const Params& params, const int32_t (&box)[3], const int32_t (&at)[3],
                              int pitch) {
    int line = 0, row = 0;
    MXD_UNROLL for (int d = 2; d >= 0; --d) {
      if (d == params.row) {
        row = at[d];
      } else {
        line = line * box[d] + at[d];
      }
    }
    return line * pitch + row;
  }
};

// The same problem with its weight in the order of the copy, wherever that will be.
Problem with_rows_innermost(Pass pass, const Problem& problem);

// How the copy is made, but for its address.
WeightCopyParams plan_weight_copy(Pass pass, const Problem& problem);

// Copies the problem's weight, for the forward pass or the data gradient.
void copy_weight(Pass pass, const Problem& problem, void* copy, CUstream_st* stream);

}  // namespace mxd::cuda
