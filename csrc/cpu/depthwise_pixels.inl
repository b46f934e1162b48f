// Pixels whose channels are contiguous, a channel a group: pixel_sum, pixel_spread and pixel_outer
// of depthwise_kernels.h.

namespace {

using mxd::cpu::PixelRun;
using mxd::cpu::PixelTerm;

// kVectors vectors of channels from `c` on, of kPixels pixels from `pixel` on; the last vector
// holds `last` channels.
template <int kPixels, int kVectors, class T>
inline __attribute__((always_inline)) void sum_channels(const PixelRun& run, int64_t pixel,
                                                        int64_t c, int64_t last) {
  using Acc = typename AccOf<T>::Type;
  constexpr int kLanes = Simd<Acc>::kLanes;
  const auto lanes = [last](int v) { return v < kVectors - 1 ? kLanes : last; };
  Vec<Acc> acc[kPixels][kVectors];
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    Vec<Acc> start{};
    if (run.bias) {
      start = load_up_to(static_cast<const Acc*>(run.bias) + c + v * kLanes, lanes(v));
    }
#pragma GCC unroll 8
    for (int p = 0; p < kPixels; ++p) acc[p][v] = start;
  }
  constexpr int64_t kAhead = 16;                     // terms
  const bool fetches = run.term_count > 4 * kAhead;  // the rows of a long kernel lie far apart
  const int64_t offset = pixel * run.src_step + c;
#pragma GCC unroll 1
  for (int64_t t = 0; t < run.term_count; ++t) {
    const T* src = static_cast<const T*>(run.terms[t].src) + offset;
    const Acc* weight = static_cast<const Acc*>(run.terms[t].weight) + c;
    if (fetches && t + kAhead < run.term_count) {
      const T* ahead = static_cast<const T*>(run.terms[t + kAhead].src) + offset;
#pragma GCC unroll 8
      for (int p = 0; p < kPixels; ++p) __builtin_prefetch(ahead + p * run.src_step);
    }
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const Vec<Acc> w = load_up_to(weight + v * kLanes, lanes(v));
#pragma GCC unroll 8
      for (int p = 0; p < kPixels; ++p) {
        acc[p][v] += load_up_to(src + p * run.src_step + v * kLanes, lanes(v)) * w;
      }
    }
  }
  T* dst = static_cast<T*>(run.dst) + pixel * run.dst_step + c;
#pragma GCC unroll 8
  for (int p = 0; p < kPixels; ++p) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      store_up_to(dst + p * run.dst_step + v * kLanes, acc[p][v], lanes(v));
    }
  }
}

#if defined(__AVX512BF16__)

