// A pass by ATen's convolutions, for builds without cuDNN's headers. ATen chooses by torch's own
// switches; it knows no limit for the workspace and no modes of tuning.
#include <ATen/Context.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/empty_like.h>

#include "ops/cuda_bindings.h"
#include "ops/library_pass.h"

namespace mxd::ops {
namespace {

// As own kernels decide it in the other build: what ATen could not take, or would round twice.
const char* obstacle(const Problem& problem, bool bias) {
  if (!at::globalContext().userEnabledCuDNN()) return "torch.backends.cudnn.enabled is False";
  if (problem.geometry.batch == 0 || problem.geometry.out_pixels() == 0) {
    return "there is nothing to sum";
  }
  if (bias && size_of(problem.dtype) == 2) return "ATen rounds before it adds the bias";
  return nullptr;
}

}  // namespace

bool run_by_library(const PassCall& call, int) {
  if (obstacle(call.problem, call.bias.has_value())) return false;
  const Arguments<int64_t>& a = call.arguments;
  const std::vector<int64_t> none(a.stride.size(), 0);
  at::Tensor result;
  switch (call.pass) {
    case Pass::kForward:
      result = at::convolution(call.data, call.weight, call.bias, a.stride, a.pad, a.dilate,
                               /*transposed=*/true, a.adj, a.num_group);
      break;
    case Pass::kDataGradient:
      result = at::convolution(call.out, call.weight, std::nullopt, a.stride, a.pad, a.dilate,
                               /*transposed=*/false, none, a.num_group);
      break;
    case Pass::kWeightGradient:
      // Of the weight ATen reads the sizes only.
      result = std::get<1>(at::convolution_backward(
          call.data, call.out, at::empty_like(call.weight), std::nullopt, a.stride, a.pad, a.dilate,
          /*transposed=*/false, none, a.num_group, {false, true, false}));
      break;
  }
  call.result().copy_(result);
  return true;
}

Choice library_choice(Pass pass, const Problem& problem, bool, const Arguments<int64_t>&, bool bias,
                      int) {
  Choice choice;
  const char* const why = obstacle(problem, bias && pass == Pass::kForward);
  choice.engine = why ? "cuda" : "aten";
  choice.reason = why ? why
                      : "built without cuDNN's headers: ATen chooses, workspace and cudnn_tune "
                        "have no effect";
  return choice;
}

int64_t library_decisions() { return 0; }
void forget_library_decisions() {}
std::string library_version() { return ""; }
void bind_library(pybind11::module_&) {}

}  // namespace mxd::ops
