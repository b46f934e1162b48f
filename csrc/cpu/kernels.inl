// The primitives of kernels.h for one instruction set. See there for the contract.

#include "cpu/kernels.h"
#include "cpu/simd.inl"
#include "cpu/transpose.inl"

#include "cpu/panel_element.inl"

namespace {

using mxd::cpu::Kernels;
using mxd::cpu::Segment;
using mxd::cpu::ShiftedRun;

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

template <class Element, class Acc, int kRows, int kVectors>
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
  if (accumulate) {  // by the time the sums are added the tile has come from wherever it was
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) __builtin_prefetch(tile + r * tile_stride + v * kLanes, 1);
    }
  }
  for (int64_t s = 0; s < segment_count; ++s) {
    const Acc* row = row_panel + segments[s].row_k * kRows;
    const Acc* col = col_operand + segments[s].col_offset + segments[s].col_k * col_stride;
    const int64_t length = segments[s].length;
    [[maybe_unused]] const Acc* second =
        col + (segments[s].second ? segments[s].second : int64_t(kLanes));
#pragma GCC unroll 1
    for (int64_t k = 0; k < length; ++k) {
      Vec<Acc> c[kVectors];
      c[0] = load<Acc>(col);
      if constexpr (kVectors == 2) c[1] = load<Acc>(second);
      if constexpr (kRows >= 8) {  // with fewer, the loads are what takes the time
        __builtin_prefetch(col + 8 * col_stride);
        if constexpr (kVectors == 2) __builtin_prefetch(second + 8 * col_stride + kLanes - 1);
      }
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) {
          sum[r][v] = Element::multiply_add(sum[r][v], row[r], c[v]);
        }
      }
      row += kRows;
      col += col_stride;
      if constexpr (kVectors == 2) second += col_stride;
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

template <class Element, class Acc, int kRows>
void gemm_rows(int rows, int cols, const Acc* row_panel, const Acc* col_operand, int64_t col_stride,
               const Segment* segments, int64_t segment_count, Acc* tile, int64_t tile_stride,
               bool accumulate) {
  if (rows == kRows) {
    if (cols == 2 * Simd<Acc>::kLanes) {
      gemm_tile<Element, Acc, kRows, 2>(row_panel, col_operand, col_stride, segments, segment_count,
                                        tile, tile_stride, accumulate);
    } else {
      gemm_tile<Element, Acc, kRows, 1>(row_panel, col_operand, col_stride, segments, segment_count,
                                        tile, tile_stride, accumulate);
    }
  } else if constexpr (kRows > 1) {
    gemm_rows<Element, Acc, kRows - 1>(rows, cols, row_panel, col_operand, col_stride, segments,
                                       segment_count, tile, tile_stride, accumulate);
  }
}

template <class Element>
void gemm(int rows, int cols, const void* row_panel, const void* col_operand, int64_t col_stride,
          const Segment* segments, int64_t segment_count, void* tile, int64_t tile_stride,
          bool accumulate) {
  using Acc = typename Element::Acc;
  gemm_rows<Element, Acc, kMaxRows>(
      rows, cols, static_cast<const Acc*>(row_panel), static_cast<const Acc*>(col_operand),
      col_stride, segments, segment_count, static_cast<Acc*>(tile), tile_stride, accumulate);
}

}  // namespace

#include "cpu/pack.inl"

