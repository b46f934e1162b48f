// The inner product of two tiles by the tensor cores.
//
// Tiles lie in words of 32 bits, two consecutive terms of 16 bits or one of TF32 to a word: 16
// words of terms for each row of A and each column of B. A warp owns kWarpRows x kWarpColumns of C,
// as fragments of 16 x 8 (see multiply_fragments).
//
// Word w of line l is kept at place w ^ (l / 2 % 4 * 4 + l / 8 % 4). A fragment is read from eight
// neighbouring lines, four words of each; a tile is written one word each of 32 neighbouring lines,
// or eight words each of eight. Each of these touches every bank once at most.
#pragma once

#include "cuda/element.h"
#include "cuda/gather.h"
#include "cuda/tile.h"

namespace mxd::cuda {

template <class T>
struct TensorElement;

template <>
struct TensorElement<Half> {
  static constexpr MatrixType kType = MatrixType::kHalf;
};
template <>
struct TensorElement<BFloat16> {
  static constexpr MatrixType kType = MatrixType::kBFloat16;
};
template <>
struct TensorElement<float> {
  static constexpr MatrixType kType = MatrixType::kTf32;
};

template <class T, int kRows_, int kColumns_, int kWarpRows, int kWarpColumns>
struct TensorMath {
  static constexpr int kRows = kRows_, kColumns = kColumns_;
  static constexpr int kWords = 16;
  static constexpr int kPack = 4 / int(sizeof(T));  // terms to a word
  static constexpr int kDepth = kWords * kPack;
  static constexpr int kRowWarps = kRows / kWarpRows, kColumnWarps = kColumns / kWarpColumns;
  static constexpr int kThreads = 32 * kRowWarps * kColumnWarps;
  static constexpr int kRowTiles = kWarpRows / 16, kColumnTiles = kWarpColumns / 8;
  static constexpr int kResults = kRowTiles * kColumnTiles * 4;
  using Value = float;
  using TileA = Tile<uint32_t, kRows, kWords>;
  using TileB = Tile<uint32_t, kColumns, kWords>;

  static MXD_DEVICE int place(int line, int word) {
    return word ^ (line / 2 % 4 * 4 + line / 8 % 4);
  }

  using Word = uint32_t;
  static MXD_DEVICE Word pack(const T* values) {
    if constexpr (kPack == 2) {
      return uint32_t(values[0].bits) | uint32_t(values[1].bits) << 16;
    } else {
      return tf32_of_float(values[0]);
    }
  }
  // A large float may have been rounded to an infinity.
  static MXD_DEVICE bool finite(Word word) {
    if constexpr (kPack == 2) {
      return is_finite(T{uint16_t(word)}) && is_finite(T{uint16_t(word >> 16)});
    } else {
      return is_finite(float_of_bits(word));
    }
  }

  template <class AnyTile>
  static MXD_DEVICE void store(AnyTile& tile, int width, int depth, Word word) {
    tile(width, place(width, depth / kPack)) = word;
  }
  template <class AnyTile>
  static MXD_DEVICE float load(const AnyTile& tile, int width, int depth) {
    const uint32_t word = tile(width, place(width, depth / kPack));
    if constexpr (kPack == 2) {
      return widen(T{uint16_t(word >> 16 * (depth % 2))});
    } else {
      return float_of_bits(word);
    }
  }

  static MXD_DEVICE int warp_row() { return thread_index() / 32 / kColumnWarps * kWarpRows; }
  static MXD_DEVICE int warp_column() { return thread_index() / 32 % kColumnWarps * kWarpColumns; }
  static MXD_DEVICE int row(int result) {
    return warp_row() + result / 4 / kColumnTiles * 16 + thread_index() % 32 / 4 +
           result % 4 / 2 * 8;
  }
  static MXD_DEVICE int column(int result) {
    return warp_column() + result / 4 % kColumnTiles * 8 + thread_index() % 4 * 2 + result % 2;
  }

  static MXD_DEVICE void multiply(const TileA& a, const TileB& b, float (&sums)[kResults]) {
    const int line = thread_index() % 32 / 4, word = thread_index() % 4;
    MXD_UNROLL for (int step = 0; step < kWords; step += 8) {
      uint32_t rows[kRowTiles][4], columns[kColumnTiles][2];
      MXD_UNROLL for (int i = 0; i < kRowTiles; ++i) {
        MXD_UNROLL for (int part = 0; part < 4; ++part) {
          const int at = warp_row() + 16 * i + part % 2 * 8 + line;
          rows[i][part] = a(at, place(at, step + part / 2 * 4 + word));
        }
      }
      MXD_UNROLL for (int j = 0; j < kColumnTiles; ++j) {
        MXD_UNROLL for (int part = 0; part < 2; ++part) {
          const int at = warp_column() + 8 * j + line;
          columns[j][part] = b(at, place(at, step + part * 4 + word));
        }
      }
      MXD_UNROLL for (int i = 0; i < kRowTiles; ++i) {
        MXD_UNROLL for (int j = 0; j < kColumnTiles; ++j) {
          multiply_fragments<TensorElement<T>::kType>(&sums[(i * kColumnTiles + j) * 4], rows[i],
                                                      columns[j]);
        }
      }
    }
  }
};

}  // namespace mxd::cuda
