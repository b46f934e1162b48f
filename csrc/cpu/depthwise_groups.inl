// Groups of few channels, several to a vector: group_sum and group_outer of depthwise_kernels.h.

namespace {

using mxd::cpu::GroupRun;
using mxd::cpu::PixelTerm;

#if defined(__AVX2__)
constexpr bool kPicksLanes = true;
#else
constexpr bool kPicksLanes = false;
#endif

// Lane l of the result is lane index[l] of v.
template <class V, class Index>
inline __attribute__((always_inline)) V pick(V v, Index index) {
#if defined(__clang__)
  V result;
  for (int i = 0; i < int(sizeof(V) / sizeof(v[0])); ++i) result[i] = v[index[i]];
  return result;
#else
  return __builtin_shuffle(v, index);
#endif
}

// Where a vector that holds `held` channels of each of its groups has the first of them, for every
// lane of another vector that holds `shown` of each. That of the next channel is the next lane.
template <class Acc>
inline typename LaneIndex<Acc>::Vec first_of_group(int64_t side, int64_t shown, int64_t held) {
  typename LaneIndex<Acc>::Vec index{};
  for (int64_t s = 0; s < side; ++s) {
    for (int64_t i = 0; i < shown; ++i) index[s * shown + i] = s * held;
  }
  return index;
}

// Pixels of a tile: their sources and sums, and what they are multiplied with, fit the registers.
constexpr int kGroupPixels = kMaxRows >= 12 ? 8 : 4;

template <int kPixels, class T, class Index>
inline __attribute__((always_inline)) void sum_group_tile(const GroupRun& run, int64_t pixel,
                                                          int64_t set, Index first) {
  using Acc = typename AccOf<T>::Type;
  constexpr int kLanes = Simd<Acc>::kLanes;
  const int64_t left = run.groups - set * run.side;
  const int64_t groups = left < run.side ? left : run.side;
  const int64_t src_lanes = groups * run.src_channels;
  const int64_t dst_lanes = groups * run.dst_channels;
  const int64_t channel = set * run.side * run.dst_channels;
  Vec<Acc> acc[kPixels];
  Vec<Acc> bias{};
  if (run.bias) bias = load_up_to(static_cast<const Acc*>(run.bias) + channel, dst_lanes);
#pragma GCC unroll 16
  for (int p = 0; p < kPixels; ++p) acc[p] = bias;
  const int64_t offset = pixel * run.src_step + set * run.side * run.src_channels;
#pragma GCC unroll 1
  for (int64_t t = 0; t < run.term_count; ++t) {
    const T* src = static_cast<const T*>(run.terms[t].src) + offset;
    const Acc* weight =
        static_cast<const Acc*>(run.terms[t].weight) + set * run.src_channels * kLanes;
    Vec<Acc> from[kPixels];
#pragma GCC unroll 16
    for (int p = 0; p < kPixels; ++p) {
      from[p] = load_up_to(src + p * run.src_step, src_lanes);
      __builtin_prefetch(src + p * run.src_step + src_lanes);  // of the next set
    }
    Index index = first;
#pragma GCC unroll 1
    for (int64_t k = 0; k < run.src_channels; ++k) {
      const Vec<Acc> w = load<Acc>(weight + k * kLanes);
#pragma GCC unroll 16
      for (int p = 0; p < kPixels; ++p) acc[p] += pick(from[p], index) * w;
      index += 1;
    }
  }
  T* dst = static_cast<T*>(run.dst) + pixel * run.dst_step + channel;
#pragma GCC unroll 16
  for (int p = 0; p < kPixels; ++p) store_up_to(dst + p * run.dst_step, acc[p], dst_lanes);
}

// All sets of a few pixels in turn: their channels lie next to each other in memory.
template <int kPixels, class T, class Index>
void sum_group_pixels(const GroupRun& run, int64_t pixel, int64_t pixels, Index first) {
  if (pixels == kPixels) {
    for (int64_t set = 0; set * run.side < run.groups; ++set) {
      sum_group_tile<kPixels, T>(run, pixel, set, first);
    }
  } else if constexpr (kPixels > 1) {
    sum_group_pixels<kPixels - 1, T>(run, pixel, pixels, first);
  }
}

template <class T>
void group_sum(const GroupRun& run) {
  const auto first =
      first_of_group<typename AccOf<T>::Type>(run.side, run.dst_channels, run.src_channels);
  const int64_t tiles = (run.pixels + kGroupPixels - 1) / kGroupPixels;
  int64_t pixel = 0;
  for (int64_t tile = 0; tile < tiles; ++tile) {  // of equal size to within one
    const int64_t pixels = (run.pixels - pixel + (tiles - tile) - 1) / (tiles - tile);
    sum_group_pixels<kGroupPixels, T>(run, pixel, pixels, first);
    pixel += pixels;
  }
}

// Products of kTerms terms with kFilters channels of dst from `filter` on, of one set of groups,
// summed over the pixels in registers.
template <int kTerms, int kFilters, class T, class Index>
void outer_group_tile(const GroupRun& run, const PixelTerm* terms, int64_t set, int64_t filter,
                      Index first) {
  using Acc = typename AccOf<T>::Type;
  constexpr int kLanes = Simd<Acc>::kLanes;
  const int64_t left = run.groups - set * run.side;
  const int64_t groups = left < run.side ? left : run.side;
  const int64_t src_lanes = groups * run.src_channels;
  const int64_t dst_lanes = groups * run.dst_channels;
  Index index[kFilters];
  Vec<Acc> acc[kTerms][kFilters];
#pragma GCC unroll 4
  for (int f = 0; f < kFilters; ++f) {
    index[f] = first + int(filter + f);
#pragma GCC unroll 4
    for (int t = 0; t < kTerms; ++t) acc[t][f] = Vec<Acc>{};
  }
  const T* src[kTerms];
  for (int t = 0; t < kTerms; ++t) {
    src[t] = static_cast<const T*>(terms[t].src) + set * run.side * run.src_channels;
  }
  const T* grad = static_cast<const T*>(run.dst) + set * run.side * run.dst_channels;
  for (int64_t pixel = 0; pixel < run.pixels; ++pixel) {
    const Vec<Acc> g = load_up_to(grad + pixel * run.dst_step, dst_lanes);
    Vec<Acc> picked[kFilters];
#pragma GCC unroll 4
    for (int f = 0; f < kFilters; ++f) picked[f] = pick(g, index[f]);
#pragma GCC unroll 4
    for (int t = 0; t < kTerms; ++t) {
      const Vec<Acc> from = load_up_to(src[t] + pixel * run.src_step, src_lanes);
#pragma GCC unroll 4
      for (int f = 0; f < kFilters; ++f) acc[t][f] += picked[f] * from;
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < kTerms; ++t) {
    Acc* weight = static_cast<Acc*>(terms[t].weight) + (set * run.dst_channels + filter) * kLanes;
#pragma GCC unroll 4
    for (int f = 0; f < kFilters; ++f) {
      store<Acc>(weight + f * kLanes, load<Acc>(weight + f * kLanes) + acc[t][f]);
    }
  }
}

template <int kTerms, class T, class Index>
void outer_group_filters(const GroupRun& run, const PixelTerm* terms, int64_t set, Index first) {
  int64_t f = 0;
  for (; f + 4 <= run.dst_channels; f += 4) {
    outer_group_tile<kTerms, 4, T>(run, terms, set, f, first);
  }
  for (; f < run.dst_channels; ++f) outer_group_tile<kTerms, 1, T>(run, terms, set, f, first);
}

template <class T>
void group_outer(const GroupRun& run) {
  constexpr int kTerms = kMaxRows >= 12 ? 4 : 2;  // times 4 filters: the accumulators
  const auto first =
      first_of_group<typename AccOf<T>::Type>(run.side, run.src_channels, run.dst_channels);
  for (int64_t set = 0; set * run.side < run.groups; ++set) {
    int64_t t = 0;
    for (; t + kTerms <= run.term_count; t += kTerms) {
      outer_group_filters<kTerms, T>(run, run.terms + t, set, first);
    }
    for (; t < run.term_count; ++t) outer_group_filters<1, T>(run, run.terms + t, set, first);
  }
}

}  // namespace
