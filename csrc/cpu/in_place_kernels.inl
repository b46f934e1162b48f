// The primitive of in_place_kernels.h for one instruction set. See there for the contract.

#include "cpu/in_place_kernels.h"

namespace {

using mxd::cpu::InPlaceKernels;
using mxd::cpu::InPlaceSum;
using mxd::cpu::SourceRun;

// A vector of so many lanes, which may be fewer than the registers have: small groups would
// multiply the rest in vain.
template <class Acc, int kLanes>
struct LaneVec {
  typedef Acc Vec __attribute__((vector_size(kLanes * sizeof(Acc))));
  typedef Acc Unaligned __attribute__((vector_size(kLanes * sizeof(Acc)), aligned(sizeof(Acc))));

  static inline __attribute__((always_inline)) Vec load(const Acc* p) {
    return *reinterpret_cast<const Unaligned*>(p);
  }
  static inline __attribute__((always_inline)) Vec load(const Acc* p, int64_t count) {
    if (count >= kLanes) return load(p);
    if constexpr (kLanes == Simd<Acc>::kLanes) {
      return load_first(p, count);
    } else {
      Acc lanes[kLanes] = {};
      for (int64_t i = 0; i < count; ++i) lanes[i] = p[i];
      return load(lanes);
    }
  }
  static inline __attribute__((always_inline)) void store(Acc* p, Vec v, int64_t count) {
    if (count >= kLanes) {
      *reinterpret_cast<Unaligned*>(p) = v;
    } else if constexpr (kLanes == Simd<Acc>::kLanes) {
      store_first(p, v, count);
    } else {
      Acc lanes[kLanes];
      *reinterpret_cast<Unaligned*>(lanes) = v;
      for (int64_t i = 0; i < count; ++i) p[i] = lanes[i];
    }
  }
};

// Pixels of a register tile: the accumulators, a step's weights and a broadcast fit the vector
// registers, and the addresses of the pixels the others.
constexpr int in_place_rows(int vectors) {
  constexpr int kRegisters = kMaxRows >= 12 ? 32 : 16;
  constexpr int kMostPixels = 10;
  const int rows = (kRegisters - 1 - vectors) / vectors;
  return rows < kMostPixels ? rows : kMostPixels;
}

// The vectors are kVectors / kGroups of each of so many groups, from `group` on.
template <class Element, int kLanes, int kVectors, int kGroups, int kRows>
void in_place_tile(const InPlaceSum& sum, int64_t group, int64_t pixel) {
  using Acc = typename Element::Acc;
  using Stored = typename Element::Stored;
  using V = LaneVec<Acc, kLanes>;
  static_assert(kGroups == 1 || kGroups == kVectors, "several groups have a vector each");
  constexpr int kWidth = kVectors / kGroups * kLanes;
  const Stored* src[kRows];
  typename V::Vec acc[kRows][kVectors];
  const auto lanes = [&sum](int v) {
    return kGroups == 1 && v < kVectors - 1 ? int64_t(kLanes)
           : kGroups == 1                   ? sum.channels - (kVectors - 1) * kLanes
                                            : sum.channels;
  };
  const auto dst = [&](int r, int v) {
    return static_cast<Acc*>(sum.dst) + sum.dst_offsets[pixel + r] +
           (kGroups == 1 ? group * sum.dst_group + v * kLanes : (group + v) * sum.dst_group);
  };
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    src[r] =
        static_cast<const Stored*>(sum.src) + sum.src_offsets[pixel + r] + group * sum.src_group;
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) acc[r][v] = typename V::Vec{};
  }
  if (sum.accumulate) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) acc[r][v] = V::load(dst(r, v), lanes(v));
    }
  } else if (sum.bias) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const auto bias = V::load(static_cast<const Acc*>(sum.bias) + group * kWidth + v * kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) acc[r][v] = bias;
    }
  }
  const int64_t src_group = kGroups == 1 ? 0 : sum.src_group;
  const int64_t next_weights = kGroups == 1 ? int64_t(kLanes) : sum.weight_group;
  for (int64_t i = 0; i < sum.run_count; ++i) {
    const SourceRun& run = sum.runs[i];
    const Acc* weight =
        static_cast<const Acc*>(sum.weights) + run.weight + group * sum.weight_group;
    const int64_t end = run.src + run.length * Element::kTerms;
#pragma GCC unroll 1
    for (int64_t k = run.src; k < end; k += Element::kTerms) {
      typename V::Vec w[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) w[v] = V::load(weight + v * next_weights);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          acc[r][v] = Element::multiply_add(acc[r][v],
                                            Element::load_step(src[r] + k + v * src_group), w[v]);
        }
      }
      weight += kWidth;
    }
  }
  if constexpr (sizeof(Stored) != sizeof(Acc) && kLanes == Simd<Acc>::kLanes) {
    if (sum.rounds) {
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          const int64_t offset =
              kGroups == 1 ? group * sum.dst_group + v * kLanes : (group + v) * sum.dst_group;
          store_lanes<Acc>(static_cast<Stored*>(sum.dst) + sum.dst_offsets[pixel + r] + offset,
                           acc[r][v], lanes(v));
        }
      }
      return;
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) V::store(dst(r, v), acc[r][v], lanes(v));
  }
}

