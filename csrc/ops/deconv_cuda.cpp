// CUDA kernels of the ops: cuDNN, or with cudnn_off our own kernels.
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <c10/cuda/CUDAGuard.h>

#include <map>
#include <mutex>

#include "ops/library_pass.h"
#include "ops/own_kernels.h"
#include "ops/pass_call.h"

namespace mxd::ops {
namespace {

struct Cuda {
  static Memory memory(const at::Tensor& tensor) {
    static std::mutex mutex;
    static std::map<int, Memory> devices;
    const int index = tensor.device().index();
    std::lock_guard<std::mutex> lock(mutex);
    auto found = devices.find(index);
    if (found == devices.end()) {
      const c10::cuda::CUDAGuard guard(tensor.device());
      const c10::cuda::CUDAStreamCaptureModeGuard harmless(cudaStreamCaptureModeRelaxed);
      size_t free = 0, total = 0;
      C10_CUDA_CHECK(cudaMemGetInfo(&free, &total));
      found = devices.emplace(index, Memory{int64_t(total), "this device"}).first;
    }
    return found->second;
  }

  static void about_to_fill(const at::Tensor&) {}

  static void run(const PassCall& call) {
    const at::Device device = call.result().device();
    const c10::cuda::CUDAGuard guard(device);
    if (!call.arguments.cudnn_off && run_by_library(call, device.index())) return;
    const bool bounded = call.arguments.cudnn_tune != "fastest";
    const int64_t limit = bounded ? workspace_bytes(call.arguments.workspace) : kUnboundedBytes;
    OwnKernels(call.pass, call.problem, device.index(), limit).run();
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(mxdeconv, CUDA, m) { DeviceOps<Cuda>::register_in(m); }

}  // namespace mxd::ops
