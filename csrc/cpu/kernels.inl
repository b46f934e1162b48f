// The primitives of kernels.h for one instruction set. See there for the contract.

#include "cpu/kernels.h"
#include "cpu/simd.inl"
#include "cpu/transpose.inl"

namespace {

using mxd::cpu::Kernels;
using mxd::cpu::Segment;

// Register tile. The accumulators (rows x 2 vectors), the two column vectors and one broadcast
// must fit the register file: 32 vectors with AVX-512 and on aarch64, 16 otherwise.
#if defined(__AVX512F__)
constexpr int kMaxRows = 14;
#elif defined(__aarch64__)
constexpr int kMaxRows = 12;
#else
constexpr int kMaxRows = 6;
#endif

}  // namespace

#include "cpu/depthwise.inl"

namespace {

// ---- gemm ---------------------------------------------------------------------------------

template <class Acc, int kRows, int kVectors>
void gemm_tile(const Acc* row_panel, const Acc* col_operand, int64_t col_stride,
               const Segment* segments, int64_t segment_count, Acc* tile, int64_t tile_stride,
               bool accumulate) {
  constexpr int kLanes = Simd<Acc>::kLanes;
  Vec<Acc> sum[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sum[r][v] = Vec<Acc>{};
  }
  for (int64_t s = 0; s < segment_count; ++s) {
    const Acc* row = row_panel + segments[s].row_k * kRows;
    const Acc* col = col_operand + segments[s].col_offset + segments[s].col_k * col_stride;
    const int64_t length = segments[s].length;
#pragma GCC unroll 1
    for (int64_t k = 0; k < length; ++k) {
      Vec<Acc> c[kVectors];
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) c[v] = load<Acc>(col + v * kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) sum[r][v] += row[r] * c[v];
      }
      row += kRows;
      col += col_stride;
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      Acc* out = tile + r * tile_stride + v * kLanes;
      store<Acc>(out, accumulate ? load<Acc>(out) + sum[r][v] : sum[r][v]);
    }
  }
}

template <class Acc, int kRows>
void gemm_rows(int rows, int cols, const Acc* row_panel, const Acc* col_operand, int64_t col_stride,
               const Segment* segments, int64_t segment_count, Acc* tile, int64_t tile_stride,
               bool accumulate) {
  if (rows == kRows) {
    if (cols == 2 * Simd<Acc>::kLanes) {
      gemm_tile<Acc, kRows, 2>(row_panel, col_operand, col_stride, segments, segment_count, tile,
                               tile_stride, accumulate);
    } else {
      gemm_tile<Acc, kRows, 1>(row_panel, col_operand, col_stride, segments, segment_count, tile,
                               tile_stride, accumulate);
    }
  } else if constexpr (kRows > 1) {
    gemm_rows<Acc, kRows - 1>(rows, cols, row_panel, col_operand, col_stride, segments,
                              segment_count, tile, tile_stride, accumulate);
  }
}

template <class Acc>
void gemm(int rows, int cols, const void* row_panel, const void* col_operand, int64_t col_stride,
          const Segment* segments, int64_t segment_count, void* tile, int64_t tile_stride,
          bool accumulate) {
  gemm_rows<Acc, kMaxRows>(rows, cols, static_cast<const Acc*>(row_panel),
                           static_cast<const Acc*>(col_operand), col_stride, segments,
                           segment_count, static_cast<Acc*>(tile), tile_stride, accumulate);
}

// ---- pack ---------------------------------------------------------------------------------

// A vector of elements `kStride` (1 or 2) apart, of which the first `count` are wanted: touches
// nothing beyond the last of those. Lanes beyond are zero.
template <int kStride, class T>
inline __attribute__((always_inline)) auto load_strided(const T* p, int64_t count) {
  using Acc = typename AccOf<T>::Type;
  constexpr int64_t kLanes = Simd<Acc>::kLanes;
  if constexpr (kStride == 1) {
    return count >= kLanes ? load_as(p) : load_first(p, count);
  } else {
    if (count >= kLanes) return even_lanes<Acc>(load_as(p), load_as(p + kLanes - 1));
    const int64_t spanned = 2 * count - 1;
    if (spanned < kLanes) return even_lanes<Acc>(load_first(p, spanned), Vec<Acc>{});
    const int64_t rest = spanned - kLanes + 1;
    return even_lanes<Acc>(load_as(p), load_first(p + kLanes - 1, rest));
  }
}

template <class Acc>
inline __attribute__((always_inline)) void store_count(Acc* p, Vec<Acc> v, int64_t count) {
  if (count >= Simd<Acc>::kLanes) {
    store<Acc>(p, v);
  } else {
    store_first(p, v, count);
  }
}

// Elements `kStride` apart along i: whole runs are copied.
template <int kStride, class T, class Acc>
void pack_runs(Acc* dst, int64_t width, const T* src, int64_t rows, int64_t steps,
               int64_t k_stride) {
  constexpr int kLanes = Simd<Acc>::kLanes;
  for (int64_t k = 0; k < steps; ++k) {
    for (int64_t i = 0; i < rows; i += kLanes) {
      store_count<Acc>(dst + i, load_strided<kStride>(src + i * kStride, rows - i), rows - i);
    }
    dst += width;
    src += k_stride;
  }
}

