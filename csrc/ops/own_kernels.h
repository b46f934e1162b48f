// Our own CUDA kernels, lent torch's stream and memory.
#pragma once

#include <cstdint>

#include "core/problem.h"
#include "cuda/engine.h"

namespace mxd::ops {

// What the kernels need to know of a device; asked for once a device.
const cuda::Device& cuda_device(int index);

// Whether torch allows TF32 in matrix products: torch.backends.cuda.matmul.
bool matmul_allows_tf32();

// A pass as the own kernels compute it on the current device; `filtered` has them filter what they
// can. The operands' addresses matter to run() only.
struct OwnKernels {
  Pass pass;
  const Problem& problem;
  cuda::Device device;
  cuda::Settings settings;

  OwnKernels(Pass pass, const Problem& problem, int device_index, int64_t limit_bytes,
             bool filtered = false);

  cuda::Plan plan() const { return cuda::plan(pass, problem, device, settings); }
  void run() const;  // on the current stream
};

}  // namespace mxd::ops
