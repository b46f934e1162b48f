// A pass as an op of a real device runs it: checked, its result allocated, its operands described.
#pragma once

#include <torch/library.h>

#include <algorithm>

#include "core/problem.h"
#include "ops/signatures.h"

namespace mxd::ops {

struct PassCall {
  Pass pass;
  const at::Tensor& data;
  const at::Tensor& weight;
  const at::Tensor& out;
  const std::optional<at::Tensor>& bias;  // forward only
  const Arguments<int64_t>& arguments;
  Problem problem;  // with views of the tensors

  const at::Tensor& result() const {
    return pass == Pass::kForward ? out : pass == Pass::kDataGradient ? data : weight;
  }
};

PassCall pass_call(Pass pass, const at::Tensor& data, const at::Tensor& weight,
                   const at::Tensor& out, const std::optional<at::Tensor>& bias,
                   const Sizes<int64_t>& sizes, const Arguments<int64_t>& arguments);

// More than any device has.
constexpr int64_t kUnboundedBytes = int64_t(1) << 60;

// A workspace given in MB, in bytes; the shift must not overflow.
inline int64_t workspace_bytes(int64_t megabytes) {
  return std::min(megabytes, kUnboundedBytes >> 20) << 20;
}

// The ops of one device. Device has
//   static Memory memory(const at::Tensor&)         what a result on the tensor's device must fit
//   in static void about_to_fill(const at::Tensor&)  the tensor is fresh and will be written whole
//   static void run(const PassCall&)                computes a result that is not empty
template <class Device>
struct DeviceOps {
  static at::Tensor forward(const at::Tensor& data, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, MXD_INT_PARAMETERS) {
    const Arguments<int64_t> args{MXD_PASS_PARAMETERS};
    const Sizes<int64_t> sizes = check_forward<int64_t>(data, weight, bias, args);
    at::Tensor out = fresh_result("out", sizes.out, data, weight);
    if (out.numel() != 0) {
      Device::run(pass_call(Pass::kForward, data, weight, out, bias, sizes, args));
    }
    return out;
  }

  static void forward_into(const at::Tensor& data, const at::Tensor& weight,
                           const std::optional<at::Tensor>& bias, MXD_INT_PARAMETERS,
                           at::Tensor& out) {
    const Arguments<int64_t> args{MXD_PASS_PARAMETERS};
    const Sizes<int64_t> sizes = check_forward<int64_t>(data, weight, bias, args);
    check_out(out, sizes, data, weight, bias);
    if (out.numel() != 0) {
      Device::run(pass_call(Pass::kForward, data, weight, out, bias, sizes, args));
    }
  }

  static at::Tensor data_gradient(const at::Tensor& weight, const at::Tensor& out_grad,
                                  MXD_INT_PARAMETERS) {
    const Arguments<int64_t> args{MXD_PASS_PARAMETERS};
    const Sizes<int64_t> sizes = check_data_gradient<int64_t>(weight, out_grad, args);
    at::Tensor data = fresh_result("data gradient", sizes.data, weight, out_grad);
    if (data.numel() != 0) {
      Device::run(
          pass_call(Pass::kDataGradient, data, weight, out_grad, std::nullopt, sizes, args));
    }
    return data;
  }

  static at::Tensor weight_gradient(const at::Tensor& data, const at::Tensor& out_grad,
                                    MXD_INT_PARAMETERS) {
    const Arguments<int64_t> args{MXD_PASS_PARAMETERS};
    const Sizes<int64_t> sizes = check_weight_gradient<int64_t>(data, out_grad, args);
    at::Tensor weight = fresh_result("weight gradient", sizes.weight, data, out_grad);
    Device::run(
        pass_call(Pass::kWeightGradient, data, weight, out_grad, std::nullopt, sizes, args));
    return weight;
  }

  static void register_in(torch::Library& library) {
    library.impl("deconvolution", forward);
    library.impl("deconvolution_data", data_gradient);
    library.impl("deconvolution_weight", weight_gradient);
    library.impl("deconvolution_into", forward_into);
  }

 private:
  static at::Tensor fresh_result(const char* name, const Shape<int64_t>& shape,
                                 const at::Tensor& first, const at::Tensor& second) {
    check_memory(name, shape, first.scalar_type(), Device::memory(first));
    at::Tensor result = empty_result(shape, first, second);
    Device::about_to_fill(result);
    return result;
  }
};

}  // namespace mxd::ops
