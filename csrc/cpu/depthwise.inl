// The primitives of depthwise_kernels.h for one instruction set. See there for the contract.

namespace {

using mxd::cpu::DepthwiseKernels;
using mxd::cpu::RowExpansion;
using mxd::cpu::RowOuter;
using mxd::cpu::RowSum;
using mxd::cpu::RowTerm;

// The first `count` lanes, or all of them if there are fewer.
template <class T>
inline __attribute__((always_inline)) auto load_up_to(const T* p, int64_t count) {
  return count >= Simd<typename AccOf<T>::Type>::kLanes ? load_as(p) : load_first(p, count);
}

template <class T, class V>
inline __attribute__((always_inline)) void store_up_to(T* p, V v, int64_t count) {
  if (count >= Simd<typename AccOf<T>::Type>::kLanes) {
    store_as(p, v);
  } else {
    store_first_as(p, v, count);
  }
}

// ---- expand, arrange, contract ------------------------------------------------------------

// Pixels of a row, one after the other `kRepeat` (1, 2) times, or `repeat` times.
template <int kRepeat, class T, class V>
inline __attribute__((always_inline)) void expand_pixels(const RowExpansion& e, const T* src,
                                                         typename AccOf<T>::Type* dst, V& sticky) {
  using Acc = typename AccOf<T>::Type;
  constexpr int kLanes = Simd<Acc>::kLanes;
  int64_t i = 0;
  if constexpr (kRepeat > 0) {
    typename LaneIndex<Acc>::Vec index[kRepeat];
    for (int k = 0; k < kRepeat; ++k) {
      for (int l = 0; l < kLanes; ++l) index[k][l] = (l + k * kLanes) / kRepeat;
    }
    for (; i < e.count; i += kLanes) {
      const V v = load_up_to(src + i, e.count - i);
      sticky += v * Acc(0);
      for (int k = 0; k < kRepeat; ++k) {
        if (i * kRepeat + k * kLanes >= e.count * kRepeat) break;
        store<Acc>(dst + i * kRepeat + k * kLanes, kRepeat == 1 ? v : shuffle(v, v, index[k]));
      }
    }
  } else {
    for (; i < e.count; ++i) {
      const V v = V{} + to_acc(src[i * e.src_stride]);
      sticky += v * Acc(0);
      for (int64_t k = 0; k < e.repeat; k += kLanes) store<Acc>(dst + i * e.repeat + k, v);
    }
  }
}

template <class T>
void expand(const RowExpansion& e) {
  using Acc = typename AccOf<T>::Type;
  constexpr int kLanes = Simd<Acc>::kLanes;
  Vec<Acc> sticky = load<Acc>(static_cast<Acc*>(e.sticky));
  for (int64_t r = 0; r < e.rows; ++r) {
    Acc* dst = static_cast<Acc*>(e.dst) + r * e.dst_row_step;
    const T* src = static_cast<const T*>(e.src) + r * e.src_row_step;
    for (int64_t i = 0; i < e.lead; i += kLanes) store<Acc>(dst + i, Vec<Acc>{});
    if (e.src_stride == 1 && e.repeat == 1) {
      expand_pixels<1>(e, src, dst + e.lead, sticky);
    } else if (e.src_stride == 1 && e.repeat == 2) {
      expand_pixels<2>(e, src, dst + e.lead, sticky);
    } else {
      expand_pixels<0>(e, src, dst + e.lead, sticky);
    }
    for (int64_t i = e.lead + e.count * e.repeat; i < e.length; i += kLanes) {
      store<Acc>(dst + i, Vec<Acc>{});
    }
  }
  store<Acc>(static_cast<Acc*>(e.sticky), sticky);
}

template <class Acc>
void arrange(void* opaque_dst, const void* opaque_src, const int32_t* index, int64_t count) {
  Acc* dst = static_cast<Acc*>(opaque_dst);
  const Acc* src = static_cast<const Acc*>(opaque_src);
  for (int64_t i = 0; i < count; ++i) dst[i] = src[index[i]];
}

template <class Acc>
void contract(void* opaque_row, int64_t count, int64_t width) {
  constexpr int kLanes = Simd<Acc>::kLanes;
  Acc* row = static_cast<Acc*>(opaque_row);
  typename LaneIndex<Acc>::Vec even, odd;
  for (int l = 0; l < kLanes; ++l) {
    even[l] = 2 * l;
    odd[l] = 2 * l + 1;
  }
  for (; width % 2 == 0; width /= 2) {  // halves the row
    for (int64_t i = 0; i < count * width / 2; i += kLanes) {
      const Vec<Acc> a = load<Acc>(row + 2 * i);
      const Vec<Acc> b = load<Acc>(row + 2 * i + kLanes);
      store<Acc>(row + i, shuffle(a, b, even) + shuffle(a, b, odd));
    }
  }
  if (width == 1) return;
  for (int64_t i = 0; i < count; ++i) {
    Acc total = 0;
    for (int64_t r = 0; r < width; ++r) total += row[i * width + r];
    row[i] = total;
  }
}

// ---- rows ---------------------------------------------------------------------------------

// One row, of few terms: their weights stay in registers. `term_count` of them (kTerms at most).
template <int kTerms, class T, class Acc>
inline __attribute__((always_inline)) void sum_few_terms(const RowSum& sum, const Acc* src, T* dst,
                                                         int64_t p, int64_t step, Acc bias) {
  constexpr int kLanes = Simd<Acc>::kLanes;
  const Acc* at[kTerms];
  Vec<Acc> weight[kTerms];
#pragma GCC unroll 8
  for (int t = 0; t < kTerms; ++t) {
    at[t] = src + sum.terms[t].src;
    weight[t] = load<Acc>(static_cast<const Acc*>(sum.weights) + sum.terms[t].weight + p);
  }
  int64_t i = p;
  for (; i + kLanes <= sum.count; i += step) {
    Vec<Acc> acc = sum.accumulate ? load_as(dst + i) : Vec<Acc>{} + bias;
#pragma GCC unroll 8
    for (int t = 0; t < kTerms; ++t) acc += load<Acc>(at[t] + i) * weight[t];
    store_as(dst + i, acc);
  }
  if (i < sum.count) {
    const int64_t rest = sum.count - i;
    Vec<Acc> acc = sum.accumulate ? load_first(dst + i, rest) : Vec<Acc>{} + bias;
#pragma GCC unroll 8
    for (int t = 0; t < kTerms; ++t) acc += load<Acc>(at[t] + i) * weight[t];
    store_first_as(dst + i, acc, rest);
  }
}

// One row, kVectors vectors at a time, as far as it has so many.
template <int kVectors, class T, class Acc>
inline __attribute__((always_inline)) int64_t sum_vectors(const RowSum& sum, const Acc* src, T* dst,
                                                          int64_t i, int64_t p, int64_t step,
                                                          Acc bias) {
  constexpr int kLanes = Simd<Acc>::kLanes;
  const Acc* weights = static_cast<const Acc*>(sum.weights) + p;
  for (; i + (kVectors - 1) * step < sum.count; i += kVectors * step) {
    const int64_t last = sum.count - i - (kVectors - 1) * step;  // lanes of the last vector
    Vec<Acc> acc[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) acc[v] = Vec<Acc>{} + bias;
    if (sum.accumulate) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        acc[v] = load_up_to(dst + i + v * step, v < kVectors - 1 ? kLanes : last);
      }
    }
#pragma GCC unroll 1
    for (int64_t t = 0; t < sum.term_count; ++t) {
      const Vec<Acc> w = load<Acc>(weights + sum.terms[t].weight);
      const Acc* at = src + sum.terms[t].src + i;
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) acc[v] += load<Acc>(at + v * step) * w;
    }
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      store_up_to(dst + i + v * step, acc[v], v < kVectors - 1 ? kLanes : last);
    }
  }
  return i;
}

