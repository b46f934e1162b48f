// The CUDA engine's own kernels: the three derivatives of the trilinear form, on strided device
// memory. Free of torch, and of CUDA's headers for whoever only calls it.
//
// Every result is a sum in an order fixed by the problem and the device: no atomics, the same bits
// in every run.
#pragma once

#include <cstdint>
#include <string>

#include "core/problem.h"

struct CUstream_st;  // what cudaStream_t points to

namespace mxd::cuda {

// What the choice of a kernel depends on, apart from the problem.
struct Device {
  int capability = 0;        // compute capability times 10: 90 for sm_90
  int processors = 0;        // streaming multiprocessors
  int64_t shared_bytes = 0;  // most shared memory that a block can opt in to
};

struct Settings {
  bool allow_tf32 = false;         // float32 products may be rounded to TF32
  int64_t workspace_bytes = 0;     // bound on temporary device memory; 0 still computes everything
  bool minimal_filtering = false;  // filter what can be: for callers with a clock, see Plan
};

struct Plan {
  std::string reason;         // a sentence: which kernel runs, and why
  int64_t scratch_bytes = 0;  // device memory that run() wants, at most Settings::workspace_bytes
  // Why the pass is not filtered though the settings ask for it; empty if it is. Where filtering is
  // faster than the direct sum nobody has measured: both are to be timed.
  std::string unfiltered;
};

// Which kernel would compute the pass, and the scratch it wants.
Plan plan(Pass pass, const Problem& problem, const Device& device, const Settings& settings);

// Writes the pass's result, all of it: launches on `stream`, never waits, works during the capture
// of a CUDA graph. Throws std::runtime_error with CUDA's own text if a launch is refused.
void run(Pass pass, const Problem& problem, const Device& device, const Settings& settings,
         void* scratch, CUstream_st* stream);

}  // namespace mxd::cuda
