// How long work on the current stream takes, by CUDA's events.
#pragma once

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>

namespace mxd::ops {

class Stopwatch {
 public:
  Stopwatch() {
    C10_CUDA_CHECK(cudaEventCreate(&begin_));
    C10_CUDA_CHECK(cudaEventCreate(&end_));
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;
  ~Stopwatch() {
    C10_CUDA_CHECK_WARN(cudaEventDestroy(begin_));
    C10_CUDA_CHECK_WARN(cudaEventDestroy(end_));
  }

  // The least of a few runs after one that loads code and fills caches. What is far slower than
  // `best` even so is not run again.
  template <class Run>
  double milliseconds(const Run& run, double best) const {
    run();
    double least = once(run);
    for (int i = 1; i < kRuns && least < kHopeless * best; ++i) least = std::min(least, once(run));
    return least;
  }

 private:
  static constexpr int kRuns = 5;
  static constexpr double kHopeless = 2;

  template <class Run>
  double once(const Run& run) const {
    const cudaStream_t stream = c10::cuda::getCurrentCUDAStream().stream();
    C10_CUDA_CHECK(cudaEventRecord(begin_, stream));
    run();
    C10_CUDA_CHECK(cudaEventRecord(end_, stream));
    C10_CUDA_CHECK(cudaEventSynchronize(end_));
    float milliseconds = 0;
    C10_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, begin_, end_));
    return milliseconds;
  }

  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

}  // namespace mxd::ops