// `kTerms` is what the registers hold: the call has exactly so many terms, or more.
template <int kTerms, class T, class Acc>
void sum_rows(const RowSum& sum) {
  constexpr int kLanes = Simd<Acc>::kLanes;
  if constexpr (kTerms > 0) {
    if (sum.term_count < kTerms) return sum_rows<kTerms - 1, T, Acc>(sum);
  }
  const Acc bias = sum.bias ? *static_cast<const Acc*>(sum.bias) : Acc(0);
  const int64_t step = sum.period * kLanes;
  for (int64_t r = 0; r < sum.rows; ++r) {
    const Acc* src = static_cast<const Acc*>(sum.src) + r * sum.src_row_step;
    T* dst = static_cast<T*>(sum.dst) + r * sum.dst_row_step;
    for (int64_t p = 0; p < step; p += kLanes) {
      if (sum.term_count == kTerms) {
        if constexpr (kTerms > 0)
          sum_few_terms<kTerms>(sum, src, dst, p, step, bias);
        else
          sum_vectors<1>(sum, src, dst, p, p, step, bias);
      } else {
        const int64_t i = sum_vectors<4>(sum, src, dst, p, p, step, bias);
        sum_vectors<1>(sum, src, dst, i, p, step, bias);
      }
    }
  }
}

