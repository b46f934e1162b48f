// The copies of outer_kernels.h for one instruction set. Included by kernels.inl.

#include "cpu/outer_kernels.h"

namespace {

using mxd::cpu::Runs;

// Transpose of a square of groups of kRun lanes: vector r of the result holds group r of each
// vector. log2(lanes / kRun) rounds of butterfly exchanges.
template <class Acc, int kRun, int kBlock, int kRows>
inline __attribute__((always_inline)) void transpose_groups(Vec<Acc> (&rows)[kRows]) {
  if constexpr (kBlock >= kRun) {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      if ((i / (kBlock / kRun)) % 2 == 0) {
        exchange<kBlock, Vec<Acc>, typename LaneIndex<Acc>::Vec, Simd<Acc>::kLanes>(
            rows[i], rows[i + kBlock / kRun]);
      }
    }
    transpose_groups<Acc, kRun, kBlock / 2, kRows>(rows);
  }
}

constexpr int kChunkBytes = 16;  // what every instruction set can shuffle within
constexpr int kChunks = kVectorBytes / kChunkBytes;

// The vector of kChunks chunks, each from a row of its own: row[0], row[kEvery], row[2 kEvery] ..
template <int kEvery, class Acc>
inline __attribute__((always_inline)) Vec<Acc> load_chunks(const Acc* const* row, int64_t offset) {
#if defined(__AVX512F__)
  const auto chunk = [&](int i) {
    return _mm_loadu_ps(reinterpret_cast<const float*>(row[i * kEvery] + offset));
  };
  __m512 v = _mm512_castps128_ps512(chunk(0));
  v = _mm512_insertf32x4(v, chunk(1), 1);
  v = _mm512_insertf32x4(v, chunk(2), 2);
  return (Vec<Acc>)_mm512_insertf32x4(v, chunk(3), 3);
#elif defined(__AVX__)
  const auto chunk = [&](int i) {
    return _mm_loadu_ps(reinterpret_cast<const float*>(row[i * kEvery] + offset));
  };
  return (Vec<Acc>)_mm256_insertf128_ps(_mm256_castps128_ps256(chunk(0)), chunk(1), 1);
#else
  return load<Acc>(row[0] + offset);
#endif
}

// Within each chunk: a = [a0 a1 a2 a3], b = ... -> [a0 b0 a1 b1], [a2 b2 a3 b3], of elements of
// kBytes. (Two elements a chunk: [a0 b0], [a1 b1].)
template <int kBytes>
inline __attribute__((always_inline)) void interleave(Vec<float>& a, Vec<float>& b) {
  using Index = typename LaneIndex<float>::Vec;
  constexpr int kLanes = Simd<float>::kLanes;
  constexpr int kUnit = kBytes / 4;
  Index low, high;
  for (int i = 0; i < kLanes; ++i) {
    const int chunk = i / 4 * 4, within = i % 4;
    const int element = within / kUnit, part = within % kUnit;
    const int from = chunk + element / 2 * kUnit + part + (element % 2 ? kLanes : 0);
    low[i] = from;
    high[i] = from + 2;
  }
  const Vec<float> new_a = shuffle(a, b, low);
  b = shuffle(a, b, high);
  a = new_a;
}

// kChunkSteps groups make a chunk. v[m] has chunks of the rows m, m + kChunkSteps, ...; turned into
// the vectors of as many steps, each with the groups of all rows in order.
template <int kChunkSteps>
inline __attribute__((always_inline)) void transpose_within_chunks(Vec<float> (&v)[kChunkSteps]) {
  if constexpr (kChunkSteps == 4) {
    interleave<4>(v[0], v[1]);  // steps 0 and 1, steps 2 and 3
    interleave<4>(v[2], v[3]);
    interleave<8>(v[0], v[2]);
    interleave<8>(v[1], v[3]);
    const Vec<float> step2 = v[1];
    v[1] = v[2];
    v[2] = step2;
  } else if constexpr (kChunkSteps == 2) {
    interleave<8>(v[0], v[1]);
  }
}

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

template <class Acc, class To>
inline __attribute__((always_inline)) void store_lanes(To* p, Vec<Acc> v, int64_t count) {
  if (count >= Simd<Acc>::kLanes) {
    store_as(p, v);
  } else {
    store_first_as(p, v, count);
  }
}

