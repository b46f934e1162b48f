// What an element of a panel is: how it is read from memory and multiplied (see kernels.h).
// Included by kernels.inl.
//
// An Element stands for some terms of the sum, `term_stride` apart in memory, of which `steps` are
// left; p is always where the first of them lies.

namespace {

// A vector of numbers `kStride` (1 or 2) apart, of which the first `count` are wanted: touches
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

// Lanes [begin, end) of a vector of numbers `kStride` apart, zeros elsewhere. Out of line: it is
// for borders, and would take the registers of the loop around it.
template <int kStride, class T>
__attribute__((noinline)) auto load_part(const T* p, int64_t begin, int64_t end) {
  using Acc = typename AccOf<T>::Type;
  if (begin >= end) return Vec<Acc>{};
  return shift_up<Acc>(load_strided<kStride>(p + begin * kStride, end - begin), begin);
}

template <int kStride, class T>
inline __attribute__((always_inline)) auto load_lanes(const T* p, int64_t begin, int64_t end) {
  constexpr int64_t kLanes = Simd<typename AccOf<T>::Type>::kLanes;
#if defined(__AVX512F__)
  if constexpr (kStride == 1) return load_between(p, begin, end);
#endif
  return begin == 0 && end == kLanes ? load_strided<kStride>(p, kLanes)
                                     : load_part<kStride>(p, begin, end);
}

// Whether none of `count` consecutive numbers is Inf or NaN.
template <class Acc>
bool all_finite(const void* opaque, int64_t count) {
  constexpr int kLanes = Simd<Acc>::kLanes;
  const Acc* values = static_cast<const Acc*>(opaque);
  Vec<Acc> products{};  // with 0: NaN as soon as one value is not finite
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) products += load<Acc>(values + i) * Acc(0);
  if (i < count) products += load_first(values + i, count - i) * Acc(0);
  Acc total = 0;
  for (int l = 0; l < kLanes; ++l) total += products[l];
  return total == 0;
}

// One number of the accumulate type.
template <class T>
struct Number {
  using Stored = T;
  using Acc = typename AccOf<T>::Type;
  static constexpr int kTerms = 1;

  Number(int64_t /*steps*/, int64_t /*term_stride*/) {}

  void fetch(const T* p) const { __builtin_prefetch(p); }
  // A vector of elements kStride apart, the first `count` of them; or [begin, end).
  template <int kStride>
  Vec<Acc> load(const T* p, int64_t count) const {
    return load_strided<kStride>(p, count);
  }
  template <int kStride>
  Vec<Acc> load_between(const T* p, int64_t begin, int64_t end) const {
    return load_lanes<kStride>(p, begin, end);
  }
  Acc load_one(const T* p) const { return to_acc(*p); }

  // An element whose terms are contiguous; and a vector of elements that follow each other in the
  // sum, `steps` numbers kStride apart.
  static Acc load_step(const T* p) { return to_acc(*p); }
  template <int kStride>
  static Vec<Acc> load_steps(const T* p, int64_t steps) {
    return load_strided<kStride>(p, steps);
  }

  // Of vectors of any width.
  template <class V>
  static inline __attribute__((always_inline)) V multiply_add(V sum, Acc row, V col) {
    return sum + row * col;
  }

  static bool finite(const void* elements, int64_t count) {
    return all_finite<Acc>(elements, count);
  }
};

#if defined(__AVX512BF16__)

// Two bfloat16, the first in the lower half. They travel in the bits of a float.
struct Pair {
  using Stored = BFloat16;
  using Acc = float;
  static constexpr int kTerms = 2;

  Pair(int64_t steps, int64_t term_stride) : stride_(term_stride), both_(steps > 1) {}

  void fetch(const BFloat16* p) const {
    __builtin_prefetch(p);
    __builtin_prefetch(p + stride_);
  }
  template <int kStride>
  Vec<float> load(const BFloat16* p, int64_t count) const {
    const UVec first = (UVec)load_strided<kStride>(p, count) >> 16;
    return (Vec<float>)(both_ ? first | (UVec)load_strided<kStride>(p + stride_, count) : first);
  }
  template <int kStride>
  Vec<float> load_between(const BFloat16* p, int64_t begin, int64_t end) const {
    const UVec first = (UVec)load_lanes<kStride>(p, begin, end) >> 16;
    return (Vec<float>)(both_ ? first | (UVec)load_lanes<kStride>(p + stride_, begin, end) : first);
  }
  float load_one(const BFloat16* p) const {
    return bit_cast<float>(uint32_t(p->bits) | (both_ ? uint32_t(p[stride_].bits) << 16 : 0u));
  }

  static float load_step(const BFloat16* p) {
    float element;
    std::memcpy(&element, p, sizeof(element));
    return element;
  }
  template <int kStride>
  static Vec<float> load_steps(const BFloat16* p, int64_t steps) {
    static_assert(kStride == 1, "pairs of terms further apart are read one by one");
    const __mmask32 wanted = steps >= 32 ? ~__mmask32(0) : (__mmask32(1) << steps) - 1;
    return (Vec<float>)_mm512_maskz_loadu_epi16(wanted, p);
  }

  template <class V>
  static inline __attribute__((always_inline)) V multiply_add(V sum, float row, V col) {
    if constexpr (sizeof(V) == 64) {
      return (V)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_ps(row), (__m512bh)col);
    } else if constexpr (sizeof(V) == 32) {
      return (V)_mm256_dpbf16_ps((__m256)sum, (__m256bh)_mm256_set1_ps(row), (__m256bh)col);
    } else {
      return (V)_mm_dpbf16_ps((__m128)sum, (__m128bh)_mm_set1_ps(row), (__m128bh)col);
    }
  }

  static bool finite(const void* elements, int64_t count) {
    const float* pairs = static_cast<const float*>(elements);
    constexpr uint32_t kExponent = 0x7f800000u;
    UVec found{};
    for (int64_t i = 0; i < count; i += Simd<float>::kLanes) {
      const UVec bits = (UVec)load_strided<1>(pairs + i, count - i);
      found |= (UVec)((bits & kExponent) == kExponent);
      found |= (UVec)((bits << 16 & kExponent) == kExponent);
    }
    return _mm512_test_epi32_mask((__m512i)found, (__m512i)found) == 0;
  }

 private:
  int64_t stride_;
  bool both_;
};

#endif

}  // namespace
