// Vectors of the accumulate type, and their conversion from and to the storage types.
// Included by one translation unit per instruction set; everything here has internal linkage so
// that no instruction of a wider set can reach a narrower CPU through a shared symbol.

#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class Acc>
struct Simd {
  static constexpr int kLanes = kVectorBytes / int(sizeof(Acc));
  typedef Acc Vec __attribute__((vector_size(kVectorBytes)));
  typedef Acc UnalignedVec __attribute__((vector_size(kVectorBytes), aligned(sizeof(Acc))));
};

template <class Acc>
using Vec = typename Simd<Acc>::Vec;

template <class Acc>
inline __attribute__((always_inline)) Vec<Acc> load(const Acc* p) {
  return *reinterpret_cast<const typename Simd<Acc>::UnalignedVec*>(p);
}

template <class Acc>
inline __attribute__((always_inline)) void store(Acc* p, Vec<Acc> v) {
  *reinterpret_cast<typename Simd<Acc>::UnalignedVec*>(p) = v;
}

// Storage types. The 16-bit ones are only containers: arithmetic is always in float.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <class To, class From>
inline To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast keeps the size");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

inline float to_acc(float x) { return x; }
inline double to_acc(double x) { return x; }
inline float to_acc(BFloat16 x) { return bit_cast<float>(uint32_t(x.bits) << 16); }

inline float to_acc(Half x) {
#if defined(__F16C__)
  return _cvtsh_ss(x.bits);
#else
  const uint32_t sign = uint32_t(x.bits & 0x8000u) << 16;
  uint32_t exponent = (x.bits >> 10) & 0x1fu;
  uint32_t mantissa = x.bits & 0x3ffu;
  if (exponent == 31) return bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent == 0) {
    if (mantissa == 0) return bit_cast<float>(sign);
    exponent = 1;
    while (!(mantissa & 0x400u)) {  // normalise: float32 has room for every half subnormal
      mantissa <<= 1;
      --exponent;
    }
    mantissa &= 0x3ffu;
  }
  return bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
#endif
}

// Round to nearest, ties to even; NaN stays a (quiet) NaN.
inline void from_acc(float x, float* out) { *out = x; }
inline void from_acc(double x, double* out) { *out = x; }

inline void from_acc(float x, BFloat16* out) {
  const uint32_t bits = bit_cast<uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    out->bits = uint16_t((bits >> 16) | 0x40u);
  } else {
    out->bits = uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
  }
}

inline void from_acc(float x, Half* out) {
#if defined(__F16C__)
  out->bits = uint16_t(_cvtss_sh(x, 0));
#else
  const uint32_t bits = bit_cast<uint32_t>(x);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    out->bits = uint16_t(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
    return;
  }
  if (magnitude >= 0x477ff000u) {  // rounds to 2^16 or more
    out->bits = uint16_t(sign | 0x7c00u);
    return;
  }
  uint32_t shift = 13;
  uint32_t mantissa = magnitude - (112u << 23);
  if (magnitude < 0x38800000u) {  // result is subnormal: align the mantissa to 2^-24
    const uint32_t exponent = magnitude >> 23;
    if (exponent < 101u) {  // below 2^-26: rounds to zero
      out->bits = uint16_t(sign);
      return;
    }
    shift = 126u - exponent;
    mantissa = (magnitude & 0x7fffffu) | 0x800000u;
  }
  const uint32_t half = 1u << (shift - 1);
  const uint32_t rest = mantissa & ((1u << shift) - 1u);
  uint32_t rounded = mantissa >> shift;
  if (rest > half || (rest == half && (rounded & 1u))) ++rounded;
  out->bits = uint16_t(sign | rounded);
#endif
}

// One vector of accumulators from consecutive stored elements, and back.
inline Vec<float> load_as(const float* p) { return load<float>(p); }
inline Vec<double> load_as(const double* p) { return load<double>(p); }
inline void store_as(float* p, Vec<float> v) { store<float>(p, v); }
inline void store_as(double* p, Vec<double> v) { store<double>(p, v); }

inline Vec<float> load_as(const Half* p) {
#if defined(__AVX512F__)
  return (Vec<float>)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__F16C__)
  return (Vec<float>)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
  Vec<float> v;
  for (int i = 0; i < Simd<float>::kLanes; ++i) v[i] = to_acc(p[i]);
  return v;
#endif
}

inline void store_as(Half* p, Vec<float> v) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph((__m512)v, 0));
#elif defined(__F16C__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph((__m256)v, 0));
#else
  for (int i = 0; i < Simd<float>::kLanes; ++i) from_acc(v[i], p + i);
#endif
}

typedef uint32_t UVec __attribute__((vector_size(kVectorBytes)));
typedef uint16_t HalfUVec __attribute__((vector_size(kVectorBytes / 2), aligned(2)));

