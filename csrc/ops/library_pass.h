// A pass by the convolution library that torch brings: cuDNN through its own interface
// (cudnn_pass.cpp), or ATen's operators where the build had no headers of cuDNN (aten_pass.cpp).
#pragma once

#include <string>
#include <vector>

#include "ops/pass_call.h"

namespace mxd::ops {

struct Timing {
  std::string candidate;
  double milliseconds;
  int64_t workspace_bytes;
};

// What computes a pass, in words.
struct Choice {
  std::string engine;  // "cudnn", "aten", "cuda" (our own kernels), "undecided"
  std::string reason;
  int64_t workspace_bytes = 0;
  bool filtered = false;        // by minimal filtering
  std::vector<Timing> timings;  // of all candidates, where they were timed
};

// Computes the pass on the current device and stream and returns true, or finds that the own
// kernels are to do it, without minimal filtering.
bool run_by_library(const PassCall& call, int device);

// What run_by_library would do for operands of these sizes that are packed in one order. Decides
// where that takes no timing.
Choice library_choice(Pass pass, const Problem& problem, bool channels_last,
                      const Arguments<int64_t>& arguments, bool bias, int device);

// How many decisions are kept, and to forget all of them.
int64_t library_decisions();
void forget_library_decisions();

// For build_info: the version of cuDNN's headers, empty where there were none.
std::string library_version();

}  // namespace mxd::ops