// Elements `kStride` apart along k: squares of kLanes x kLanes are transposed in registers. At the
// edges absent rows repeat the last one, absent steps are zero, and neither is written.
template <int kStride, class T, class Acc>
void pack_transposed(Acc* dst, int64_t width, const T* src, int64_t rows, int64_t i_stride,
                     int64_t steps) {
  constexpr int kLanes = Simd<Acc>::kLanes;
  for (int64_t i = 0; i < rows; i += kLanes) {
    const int64_t present = rows - i < kLanes ? rows - i : kLanes;
    for (int64_t k = 0; k < steps; k += kLanes) {
      Vec<Acc> square[kLanes];
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) {
        const int64_t row = r < present ? r : present - 1;
        square[r] = load_strided<kStride>(src + (i + row) * i_stride + k * kStride, steps - k);
      }
      transpose<Acc>(square);
      const int64_t written = steps - k < kLanes ? steps - k : kLanes;
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) {
        if (r < written) store_count<Acc>(dst + (k + r) * width + i, square[r], present);
      }
    }
  }
}

template <class T, class Acc>
void pack_gather(Acc* dst, int64_t width, const T* src, int64_t rows, int64_t i_stride,
                 int64_t steps, int64_t k_stride) {
  for (int64_t k = 0; k < steps; ++k) {
    for (int64_t i = 0; i < rows; ++i) dst[i] = to_acc(src[i * i_stride]);
    dst += width;
    src += k_stride;
  }
}

template <class T>
void pack(void* opaque_dst, int64_t width, const void* opaque_src, int64_t rows, int64_t i_stride,
          int64_t steps, int64_t k_stride) {
  using Acc = typename AccOf<T>::Type;
  Acc* dst = static_cast<Acc*>(opaque_dst);
  const T* src = static_cast<const T*>(opaque_src);
  const bool transposable = rows >= 4 && steps >= 4;
  if (i_stride == 1) {
    pack_runs<1, T, Acc>(dst, width, src, rows, steps, k_stride);
  } else if (k_stride == 1 && transposable) {
    pack_transposed<1, T, Acc>(dst, width, src, rows, i_stride, steps);
  } else if (i_stride == 2) {
    pack_runs<2, T, Acc>(dst, width, src, rows, steps, k_stride);
  } else if (k_stride == 2 && transposable) {
    pack_transposed<2, T, Acc>(dst, width, src, rows, i_stride, steps);
  } else {
    pack_gather<T, Acc>(dst, width, src, rows, i_stride, steps, k_stride);
  }
}

// ---- store --------------------------------------------------------------------------------

template <class T>
void store_block(void* opaque_dst, int64_t row_stride, int64_t col_stride, const void* opaque_acc,
                 int64_t acc_row_stride, int64_t rows, int64_t cols, const void* opaque_bias,
                 int64_t bias_row_stride, int64_t bias_col_stride) {
  using Acc = typename AccOf<T>::Type;
  constexpr int kLanes = Simd<Acc>::kLanes;
  const Acc zero = 0;
  const Acc* bias = opaque_bias ? static_cast<const Acc*>(opaque_bias) : &zero;
  if (!opaque_bias) bias_row_stride = bias_col_stride = 0;
  for (int64_t r = 0; r < rows; ++r) {
    T* dst = static_cast<T*>(opaque_dst) + r * row_stride;
    const Acc* acc = static_cast<const Acc*>(opaque_acc) + r * acc_row_stride;
    const Acc* row_bias = bias + r * bias_row_stride;
    int64_t c = 0;
    if (col_stride == 1) {
      for (; c + kLanes <= cols; c += kLanes) {
        const Vec<Acc> b = bias_col_stride ? load<Acc>(row_bias + c) : Vec<Acc>{} + *row_bias;
        store_as(dst + c, load<Acc>(acc + c) + b);
      }
    }
    if (bias_col_stride) {
      for (; c < cols; ++c) from_acc(acc[c] + row_bias[c], dst + c * col_stride);
    } else {
      const Acc b = *row_bias;
      for (; c < cols; ++c) from_acc(acc[c] + b, dst + c * col_stride);
    }
  }
}

template <class T>
constexpr Kernels kernels_of(const char* isa) {
  using Acc = typename AccOf<T>::Type;
  constexpr int kLanes = Simd<Acc>::kLanes;
  return {isa,
          kMaxRows,
          2 * kLanes,
          kLanes,
          int64_t(sizeof(Acc)),
          int64_t(sizeof(T)),
          pack<T>,
          gemm<Acc>,
          store_block<T>,
          depthwise_kernels_of<T>()};
}

}  // namespace

// Defined by each translation unit in isa/, as the only symbol that it exports.
#define MXD_DEFINE_KERNELS(isa_name)                                                            \
  namespace mxd::cpu {                                                                          \
  extern const Kernels k_##isa_name##_kernels[4];                                               \
  const Kernels k_##isa_name##_kernels[4] = {                                                   \
      kernels_of<float>(#isa_name), kernels_of<double>(#isa_name), kernels_of<Half>(#isa_name), \
      kernels_of<BFloat16>(#isa_name)};                                                         \
  }
