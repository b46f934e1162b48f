// The CPU engine: the three derivatives of the trilinear form, on strided memory.
//
// Every result is a sum in an order fixed by the problem: it does not depend on the number of
// threads or on the workspace, to the last bit.
#pragma once

#include <cstdint>

#include "core/parallel.h"
#include "core/problem.h"
#include "cpu/algorithm.h"
#include "cpu/kernels.h"
#include "cpu/prepared_weights.h"

namespace mxd::cpu {

struct Resources {
  const Threads* threads = nullptr;
  int64_t workspace_bytes = 0;  // bound on all temporaries, down to kScratchFloorBytes a thread
  PreparedWeights* weights = nullptr;  // kept forms of the forward pass's weights, if they are kept
};

// Least scratch that a worker needs, whatever the workspace.
constexpr int64_t kScratchFloorBytes = int64_t(1) << 20;

// Writes problem.out, problem.data or problem.weight respectively, all of it.
void forward(const Problem& problem, const Resources& resources);
void data_gradient(const Problem& problem, const Resources& resources);
void weight_gradient(const Problem& problem, const Resources& resources);

// The kernels that calls of this dtype use: the widest instruction set of the CPU, or the one
// that MXDECONV_CPU_ISA or set_isa names.
const Kernels& kernels_for(DType dtype);
// Likewise, for sums of products: those that multiply pairs, where there are any.
const Kernels& product_kernels_for(DType dtype);

}  // namespace mxd::cpu