// The same of 32 channels of bfloat16, two terms at a time: the channels of one term alternate with
// those of the other in a vector of pairs. Unpacking puts channels 0..3 of every eight into one
// vector and 4..7 into another; the weights follow, and the sums are put straight at the end.
template <int kPixels>
inline __attribute__((always_inline)) void sum_pairs(const PixelRun& run, int64_t pixel,
                                                     int64_t c) {
  const __m512i low = _mm512_setr_epi32(0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
  const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(4));
  __m512 acc[kPixels][2];
#pragma GCC unroll 8
  for (int p = 0; p < kPixels; ++p) acc[p][0] = acc[p][1] = _mm512_setzero_ps();
  const int64_t offset = pixel * run.src_step + c;
#pragma GCC unroll 1
  for (int64_t t = 0; t < run.term_count; t += 2) {
    const bool both = t + 1 < run.term_count;
    const float* first = static_cast<const float*>(run.terms[t].weight) + c;
    const float* second = both ? static_cast<const float*>(run.terms[t + 1].weight) + c : nullptr;
    const auto weights = [&](int at) {  // exact: they come from bfloat16
      const __m512i w = _mm512_srli_epi32(_mm512_loadu_si512(first + at), 16);
      return both ? _mm512_or_si512(w, _mm512_loadu_si512(second + at)) : w;
    };
    const __m512i w0 = weights(0), w1 = weights(16);
    const auto w_low = (__m512bh)_mm512_permutex2var_epi32(w0, low, w1);
    const auto w_high = (__m512bh)_mm512_permutex2var_epi32(w0, high, w1);
    const BFloat16* src = static_cast<const BFloat16*>(run.terms[t].src) + offset;
    const BFloat16* other =
        both ? static_cast<const BFloat16*>(run.terms[t + 1].src) + offset : nullptr;
#pragma GCC unroll 8
    for (int p = 0; p < kPixels; ++p) {
      const __m512i s0 = _mm512_loadu_si512(src + p * run.src_step);
      const __m512i s1 =
          both ? _mm512_loadu_si512(other + p * run.src_step) : _mm512_setzero_si512();
      acc[p][0] = _mm512_dpbf16_ps(acc[p][0], (__m512bh)_mm512_unpacklo_epi16(s0, s1), w_low);
      acc[p][1] = _mm512_dpbf16_ps(acc[p][1], (__m512bh)_mm512_unpackhi_epi16(s0, s1), w_high);
    }
  }
  const __m512i front = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  const __m512i back = _mm512_add_epi32(front, _mm512_set1_epi32(8));
  Vec<float> bias[2] = {};
  if (run.bias) {
    bias[0] = load<float>(static_cast<const float*>(run.bias) + c);
    bias[1] = load<float>(static_cast<const float*>(run.bias) + c + 16);
  }
  BFloat16* dst = static_cast<BFloat16*>(run.dst) + pixel * run.dst_step + c;
#pragma GCC unroll 8
  for (int p = 0; p < kPixels; ++p) {
    store_as(dst + p * run.dst_step,
             (Vec<float>)_mm512_permutex2var_ps(acc[p][0], front, acc[p][1]) + bias[0]);
    store_as(dst + p * run.dst_step + 16,
             (Vec<float>)_mm512_permutex2var_ps(acc[p][0], back, acc[p][1]) + bias[1]);
  }
}

#endif

// All channels of `pixels` pixels, at most kPixels.
template <int kPixels, class T>
inline __attribute__((always_inline)) void sum_pixels(const PixelRun& run, int64_t first,
                                                      int64_t pixels) {
  constexpr int kLanes = Simd<typename AccOf<T>::Type>::kLanes;
  if constexpr (kPixels > 1) {
    if (pixels < kPixels) return sum_pixels<kPixels - 1, T>(run, first, pixels);
  }
  int64_t c = 0;
#if defined(__AVX512BF16__)
  if constexpr (std::is_same_v<T, BFloat16>) {
    for (; c + 2 * kLanes <= run.channels; c += 2 * kLanes) sum_pairs<kPixels>(run, first, c);
  }
#endif
  for (; c + 2 * kLanes <= run.channels; c += 2 * kLanes) {
    sum_channels<kPixels, 2, T>(run, first, c, kLanes);
  }
  const int64_t rest = run.channels - c;
  if (rest > kLanes) {
    sum_channels<kPixels, 2, T>(run, first, c, rest - kLanes);
  } else if (rest > 0) {
    sum_channels<kPixels, 1, T>(run, first, c, rest);
  }
}

template <class T>
void pixel_sum(const PixelRun& run) {
  constexpr int64_t kPixels = 4;
  const int64_t tiles = (run.pixels + kPixels - 1) / kPixels;
  int64_t pixel = 0;
  for (int64_t tile = 0; tile < tiles; ++tile) {  // of equal size to within one
    const int64_t pixels = (run.pixels - pixel + (tiles - tile) - 1) / (tiles - tile);
    sum_pixels<kPixels, T>(run, pixel, pixels);
    pixel += pixels;
  }
}

// A vector of channels from `c` on, of every pixel: the source of the terms stays in registers.
template <int kTerms, class T>
inline __attribute__((always_inline)) void spread_channels(const PixelRun& run, int64_t c,
                                                           int64_t lanes) {
  using Acc = typename AccOf<T>::Type;
  Vec<Acc> src[kTerms], start{};
  const Acc* weight[kTerms];
#pragma GCC unroll 8
  for (int t = 0; t < kTerms; ++t) {
    src[t] = load_up_to(static_cast<const T*>(run.terms[t].src) + c, lanes);
    weight[t] = static_cast<const Acc*>(run.terms[t].weight) + c;
  }
  if (run.bias) start = load_up_to(static_cast<const Acc*>(run.bias) + c, lanes);
  T* dst = static_cast<T*>(run.dst) + c;
  for (int64_t pixel = 0; pixel < run.pixels; ++pixel) {
    Vec<Acc> acc = start;
#pragma GCC unroll 8
    for (int t = 0; t < kTerms; ++t) {
      acc += src[t] * load_up_to(weight[t] + pixel * run.weight_step, lanes);
    }
    store_up_to(dst + pixel * run.dst_step, acc, lanes);
  }
}