template <class Element, int kLanes, int kVectors, int kGroups, int kRows>
inline void in_place_rest(const InPlaceSum& sum, int64_t group, int64_t pixel, int64_t rows) {
  if (rows == kRows) {
    in_place_tile<Element, kLanes, kVectors, kGroups, kRows>(sum, group, pixel);
  } else if constexpr (kRows > 1) {
    in_place_rest<Element, kLanes, kVectors, kGroups, kRows - 1>(sum, group, pixel, rows);
  }
}

// Tiles of equal height to within one.
template <class Element, int kLanes, int kVectors, int kGroups>
void in_place_panel(const InPlaceSum& sum, int64_t group) {
  constexpr int kRows = in_place_rows(kVectors);
  const int64_t tiles = (sum.pixels + kRows - 1) / kRows;
  int64_t pixel = 0;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t rows = (sum.pixels - pixel + (tiles - tile) - 1) / (tiles - tile);
    in_place_rest<Element, kLanes, kVectors, kGroups, kRows>(sum, group, pixel, rows);
    pixel += rows;
  }
}

// Two groups at a time share what a tile costs beyond its products.
template <class Element, int kLanes>
void in_place_groups(const InPlaceSum& sum) {
  int64_t group = 0;
  for (; group + 2 <= sum.groups; group += 2) in_place_panel<Element, kLanes, 2, 2>(sum, group);
  if (group < sum.groups) in_place_panel<Element, kLanes, 1, 1>(sum, group);
}

constexpr int kInPlaceVectors = kMaxRows >= 12 ? 4 : 3;
constexpr int kNarrowestBytes = 16;

template <class Element, int kLanes>
void in_place_narrow(const InPlaceSum& sum) {
  if constexpr (kLanes * int(sizeof(typename Element::Acc)) >= kNarrowestBytes) {
    if (sum.lanes == kLanes) return in_place_groups<Element, kLanes>(sum);
    in_place_narrow<Element, kLanes / 2>(sum);
  }
}

template <class Element>
void in_place_sum(const InPlaceSum& sum) {
  constexpr int kLanes = Simd<typename Element::Acc>::kLanes;
  if (sum.lanes < kLanes) return in_place_narrow<Element, kLanes / 2>(sum);
  switch (sum.vectors) {
    case 1:
      return in_place_groups<Element, kLanes>(sum);
    case 2:
      return in_place_panel<Element, kLanes, 2, 1>(sum, 0);
    case 3:
      return in_place_panel<Element, kLanes, 3, 1>(sum, 0);
    default:
      if constexpr (kInPlaceVectors == 4) in_place_panel<Element, kLanes, 4, 1>(sum, 0);
  }
}

