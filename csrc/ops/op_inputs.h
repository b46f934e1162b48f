// What the ops take, and the one place that decides whether a call is valid.
//
// The same code checks real calls (int64_t sizes) and traced ones (c10::SymInt sizes), so a fake
// tensor gets the error that the real one would. The ops are public (torch.ops.mxdeconv.*): nothing
// that reaches them has been checked before.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/SmallVector.h>

#include <optional>
#include <string>

#include "core/geometry.h"

namespace mxd::ops {

// The arguments that the ops share, in the order of their schemas. `adj` is an argument although
// the output could tell it: so the size of any of data, weight and out follows from the other two.
template <class Int>
struct Arguments {
  at::IntArrayRef stride;
  at::IntArrayRef dilate;
  c10::ArrayRef<Int> pad;
  c10::ArrayRef<Int> adj;
  Int num_group;
  int64_t workspace;
  std::optional<c10::string_view> cudnn_tune;
  bool cudnn_off;
};

// Sizes of a tensor of any rank that the ops know, without a block of memory of its own.
template <class Int>
using Shape = c10::SmallVector<Int, 5>;

// The sizes of a checked call. `data`, `weight` and `out` are whole shapes, channels first.
template <class Int>
struct Sizes {
  Shape<Int> data;
  Shape<Int> weight;
  Shape<Int> out;
};

// Each checks everything about its call and returns all three shapes, or raises ValueError or
// TypeError naming the argument, the value and what would be valid.
template <class Int>
Sizes<Int> check_forward(const at::Tensor& data, const at::Tensor& weight,
                         const std::optional<at::Tensor>& bias, const Arguments<Int>& arguments);
template <class Int>
Sizes<Int> check_data_gradient(const at::Tensor& weight, const at::Tensor& out_grad,
                               const Arguments<Int>& arguments);
template <class Int>
Sizes<Int> check_weight_gradient(const at::Tensor& data, const at::Tensor& out_grad,
                                 const Arguments<Int>& arguments);

// `out` of the op that writes into a given tensor.
template <class Int>
void check_out(const at::Tensor& out, const Sizes<Int>& sizes, const at::Tensor& data,
               const at::Tensor& weight, const std::optional<at::Tensor>& bias);

// The memory that a device has in all, and what to call it.
struct Memory {
  int64_t bytes;
  const char* owner;
};

// A result that the device could never hold is refused before it is asked for.
void check_memory(const char* name, at::IntArrayRef shape, at::ScalarType dtype,
                  const Memory& memory);

// The result's memory format, by torch's rule for conv_transpose: channels last if one of the
// operands is. 1-D is judged, and allocated, with a unit axis put before the last.
template <class Int>
at::Tensor empty_result(const Shape<Int>& shape, const at::Tensor& first, const at::Tensor& second);

Geometry geometry_of(const Sizes<int64_t>& sizes, const Arguments<int64_t>& arguments);

}  // namespace mxd::ops