namespace {

// ---- interleave ---------------------------------------------------------------------------

// a0 b0 a1 b1 ...: the first and the second vector of it.
template <class Acc>
inline __attribute__((always_inline)) void zip(Vec<Acc> a, Vec<Acc> b, Vec<Acc>* out) {
  constexpr int kLanes = Simd<Acc>::kLanes;
  typename LaneIndex<Acc>::Vec low, high;
  for (int i = 0; i < kLanes; ++i) {
    low[i] = i / 2 + (i % 2) * kLanes;
    high[i] = low[i] + kLanes / 2;
  }
  out[0] = shuffle(a, b, low);
  out[1] = shuffle(a, b, high);
}

template <class Acc>
void interleave(void* opaque_dst, const void* const* opaque_rows, int64_t row_count,
                int64_t count) {
  constexpr int64_t kLanes = Simd<Acc>::kLanes;
  Acc* dst = static_cast<Acc*>(opaque_dst);
  const auto row = [&](int64_t r) { return static_cast<const Acc*>(opaque_rows[r]); };
  if (row_count == 2) {
    for (int64_t i = 0; i < count; i += kLanes) {
      Vec<Acc> merged[2];
      zip<Acc>(load<Acc>(row(0) + i), load<Acc>(row(1) + i), merged);
      store<Acc>(dst + i * 2, merged[0]);
      store<Acc>(dst + i * 2 + kLanes, merged[1]);
    }
    return;
  }
  if (row_count == 4) {
    for (int64_t i = 0; i < count; i += kLanes) {
      Vec<Acc> even[2], odd[2];
      zip<Acc>(load<Acc>(row(0) + i), load<Acc>(row(2) + i), even);
      zip<Acc>(load<Acc>(row(1) + i), load<Acc>(row(3) + i), odd);
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        Vec<Acc> merged[2];
        zip<Acc>(even[half], odd[half], merged);
        store<Acc>(dst + i * 4 + half * 2 * kLanes, merged[0]);
        store<Acc>(dst + i * 4 + half * 2 * kLanes + kLanes, merged[1]);
      }
    }
    return;
  }
  for (int64_t r = 0; r < row_count; r += kLanes) {
    const int64_t present = row_count - r < kLanes ? row_count - r : kLanes;
    for (int64_t i = 0; i < count; i += kLanes) {
      Vec<Acc> square[kLanes];
#pragma GCC unroll 16
      for (int l = 0; l < kLanes; ++l) {
        square[l] = load<Acc>(row(r + (l < present ? l : present - 1)) + i);
      }
      transpose<Acc>(square);
#pragma GCC unroll 16
      for (int l = 0; l < kLanes; ++l) {
        store_count<Acc>(dst + (i + l) * row_count + r, square[l], present);
      }
    }
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

}  // namespace

#include "cpu/filter_kernels.inl"
#include "cpu/regroup.inl"

#include "cpu/in_place_kernels.inl"

namespace {

template <class Element>
constexpr Kernels kernels_of(const char* isa) {
  using T = typename Element::Stored;
  using Acc = typename Element::Acc;
  constexpr int kLanes = Simd<Acc>::kLanes;
  return {isa,
          kMaxRows,
          2 * kLanes,
          kLanes,
          int64_t(sizeof(Acc)),
          int64_t(sizeof(T)),
          Element::kTerms,
          pack<Element>,
          pack_scattered<Element>,
          pack_shifted<Element>,
          Element::finite,
          gemm<Element>,
          store_block<T>,
          interleave<Acc>,
          depthwise_kernels_of<T>(),
          filter_kernels_of<T>(),
          outer_kernels_of<Element>(),
          in_place_kernels_of<Element>()};
}

}  // namespace

// Each translation unit in isa/ defines one of these, as the only symbol that it exports: the
// kernels of an instruction set by dtype, or those that multiply pairs of bfloat16.
#define MXD_DEFINE_KERNELS(isa_name)                                                 \
  namespace mxd::cpu {                                                               \
  extern const Kernels k_##isa_name##_kernels[4];                                    \
  const Kernels k_##isa_name##_kernels[4] = {                                        \
      kernels_of<Number<float>>(#isa_name), kernels_of<Number<double>>(#isa_name),   \
      kernels_of<Number<Half>>(#isa_name), kernels_of<Number<BFloat16>>(#isa_name)}; \
  }
#define MXD_DEFINE_PAIR_KERNELS(isa_name)                             \
  namespace mxd::cpu {                                                \
  extern const Kernels k_##isa_name##_kernels;                        \
  const Kernels k_##isa_name##_kernels = kernels_of<Pair>(#isa_name); \
  }
