// The C++ signature of each op, for int64_t sizes (CPU, CUDA) and SymInt sizes (Meta, Autograd).
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>

#include "ops/op_inputs.h"

// The parameters that all ops share, and the struct made of them.
#define MXD_INT_PARAMETERS                                                                  \
  at::IntArrayRef stride, at::IntArrayRef dilate, at::IntArrayRef pad, at::IntArrayRef adj, \
      int64_t num_group, int64_t workspace, std::optional<c10::string_view> cudnn_tune,     \
      bool cudnn_off
#define MXD_SYMINT_PARAMETERS                                              \
  at::IntArrayRef stride, at::IntArrayRef dilate, c10::SymIntArrayRef pad, \
      c10::SymIntArrayRef adj, c10::SymInt num_group, int64_t workspace,   \
      std::optional<c10::string_view> cudnn_tune, bool cudnn_off
#define MXD_PASS_PARAMETERS stride, dilate, pad, adj, num_group, workspace, cudnn_tune, cudnn_off

namespace mxd::ops {

using ForwardOp = at::Tensor(const at::Tensor& data, const at::Tensor& weight,
                             const std::optional<at::Tensor>& bias, MXD_SYMINT_PARAMETERS);
using GradientOp = at::Tensor(const at::Tensor& first, const at::Tensor& out_grad,
                              MXD_SYMINT_PARAMETERS);
using IntoOp = void(const at::Tensor& data, const at::Tensor& weight,
                    const std::optional<at::Tensor>& bias, MXD_SYMINT_PARAMETERS, at::Tensor& out);

template <class Signature>
c10::TypedOperatorHandle<Signature> find_op(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

}  // namespace mxd::ops
