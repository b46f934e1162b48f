// What the Python module tells of cuDNN, for tests.
#include "ops/cuda_bindings.h"
#include "ops/cudnn_plan.h"
#include "ops/described_problem.h"

namespace py = pybind11;

namespace mxd::ops {
namespace {

// The plans that cuDNN offers on a device described by its JSON, which need not be there.
py::dict survey_cudnn(const std::string& pass, const std::string& dtype, int64_t batch,
                      int64_t groups, int64_t in_channels, int64_t out_channels,
                      const std::vector<AxisTuple>& axes, bool channels_last, bool bias,
                      bool allow_tf32, bool deterministic, const std::string& device) {
  if (!cudnn_api()) throw std::runtime_error("torch has loaded no libcudnn");
  CudnnProblem problem;
  problem.pass = pass_named(pass);
  const Problem described =
      described_problem(dtype, batch, groups, in_channels, out_channels, axes, channels_last);
  problem.dtype = described.dtype;
  problem.geometry = described.geometry;
  problem.channels_last = channels_last;
  problem.bias = bias;
  py::list plans;
  const CudnnSurvey survey =
      survey_plans(problem, {allow_tf32, deterministic}, {nullptr, device}, CudnnSearch::kAll,
                   [&](const std::shared_ptr<CudnnPlan>& plan) {
                     plans.append(py::make_tuple(plan->name(), plan->workspace_bytes()));
                     return true;
                   });
  py::dict result;
  result["plans"] = plans;
  result["offered"] = survey.offered;
  result["ruled_out"] = survey.ruled_out;
  result["unsupported"] = survey.unsupported;
  result["error"] = survey.error;
  return result;
}

}  // namespace

void bind_library(py::module_& m) {
  m.def("survey_cudnn", &survey_cudnn, py::arg("pass_"), py::arg("dtype"), py::arg("batch"),
        py::arg("groups"), py::arg("in_channels"), py::arg("out_channels"), py::arg("axes"),
        py::arg("channels_last"), py::arg("bias"), py::arg("allow_tf32"), py::arg("deterministic"),
        py::arg("device"));
}

}  // namespace mxd::ops
