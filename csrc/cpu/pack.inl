// The packing primitives of kernels.h for one instruction set. Included by kernels.inl.

namespace {

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
template <int kStride, class Element>
void pack_runs(typename Element::Acc* dst, int64_t width, const typename Element::Stored* src,
               int64_t rows, int64_t steps, int64_t k_stride) {
  using Acc = typename Element::Acc;
  // No hardware prefetcher follows a step to another page.
  const int64_t ahead = kStepsAhead * k_stride;
  for (int64_t k = 0; k < steps; k += Element::kTerms) {
    const Element element(steps - k, k_stride);
    for (int64_t i = 0; i < rows; i += Simd<Acc>::kLanes) {
      element.fetch(src + ahead + i * kStride);
      store_count<Acc>(dst + i, element.template load<kStride>(src + i * kStride, rows - i),
                       rows - i);
    }
    dst += width;
    src += Element::kTerms * k_stride;
  }
}

// Squares of kLanes x kLanes are transposed in registers: load(i, k) is the vector of row i from
// step k on, and step k is written to place(k). At the edges absent rows repeat the last one,
// absent steps are zero, and neither is written.
template <class Acc, class Place, class Load>
inline __attribute__((always_inline)) void pack_squares(const Place& place, const Load& load_row,
                                                        int64_t rows, int64_t steps) {
  constexpr int kLanes = Simd<Acc>::kLanes;
  for (int64_t i = 0; i < rows; i += kLanes) {
    const int64_t present = rows - i < kLanes ? rows - i : kLanes;
    for (int64_t k = 0; k < steps; k += kLanes) {
      Vec<Acc> square[kLanes];
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) square[r] = load_row(i + (r < present ? r : present - 1), k);
      transpose<Acc>(square);
      const int64_t written = steps - k < kLanes ? steps - k : kLanes;
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) {
        if (r < written) store_count<Acc>(place(k + r) + i, square[r], present);
      }
    }
  }
}

// Numbers `kStride` apart along k.
template <int kStride, class Element>
void pack_transposed(typename Element::Acc* dst, int64_t width, const typename Element::Stored* src,
                     int64_t rows, int64_t i_stride, int64_t steps) {
  const auto load_row = [=](int64_t i, int64_t k) {
    k *= Element::kTerms;
    return Element::template load_steps<kStride>(src + i * i_stride + k * kStride, steps - k);
  };
  pack_squares<typename Element::Acc>([=](int64_t k) { return dst + k * width; }, load_row, rows,
                                      (steps + Element::kTerms - 1) / Element::kTerms);
}

// The same where rows lie whole pages apart: their lines share a set of each cache, and the rows of
// a square would throw out what has been fetched ahead for each other. They are copied first, one
// after the other, to where they lie better.
template <class Element>
void pack_far_rows(typename Element::Acc* dst, int64_t width, const typename Element::Stored* src,
                   int64_t rows, int64_t i_stride, int64_t steps) {
  using Stored = typename Element::Stored;
  constexpr int64_t kRows = Simd<typename Element::Acc>::kLanes;
  constexpr int64_t kSteps = 1024 / int64_t(sizeof(Stored));
  constexpr int64_t kPitch = kSteps + 64 / int64_t(sizeof(Stored));
  alignas(64) Stored near[kRows * kPitch];
  for (int64_t i = 0; i < rows; i += kRows) {
    const int64_t present = rows - i < kRows ? rows - i : kRows;
    for (int64_t k = 0; k < steps; k += kSteps) {
      const int64_t count = steps - k < kSteps ? steps - k : kSteps;
      for (int64_t r = 0; r < present; ++r) {
        std::memcpy(near + r * kPitch, src + (i + r) * i_stride + k,
                    size_t(count) * sizeof(Stored));
      }
      pack_transposed<1, Element>(dst + k / Element::kTerms * width + i, width, near, present,
                                  kPitch, count);
    }
  }
}

template <class Element>
void pack_gather(typename Element::Acc* dst, int64_t width, const typename Element::Stored* src,
                 int64_t rows, int64_t i_stride, int64_t steps, int64_t k_stride) {
  for (int64_t k = 0; k < steps; k += Element::kTerms) {
    const Element element(steps - k, k_stride);
    for (int64_t i = 0; i < rows; ++i) dst[i] = element.load_one(src + i * i_stride);
    dst += width;
    src += Element::kTerms * k_stride;
  }
}

