#include "ops/cuda_bindings.h"

#include <c10/cuda/CUDAGuard.h>
#include <cuda_runtime_api.h>

#include "cpu/algorithm.h"
#include "ops/described_problem.h"
#include "ops/library_pass.h"
#include "ops/own_kernels.h"

namespace py = pybind11;

namespace mxd::ops {
namespace {

py::dict dict_of(const Choice& choice) {
  py::list timings;
  for (const Timing& timing : choice.timings) {
    timings.append(py::make_tuple(timing.candidate, timing.milliseconds, timing.workspace_bytes));
  }
  py::dict result;
  result["engine"] = choice.engine;
  result["reason"] = choice.reason;
  result["workspace_bytes"] = choice.workspace_bytes;
  result["timings"] = timings;
  return result;
}

// Why minimal filtering does not run; empty if it does. `plan` is of the own kernels that try to.
std::string why_unfiltered(const Choice& choice, const cuda::Plan& plan) {
  if (choice.filtered) return "";
  if (!cpu::minimal_filtering()) return "minimal filtering is switched off";
  if (!plan.unfiltered.empty()) return plan.unfiltered;
  return choice.timings.empty() ? "only where a timed mode of cudnn_tune has found it to be faster"
                                : "another candidate was faster";
}

// What a call on CUDA tensors of these sizes would do, packed in one order. `kernel` is the
// sentence of the own kernels, whoever computes the pass.
py::dict choose_cuda(const std::string& pass, const std::string& dtype, int64_t batch,
                     int64_t groups, int64_t in_channels, int64_t out_channels,
                     const std::vector<AxisTuple>& axes, bool channels_last, int64_t workspace,
                     const std::optional<std::string>& cudnn_tune, bool cudnn_off, bool bias,
                     int device) {
  const c10::cuda::CUDAGuard guard(c10::DeviceIndex(device));
  Problem problem =
      described_problem(dtype, batch, groups, in_channels, out_channels, axes, channels_last);
  Arguments<int64_t> arguments{};
  arguments.workspace = workspace;
  if (cudnn_tune) arguments.cudnn_tune = *cudnn_tune;
  arguments.cudnn_off = cudnn_off;
  const int64_t limit = cudnn_tune == "fastest" ? kUnboundedBytes : workspace_bytes(workspace);
  Choice choice;
  if (cudnn_off) {
    choice.engine = "cuda";
    choice.reason = "cudnn_off is True";
  } else {
    choice = library_choice(pass_named(pass), problem, channels_last, arguments, bias, device);
  }
  const auto plan = [&](bool filtered) {
    return OwnKernels(pass_named(pass), problem, device, limit, filtered).plan();
  };
  const cuda::Plan own = plan(choice.filtered);
  if (choice.engine == "cuda") choice.workspace_bytes = own.scratch_bytes;
  py::dict result = dict_of(choice);
  result["kernel"] = own.reason;
  result["unfiltered"] = why_unfiltered(choice, plan(true));
  return result;
}

}  // namespace

void bind_cuda(py::module_& m) {
  m.def("choose_cuda", &choose_cuda, py::arg("pass_"), py::arg("dtype"), py::arg("batch"),
        py::arg("groups"), py::arg("in_channels"), py::arg("out_channels"), py::arg("axes"),
        py::arg("channels_last"), py::arg("workspace"), py::arg("cudnn_tune"), py::arg("cudnn_off"),
        py::arg("bias"), py::arg("device"));
  m.def("library_decisions", &library_decisions,
        "How many decisions between cuDNN's plans and the own kernels are kept.");
  m.def("forget_library_decisions", &forget_library_decisions);
  bind_library(m);
}

void add_cuda_build_info(py::dict& info) {
  info["cuda"] = true;
  info["cuda_version"] =
      std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10);
  info["cuda_archs"] = MXD_CUDA_ARCHS;
  const std::string cudnn = library_version();
  if (!cudnn.empty()) info["cudnn"] = cudnn;
}

}  // namespace mxd::ops
