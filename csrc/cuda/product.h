// The one sum that every pass is:
//
//   C[m, n] = sum over k of A[k, m] * B[k, n]
//
//   pass     m, row       n, column                 k, term             A       B     C
//   forward  out channel  image, result of a phase  tap, in channel     weight  data  out
//   data     in channel   image, pixel              tap, out channel    weight  out   data
//   weight   in channel   out channel, tap          image, input pixel  data    out   weight
//
// n and k are digits: one for each axis, and one other. A is where its digits say, always. B is
// read on each axis at  origin + n * column_step + k * term_step  and is missing outside of [0,
// size): such a product does not take part, not even as a zero times an infinity.
#pragma once

#include "cuda/digits.h"

namespace mxd::cuda {

template <class Index>
struct ProductAxis {
  Index origin = 0, column_step = 0, term_step = 0;  // which element of B
  Index size = 1;                                    // of B
};

// Strides and offsets are in elements.
template <class Index>
struct Product {
  Index rows = 0;
  Digits<Index> columns;  // how many values each digit has
  Digits<Index> terms;
  ProductAxis<Index> axis[kAxes];

  const void* a = nullptr;
  Index a_begin = 0, a_row = 0;
  Digits<Index> a_term;

  const void* b = nullptr;
  Index b_column = 0, b_term = 0;  // of the other digit of n and of k
  Index b_axis[kAxes] = {0, 0, 0};

  void* c = nullptr;
  Index c_begin = 0, c_row = 0;
  Digits<Index> c_column;

  const void* bias = nullptr;  // null: none
  Index bias_row = 0;

  MXD_HOST_DEVICE Index column_count() const {
    return columns.other * columns.axis[0] * columns.axis[1] * columns.axis[2];
  }
  MXD_HOST_DEVICE Index term_count() const {
    return terms.other * terms.axis[0] * terms.axis[1] * terms.axis[2];
  }
};

// The forward pass on one axis: its outputs fall into phases, one for each of the first `stride`
// outputs. A phase is a Product of its own, over the taps t with  t * dilate = o + pad (mod
// stride). What core/tap_plan.h lists, worked out where it is needed.
template <class Index>
struct PhaseAxis {
  Index out = 1, kernel = 1, stride = 1, dilate = 1, pad = 0;
  Index common = 1;      // gcd(stride, dilate)
  Index tap_step = 1;    // stride / common
  Index inverse = 0;     // of dilate / common, modulo tap_step
  Index out_stride = 0;  // of the tensors, in elements
  Index weight_stride = 0;

  // The first tap that reaches output `first`, or `kernel` if none does.
  MXD_DEVICE Index first_tap(Index first) const {
    const Index residue = (first + pad) % stride;
    if (residue % common != 0) return kernel;
    Index tap;
    if constexpr (sizeof(Index) == 4) {
      tap = Index(int64_t(residue / common) * inverse % tap_step);
    } else {
      __extension__ typedef unsigned __int128 Wide;
      tap = Index(Wide(residue / common) * Wide(inverse) % Wide(tap_step));
    }
    return tap < kernel ? tap : kernel;
  }

  // Makes axis `a` of the product that of the phase that begins at output `first`.
  MXD_DEVICE void enter(Index first, int a, Product<Index>& product) const {
    product.columns.axis[a] = (out - 1 - first) / stride + 1;
    product.c_begin += first * out_stride;
    Index tap = first_tap(first);
    Index count = tap < kernel ? (kernel - 1 - tap) / tap_step + 1 : 0;
    if (count > 0) {
      const Index reach = dilate / common;                        // inputs from tap to tap
      const Index input = (first + pad - tap * dilate) / stride;  // of the first output, first tap
      // Taps that miss the source for every output are left out: the i-th reads between
      // input - i * reach and that plus the number of outputs less one.
      const Index highest = input + product.columns.axis[a] - 1;
      const Index end = highest < 0 ? 0 : highest / reach + 1;
      if (end < count) count = end;
      const Index begin =
          input < product.axis[a].size ? 0 : (input - product.axis[a].size) / reach + 1;
      count = count > begin ? count - begin : 0;
      tap += begin * tap_step;
      product.axis[a].origin = input - begin * reach;
      product.axis[a].term_step = -reach;
      if (count > 0) product.a_begin += tap * weight_stride;
    }
    product.terms.axis[a] = count;
  }
};

// A launch: every product, cut into tiles.
template <class Index>
struct ProductParams {
  Product<Index> product;  // of one phase, or what all phases share
  bool phased = false;
  bool column_other_last = false;  // the order of a column's digits
  bool groups_fastest = false;     // groups are neighbours in memory; for the direct kernels
  bool packets_a = false, packets_b = false;  // runs of terms may be read 16 bytes at once
  PhaseAxis<Index> phase[kAxes];
  int64_t phases[kAxes] = {1, 1, 1};

  // A job is (split, group, column tile, phase, row tile), the last changing fastest.
  int64_t row_tiles = 1, column_tiles = 1, groups = 1, splits = 1;
  int64_t a_group = 0, b_group = 0, c_group = 0, bias_group = 0;
  void* partial = nullptr;           // sums of the splits; unused if there is one split
  const int32_t* only_if = nullptr;  // where this points to 0 nothing is computed; null: always is

  MXD_HOST_DEVICE int64_t tiles() const {
    return groups * column_tiles * phases[0] * phases[1] * phases[2] * row_tiles;
  }
};

}  // namespace mxd::cuda
