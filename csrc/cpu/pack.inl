// The packing primitives of kernels.h for one instruction set. Included by kernels.inl.

namespace {

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

constexpr int64_t kStepsAhead = 8;  // of those that are prefetched

// Elements `kStride` apart along i: whole runs are copied.
template <int kStride, class T, class Acc>
void pack_runs(Acc* dst, int64_t width, const T* src, int64_t rows, int64_t steps,
               int64_t k_stride) {
  constexpr int kLanes = Simd<Acc>::kLanes;
  // No hardware prefetcher follows a step to another page.
  const int64_t ahead = kStepsAhead * k_stride;
  for (int64_t k = 0; k < steps; ++k) {
    for (int64_t i = 0; i < rows; i += kLanes) {
      __builtin_prefetch(src + ahead + i * kStride);
      store_count<Acc>(dst + i, load_strided<kStride>(src + i * kStride, rows - i), rows - i);
    }
    dst += width;
    src += k_stride;
  }
}

// Elements `kStride` apart along k: squares of kLanes x kLanes are transposed in registers, and
// step k is written to place(k). At the edges absent rows repeat the last one, absent steps are
// zero, and neither is written.
template <int kStride, class T, class Acc, class Place>
inline __attribute__((always_inline)) void pack_squares(const Place& place, const T* src,
                                                        int64_t rows, int64_t i_stride,
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
        if (r < written) store_count<Acc>(place(k + r) + i, square[r], present);
      }
    }
  }
}

template <int kStride, class T, class Acc>
void pack_transposed(Acc* dst, int64_t width, const T* src, int64_t rows, int64_t i_stride,
                     int64_t steps) {
  pack_squares<kStride, T, Acc>([=](int64_t k) { return dst + k * width; }, src, rows, i_stride,
                                steps);
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

// The vectors a0 a1 .. of 0 3 6 .., 1 4 7 .., 2 5 8 ..: what those have in the first two vectors,
// then the rest from the third.
template <class Acc>
inline __attribute__((always_inline)) void separate_three(Vec<Acc> (&v)[3]) {
  constexpr int kLanes = Simd<Acc>::kLanes;
  Vec<Acc> next[3];
#pragma GCC unroll 3
  for (int p = 0; p < 3; ++p) {
    typename LaneIndex<Acc>::Vec early, late;
    for (int i = 0; i < kLanes; ++i) {
      const int at = 3 * i + p;
      early[i] = at < 2 * kLanes ? at : 0;
      late[i] = at < 2 * kLanes ? i : at - kLanes;
    }
    next[p] = shuffle(shuffle(v[0], v[1], early), v[2], late);
  }
  for (int p = 0; p < 3; ++p) v[p] = next[p];
}

// The same for a power of two: a vector of even and one of odd elements from each pair, the even
// ones first, so that after the last round the steps are in order.
template <class Acc, int kSteps>
inline __attribute__((always_inline)) void separate(Vec<Acc> (&v)[kSteps]) {
#pragma GCC unroll 3
  for (int round = kSteps; round > 1; round /= 2) {
    Vec<Acc> next[kSteps];
#pragma GCC unroll 8
    for (int p = 0; p < kSteps; p += 2) {
      next[p / 2] = unzip<Acc>(v[p], v[p + 1], 0);
      next[p / 2 + kSteps / 2] = unzip<Acc>(v[p], v[p + 1], 1);
    }
#pragma GCC unroll 8
    for (int p = 0; p < kSteps; ++p) v[p] = next[p];
  }
}

// Rows that follow each other, kSteps elements each: vectors of them are separated by step.
template <int kSteps, class T, class Acc>
void pack_unzipped(Acc* dst, const int64_t* dst_offsets, const T* src, int64_t rows) {
  constexpr int kLanes = Simd<Acc>::kLanes;
  for (int64_t i = 0; i < rows; i += kLanes) {
    Vec<Acc> v[kSteps];
#pragma GCC unroll 8
    for (int p = 0; p < kSteps; ++p) {
      const int64_t left = (rows - i) * kSteps - p * kLanes;
      v[p] = left > 0 ? load_strided<1>(src + i * kSteps + p * kLanes, left) : Vec<Acc>{};
    }
    if constexpr (kSteps == 3) {
      separate_three<Acc>(v);
    } else {
      separate<Acc, kSteps>(v);
    }
#pragma GCC unroll 8
    for (int p = 0; p < kSteps; ++p) store_count<Acc>(dst + dst_offsets[p] + i, v[p], rows - i);
  }
}

// pack_unzipped for so many steps, or null.
template <class T, class Acc>
constexpr auto unzipped_packing(int64_t steps) {
  return steps == 2   ? pack_unzipped<2, T, Acc>
         : steps == 3 ? pack_unzipped<3, T, Acc>
         : steps == 4 ? pack_unzipped<4, T, Acc>
         : steps == 8 ? pack_unzipped<8, T, Acc>
                      : nullptr;
}

template <class T>
void pack_scattered(void* opaque_dst, const int64_t* dst_offsets, const void* opaque_src,
                    int64_t rows, int64_t i_stride, int64_t steps, int64_t k_stride) {
  using Acc = typename AccOf<T>::Type;
  Acc* dst = static_cast<Acc*>(opaque_dst);
  const T* src = static_cast<const T*>(opaque_src);
  const auto unzip = unzipped_packing<T, Acc>(steps);
  if (unzip && k_stride == 1 && i_stride == steps) {
    unzip(dst, dst_offsets, src, rows);
    return;
  }
  if (k_stride == 1 && rows >= 4 && steps >= 4) {
    pack_squares<1, T, Acc>([=](int64_t k) { return dst + dst_offsets[k]; }, src, rows, i_stride,
                            steps);
    return;
  }
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t k = 0; k < steps; ++k) {
      dst[dst_offsets[k] + i] = to_acc(src[i * i_stride + k * k_stride]);
    }
  }
}

