#include "ops/own_kernels.h"

#include <ATen/Context.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include <map>
#include <mutex>

#include "cpu/algorithm.h"

namespace mxd::ops {

const cuda::Device& cuda_device(int index) {
  static std::mutex mutex;
  static std::map<int, cuda::Device> devices;  // entries stay where they are
  std::lock_guard<std::mutex> lock(mutex);
  const auto found = devices.find(index);
  if (found != devices.end()) return found->second;
  const auto ask = [index](cudaDeviceAttr attribute) {
    int value = 0;
    C10_CUDA_CHECK(cudaDeviceGetAttribute(&value, attribute, index));
    return value;
  };
  cuda::Device device;
  device.capability = 10 * ask(cudaDevAttrComputeCapabilityMajor);
  device.capability += ask(cudaDevAttrComputeCapabilityMinor);
  device.processors = ask(cudaDevAttrMultiProcessorCount);
  device.shared_bytes = ask(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  return devices.emplace(index, device).first->second;
}

bool matmul_allows_tf32() {
  return at::globalContext().float32Precision(at::Float32Backend::CUDA, at::Float32Op::MATMUL) ==
         at::Float32Precision::TF32;
}

OwnKernels::OwnKernels(Pass pass, const Problem& problem, int device_index, int64_t limit_bytes,
                       bool filtered)
    : pass(pass), problem(problem), device(cuda_device(device_index)) {
  settings.allow_tf32 = matmul_allows_tf32();
  settings.workspace_bytes = limit_bytes;
  settings.minimal_filtering = filtered || cpu::is_forced(cpu::Algorithm::kMinimalFilter);
}

void OwnKernels::run() const {
  const int64_t bytes = plan().scratch_bytes;
  c10::DataPtr scratch;
  if (bytes > 0) scratch = c10::cuda::CUDACachingAllocator::get()->allocate(size_t(bytes));
  cuda::run(pass, problem, device, settings, scratch.get(),
            c10::cuda::getCurrentCUDAStream().stream());
}

}  // namespace mxd::ops