template <class Element>
void copy_channels(void* opaque_dst, int64_t pixel, int64_t width, const void* opaque_src,
                   int64_t channels, int64_t c_stride, int64_t pixels, int64_t p_stride) {
  using Stored = typename Element::Stored;
  using Acc = typename Element::Acc;
  constexpr int kTerms = Element::kTerms;
  const Stored* src = static_cast<const Stored*>(opaque_src);
  Acc* elements = static_cast<Acc*>(opaque_dst);  // pixel is a multiple of kTerms
  const int64_t step = pixel / kTerms;
  const int64_t count = width / kTerms;
  if (p_stride == 1 && count == 1 && step == 1) {
    const Element element(channels, c_stride);
    for (int64_t p = 0; p < pixels; p += Simd<Acc>::kLanes) {
      store_count<Acc>(elements + p, element.template load<1>(src + p, pixels - p), pixels - p);
    }
  } else if (p_stride == 1 && pixels >= 4) {
    pack_squares<Acc>([=](int64_t p) { return elements + p * step; },
                      [=](int64_t i, int64_t p) {
                        const Element element(channels - i * kTerms, c_stride);
                        return element.template load<1>(src + i * kTerms * c_stride + p,
                                                        pixels - p);
                      },
                      count, pixels);
  } else {
    Stored* dst = static_cast<Stored*>(opaque_dst);
    for (int64_t p = 0; p < pixels; ++p) {
      for (int64_t c = 0; c < channels; ++c) dst[c] = src[c * c_stride];
      for (int64_t c = channels; c < width; ++c) dst[c] = Stored{};
      dst += pixel;
      src += p_stride;
    }
  }
}

template <class T>
void store_pixels(void* opaque_dst, int64_t c_stride, const void* opaque_sums, int64_t sum_stride,
                  int64_t pixels, int64_t channels, const void* opaque_bias) {
  using Acc = typename AccOf<T>::Type;
  constexpr int kLanes = Simd<Acc>::kLanes;
  const Acc* sums = static_cast<const Acc*>(opaque_sums);
  const Acc* bias = static_cast<const Acc*>(opaque_bias);
  constexpr int64_t kFewPixels = 4;  // a square would hardly be filled
  for (int64_t c = 0; c < channels; c += kLanes) {
    const Vec<Acc> b = bias ? load_strided<1>(bias + c, channels - c) : Vec<Acc>{};
    T* dst = static_cast<T*>(opaque_dst) + c * c_stride;
    const int64_t present = channels - c < kLanes ? channels - c : kLanes;
    for (int64_t p = 0; p < pixels && pixels < kFewPixels; ++p) {
      T rounded[kLanes];
      store_as(rounded, load_strided<1>(sums + p * sum_stride + c, present) + b);
      for (int64_t r = 0; r < present; ++r) dst[r * c_stride + p] = rounded[r];
    }
    if (pixels < kFewPixels) continue;
    for (int64_t p = 0; p < pixels; p += kLanes) {
      Vec<Acc> square[kLanes];
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) {
        const int64_t row = p + r < pixels ? p + r : pixels - 1;
        square[r] = load_strided<1>(sums + row * sum_stride + c, channels - c) + b;
      }
      transpose<Acc>(square);
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) {
        if (c + r < channels) store_lanes<Acc>(dst + r * c_stride + p, square[r], pixels - p);
      }
    }
  }
}

template <class Element>
constexpr InPlaceKernels in_place_kernels_of() {
  using Acc = typename Element::Acc;
  if constexpr (Element::kTerms * sizeof(typename Element::Stored) != sizeof(Acc)) {
    return {};
  }
  return {in_place_sum<Element>, copy_channels<Element>, store_pixels<typename Element::Stored>,
          kInPlaceVectors, kNarrowestBytes / int(sizeof(Acc))};
}

}  // namespace