// Lanes [begin, end) of a vector from elements `kStride` apart, zeros elsewhere. Out of line: it is
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
  if constexpr (kStride == 1 && sizeof(T) >= 4) return load_between(p, begin, end);
#endif
  return begin == 0 && end == kLanes ? load_strided<kStride>(p, kLanes)
                                     : load_part<kStride>(p, begin, end);
}

// Elements `kStride` apart along i.
template <int kStride, class T, class Acc>
void pack_shifted_runs(Acc* dst, int64_t width, const T* src, int64_t steps, int64_t k_stride,
                       const ShiftedRun* runs, int64_t run_count) {
  constexpr int64_t kLanes = Simd<Acc>::kLanes;
  // No hardware prefetcher follows a step to another part of memory.
  const int64_t ahead = (run_count < 8 ? 4 : 2) * k_stride;
  bool vectors = true, parts = true;  // all runs are whole vectors, or no more than one
  for (int64_t r = 0; r < run_count; ++r) {
    vectors = vectors && runs[r].count == kLanes;
    parts = parts && runs[r].count <= kLanes;
  }
  for (int64_t k = 0; k < steps; ++k) {
    for (const ShiftedRun* run = runs; vectors && run != runs + run_count; ++run) {
      const T* from = src + run->src;
      __builtin_prefetch(from + ahead);
      store<Acc>(dst + run->dst, load_lanes<kStride>(from, run->begin, run->end));
    }
    for (const ShiftedRun* run = runs; parts && !vectors && run != runs + run_count; ++run) {
      const auto lanes = load_lanes<kStride>(src + run->src, run->begin, run->end);
      store_count<Acc>(dst + run->dst, lanes, run->count);
    }
    for (const ShiftedRun* run = runs; !parts && run != runs + run_count; ++run) {
      for (int64_t i = 0; i < run->count; i += kLanes) {
        const int64_t begin = run->begin < i            ? 0
                              : run->begin - i < kLanes ? run->begin - i
                                                        : kLanes;
        const int64_t end = run->end - i < begin    ? begin
                            : run->end - i < kLanes ? run->end - i
                                                    : kLanes;
        store_count<Acc>(dst + run->dst + i,
                         load_lanes<kStride>(src + run->src + i * kStride, begin, end),
                         run->count - i);
      }
    }
    dst += width;
    src += k_stride;
  }
}

