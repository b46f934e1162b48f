#include "ops/frozen_weight.h"

#include <torch/csrc/utils/pybind.h>

#include <stdexcept>
#include <utility>

namespace py = pybind11;

namespace mxd::ops {
namespace {

thread_local FrozenWeight* t_frozen = nullptr;

// Tensors of inference mode count no versions.
int64_t version_of(const at::Tensor& tensor) {
  return tensor.is_inference() ? 0 : int64_t(tensor._version());
}

// The largest form (3-D, stride 2, kernel 4, filtered) takes 3.4 times the weight in float32. A few
// of them may be needed by turns, for inputs so small that some phases have no result.
int64_t most_bytes(const at::Tensor& weight) {
  return 8 * 8 * weight.numel() + (int64_t(16) << 20);
}

// function(*arguments), and with `frozen` where its kernels ask for it.
py::object call_frozen(FrozenWeight& frozen, const py::function& function, const py::args& args) {
  frozen.check_unchanged();
  const FrozenWeight::Scope scope(&frozen);
  return function(*args);
}

}  // namespace

FrozenWeight::FrozenWeight(const at::Tensor& weight)
    : weight_(weight.detach()),
      memory_(weight.const_data_ptr()),
      version_(version_of(weight_)),
      prepared_(most_bytes(weight)) {}

void FrozenWeight::check_unchanged() const {
  if (version_of(weight_) == version_) return;
  throw std::runtime_error(
      "weight must not change while the module is frozen, but was written to: call freeze() "
      "again, or train()");
}

cpu::PreparedWeights* FrozenWeight::prepared(const at::Tensor& weight) {
  FrozenWeight* const frozen = t_frozen;
  const bool same = frozen && weight.const_data_ptr() == frozen->memory_ &&
                    weight.scalar_type() == frozen->weight_.scalar_type();
  return same ? &frozen->prepared_ : nullptr;
}

FrozenWeight::Scope::Scope(FrozenWeight* frozen) : before_(std::exchange(t_frozen, frozen)) {}
FrozenWeight::Scope::~Scope() { t_frozen = before_; }

void bind_frozen_weight(py::module_& m) {
  py::class_<FrozenWeight>(m, "FrozenWeight")
      .def(py::init<const at::Tensor&>())
      .def_property_readonly("bytes", &FrozenWeight::bytes);
  m.def("call_frozen", &call_frozen);
}

}  // namespace mxd::ops
