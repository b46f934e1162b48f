// Which method computes a call, and why: the one place that chooses.
#pragma once

#include <cstdint>

#include "core/problem.h"

namespace mxd::cpu {

enum class Algorithm {
  kTapSum,         // phases as implicit GEMM over pixels and channels (forward, data gradient)
  kInPlaceSum,     // the same sums where channels are contiguous on both sides: nothing is moved
  kTapOuter,       // per tap, an outer product of channels summed over pixels (weight gradient)
  kMinimalFilter,  // fewer products than a direct sum has, on transformed tiles
  kDepthwise,      // few channels in and out of a group: direct, no packing
  kFill,           // no tap reaches any result
};
constexpr int kAlgorithms = 6;

// What lies along the vector lanes of the register tile.
enum class Lanes { kPixels, kInChannels, kOutChannels };

struct Choice {
  Algorithm algorithm;
  Lanes lanes;
  const char* reason;
  const char* unfiltered = nullptr;  // why minimal filtering is not used, if it is not
};

const char* name_of(Algorithm algorithm);
const char* name_of(Lanes lanes);

// Temporaries are bounded by `workspace_bytes`. The choice never depends on the threads.
Choice choose(Pass pass, const Problem& problem, int64_t workspace_bytes);

// Whether calls may use minimal filtering at all.
bool minimal_filtering();
void set_minimal_filtering(bool enabled);

// Makes calls use an algorithm where it can do the problem; kAlgorithms: none is forced. For tests.
void force_algorithm(int algorithm);
bool is_forced(Algorithm algorithm);

// How often each algorithm has run in this process, so that tests can hold `choose` to its word.
void count_run(Algorithm algorithm);
int64_t runs_of(Algorithm algorithm);

}  // namespace mxd::cpu
