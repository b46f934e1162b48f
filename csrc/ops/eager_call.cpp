#include "ops/eager_call.h"

#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/python_variable.h>

#include <string>
#include <tuple>
#include <vector>

#include "ops/frozen_weight.h"
#include "ops/signatures.h"

namespace py = pybind11;

namespace mxd::ops {
namespace {

// The attributes of a deconvolution in a channels-first layout and without a target_shape: read
// once from Python, used by every call.
struct EagerCall {
  using Ints = std::vector<int64_t>;

  // Whether tensors of these kinds and shapes may go straight to the op. It says no to whatever is
  // not plain or not right: the caller's long way then does it, or says what is wrong.
  bool takes(const at::Tensor& data, const at::Tensor& weight, const at::Tensor* bias) const {
    if (!is_plain(data) || !is_plain(weight) || (bias != nullptr) != with_bias) return false;
    const at::IntArrayRef expected(weight_shape);
    if (data.dim() != int64_t(expected.size()) || weight.dim() != data.dim() ||
        weight.scalar_type() != data.scalar_type()) {
      return false;
    }
    if (weight.size(0) != data.size(1) || weight.sizes().slice(1) != expected.slice(1))
      return false;
    return bias == nullptr || (is_plain(*bias) && bias->dim() == 1 && bias->size(0) == filters &&
                               bias->scalar_type() == data.scalar_type());
  }

  at::Tensor run(const at::Tensor& data, const at::Tensor& weight, const at::Tensor* bias) const {
    static const auto op = find_op<ForwardOp>("mxdeconv::deconvolution");
    std::optional<at::Tensor> given;
    if (bias) given = *bias;
    return op.call(data, weight, given, stride, dilate, c10::fromIntArrayRefSlow(pad),
                   c10::fromIntArrayRefSlow(adj), num_group, workspace, tune, cudnn_off);
  }

  Ints weight_shape;  // [0]: any
  int64_t filters;
  bool with_bias;
  Ints stride, dilate, pad, adj;
  int64_t num_group, workspace;
  std::optional<c10::string_view> tune;  // of static text
  bool cudnn_off;

