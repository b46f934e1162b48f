// Turns a ProductChoice into the kernel that is meant. Included by product_*.cu and tensor_*.cu
// alone.
#pragma once

#include "cuda/launch.h"
#include "cuda/product_kernel.h"
#include "cuda/product_shapes.h"
#include "cuda/simt_math.h"
#include "cuda/tensor_math.h"

namespace mxd::cuda {

template <class Math, class T, class Index, Other kTerms, Along kAlongA, Along kAlongB>
void launch_kernel(const ProductParams<Index>& params, CUstream_st* stream) {
  using Kernel = ProductKernel<Math, T, Index, kTerms, kAlongA, kAlongB>;
  launch<Kernel>(params, params.tiles() * params.splits, stream);
  if (params.splits > 1) launch<SplitSum<Math, T, Index>>(params, params.tiles(), stream);
}

// Weights are read along their rows in the forward pass and the data gradient: the engine sees to
// it that they lie so. In the weight gradient both operands are tensors of one layout. With 64-bit
// indices, which are rare, there is one direction only.
template <class Math, class T, class Index>
void launch_math(const ProductChoice& choice, const ProductParams<Index>& params,
                 CUstream_st* stream) {
  constexpr Along kWidth = Along::kWidth, kDepth = Along::kDepth;
  if constexpr (sizeof(Index) == 8) {
    if (choice.terms == Other::kLast) {
      launch_kernel<Math, T, Index, Other::kLast, kWidth, kWidth>(params, stream);
    } else {
      launch_kernel<Math, T, Index, Other::kFirst, kWidth, kWidth>(params, stream);
    }
  } else if (choice.terms == Other::kLast) {
    if (choice.b == kWidth) {
      launch_kernel<Math, T, Index, Other::kLast, kWidth, kWidth>(params, stream);
    } else {
      launch_kernel<Math, T, Index, Other::kLast, kWidth, kDepth>(params, stream);
    }
  } else if (choice.b == kWidth) {
    launch_kernel<Math, T, Index, Other::kFirst, kWidth, kWidth>(params, stream);
  } else {
    launch_kernel<Math, T, Index, Other::kFirst, kDepth, kDepth>(params, stream);
  }
}

// A thread holds 64 sums in a large tile, as many as its registers allow.
template <class T, class Index>
void launch_product(const ProductChoice& choice, const ProductParams<Index>& params,
                    CUstream_st* stream) {
  if constexpr (sizeof(Index) == 4) {
    if constexpr (sizeof(T) >= 4) {  // large products of 16-bit elements are for tensor cores
      if (choice.shape == TileShape::kLarge) {
        return launch_math<SimtMath<T, 128, 128, 8, 8, 8>, T>(choice, params, stream);
      }
    }
    if (choice.shape == TileShape::kNarrow) {
      constexpr int kDepth = sizeof(T) == 8 ? 4 : 8;  // what waits in registers takes no more
      return launch_math<SimtMath<T, 8, 256, kDepth, 8, 4>, T>(choice, params, stream);
    }
  }
  launch_math<SimtMath<T, 64, 64, 16, 4, 4>, T>(choice, params, stream);
}

template <class T>
void launch_tensor_product(const ProductChoice& choice, const ProductParams<int32_t>& params,
                           CUstream_st* stream) {
  if (choice.shape == TileShape::kLarge) {
    launch_math<TensorMath<T, 128, 128, 64, 32>, T>(choice, params, stream);
  } else {
    launch_math<TensorMath<T, 64, 64, 32, 32>, T>(choice, params, stream);
  }
}

}  // namespace mxd::cuda
