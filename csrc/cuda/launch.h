// Launches a kernel body: a struct with Params (passed by value), Shared (the block's memory),
// kThreads, and run(params, shared), which every thread of a block executes and which goes through
// the jobs block_index(), block_index() + block_count(), ...
#pragma once

#include <type_traits>

#include "cuda/device.h"

struct CUstream_st;

namespace mxd::cuda {

// Blocks of a launch at most; more jobs than these go around.
constexpr int64_t kMostBlocks = int64_t(1) << 30;

// Blocks that shall be at work at once on a multiprocessor: bounds the registers of a thread. One
// unless the body has a constant kResident.
template <class Body, class = void>
struct Resident {
  static constexpr int kBlocks = 1;
};
template <class Body>
struct Resident<Body, std::void_t<decltype(Body::kResident)>> {
  static constexpr int kBlocks = Body::kResident;
};

}  // namespace mxd::cuda

#ifdef __CUDACC__

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace mxd::cuda {

template <class Body>
__global__ void __launch_bounds__(Body::kThreads, Resident<Body>::kBlocks)
    body_kernel(const __grid_constant__ typename Body::Params params) {
  extern __shared__ __align__(16) char memory[];
  Body::run(params, *reinterpret_cast<typename Body::Shared*>(memory));
}

inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  throw std::runtime_error(std::string("mxdeconv: ") + what + ": " + cudaGetErrorString(error));
}

template <class Body>
void launch(const typename Body::Params& params, int64_t jobs, CUstream_st* stream) {
  constexpr size_t kBytes = sizeof(typename Body::Shared);
  constexpr size_t kWithoutAsking = 48 * 1024;
  if (jobs <= 0) return;
  if (kBytes > kWithoutAsking) {
    check(cudaFuncSetAttribute(body_kernel<Body>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               int(kBytes)),
          "asking for shared memory");
  }
  const int64_t blocks = jobs < kMostBlocks ? jobs : kMostBlocks;
  body_kernel<Body><<<unsigned(blocks), Body::kThreads, kBytes, stream>>>(params);
  check(cudaGetLastError(), "launching a kernel");
}

}  // namespace mxd::cuda

#else

namespace mxd::cuda {

template <class Body>
void launch(const typename Body::Params& params, int64_t jobs, CUstream_st*) {
  if (jobs <= 0) return;
  emulator::run_blocks(
      jobs < kMostBlocks ? jobs : kMostBlocks, Body::kThreads, sizeof(typename Body::Shared),
      [](const void* params, void* shared) {
        Body::run(*static_cast<const typename Body::Params*>(params),
                  *static_cast<typename Body::Shared*>(shared));
      },
      &params);
}

}  // namespace mxd::cuda

#endif
