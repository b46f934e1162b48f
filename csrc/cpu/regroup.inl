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

template <class From, class To, class Acc>
void regroup(void* opaque_dst, int64_t dst_step, const void* opaque_src, int64_t src_step,
             const Runs& runs, int64_t steps) {
  constexpr int kLanes = Simd<Acc>::kLanes;
  To* dst = static_cast<To*>(opaque_dst);
  const From* src = static_cast<const From*>(opaque_src);
  const bool dense = runs.pitch == runs.length && runs.length == src_step && steps >= 2;
  if (dense && src_step == 1) {
    transpose_runs<1, 1, From, To, Acc>(dst, dst_step, src, runs, steps);
  } else if (dense && src_step == 2) {
    transpose_runs<2, 1, From, To, Acc>(dst, dst_step, src, runs, steps);
  } else if (dense && src_step == 4 && kLanes >= 4) {
    transpose_runs<(kLanes >= 4 ? 4 : 1), 1, From, To, Acc>(dst, dst_step, src, runs, steps);
  } else if (dense && src_step == 8 && kLanes >= 8) {
    transpose_runs<(kLanes >= 8 ? 8 : 1), 1, From, To, Acc>(dst, dst_step, src, runs, steps);
  } else if (runs.length == 1 && src_step == 2 && runs.pitch == 1 && steps >= 2) {
    transpose_runs<1, 2, From, To, Acc>(dst, dst_step, src, runs, steps);
  } else if (runs.length >= 3) {
    copy_runs<From, To, Acc>(dst, dst_step, src, src_step, runs, steps);
  } else {
    copy_elements(dst, dst_step, src, src_step, runs, steps);
  }
}

#if defined(__AVX512BF16__)

void pair_steps(void* opaque_dst, int64_t width, const void* opaque_src, int64_t begin, int64_t end,
                int64_t pairs) {
  float* dst = static_cast<float*>(opaque_dst);
  const float* src = static_cast<const float*>(opaque_src);
  for (int64_t m = 0; m < pairs; ++m) {
    const bool first = 2 * m >= begin && 2 * m < end;
    const bool second = 2 * m + 1 >= begin && 2 * m + 1 < end;
    for (int64_t i = 0; i < width; i += Simd<float>::kLanes) {
      const auto step = [&](bool exists, int64_t k) {
        return exists ? (UVec)load_strided<1>(src + (k - begin) * width + i, width - i) : UVec{};
      };
      store_count<float>(dst + m * width + i,
                         (Vec<float>)(step(first, 2 * m) >> 16 | step(second, 2 * m + 1)),
                         width - i);
    }
  }
}

#endif

template <class Element>
constexpr mxd::cpu::OuterKernels outer_kernels_of() {
  using T = typename Element::Stored;
  using Acc = typename Element::Acc;
  mxd::cpu::OuterKernels kernels{regroup<T, Acc, Acc>, regroup<Acc, T, Acc>, nullptr,
                                 all_finite<Acc>};
#if defined(__AVX512BF16__)
  kernels.pair = pair_steps;
#endif
  return kernels;
}

}  // namespace