inline Vec<float> load_as(const BFloat16* p) {
  const HalfUVec bits = *reinterpret_cast<const HalfUVec*>(p);
  return (Vec<float>)(__builtin_convertvector(bits, UVec) << 16);
}

inline void store_as(BFloat16* p, Vec<float> v) {
  const UVec bits = (UVec)v;
  const UVec rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const UVec quiet = (bits >> 16) | 0x40u;
  const UVec nan = (UVec)((bits & 0x7fffffffu) > 0x7f800000u);
  *reinterpret_cast<HalfUVec*>(p) =
      __builtin_convertvector((nan & quiet) | (~nan & rounded), HalfUVec);
}

// The first `count` lanes only, 0 < count < lanes: nothing beyond them is touched. Lanes that are
// not loaded are zero.
#if defined(__AVX512F__)

inline __mmask16 first_lanes(int64_t count) { return __mmask16((1u << count) - 1u); }

inline Vec<float> load_first(const float* p, int64_t count) {
  return (Vec<float>)_mm512_maskz_loadu_ps(first_lanes(count), p);
}
inline Vec<double> load_first(const double* p, int64_t count) {
  return (Vec<double>)_mm512_maskz_loadu_pd(__mmask8(first_lanes(count)), p);
}
inline Vec<float> load_first(const Half* p, int64_t count) {
  return (Vec<float>)_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(count), p));
}
inline Vec<float> load_first(const BFloat16* p, int64_t count) {
  const __m256i bits = _mm256_maskz_loadu_epi16(first_lanes(count), p);
  return (Vec<float>)_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16);
}
// Lanes [begin, end): no other element is touched, and those lanes are zero.
inline Vec<float> load_between(const float* p, int64_t begin, int64_t end) {
  return (Vec<float>)_mm512_maskz_loadu_ps(__mmask16((1u << end) - (1u << begin)), p);
}
inline Vec<double> load_between(const double* p, int64_t begin, int64_t end) {
  return (Vec<double>)_mm512_maskz_loadu_pd(__mmask8((1u << end) - (1u << begin)), p);
}
inline Vec<float> load_between(const Half* p, int64_t begin, int64_t end) {
  const __mmask16 lanes = __mmask16((1u << end) - (1u << begin));
  return (Vec<float>)_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes, p));
}
inline Vec<float> load_between(const BFloat16* p, int64_t begin, int64_t end) {
  const __mmask16 lanes = __mmask16((1u << end) - (1u << begin));
  const __m256i bits = _mm256_maskz_loadu_epi16(lanes, p);
  return (Vec<float>)_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16);
}
inline void store_first(float* p, Vec<float> v, int64_t count) {
  _mm512_mask_storeu_ps(p, first_lanes(count), (__m512)v);
}
inline void store_first(double* p, Vec<double> v, int64_t count) {
  _mm512_mask_storeu_pd(p, __mmask8(first_lanes(count)), (__m512d)v);
}

#else

template <class T>
inline auto load_first(const T* p, int64_t count) {
  T lanes[Simd<float>::kLanes * sizeof(float) / (sizeof(T) < 4 ? 4 : sizeof(T))] = {};
  std::memcpy(lanes, p, size_t(count) * sizeof(T));
  return load_as(lanes);
}
template <class Acc>
inline void store_first(Acc* p, Vec<Acc> v, int64_t count) {
  std::memcpy(p, &v, size_t(count) * sizeof(Acc));
}

#endif

#if defined(__AVX__) && !defined(__AVX512F__)

inline __m256i first_lanes(int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(int(count)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline Vec<float> load_first(const float* p, int64_t count) {
  return (Vec<float>)_mm256_maskload_ps(p, first_lanes(count));
}
inline void store_first(float* p, Vec<float> v, int64_t count) {
  _mm256_maskstore_ps(p, first_lanes(count), (__m256)v);
}

#endif

// The first `count` lanes, 0 < count < lanes, rounded to the type of the memory.
inline void store_first_as(float* p, Vec<float> v, int64_t count) { store_first(p, v, count); }
inline void store_first_as(double* p, Vec<double> v, int64_t count) { store_first(p, v, count); }

template <class T>
inline void store_first_as(T* p, Vec<float> v, int64_t count) {
  T lanes[Simd<float>::kLanes];
  store_as(lanes, v);
#if defined(__AVX512F__)
  _mm256_mask_storeu_epi16(p, first_lanes(count),
                           _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lanes)));
#else
  for (int64_t i = 0; i < count; ++i) p[i] = lanes[i];
#endif
}

template <class T>
struct AccOf {
  typedef float Type;
};
template <>
struct AccOf<double> {
  typedef double Type;
};

}  // namespace