// The vectors of kLanes / kRun runs at as many steps, each run followed in memory by that of the
// next step (or, with kStride 2, every other element belongs to it).
template <int kRun, int kStride, class From, class To, class Acc>
void transpose_runs(To* dst, int64_t dst_step, const From* src, const Runs& runs, int64_t steps) {
  constexpr int kLanes = Simd<Acc>::kLanes;
  constexpr int kSide = kLanes / kRun;
  for (int64_t i = 0; i < runs.count; i += kSide) {
    const int64_t present = runs.count - i < kSide ? runs.count - i : kSide;
    const From* row[kSide];
    for (int r = 0; r < kSide; ++r) {
      row[r] = src + runs.offset[i + (r < present ? r : present - 1)];
    }
    for (int64_t k = 0; k < steps; k += kSide) {
      const int64_t valid = steps - k < kSide ? steps - k : kSide;
      Vec<Acc> square[kSide];
      if (valid == kSide) {
#pragma GCC unroll 16
        for (int r = 0; r < kSide; ++r) {
          square[r] = load_strided<kStride>(row[r] + k * kRun * kStride, kLanes);
        }
      } else {
        for (int r = 0; r < kSide; ++r) {
          square[r] = load_strided<kStride>(row[r] + k * kRun * kStride, valid * kRun);
        }
      }
      transpose_groups<Acc, kRun, kLanes / 2, kSide>(square);
      To* out = dst + k * dst_step + i * kRun;
      if (valid == kSide && present == kSide) {
#pragma GCC unroll 16
        for (int r = 0; r < kSide; ++r) store_as(out + r * dst_step, square[r]);
      } else {
#pragma GCC unroll 16
        for (int r = 0; r < kSide; ++r) {
          if (r < valid) store_lanes<Acc>(out + r * dst_step, square[r], present * kRun);
        }
      }
    }
  }
}

// The same by chunks, for steps that lie next to each other. Takes fewer shuffles, and short rows
// waste less; cannot convert on the way in. Whole vectors of a row are read at once: rows are often
// a power of two apart, and then the first cache cannot hold a line of each.
template <int kRun, class To, class Acc>
void transpose_chunks(To* dst, int64_t dst_step, const Acc* src, const Runs& runs, int64_t steps) {
  constexpr int kSide = Simd<Acc>::kLanes / kRun;
  constexpr int kChunkSteps = kChunkBytes / int(sizeof(Acc)) / kRun;
  for (int64_t i = 0; i < runs.count; i += kSide) {
    const int64_t present = runs.count - i < kSide ? runs.count - i : kSide;
    const Acc* row[kSide];
    for (int r = 0; r < kSide; ++r) row[r] = src + runs.offset[i + (r < present ? r : present - 1)];
    const auto write = [&](int64_t k, Vec<float> v) {
      store_lanes<Acc>(dst + k * dst_step + i * kRun, (Vec<Acc>)v, present * kRun);
    };
    int64_t k = 0;
    for (; k + kSide <= steps; k += kSide) {
      Vec<float> v[kChunks][kChunkSteps];
#pragma GCC unroll 4
      for (int m = 0; m < kChunkSteps; ++m) {
#pragma GCC unroll 4
        for (int q = 0; q < kChunks; ++q) {
          v[q][m] =
              (Vec<float>)load_chunks<kChunkSteps>(row + m, (k + q * kChunkSteps) * kRun);
        }
      }
#pragma GCC unroll 4
      for (int q = 0; q < kChunks; ++q) {
        transpose_within_chunks<kChunkSteps>(v[q]);
#pragma GCC unroll 4
        for (int m = 0; m < kChunkSteps; ++m) write(k + q * kChunkSteps + m, v[q][m]);
      }
    }
    for (; k + kChunkSteps <= steps; k += kChunkSteps) {
      Vec<float> v[kChunkSteps];
#pragma GCC unroll 4
      for (int m = 0; m < kChunkSteps; ++m) {
        v[m] = (Vec<float>)load_chunks<kChunkSteps>(row + m, k * kRun);
      }
      transpose_within_chunks<kChunkSteps>(v);
#pragma GCC unroll 4
      for (int m = 0; m < kChunkSteps; ++m) write(k + m, v[m]);
    }
    for (; k < steps; ++k) {
      for (int64_t r = 0; r < present; ++r) {
        for (int e = 0; e < kRun; ++e) {
          from_acc(row[r][k * kRun + e], dst + k * dst_step + (i + r) * kRun + e);
        }
      }
    }
  }
}