// Elements 1 apart along k.
template <class T, class Acc>
void pack_shifted_transposed(Acc* dst, int64_t width, const T* src, int64_t i_stride, int64_t steps,
                             const ShiftedRun* runs, int64_t run_count) {
  for (int64_t r = 0; r < run_count; ++r) {
    const ShiftedRun& run = runs[r];
    Acc* to = dst + run.dst;
    for (int64_t k = 0; k < steps && run.end - run.begin < run.count; ++k) {
      for (int64_t i = 0; i < run.begin; ++i) to[k * width + i] = 0;
      for (int64_t i = run.end; i < run.count; ++i) to[k * width + i] = 0;
    }
    if (run.begin < run.end) {
      pack_transposed<1, T, Acc>(to + run.begin, width, src + run.src + run.begin * i_stride,
                                 run.end - run.begin, i_stride, steps);
    }
  }
}

// Elements further apart along i. Shifts that follow each other read the elements between those of
// one of them: together they are a stretch of memory, whose vectors are separated by shift.
template <class T, class Acc>
void pack_shifted_apart(Acc* dst, int64_t width, const T* src, int64_t i_stride, int64_t steps,
                        int64_t k_stride, const ShiftedRun* runs, int64_t run_count) {
  const auto unzip = unzipped_packing<T, Acc>(i_stride);
  int64_t offsets[8];
  for (int64_t r = 0; r < run_count;) {
    const ShiftedRun& run = runs[r];
    int64_t neighbours = 0;
    while (unzip && neighbours < i_stride && r + neighbours < run_count) {
      const ShiftedRun& next = runs[r + neighbours];
      const bool whole = next.begin == 0 && next.end == next.count && next.count == run.count;
      if (!whole || next.src != run.src + neighbours) break;
      offsets[neighbours++] = next.dst;
    }
    if (unzip && neighbours == i_stride) {
      for (int64_t k = 0; k < steps; ++k) {
        unzip(dst + k * width, offsets, src + run.src + k * k_stride, run.count);
      }
      r += neighbours;
      continue;
    }
    for (int64_t k = 0; k < steps; ++k) {
      const T* from = src + run.src + k * k_stride;
      Acc* to = dst + run.dst + k * width;
      for (int64_t i = 0; i < run.begin; ++i) to[i] = 0;
      for (int64_t i = run.begin; i < run.end; ++i) to[i] = to_acc(from[i * i_stride]);
      for (int64_t i = run.end; i < run.count; ++i) to[i] = 0;
    }
    ++r;
  }
}

template <class T>
void pack_shifted(void* opaque_dst, int64_t width, const void* opaque_src, int64_t i_stride,
                  int64_t steps, int64_t k_stride, const ShiftedRun* runs, int64_t run_count) {
  using Acc = typename AccOf<T>::Type;
  Acc* dst = static_cast<Acc*>(opaque_dst);
  const T* src = static_cast<const T*>(opaque_src);
  if (i_stride == 1) {
    pack_shifted_runs<1, T, Acc>(dst, width, src, steps, k_stride, runs, run_count);
  } else if (k_stride == 1 && steps >= 4) {
    pack_shifted_transposed<T, Acc>(dst, width, src, i_stride, steps, runs, run_count);
  } else if (i_stride == 2) {
    pack_shifted_runs<2, T, Acc>(dst, width, src, steps, k_stride, runs, run_count);
  } else {
    pack_shifted_apart<T, Acc>(dst, width, src, i_stride, steps, k_stride, runs, run_count);
  }
}

}  // namespace