template <class T>
void row_sum(const RowSum& sum) {
  sum_rows<8, T, typename AccOf<T>::Type>(sum);
}

// kTerms terms of every row; their sums stay in registers.
template <int kTerms, class T, class Acc>
inline __attribute__((always_inline)) void outer_terms(const RowOuter& outer, const RowTerm* terms,
                                                       int64_t p, int64_t step) {
  Vec<Acc> acc[kTerms];
#pragma GCC unroll 8
  for (int t = 0; t < kTerms; ++t) acc[t] = Vec<Acc>{};
  // The rows of a phase lie apart in memory: the hardware does not foresee them.
  constexpr int64_t kBytesAhead = 2048;
  const int64_t ahead = 1 + kBytesAhead / (outer.count * int64_t(sizeof(T)));
  for (int64_t r = 0; r < outer.rows; ++r) {
    const Acc* src = static_cast<const Acc*>(outer.src) + r * outer.src_row_step;
    const T* grad = static_cast<const T*>(outer.grad) + r * outer.grad_row_step;
    for (int64_t i = p; i < outer.count; i += step) {
      __builtin_prefetch(grad + ahead * outer.grad_row_step + i);
      const Vec<Acc> g = load_up_to(grad + i, outer.count - i);
#pragma GCC unroll 8
      for (int t = 0; t < kTerms; ++t) acc[t] += g * load<Acc>(src + terms[t].src + i);
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTerms; ++t) {
    Acc* sums = static_cast<Acc*>(outer.sums) + terms[t].weight + p;
    store<Acc>(sums, load<Acc>(sums) + acc[t]);
  }
}

template <int kTerms, class T>
void outer_rest(const RowOuter& outer, const RowTerm* terms, int64_t count, int64_t p,
                int64_t step) {
  if (count == kTerms) {
    outer_terms<kTerms, T, typename AccOf<T>::Type>(outer, terms, p, step);
  } else if constexpr (kTerms > 1) {
    outer_rest<kTerms - 1, T>(outer, terms, count, p, step);
  }
}

template <class T>
void row_outer(const RowOuter& outer) {
  constexpr int kLanes = Simd<typename AccOf<T>::Type>::kLanes;
  constexpr int kTerms = 8;
  const int64_t step = outer.period * kLanes;
  for (int64_t p = 0; p < step; p += kLanes) {
    for (int64_t t = 0; t < outer.term_count; t += kTerms) {
      const int64_t left = outer.term_count - t;
      outer_rest<kTerms, T>(outer, outer.terms + t, left < kTerms ? left : kTerms, p, step);
    }
  }
}

}  // namespace

#include "cpu/depthwise_groups.inl"
#include "cpu/depthwise_pixels.inl"

namespace {

template <class T>
constexpr DepthwiseKernels depthwise_kernels_of() {
  using Acc = typename AccOf<T>::Type;
  return {expand<T>,
          arrange<Acc>,
          row_sum<T>,
          row_sum<Acc>,
          contract<Acc>,
          row_outer<T>,
          row_outer<Acc>,
          pixel_sum<T>,
          pixel_spread<T>,
          pixel_outer<T>,
          kPicksLanes ? group_sum<T> : nullptr,
          kPicksLanes ? group_outer<T> : nullptr};
}

}  // namespace
