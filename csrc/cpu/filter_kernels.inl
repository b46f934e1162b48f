// The primitives of filter_kernels.h for one instruction set. See there for the contract.

#include "cpu/filter_kernels.h"

namespace {

using mxd::FilterKind;
using mxd::cpu::FilterCombine;
using mxd::cpu::FilterKernels;
using mxd::cpu::FilterMap;
using mxd::cpu::kFilterChunk;

// ---- the maps -----------------------------------------------------------------------------
//
// Toom-Cook's at the points 0, 1, infinity (three products) and 0, 1, -1, infinity (four). The
// halves stand where the products meet, not at the taps: integers stay integers, and a subnormal
// tap loses nothing.

typedef Vec<float> V;

struct CopyOne {
  static constexpr int kFrom = 1, kTo = 1;
  static void apply(const V (&in)[1], V (&out)[1]) { out[0] = in[0]; }
};
struct SourceThree {
  static constexpr int kFrom = 3, kTo = 3;
  static void apply(const V (&in)[3], V (&out)[3]) {
    out[0] = in[0] - in[1];
    out[1] = in[1];
    out[2] = in[2] - in[1];
  }
};
struct SourceFour {
  static constexpr int kFrom = 4, kTo = 4;
  static void apply(const V (&in)[4], V (&out)[4]) {
    out[0] = in[0] - in[2];
    out[1] = in[1] + in[2];
    out[2] = in[2] - in[1];
    out[3] = in[3] - in[1];
  }
};
struct TapsF22 {
  static constexpr int kFrom = 2, kTo = 3;
  static void apply(const V (&in)[2], V (&out)[3]) {
    out[0] = in[0];
    out[1] = in[0] + in[1];
    out[2] = in[1];
  }
};
struct TapsF32 {
  static constexpr int kFrom = 2, kTo = 4;
  static void apply(const V (&in)[2], V (&out)[4]) {
    out[0] = in[0];
    out[1] = in[0] + in[1];
    out[2] = in[0] - in[1];
    out[3] = in[1];
  }
};
struct TapsF23 {
  static constexpr int kFrom = 3, kTo = 4;
  static void apply(const V (&in)[3], V (&out)[4]) {
    const V ends = in[0] + in[2];
    out[0] = in[0];
    out[1] = ends + in[1];
    out[2] = ends - in[1];
    out[3] = in[2];
  }
};
struct ResultF22 {
  static constexpr int kFrom = 3, kTo = 2;
  static void apply(const V (&in)[3], V (&out)[2]) {
    out[0] = in[0] + in[1];
    out[1] = in[1] + in[2];
  }
};
struct ResultF32 {
  static constexpr int kFrom = 4, kTo = 3;
  static void apply(const V (&in)[4], V (&out)[3]) {
    const V sum = (in[1] + in[2]) * 0.5f;
    out[0] = in[0] + sum;
    out[1] = (in[1] - in[2]) * 0.5f;
    out[2] = in[3] + sum;
  }
};
struct ResultF23 {
  static constexpr int kFrom = 4, kTo = 2;
  static void apply(const V (&in)[4], V (&out)[2]) {
    out[0] = in[0] + (in[1] + in[2]) * 0.5f;
    out[1] = in[3] + (in[1] - in[2]) * 0.5f;
  }
};

template <class Map>
void combine_with(const FilterCombine& c) {
  for (int64_t i = 0; i < c.repeat; ++i) {
    const float* src = c.src + i * c.src_repeat;
    float* dst = c.dst + i * c.dst_repeat;
    for (int64_t v = 0; v < c.count; v += Simd<float>::kLanes) {
      V in[Map::kFrom], out[Map::kTo];
#pragma GCC unroll 4
      for (int e = 0; e < Map::kFrom; ++e) in[e] = load<float>(src + e * c.src_step + v);
      Map::apply(in, out);
#pragma GCC unroll 4
      for (int e = 0; e < Map::kTo; ++e) store<float>(dst + e * c.dst_step + v, out[e]);
    }
  }
}

void filter_combine(FilterKind kind, FilterMap map, const FilterCombine& c) {
  switch (kind) {
    case FilterKind::kSingle:
      return combine_with<CopyOne>(c);
    case FilterKind::kF22:
      return map == FilterMap::kSource ? combine_with<SourceThree>(c)
             : map == FilterMap::kTaps ? combine_with<TapsF22>(c)
                                       : combine_with<ResultF22>(c);
    case FilterKind::kF32:
      return map == FilterMap::kSource ? combine_with<SourceFour>(c)
             : map == FilterMap::kTaps ? combine_with<TapsF32>(c)
                                       : combine_with<ResultF32>(c);
    case FilterKind::kF23:
      return map == FilterMap::kSource ? combine_with<SourceFour>(c)
             : map == FilterMap::kTaps ? combine_with<TapsF23>(c)
                                       : combine_with<ResultF23>(c);
  }
}

// ---- the products -------------------------------------------------------------------------

template <int kRows, int kVectors>
inline __attribute__((always_inline)) void filter_step(V (&sum)[kRows][kVectors], const float* row,
                                                       const float* col) {
  V c[kVectors];
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) c[v] = load<float>(col + v * Simd<float>::kLanes);
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sum[r][v] += row[r * kFilterChunk] * c[v];
  }
}

