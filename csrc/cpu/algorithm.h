// Which method computes a call, and why: the one place that chooses.
#pragma once

#include <cstdint>

#include "core/geometry.h"

namespace mxd::cpu {

struct Problem;

enum class Pass { kForward, kDataGradient, kWeightGradient };

enum class Algorithm {
  kTapSum,     // phases as implicit GEMM over pixels and channels (forward, data gradient)
  kTapOuter,   // per tap, an outer product of channels summed over pixels (weight gradient)
  kDepthwise,  // one channel in, one out per group: direct, no packing
  kFill,       // no tap reaches any result
};
constexpr int kAlgorithms = 4;

// What lies along the vector lanes of the register tile.
enum class Lanes { kPixels, kInChannels, kOutChannels };

struct Choice {
  Algorithm algorithm;
  Lanes lanes;
  const char* reason;
};

const char* name_of(Algorithm algorithm);
const char* name_of(Lanes lanes);

Choice choose(Pass pass, const Problem& problem);

// How often each algorithm has run in this process, so that tests can hold `choose` to its word.
void count_run(Algorithm algorithm);
int64_t runs_of(Algorithm algorithm);

}  // namespace mxd::cpu