template <class Element>
void pack(void* opaque_dst, int64_t width, const void* opaque_src, int64_t rows, int64_t i_stride,
          int64_t steps, int64_t k_stride) {
  auto* dst = static_cast<typename Element::Acc*>(opaque_dst);
  const auto* src = static_cast<const typename Element::Stored*>(opaque_src);
  const bool transposable = rows >= 4 && steps >= 4;
  if (i_stride == 1) {
    pack_runs<1, Element>(dst, width, src, rows, steps, k_stride);
  } else if (k_stride == 1 && transposable) {
    constexpr int64_t kPage = 4096 / int64_t(sizeof(typename Element::Stored));
    const bool far = rows > 4 && i_stride % kPage == 0 && i_stride != 0;
    (far ? pack_far_rows<Element> : pack_transposed<1, Element>)(dst, width, src, rows, i_stride,
                                                                 steps);
  } else if (i_stride == 2) {
    pack_runs<2, Element>(dst, width, src, rows, steps, k_stride);
  } else {
    if constexpr (Element::kTerms == 1) {
      if (k_stride == 2 && transposable) {
        return pack_transposed<2, Element>(dst, width, src, rows, i_stride, steps);
      }
    }
    pack_gather<Element>(dst, width, src, rows, i_stride, steps, k_stride);
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
template <int kSteps, class Element>
void pack_unzipped(typename Element::Acc* dst, const int64_t* dst_offsets,
                   const typename Element::Stored* src, int64_t rows, const Element& element) {
  using Acc = typename Element::Acc;
  constexpr int kLanes = Simd<Acc>::kLanes;
  for (int64_t i = 0; i < rows; i += kLanes) {
    Vec<Acc> v[kSteps];
#pragma GCC unroll 8
    for (int p = 0; p < kSteps; ++p) {
      const int64_t left = (rows - i) * kSteps - p * kLanes;
      v[p] = left > 0 ? element.template load<1>(src + i * kSteps + p * kLanes, left) : Vec<Acc>{};
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
template <class Element>
constexpr auto unzipped_packing(int64_t steps) {
  return steps == 2   ? pack_unzipped<2, Element>
         : steps == 3 ? pack_unzipped<3, Element>
         : steps == 4 ? pack_unzipped<4, Element>
         : steps == 8 ? pack_unzipped<8, Element>
                      : nullptr;
}

template <class Element>
void pack_scattered(void* opaque_dst, const int64_t* dst_offsets, const void* opaque_src,
                    int64_t rows, int64_t i_stride, int64_t steps, int64_t k_stride, int present,
                    int64_t term_stride) {
  using Acc = typename Element::Acc;
  Acc* dst = static_cast<Acc*>(opaque_dst);
  const auto* src = static_cast<const typename Element::Stored*>(opaque_src);
  const Element element(present, term_stride);
  const auto unzip = unzipped_packing<Element>(steps);
  if (unzip && k_stride == 1 && i_stride == steps) {
    unzip(dst, dst_offsets, src, rows, element);
    return;
  }
  if (k_stride == 1 && rows >= 4 && steps >= 4) {
    pack_squares<Acc>([=](int64_t k) { return dst + dst_offsets[k]; },
                      [=](int64_t i, int64_t k) {
                        return element.template load<1>(src + i * i_stride + k, steps - k);
                      },
                      rows, steps);
    return;
  }
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t k = 0; k < steps; ++k) {
      dst[dst_offsets[k] + i] = element.load_one(src + i * i_stride + k * k_stride);
    }
  }
}

// Elements `kStride` apart along i.
template <int kStride, class Element>
void pack_shifted_runs(typename Element::Acc* dst, int64_t width,
                       const typename Element::Stored* src, int64_t steps, int64_t k_stride,
                       const ShiftedRun* runs, int64_t run_count) {
  using Acc = typename Element::Acc;
  constexpr int64_t kLanes = Simd<Acc>::kLanes;
  // No hardware prefetcher follows a step to another part of memory.
  const int64_t ahead = (run_count < 8 ? 4 : 2) * k_stride;
  bool vectors = true, parts = true;  // all runs are whole vectors, or no more than one
  for (int64_t r = 0; r < run_count; ++r) {
    vectors = vectors && runs[r].count == kLanes;
    parts = parts && runs[r].count <= kLanes;
  }
  for (int64_t k = 0; k < steps; k += Element::kTerms) {
    const Element element(steps - k, k_stride);
    for (const ShiftedRun* run = runs; vectors && run != runs + run_count; ++run) {
      const auto* from = src + run->src;
      element.fetch(from + ahead);
      store<Acc>(dst + run->dst,
                 element.template load_between<kStride>(from, run->begin, run->end));
    }
    for (const ShiftedRun* run = runs; parts && !vectors && run != runs + run_count; ++run) {
      const auto lanes =
          element.template load_between<kStride>(src + run->src, run->begin, run->end);
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
        store_count<Acc>(
            dst + run->dst + i,
            element.template load_between<kStride>(src + run->src + i * kStride, begin, end),
            run->count - i);
      }
    }
    dst += width;
    src += Element::kTerms * k_stride;
  }
}

// Numbers 1 apart along k.
template <class Element>
void pack_shifted_transposed(typename Element::Acc* dst, int64_t width,
                             const typename Element::Stored* src, int64_t i_stride, int64_t steps,
                             const ShiftedRun* runs, int64_t run_count) {
  const int64_t packed_steps = (steps + Element::kTerms - 1) / Element::kTerms;
  for (int64_t r = 0; r < run_count; ++r) {
    const ShiftedRun& run = runs[r];
    auto* to = dst + run.dst;
    for (int64_t k = 0; k < packed_steps && run.end - run.begin < run.count; ++k) {
      for (int64_t i = 0; i < run.begin; ++i) to[k * width + i] = 0;
      for (int64_t i = run.end; i < run.count; ++i) to[k * width + i] = 0;
    }
    if (run.begin < run.end) {
      pack_transposed<1, Element>(to + run.begin, width, src + run.src + run.begin * i_stride,
                                  run.end - run.begin, i_stride, steps);
    }
  }
}

// Elements further apart along i. Shifts that follow each other read the elements between those of
// one of them: together they are a stretch of memory, whose vectors are separated by shift.
template <class Element>
void pack_shifted_apart(typename Element::Acc* dst, int64_t width,
                        const typename Element::Stored* src, int64_t i_stride, int64_t steps,
                        int64_t k_stride, const ShiftedRun* runs, int64_t run_count) {
  const auto unzip = unzipped_packing<Element>(i_stride);
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
    const bool together = unzip && neighbours == i_stride;
    for (int64_t k = 0; k < steps; k += Element::kTerms) {
      const Element element(steps - k, k_stride);
      const auto* from = src + run.src + k * k_stride;
      auto* to = dst + k / Element::kTerms * width;
      if (together) {
        unzip(to, offsets, from, run.count, element);
        continue;
      }
      to += run.dst;
      for (int64_t i = 0; i < run.begin; ++i) to[i] = 0;
      for (int64_t i = run.begin; i < run.end; ++i) to[i] = element.load_one(from + i * i_stride);
      for (int64_t i = run.end; i < run.count; ++i) to[i] = 0;
    }
    r += together ? neighbours : 1;
  }
}

template <class Element>
void pack_shifted(void* opaque_dst, int64_t width, const void* opaque_src, int64_t i_stride,
                  int64_t steps, int64_t k_stride, const ShiftedRun* runs, int64_t run_count) {
  auto* dst = static_cast<typename Element::Acc*>(opaque_dst);
  const auto* src = static_cast<const typename Element::Stored*>(opaque_src);
  if (i_stride == 1) {
    pack_shifted_runs<1, Element>(dst, width, src, steps, k_stride, runs, run_count);
  } else if (k_stride == 1 && steps >= 4) {
    pack_shifted_transposed<Element>(dst, width, src, i_stride, steps, runs, run_count);
  } else if (i_stride == 2) {
    pack_shifted_runs<2, Element>(dst, width, src, steps, k_stride, runs, run_count);
  } else {
    pack_shifted_apart<Element>(dst, width, src, i_stride, steps, k_stride, runs, run_count);
  }
}

}  // namespace
