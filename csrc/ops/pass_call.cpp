#include "ops/pass_call.h"

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

}  // namespace

PassCall pass_call(Pass pass, const at::Tensor& data, const at::Tensor& weight,
                   const at::Tensor& out, const std::optional<at::Tensor>& bias,
                   const Sizes<int64_t>& sizes, const Arguments<int64_t>& arguments) {
  PassCall call{pass, data, weight, out, bias, arguments, {}};
  call.problem.geometry = geometry_of(sizes, arguments);
  call.problem.dtype = dtype_of(data);
  call.problem.data = view_of(data);
  call.problem.weight = weight_view_of(weight);
  call.problem.out = view_of(out);
  if (bias) call.problem.bias = {bias->const_data_ptr(), bias->stride(0)};
  return call;
}

}  // namespace mxd::ops
