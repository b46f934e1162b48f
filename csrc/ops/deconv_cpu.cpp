// CPU kernels of the ops: check, allocate, describe the tensors to the engine, run.
#include <torch/library.h>

#include "cpu/engine.h"
#include "ops/at_threads.h"
#include "ops/frozen_weight.h"
#include "ops/signatures.h"

namespace mxd::ops {
namespace {

DType dtype_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return DType::kFloat64;
    case at::kHalf:
      return DType::kFloat16;
    case at::kBFloat16:
      return DType::kBFloat16;
    default:
      return DType::kFloat32;
  }
}

TensorView view_of(const at::Tensor& tensor) {
  TensorView view;
  view.data = const_cast<void*>(tensor.const_data_ptr());
  view.batch = tensor.stride(0);
  view.channel = tensor.stride(1);
  for (int64_t d = 2; d < tensor.dim(); ++d) {
    view.axis[kAxes - tensor.dim() + d] = tensor.stride(d);
  }
  return view;
}

WeightView weight_view_of(const at::Tensor& tensor) {
  const TensorView view = view_of(tensor);
  WeightView weight{view.data, view.batch, view.channel, {}};
  for (int a = 0; a < kAxes; ++a) weight.tap[a] = view.axis[a];
  return weight;
}

cpu::Resources resources_of(const Threads& threads, int64_t workspace_mb) {
  // Beyond 2^40 MB no bound is meant; the shift must not overflow.
  const int64_t megabytes = std::min(workspace_mb, int64_t(1) << 40);
  return {&threads, megabytes << 20, nullptr};
}

Arguments<int64_t> arguments(MXD_INT_PARAMETERS) { return {MXD_PASS_PARAMETERS}; }

void run_forward(const at::Tensor& data, const at::Tensor& weight,
                 const std::optional<at::Tensor>& bias, const at::Tensor& out,
                 const Sizes<int64_t>& sizes, const Arguments<int64_t>& args) {
  if (out.numel() == 0) return;
  Problem problem;
  problem.geometry = geometry_of(sizes, args);
  problem.dtype = dtype_of(data);
  problem.data = view_of(data);
  problem.weight = weight_view_of(weight);
  problem.out = view_of(out);
  if (bias) problem.bias = {bias->const_data_ptr(), bias->stride(0)};
  const AtThreads threads(problem.geometry.products());
  cpu::Resources resources = resources_of(threads, args.workspace);
  resources.weights = FrozenWeight::prepared(weight);
  cpu::forward(problem, resources);
}

at::Tensor forward(const at::Tensor& data, const at::Tensor& weight,
                   const std::optional<at::Tensor>& bias, MXD_INT_PARAMETERS) {
  const auto args = arguments(MXD_PASS_PARAMETERS);
  const Sizes<int64_t> sizes = check_forward<int64_t>(data, weight, bias, args);
  check_memory("out", sizes.out, data.scalar_type());
  at::Tensor out = empty_result(sizes.out, data, weight);
  run_forward(data, weight, bias, out, sizes, args);
  return out;
}

void forward_into(const at::Tensor& data, const at::Tensor& weight,
                  const std::optional<at::Tensor>& bias, MXD_INT_PARAMETERS, at::Tensor& out) {
  const auto args = arguments(MXD_PASS_PARAMETERS);
  const Sizes<int64_t> sizes = check_forward<int64_t>(data, weight, bias, args);
  check_out(out, sizes, data, weight, bias);
  run_forward(data, weight, bias, out, sizes, args);
}

at::Tensor data_gradient(const at::Tensor& weight, const at::Tensor& out_grad, MXD_INT_PARAMETERS) {
  const auto args = arguments(MXD_PASS_PARAMETERS);
  const Sizes<int64_t> sizes = check_data_gradient<int64_t>(weight, out_grad, args);
  check_memory("data gradient", sizes.data, weight.scalar_type());
  at::Tensor data_grad = empty_result(sizes.data, weight, out_grad);
  if (data_grad.numel() == 0) return data_grad;
  Problem problem;
  problem.geometry = geometry_of(sizes, args);
  problem.dtype = dtype_of(weight);
  problem.data = view_of(data_grad);
  problem.weight = weight_view_of(weight);
  problem.out = view_of(out_grad);
  const AtThreads threads(problem.geometry.products());
  cpu::data_gradient(problem, resources_of(threads, args.workspace));
  return data_grad;
}

at::Tensor weight_gradient(const at::Tensor& data, const at::Tensor& out_grad, MXD_INT_PARAMETERS) {
  const auto args = arguments(MXD_PASS_PARAMETERS);
  const Sizes<int64_t> sizes = check_weight_gradient<int64_t>(data, out_grad, args);
  check_memory("weight gradient", sizes.weight, data.scalar_type());
  at::Tensor weight_grad = empty_result(sizes.weight, data, out_grad);
  Problem problem;
  problem.geometry = geometry_of(sizes, args);
  problem.dtype = dtype_of(data);
  problem.data = view_of(data);
  problem.weight = weight_view_of(weight_grad);
  problem.out = view_of(out_grad);
  const AtThreads threads(problem.geometry.products());
  cpu::weight_gradient(problem, resources_of(threads, args.workspace));
  return weight_grad;
}

}  // namespace

TORCH_LIBRARY_IMPL(mxdeconv, CPU, m) {
  m.impl("deconvolution", forward);
  m.impl("deconvolution_data", data_gradient);
  m.impl("deconvolution_weight", weight_gradient);
  m.impl("deconvolution_into", forward_into);
}

}  // namespace mxd::ops