 private:
  // Dense, in the memory of a CPU or a GPU, of a floating type, without a wrapper, a lazy sign or
  // symbolic sizes.
  static bool is_plain(const at::Tensor& tensor) {
    constexpr c10::DispatchKeySet kIgnored =
        c10::autograd_dispatch_keyset_with_ADInplaceOrView | c10::autocast_dispatch_keyset;
    const c10::DispatchKeySet keys = tensor.key_set() - kIgnored;
    return (keys == c10::DispatchKeySet(c10::DispatchKey::CPU) ||
            keys == c10::DispatchKeySet(c10::DispatchKey::CUDA)) &&
           tensor.is_floating_point() &&
           !tensor.unsafeGetTensorImpl()->has_symbolic_sizes_strides();
  }
};

std::optional<c10::string_view> static_text(const std::optional<std::string>& tune) {
  if (!tune) return std::nullopt;
  for (const char* text : {"off", "limited_workspace", "fastest"}) {
    if (*tune == text) return c10::string_view(text);
  }
  throw py::value_error("cudnn_tune must be one of its names, got '" + *tune + "'");
}

bool autocasts(const at::Tensor& tensor) {
  const at::DeviceType type = tensor.device().type();
  return (type == at::kCPU || type == at::kCUDA) && at::autocast::is_autocast_enabled(type);
}

// call_eagerly(call, data, weight, bias, frozen): the result, or None for what EagerCall does not
// take. `frozen` may be None.
// Written against Python's own interface, because pybind11's conversions cost as much as the op.
PyObject* call_eagerly(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  TORCH_CHECK_TYPE(count == 5, "call_eagerly takes 5 arguments, got ", count);
  PyObject* const data = arguments[1];
  PyObject* const weight = arguments[2];
  PyObject* const bias = arguments[3] == Py_None ? nullptr : arguments[3];
  const auto* call = py::handle(arguments[0]).cast<const EagerCall*>();
  // A subclass, an uninitialized parameter or an active mode may want to see the call.
  const bool plain = THPVariable_CheckExact(data) && THPVariable_CheckExact(weight) &&
                     (!bias || THPVariable_CheckExact(bias)) &&
                     !at::impl::torch_function_mode_enabled() &&
                     !autocasts(THPVariable_Unpack(data));
  if (!plain) Py_RETURN_NONE;
  const at::Tensor* const bias_tensor = bias ? &THPVariable_Unpack(bias) : nullptr;
  if (!call->takes(THPVariable_Unpack(data), THPVariable_Unpack(weight), bias_tensor)) {
    Py_RETURN_NONE;
  }
  // In a fork, this makes torch build its engine anew, which only the GIL keeps two threads from
  // doing at once. The op would do it when it saves its operands, without the GIL.
  torch::autograd::Engine::get_default_engine();
  FrozenWeight* frozen = nullptr;
  if (arguments[4] != Py_None) {
    frozen = py::handle(arguments[4]).cast<FrozenWeight*>();
    frozen->check_unchanged();
  }
  at::Tensor out;
  {
    const py::gil_scoped_release no_gil;
    const FrozenWeight::Scope scope(frozen);
    out = call->run(THPVariable_Unpack(data), THPVariable_Unpack(weight), bias_tensor);
  }
  return THPVariable_Wrap(std::move(out));
  END_HANDLE_TH_ERRORS
}

// are_plain(*values): whether each is a tuple, and each entry of it an int, of no subclass.
PyObject* are_plain(PyObject*, PyObject* const* values, Py_ssize_t count) {
  for (Py_ssize_t v = 0; v < count; ++v) {
    if (!PyTuple_CheckExact(values[v])) Py_RETURN_FALSE;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(values[v]); ++i) {
      if (!PyLong_CheckExact(PyTuple_GET_ITEM(values[v], i))) Py_RETURN_FALSE;
    }
  }
  Py_RETURN_TRUE;
}

// As Python keeps functions: cast through a plain function pointer.
template <class Function>
PyCFunction c_function(Function* function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

PyMethodDef kFunctions[] = {
    {"call_eagerly", c_function(call_eagerly), METH_FASTCALL,
     "call_eagerly(call, data, weight, bias, frozen): the result, or None for tensors that the "
     "long "
     "way must see."},
    {"are_plain", c_function(are_plain), METH_FASTCALL,
     "are_plain(*values): whether each is a tuple of ints, subclasses excluded."},
    {nullptr, nullptr, 0, nullptr}};

using Made =
    std::tuple<EagerCall::Ints, int64_t, bool, EagerCall::Ints, EagerCall::Ints, EagerCall::Ints,
               EagerCall::Ints, int64_t, int64_t, std::optional<std::string>, bool>;

EagerCall make(EagerCall::Ints kernel, int64_t filters, bool no_bias, EagerCall::Ints stride,
               EagerCall::Ints dilate, EagerCall::Ints pad, EagerCall::Ints adj, int64_t num_group,
               int64_t workspace, const std::optional<std::string>& tune, bool cudnn_off) {
  kernel.insert(kernel.begin(), {0, filters / num_group});
  return {std::move(kernel), filters,           !no_bias,       std::move(stride),
          std::move(dilate), std::move(pad),    std::move(adj), num_group,
          workspace,         static_text(tune), cudnn_off};
}

// The arguments that made a call: how it is pickled and copied.
Made made_of(const EagerCall& call) {
  std::optional<std::string> tune;
  if (call.tune) tune = std::string(*call.tune);
  const EagerCall::Ints kernel(call.weight_shape.begin() + 2, call.weight_shape.end());
  return {kernel,   call.filters,   !call.with_bias, call.stride, call.dilate,   call.pad,
          call.adj, call.num_group, call.workspace,  tune,        call.cudnn_off};
}

}  // namespace

void bind_eager_call(py::module_& m) {
  py::class_<EagerCall>(m, "EagerCall")
      .def(py::init(&make))
      .def(py::pickle(&made_of, [](const Made& made) { return std::apply(make, made); }));
  if (PyModule_AddFunctions(m.ptr(), kFunctions) != 0) throw py::error_already_set();
}

}  // namespace mxd::ops