// Runs of a vector or more: column after column of vectors.
template <class From, class To, class Acc>
void copy_runs(To* dst, int64_t dst_step, const From* src, int64_t src_step, const Runs& runs,
               int64_t steps) {
  constexpr int kLanes = Simd<Acc>::kLanes;
  for (int64_t i = 0; i < runs.count; ++i) {
    const From* from = src + runs.offset[i];
    To* to = dst + i * runs.pitch;
    int64_t e = 0;
    for (; e + 2 * kLanes <= runs.length; e += 2 * kLanes) {
      for (int64_t k = 0; k < steps; ++k) {
        store_as(to + k * dst_step + e, load_as(from + k * src_step + e));
        store_as(to + k * dst_step + e + kLanes, load_as(from + k * src_step + e + kLanes));
      }
    }
    for (; e + kLanes <= runs.length; e += kLanes) {
      for (int64_t k = 0; k < steps; ++k) {
        store_as(to + k * dst_step + e, load_as(from + k * src_step + e));
      }
    }
    const int64_t rest = runs.length - e;
    if (rest == 0) continue;
    for (int64_t k = 0; k < steps; ++k) {
      store_first_as(to + k * dst_step + e, load_first(from + k * src_step + e, rest), rest);
    }
  }
}

template <class From, class To>
void copy_elements(To* dst, int64_t dst_step, const From* src, int64_t src_step, const Runs& runs,
                   int64_t steps) {
  for (int64_t k = 0; k < steps; ++k) {
    for (int64_t i = 0; i < runs.count; ++i) {
      for (int64_t e = 0; e < runs.length; ++e) {
        from_acc(to_acc(src[runs.offset[i] + k * src_step + e]),
                 dst + k * dst_step + i * runs.pitch + e);
      }
    }
  }
}

template <int kRun, class From, class To>
void transpose_runs_of(To* dst, int64_t dst_step, const From* src, const Runs& runs,
                       int64_t steps) {
  using Acc = typename AccOf<From>::Type;
  if constexpr (sizeof(From) == sizeof(Acc) && kRun * sizeof(Acc) <= kChunkBytes) {
    transpose_chunks<kRun, To, Acc>(dst, dst_step, src, runs, steps);
  } else {
    transpose_runs<kRun, 1, From, To, Acc>(dst, dst_step, src, runs, steps);
  }
}

template <class From, class To, class Acc>
void regroup(void* opaque_dst, int64_t dst_step, const void* opaque_src, int64_t src_step,
             const Runs& runs, int64_t steps) {
  constexpr int kLanes = Simd<Acc>::kLanes;
  To* dst = static_cast<To*>(opaque_dst);
  const From* src = static_cast<const From*>(opaque_src);
  const bool dense = runs.pitch == runs.length && runs.length == src_step && steps >= 2;
  if (dense && src_step == 1) {
    transpose_runs_of<1>(dst, dst_step, src, runs, steps);
  } else if (dense && src_step == 2) {
    transpose_runs_of<2>(dst, dst_step, src, runs, steps);
  } else if (dense && src_step == 4 && kLanes >= 4) {
    transpose_runs_of<(kLanes >= 4 ? 4 : 1)>(dst, dst_step, src, runs, steps);
  } else if (dense && src_step == 8 && kLanes > 8) {
    transpose_runs<(kLanes > 8 ? 8 : 1), 1, From, To, Acc>(dst, dst_step, src, runs, steps);
  } else if (runs.length == 1 && src_step == 2 && runs.pitch == 1 && steps >= 2) {
    transpose_runs<1, 2, From, To, Acc>(dst, dst_step, src, runs, steps);
  } else if (runs.length >= 3) {
    copy_runs<From, To, Acc>(dst, dst_step, src, src_step, runs, steps);
  } else {
    copy_elements(dst, dst_step, src, src_step, runs, steps);
  }
}

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

template <class T>
constexpr mxd::cpu::OuterKernels outer_kernels_of() {
  using Acc = typename AccOf<T>::Type;
  return {regroup<T, Acc, Acc>, regroup<Acc, T, Acc>, all_finite<Acc>};
}

}  // namespace
