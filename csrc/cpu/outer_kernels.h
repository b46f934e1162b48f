// The primitives that only the weight gradient needs; see kernels.h for the panels.
#pragma once

#include <cstdint>

namespace mxd::cpu {

// Runs of consecutive elements: run i reads from offset[i] and is written at i * pitch.
struct Runs {
  const int64_t* offset;
  int64_t count;
  int64_t length;
  int64_t pitch;
};

struct OuterKernels {
  // dst[k * dst_step + i * pitch + e] = src[offset[i] + k * src_step + e]
  // for k < steps, i < count, e < length, converted and rounded. Writes nothing else.
  using Copy = void (*)(void* dst, int64_t dst_step, const void* src, int64_t src_step,
                        const Runs& runs, int64_t steps);
  Copy pack;   // from the storage type to the accumulate type: turns memory into panels
  Copy store;  // and back: accumulators into a tensor

  // Packs steps of a panel of numbers in pairs (see kernels.h): pair m < pairs holds steps 2m and
  // 2m + 1 of it, or 0 where these are not in [begin, end). src is where step `begin` lies.
  // Null where there are no pairs.
  void (*pair)(void* dst, int64_t width, const void* src, int64_t begin, int64_t end,
               int64_t pairs);

  // Whether none of `count` consecutive values of the accumulate type is Inf or NaN.
  bool (*all_finite)(const void* values, int64_t count);
};

}  // namespace mxd::cpu
