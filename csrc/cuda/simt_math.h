// The inner product of two tiles by the ordinary arithmetic units.
//
//            columns n ->  +-- kColumns -------+    256 threads as 16 x 16. A thread owns a grid of
//   rows m   +--+          | B [kDepth][n]     |    kRowsEach by kColumnsEach results in quads of
//        |   |A |          +-------------------+    four: quad q of the rows begins at
//        v   |  |          | C: a thread's     |    (q * kRowThreads + its row) * 4, so that the
//            |  |          |   quads           |    threads of a warp read neighbouring quads and
//            +--+          +-------------------+    no two of them a bank at once.
#pragma once

#include "cuda/element.h"
#include "cuda/tile.h"

namespace mxd::cuda {

template <class T, int kRows_, int kColumns_, int kDepth_, int kRowsEach, int kColumnsEach>
struct SimtMath {
  static constexpr int kRows = kRows_, kColumns = kColumns_, kDepth = kDepth_;
  static constexpr int kRowThreads = kRows / kRowsEach;
  static constexpr int kColumnThreads = kColumns / kColumnsEach;
  static constexpr int kThreads = kRowThreads * kColumnThreads;
  static constexpr int kPack = 1;  // consecutive terms that are stored at once
  static constexpr int kResults = kRowsEach * kColumnsEach;
  using Value = SumOf<T>;
  static constexpr int kQuad = smaller(4, 16 / int(sizeof(Value)));
  static_assert(kRowsEach % kQuad == 0 && kColumnsEach % kQuad == 0, "whole quads");

  // One quad wider than it needs to be: the terms of a row or column begin in different banks.
  using TileA = Tile<Value, kDepth, kRows + kQuad>;
  using TileB = Tile<Value, kDepth, kColumns + kQuad>;

  // What waits in a register between memory and the tile.
  using Word = T;
  static MXD_DEVICE Word pack(const T* values) { return values[0]; }
  static MXD_DEVICE bool finite(Word word) { return is_finite(word); }

  template <class AnyTile>
  static MXD_DEVICE void store(AnyTile& tile, int width, int depth, Word word) {
    tile(depth, width) = widen(word);
  }
  template <class AnyTile>
  static MXD_DEVICE Value load(const AnyTile& tile, int width, int depth) {
    return tile(depth, width);
  }

  static MXD_DEVICE int row(int result) {
    const int i = result / kColumnsEach;
    return (i / kQuad * kRowThreads + thread_index() / kColumnThreads) * kQuad + i % kQuad;
  }
  static MXD_DEVICE int column(int result) {
    const int j = result % kColumnsEach;
    return (j / kQuad * kColumnThreads + thread_index() % kColumnThreads) * kQuad + j % kQuad;
  }

  static MXD_DEVICE void multiply(const TileA& a, const TileB& b, Value (&sums)[kResults]) {
    MXD_UNROLL for (int k = 0; k < kDepth; ++k) {
      Value rows[kRowsEach], columns[kColumnsEach];
      MXD_UNROLL for (int i = 0; i < kRowsEach; i += kQuad) {
        read_cells<kQuad>(&a(k, row(i * kColumnsEach)), rows + i);
      }
      MXD_UNROLL for (int j = 0; j < kColumnsEach; j += kQuad) {
        read_cells<kQuad>(&b(k, column(j)), columns + j);
      }
      MXD_UNROLL for (int i = 0; i < kRowsEach; ++i) {
        MXD_UNROLL for (int j = 0; j < kColumnsEach; ++j) {
          Value& sum = sums[i * kColumnsEach + j];
          sum = multiply_add(rows[i], columns[j], sum);
        }
      }
    }
  }
};

}  // namespace mxd::cuda
