// Shape kernels of the ops, for meta and fake tensors with concrete or symbolic sizes.
#include <torch/library.h>

#include "ops/signatures.h"

namespace mxd::ops {
namespace {

Arguments<c10::SymInt> arguments(MXD_SYMINT_PARAMETERS) { return {MXD_PASS_PARAMETERS}; }

at::Tensor forward(const at::Tensor& data, const at::Tensor& weight,
                   const std::optional<at::Tensor>& bias, MXD_SYMINT_PARAMETERS) {
  const auto args = arguments(MXD_PASS_PARAMETERS);
  return empty_result(check_forward<c10::SymInt>(data, weight, bias, args).out, data, weight);
}

void forward_into(const at::Tensor& data, const at::Tensor& weight,
                  const std::optional<at::Tensor>& bias, MXD_SYMINT_PARAMETERS, at::Tensor& out) {
  const auto args = arguments(MXD_PASS_PARAMETERS);
  check_out(out, check_forward<c10::SymInt>(data, weight, bias, args), data, weight, bias);
}

at::Tensor data_gradient(const at::Tensor& weight, const at::Tensor& out_grad,
                         MXD_SYMINT_PARAMETERS) {
  const auto args = arguments(MXD_PASS_PARAMETERS);
  return empty_result(check_data_gradient<c10::SymInt>(weight, out_grad, args).data, weight,
                      out_grad);
}

at::Tensor weight_gradient(const at::Tensor& data, const at::Tensor& out_grad,
                           MXD_SYMINT_PARAMETERS) {
  const auto args = arguments(MXD_PASS_PARAMETERS);
  return empty_result(check_weight_gradient<c10::SymInt>(data, out_grad, args).weight, data,
                      out_grad);
}

}  // namespace

TORCH_LIBRARY_IMPL(mxdeconv, Meta, m) {
  m.impl("deconvolution", forward);
  m.impl("deconvolution_data", data_gradient);
  m.impl("deconvolution_weight", weight_gradient);
  m.impl("deconvolution_into", forward_into);
}

}  // namespace mxd::ops
