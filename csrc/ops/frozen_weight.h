// The weight of a frozen module, and the forms that calls have prepared of it.
#pragma once

#include <ATen/core/Tensor.h>
#include <pybind11/pybind11.h>

#include "cpu/prepared_weights.h"

namespace mxd::ops {

class FrozenWeight {
 public:
  explicit FrozenWeight(const at::Tensor& weight);

  // Throws std::runtime_error if the weight was written to.
  void check_unchanged() const;
  // Of the forms that are kept.
  int64_t bytes() const { return prepared_.bytes(); }

  // What the innermost Scope of this thread has prepared of `weight`, or null.
  static cpu::PreparedWeights* prepared(const at::Tensor& weight);

  // Lets the calls of this thread use `frozen`, which may be null.
  class Scope {
   public:
    explicit Scope(FrozenWeight* frozen);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    FrozenWeight* const before_;
  };

 private:
  const at::Tensor weight_;  // keeps the memory from being used for another
  const void* const memory_;
  const int64_t version_;
  cpu::PreparedWeights prepared_;
};

void bind_frozen_weight(pybind11::module_& m);

}  // namespace mxd::ops
