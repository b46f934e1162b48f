// The configurations of the product kernel that are built, and how a caller asks for one.
#pragma once

#include "cuda/gather.h"

struct CUstream_st;

namespace mxd::cuda {

// Tiles of C, rows x columns.
enum class TileShape {
  kLarge,   // 128 x 128: most products for each element that is fetched
  kMedium,  // 64 x 64: where large ones would be few, or mostly empty
  kNarrow,  // 8 x 256: few rows
};

struct TileSize {
  int64_t rows, columns;
};
constexpr TileSize size_of(TileShape shape) {
  return shape == TileShape::kLarge    ? TileSize{128, 128}
         : shape == TileShape::kMedium ? TileSize{64, 64}
                                       : TileSize{8, 256};
}

// The pair of directions in which threads are neighbours (see gather.h).
struct ProductChoice {
  TileShape shape = TileShape::kMedium;
  Other terms = Other::kLast;
  Along a = Along::kWidth, b = Along::kWidth;
  bool direct = false;        // no tiles: every result by itself (direct_kernel.h)
  bool tensor_cores = false;  // kLarge and kMedium with 32-bit indices only; float as TF32
};

// 64-bit indices and 16-bit elements come without kLarge. If there are splits, their sums are added
// up too. Defined by product_*.cu, each for one T.
template <class T, class Index>
void launch_product(const ProductChoice& choice, const ProductParams<Index>& params,
                    CUstream_st* stream);

// The same by tensor cores, for T = float, Half, BFloat16. Defined by tensor_*.cu.
template <class T>
void launch_tensor_product(const ProductChoice& choice, const ProductParams<int32_t>& params,
                           CUstream_st* stream);

// The same, every result summed by itself (direct_kernel.h). `terms` tells the weight gradient from
// the other passes. Defined by direct.cu.
template <class T, class Index>
void launch_direct(Other terms, const ProductParams<Index>& params, CUstream_st* stream);

}  // namespace mxd::cuda