template <int kTerms, class T>
void spread_terms(const PixelRun& run) {
  constexpr int kLanes = Simd<typename AccOf<T>::Type>::kLanes;
  if constexpr (kTerms > 1) {
    if (run.term_count < kTerms) return spread_terms<kTerms - 1, T>(run);
  }
  int64_t c = 0;
  for (; c + kLanes <= run.channels; c += kLanes) spread_channels<kTerms, T>(run, c, kLanes);
  if (c < run.channels) spread_channels<kTerms, T>(run, c, run.channels - c);
}

template <class T>
void pixel_spread(const PixelRun& run) {
  if (run.term_count == 0) return pixel_sum<T>(run);
  spread_terms<int(mxd::cpu::kSpreadTerms), T>(run);
}

// Products of kTerms terms with kVectors vectors of channels from `c` on, summed over the pixels in
// registers. The last vector holds `last` channels.
template <int kTerms, int kVectors, class T>
inline __attribute__((always_inline)) void outer_channels(const PixelRun& run,
                                                          const PixelTerm* terms, int64_t c,
                                                          int64_t last) {
  using Acc = typename AccOf<T>::Type;
  constexpr int kLanes = Simd<Acc>::kLanes;
  const auto lanes = [last](int v) { return v < kVectors - 1 ? kLanes : last; };
  Vec<Acc> acc[kTerms][kVectors];
#pragma GCC unroll 4
  for (int t = 0; t < kTerms; ++t) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) acc[t][v] = Vec<Acc>{};
  }
  for (int64_t pixel = 0; pixel < run.pixels; ++pixel) {
    const T* grad = static_cast<const T*>(run.dst) + pixel * run.dst_step + c;
    Vec<Acc> g[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) g[v] = load_up_to(grad + v * kLanes, lanes(v));
#pragma GCC unroll 4
    for (int t = 0; t < kTerms; ++t) {
      const T* src = static_cast<const T*>(terms[t].src) + pixel * run.src_step + c;
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        acc[t][v] += g[v] * load_up_to(src + v * kLanes, lanes(v));
      }
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < kTerms; ++t) {
    Acc* weight = static_cast<Acc*>(terms[t].weight) + c;
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      Acc* at = weight + v * kLanes;
      store_up_to(at, load_up_to(at, lanes(v)) + acc[t][v], lanes(v));
    }
  }
}

template <int kVectors, class T>
inline __attribute__((always_inline)) void outer_all_terms(const PixelRun& run, int64_t c,
                                                           int64_t last) {
  int64_t t = 0;
  for (; t + 4 <= run.term_count; t += 4) {
    outer_channels<4, kVectors, T>(run, run.terms + t, c, last);
  }
  for (; t < run.term_count; ++t) outer_channels<1, kVectors, T>(run, run.terms + t, c, last);
}

template <class T>
void pixel_outer(const PixelRun& run) {
  constexpr int kLanes = Simd<typename AccOf<T>::Type>::kLanes;
  constexpr int kVectors = kMaxRows >= 12 ? 4 : 2;  // times 4 terms: the accumulators
  int64_t c = 0;
  for (; c + kVectors * kLanes <= run.channels; c += kVectors * kLanes) {
    outer_all_terms<kVectors, T>(run, c, kLanes);
  }
  for (; c + kLanes < run.channels; c += 2 * kLanes) {
    const int64_t last = run.channels - c - kLanes;
    outer_all_terms<2, T>(run, c, last < kLanes ? last : kLanes);
  }
  if (c < run.channels) outer_all_terms<1, T>(run, c, run.channels - c);
}

}  // namespace