template <int kRows, int kVectors>
void filter_tile(const float* row, int64_t row_chunk, const int64_t* lengths, int64_t chunks,
                 const float* col, const float* ahead, float* tile, int64_t tile_stride) {
  constexpr int kLanes = Simd<float>::kLanes;
  constexpr int kCols = kVectors * kLanes;
  constexpr int kLine = 16;
  V sum[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sum[r][v] = V{};
  }
  for (int64_t s = 0; s < chunks; ++s) {
    const float* at = row + s * row_chunk;
    const float* end = at + lengths[s];
#pragma GCC unroll 1
    for (; at + 2 <= end; at += 2) {  // two steps, to spare the loop's own instructions
      __builtin_prefetch(ahead, 0, 2);
      filter_step<kRows, kVectors>(sum, at, col);
      __builtin_prefetch(ahead + kLine, 0, 2);
      filter_step<kRows, kVectors>(sum, at + 1, col + kCols);
      ahead += 2 * kLine;
      col += 2 * kCols;
    }
    if (at != end) {
      filter_step<kRows, kVectors>(sum, at, col);
      ahead += kLine;
      col += kCols;
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) store<float>(tile + r * tile_stride + v * kLanes, sum[r][v]);
  }
}

template <int kRows>
void filter_rows(int rows, int cols, const float* row, int64_t row_chunk, const int64_t* lengths,
                 int64_t chunks, const float* col, const float* ahead, float* tile,
                 int64_t tile_stride) {
  if (rows == kRows) {
    if (cols == 2 * Simd<float>::kLanes) {
      filter_tile<kRows, 2>(row, row_chunk, lengths, chunks, col, ahead, tile, tile_stride);
    } else {
      filter_tile<kRows, 1>(row, row_chunk, lengths, chunks, col, ahead, tile, tile_stride);
    }
  } else if constexpr (kRows > 1) {
    filter_rows<kRows - 1>(rows, cols, row, row_chunk, lengths, chunks, col, ahead, tile,
                           tile_stride);
  }
}

template <int kRows, int kVectors>
void filter_outer_tile(const float* row, const float* col, int64_t steps, float* tile,
                       int64_t tile_stride) {
  constexpr int kLanes = Simd<float>::kLanes;
  V sum[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sum[r][v] = V{};
  }
#pragma GCC unroll 1
  for (const float* end = row + steps * kFilterChunk; row != end;
       row += kFilterChunk, col += kFilterChunk) {
    V c[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) c[v] = load<float>(col + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sum[r][v] += row[r] * c[v];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      float* out = tile + r * tile_stride + v * kLanes;
      store<float>(out, load<float>(out) + sum[r][v]);
    }
  }
}

template <int kRows>
void filter_outer(int rows, int cols, const float* row, const float* col, int64_t steps,
                  float* tile, int64_t tile_stride) {
  if (rows == kRows) {
    if (cols == 2 * Simd<float>::kLanes) {
      filter_outer_tile<kRows, 2>(row, col, steps, tile, tile_stride);
    } else {
      filter_outer_tile<kRows, 1>(row, col, steps, tile, tile_stride);
    }
  } else if constexpr (kRows > 1) {
    filter_outer<kRows - 1>(rows, cols, row, col, steps, tile, tile_stride);
  }
}

// ---- to and from memory -------------------------------------------------------------------

// A store past the caches, where the instruction set has one for whole lines.
template <class T>
inline __attribute__((always_inline)) void store_past(T* p, V v) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == sizeof(float)) {
    if (reinterpret_cast<uintptr_t>(p) % sizeof(V) == 0) {
      _mm512_stream_ps(reinterpret_cast<float*>(p), (__m512)v);
      return;
    }
  }
#endif
  store_as(p, v);
}

template <class T>
void store_turned(void* opaque_dst, int64_t dst_stride, const float* acc, int64_t acc_stride,
                  int64_t channels, int64_t pixels, const float* bias, bool past_caches) {
  constexpr int kLanes = Simd<float>::kLanes;
  T* dst = static_cast<T*>(opaque_dst);
  // Along the rows first: where they start at the same place of a page, 16 of them fill a set of
  // the cache, and a line that is written in two parts must still be there for the second.
  for (int64_t f = 0; f < channels; f += kLanes) {
    const int64_t rows = channels - f < kLanes ? channels - f : kLanes;
    for (int64_t x = 0; x < pixels; x += kLanes) {
      const int64_t present = pixels - x < kLanes ? pixels - x : kLanes;
      V square[kLanes];
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) {
        const int64_t pixel = x + (r < present ? r : present - 1);
        square[r] = load<float>(acc + pixel * acc_stride + f);
      }
      transpose<float>(square);
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) {
        if (r >= rows) break;
        const V sum = square[r] + (bias ? bias[f + r] : 0.0f);
        T* out = dst + (f + r) * dst_stride + x;
        if (present < kLanes) {
          float lanes[kLanes];
          store<float>(lanes, sum);
          for (int64_t i = 0; i < present; ++i) from_acc(lanes[i], out + i);
        } else if (past_caches) {
          store_past(out, sum);
        } else {
          store_as(out, sum);
        }
      }
    }
  }
#if defined(__AVX512F__)
  if (past_caches) _mm_sfence();  // before another thread is told that the results are there
#endif
}

inline uint32_t largest_magnitude(const float* values, int64_t count) {
  typedef int32_t IntVec __attribute__((vector_size(kVectorBytes)));
  IntVec most{};
  for (int64_t i = 0; i < count; i += Simd<float>::kLanes) {
    const IntVec magnitude = (IntVec)load<float>(values + i) & 0x7fffffff;
    most = magnitude > most ? magnitude : most;
  }
  int32_t largest = 0;
  for (int l = 0; l < Simd<float>::kLanes; ++l) largest = most[l] > largest ? most[l] : largest;
  return uint32_t(largest);
}

template <class T>
constexpr FilterKernels filter_kernels_of() {
  return {filter_combine, filter_rows<kMaxRows>, filter_outer<kMaxRows>, store_turned<T>,
          largest_magnitude};
}

template <>
constexpr FilterKernels filter_kernels_of<double>() {
  return {};  // sums in float64 are never filtered
}

}  // namespace
