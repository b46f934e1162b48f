// Operands as cuDNN wants them, copied where the caller's lie otherwise.
#pragma once

#include <ATen/ops/empty_strided.h>

#include <vector>

#include "ops/cudnn_plan.h"
#include "ops/packed_layout.h"
#include "ops/pass_call.h"

namespace mxd::ops {

// The call's operands, packed in one order: the caller's memory where it is, else copies.
class PackedOperands {
 public:
  PackedOperands(const PassCall& call, const Layouts& layouts, bool channels_last)
      : call_(call),
        channels_last_(channels_last),
        data_{call.data, !layouts.data.is_packed(channels_last), {}},
        weight_{call.weight, !layouts.weight.is_packed(channels_last), {}},
        out_{call.out, !layouts.out.is_packed(channels_last), {}} {}

  // That the copies take.
  int64_t bytes() const {
    int64_t bytes = 0;
    for (const Operand* operand : {&data_, &weight_, &out_}) {
      if (operand->needs_copy) bytes += int64_t(operand->tensor.nbytes());
    }
    return bytes;
  }

  // Of every address, up to 16; torch's allocator gives copies more.
  int64_t alignment() const {
    uintptr_t bits = 16;
    for (const Operand* operand : {&data_, &weight_, &out_}) {
      if (!operand->needs_copy) {
        bits |= reinterpret_cast<uintptr_t>(operand->tensor.const_data_ptr());
      }
    }
    return int64_t(bits & (~bits + 1));
  }

  // Makes the copies, once.
  const CudnnOperands& operands() {
    if (operands_.out) return operands_;
    allocate();
    copy_in();
    return operands_;
  }

  void copy_in() {
    for (const Operand* operand : {&data_, &weight_, &out_}) {
      if (operand->needs_copy && &operand->tensor != &call_.result()) {
        operand->copy.copy_(operand->tensor);
      }
    }
  }

  // Where the pass writes.
  const at::Tensor& result() const {
    const Operand& operand = result_operand();
    return operand.needs_copy ? operand.copy : operand.tensor;
  }

  void hand_back() const {
    if (result_operand().needs_copy) call_.result().copy_(result());
  }

 private:
  struct Operand {
    const at::Tensor& tensor;
    bool needs_copy;
    at::Tensor copy;
  };

  const Operand& result_operand() const {
    return call_.pass == Pass::kForward        ? out_
           : call_.pass == Pass::kDataGradient ? data_
                                               : weight_;
  }

  void allocate() {
    operands_.data = address(data_);
    operands_.weight = address(weight_);
    operands_.out = address(out_);
    if (call_.bias) {
      bias_ = call_.bias->stride(0) == 1 ? *call_.bias : call_.bias->contiguous();
      operands_.bias = const_cast<void*>(bias_.const_data_ptr());
    }
  }

  void* address(Operand& operand) {
    const at::Tensor& tensor = operand.tensor;
    if (!operand.needs_copy) return const_cast<void*>(tensor.const_data_ptr());
    std::vector<int64_t> strides(size_t(tensor.dim()));
    int64_t step = channels_last_ ? tensor.size(1) : 1;
    for (int64_t d = tensor.dim() - 1; d >= 0; --d) {
      const bool fastest = d == 1 && channels_last_;
      strides[size_t(d)] = fastest ? 1 : step;
      if (!fastest) step *= tensor.size(d);
    }
    operand.copy = at::empty_strided(tensor.sizes(), strides, tensor.options());
    return const_cast<void*>(operand.copy.const_data_ptr());
  }

  const PassCall& call_;
  const bool channels_last_;
  Operand data_, weight_, out_;
  at::Tensor bias_;
  CudnnOperands operands_;
};

}  // namespace mxd::ops
