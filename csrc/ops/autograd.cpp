// The one differentiation rule.
//
// T(data, weight, out) is linear in each of its three arguments, and each op is the derivative of T
// with respect to the one that it does not take. So the derivative of an op with respect to one of
// its operands, applied to the gradient of its result, is the op that returns that operand, with
// the gradient standing where the result stood. Backward and forward mode both follow, and since
// they call the ops through the dispatcher, so does every higher order.
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/dynamo/compiled_autograd.h>
#include <torch/library.h>

#include <type_traits>

#include "ops/signatures.h"

namespace mxd::ops {
namespace {

using torch::autograd::Node;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

enum Role { kData, kWeight, kOut, kRoles };

// What Edge holds: std::shared_ptr<Node> up to torch 2.12, c10::intrusive_ptr<Node> after.
using NodePointer = decltype(torch::autograd::Edge::function);

// The shared arguments as a call brings them, and owned, as a node keeps them.
using CallArguments = Arguments<c10::SymInt>;

struct OwnedArguments {
  explicit OwnedArguments(const CallArguments& args)
      : stride(args.stride),
        dilate(args.dilate),
        pad(args.pad),
        adj(args.adj),
        num_group(args.num_group),
        workspace(args.workspace),
        cudnn_off(args.cudnn_off) {
    if (args.cudnn_tune) cudnn_tune = std::string(*args.cudnn_tune);
  }

  CallArguments borrow() const {
    std::optional<c10::string_view> tune;
    if (cudnn_tune) tune = c10::string_view(*cudnn_tune);
    return {stride, dilate, pad, adj, num_group, workspace, tune, cudnn_off};
  }

  c10::SmallVector<int64_t, 3> stride, dilate;
  c10::SmallVector<c10::SymInt, 3> pad, adj;
  c10::SymInt num_group;
  int64_t workspace;
  std::optional<std::string> cudnn_tune;
  bool cudnn_off;
};

#define MXD_PASS_FIELDS(args)                                                               \
  (args).stride, (args).dilate, (args).pad, (args).adj, (args).num_group, (args).workspace, \
      (args).cudnn_tune, (args).cudnn_off

// The derivative of T with respect to `result`, of the two other tensors.
at::Tensor contract(Role result, const at::Tensor (&tensors)[kRoles], const CallArguments& args) {
  static const auto forward = find_op<ForwardOp>("mxdeconv::deconvolution");
  static const auto data = find_op<GradientOp>("mxdeconv::deconvolution_data");
  static const auto weight = find_op<GradientOp>("mxdeconv::deconvolution_weight");
  switch (result) {
    case kData:
      return data.call(tensors[kWeight], tensors[kOut], MXD_PASS_FIELDS(args));
    case kWeight:
      return weight.call(tensors[kData], tensors[kOut], MXD_PASS_FIELDS(args));
    default:
      return forward.call(tensors[kData], tensors[kWeight], std::nullopt, MXD_PASS_FIELDS(args));
  }
}

// The bias is the weight of a 1x1 deconvolution of a constant 1, so its gradient is the weight
// gradient of one: summed like any other, in an order that no thread count changes.
at::Tensor bias_gradient(const at::Tensor& out_grad, const CallArguments& args) {
  static const auto weight = find_op<GradientOp>("mxdeconv::deconvolution_weight");
  std::vector<c10::SymInt> shape = out_grad.sym_sizes().vec();
  const c10::SymInt filters = shape[1];
  if (out_grad.sym_numel() == 0) return at::zeros_symint({filters}, out_grad.options());
  shape[1] = 1;
  const at::Tensor ones = at::ones({1}, out_grad.options()).expand_symint(shape);
  const std::vector<int64_t> unit(args.stride.size(), 1);
  const std::vector<c10::SymInt> none(args.stride.size(), 0);
  return weight
      .call(ones, out_grad, unit, unit, none, none, 1, args.workspace, args.cudnn_tune,
            args.cudnn_off)
      .reshape_symint({filters});
}

// Shapes the bias for addition to out.
at::Tensor broadcast_bias(const at::Tensor& bias, int64_t dim) {
  std::vector<c10::SymInt> shape(size_t(dim), 1);
  shape[1] = bias.sym_size(0);
  return bias.reshape_symint(shape);
}

// The operands of the op that returns `result`, in the order of its inputs.
constexpr Role kOperands[kRoles][2] = {{kWeight, kOut}, {kData, kOut}, {kData, kWeight}};

// The gradients of an op's inputs (its two operands, then the bias) that are `needed`.
variable_list input_gradients(Role result, const at::Tensor& grad, const at::Tensor (&saved)[2],
                              const std::vector<bool>& needed, const CallArguments& args) {
  variable_list grads(needed.size());
  if (!grad.defined()) return grads;
  for (size_t i = 0; i < 2; ++i) {
    if (!needed[i]) continue;
    at::Tensor tensors[kRoles];
    tensors[result] = grad;
    tensors[kOperands[result][1 - i]] = saved[1 - i];
    grads[i] = contract(kOperands[result][i], tensors, args);
  }
  if (needed.size() == 3 && needed[2]) grads[2] = bias_gradient(grad, args);
  return grads;
}

struct DeconvolutionBackward : public Node {
  DeconvolutionBackward(Role result, const CallArguments& args) : result(result), args(args) {}

  std::string name() const override {
    static const char* const names[kRoles] = {
        "DeconvolutionDataBackward", "DeconvolutionWeightBackward", "DeconvolutionBackward"};
    return names[result];
  }

  std::vector<bool> needed() const {
    std::vector<bool> outputs;
    for (size_t i = 0; i < num_outputs(); ++i) outputs.push_back(task_should_compute_output(i));
    return outputs;
  }

  variable_list apply(variable_list&& grads) override {
    const at::Tensor tensors[2] = {saved[0].unpack(), saved[1].unpack()};
    return input_gradients(result, grads[0], tensors, needed(), args.borrow());
  }

  void release_variables() override {
    std::lock_guard<std::mutex> lock(mutex_);
    for (SavedVariable& variable : saved) variable.reset_data();
  }

  // Compiled autograd: what the graph depends on, and the call that it records.
  void compiled_args(torch::dynamo::autograd::CompiledNodeArgs& key) const override {
    for (const SavedVariable& variable : saved) key.collect(variable, false);
    key.collect(int64_t(result));
    key.collect(at::IntArrayRef(args.stride));
    key.collect(at::IntArrayRef(args.dilate));
    key.collect(c10::SymIntArrayRef(args.pad));
    key.collect(c10::SymIntArrayRef(args.adj));
    key.collect(args.num_group);
    key.collect(args.workspace);
    key.collect(args.cudnn_tune);
    key.collect(args.cudnn_off);
  }

  variable_list apply_with_saved(const variable_list& grads,
                                 torch::dynamo::autograd::SwapSavedVariables& swap) override {
    using namespace torch::dynamo::autograd;
    for (SavedVariable& variable : saved) swap.before(variable);
    swap.before(args.pad);
    swap.before(args.adj);
    swap.before(args.num_group);

    PackedArgs packed;
    packed.pack(int64_t(result));
    packed.pack(saved[0].unpack());
    packed.pack(saved[1].unpack());
    packed.pack(needed());
    packed.pack(at::IntArrayRef(args.stride).vec());
    packed.pack(at::IntArrayRef(args.dilate).vec());
    packed.pack(c10::SymIntArrayRef(args.pad).vec());
    packed.pack(c10::SymIntArrayRef(args.adj).vec());
    packed.pack(args.num_group);
    packed.pack(args.workspace);
    packed.pack(args.cudnn_tune.value_or(""));
    packed.pack(args.cudnn_off);
    std::vector<at::TypePtr> types;
    for (const at::IValue& value : packed.vec()) {
      types.push_back(value.isTensor() ? at::TypePtr(at::TensorType::get()) : value.type());
    }
    const auto& compiler = getPyCompilerInterface();
    const std::string function =
        compiler->bind_function(swap.get_py_compiler(), name(), apply_packed, types);
    const auto metadata =
        IValuePacker<std::vector<std::optional<torch::autograd::InputMetadata>>>::pack(
            get_input_metadata(next_edges()));
    variable_list input_grads = compiler->call_function(swap.get_py_compiler(), "apply_functional",
                                                        function, grads, packed.vec(), metadata);

    for (SavedVariable& variable : saved) swap.after(variable);
    swap.after(args.pad);
    swap.after(args.adj);
    swap.after(args.num_group);
    return input_grads;
  }

  static variable_list apply_packed(const variable_list& grads,
                                    const std::vector<at::IValue>& values) {
    torch::dynamo::autograd::PackedArgs packed(values);
    const Role result = Role(packed.unpack<int64_t>());
    const at::Tensor first = packed.unpack<at::Tensor>();
    const at::Tensor second = packed.unpack<at::Tensor>();
    const auto needed = packed.unpack<std::vector<bool>>();
    const auto stride = packed.unpack<std::vector<int64_t>>();
    const auto dilate = packed.unpack<std::vector<int64_t>>();
    const auto pad = packed.unpack<std::vector<c10::SymInt>>();
    const auto adj = packed.unpack<std::vector<c10::SymInt>>();
    const auto num_group = packed.unpack<c10::SymInt>();
    const auto workspace = packed.unpack<int64_t>();
    const auto tune = packed.unpack<std::string>();
    const auto cudnn_off = packed.unpack<bool>();
    const CallArguments args{stride,
                             dilate,
                             pad,
                             adj,
                             num_group,
                             workspace,
                             tune.empty() ? std::nullopt : std::optional<c10::string_view>(tune),
                             cudnn_off};
    const at::Tensor saved[2] = {first, second};
    return input_gradients(result, grads[0], saved, needed, args);
  }

  const Role result;
  SavedVariable saved[2];  // the operands; each only if the other's gradient may be asked for
  OwnedArguments args;
};

template <class Pointer = NodePointer>
Pointer make_node(Role result, const CallArguments& args) {
  if constexpr (std::is_same_v<Pointer, std::shared_ptr<Node>>) {
    // Found by argument lookup where it exists: long graphs must not be freed recursively.
    return Pointer(new DeconvolutionBackward(result, args), [](auto* n) { deleteNode(n); });
  } else {
    return Pointer(c10::make_intrusive<DeconvolutionBackward>(result, args));
  }
}

// Runs the op below autograd and records what backward and forward mode need.
template <class Below>
at::Tensor differentiable(Role role, const at::Tensor& first, const at::Tensor& second,
                          const std::optional<at::Tensor>& bias, const CallArguments& args,
                          const Below& below) {
  using namespace torch::autograd;
  const at::Tensor* operands[2] = {&first, &second};
  NodePointer node;
  if (compute_requires_grad(first, second, bias)) {
    node = make_node(role, args);
    auto& backward = static_cast<DeconvolutionBackward&>(*node);
    if (bias) {
      node->set_next_edges(collect_next_edges(first, second, *bias));
    } else {
      node->set_next_edges(collect_next_edges(first, second));
    }
    for (int i = 0; i < 2; ++i) {
      if (operands[1 - i]->requires_grad()) {
        backward.saved[i] = SavedVariable(*operands[i], /*is_output=*/false);
      }
    }
  }
  at::Tensor result = [&] {
    at::AutoDispatchBelowADInplaceOrView guard;
    return below();
  }();
  if (node) set_history(result, node);

  at::Tensor tangent;
  const auto add = [&tangent](const at::Tensor& term) {
    tangent = tangent.defined() ? tangent + term : term;
  };
  for (int i = 0; i < 2; ++i) {
    if (!isFwGradDefined(*operands[i])) continue;
    at::Tensor tensors[kRoles];
    tensors[kOperands[role][i]] = operands[i]->_fw_grad(/*level=*/0);
    tensors[kOperands[role][1 - i]] = operands[1 - i]->_fw_primal(/*level=*/0);
    add(contract(role, tensors, args));
  }
  if (isFwGradDefined(bias)) {
    const at::Tensor term = broadcast_bias(bias->_fw_grad(/*level=*/0), result.dim());
    add(tangent.defined() ? term : term.expand_symint(result.sym_sizes()).clone());
  }
  if (tangent.defined()) result._set_fw_grad(tangent, /*level=*/0, /*is_inplace_op=*/false);
  return result;
}

at::Tensor forward(const at::Tensor& data, const at::Tensor& weight,
                   const std::optional<at::Tensor>& bias, MXD_SYMINT_PARAMETERS) {
  static const auto op = find_op<ForwardOp>("mxdeconv::deconvolution");
  const CallArguments args{MXD_PASS_PARAMETERS};
  return differentiable(kOut, data, weight, bias, args,
                        [&] { return op.call(data, weight, bias, MXD_PASS_FIELDS(args)); });
}

at::Tensor data_gradient(const at::Tensor& weight, const at::Tensor& out_grad,
                         MXD_SYMINT_PARAMETERS) {
  static const auto op = find_op<GradientOp>("mxdeconv::deconvolution_data");
  const CallArguments args{MXD_PASS_PARAMETERS};
  return differentiable(kData, weight, out_grad, std::nullopt, args,
                        [&] { return op.call(weight, out_grad, MXD_PASS_FIELDS(args)); });
}

at::Tensor weight_gradient(const at::Tensor& data, const at::Tensor& out_grad,
                           MXD_SYMINT_PARAMETERS) {
  static const auto op = find_op<GradientOp>("mxdeconv::deconvolution_weight");
  const CallArguments args{MXD_PASS_PARAMETERS};
  return differentiable(kWeight, data, out_grad, std::nullopt, args,
                        [&] { return op.call(data, out_grad, MXD_PASS_FIELDS(args)); });
}

void forward_into(const at::Tensor& data, const at::Tensor& weight,
                  const std::optional<at::Tensor>& bias, MXD_SYMINT_PARAMETERS, at::Tensor& out) {
  using namespace torch::autograd;
  static const auto op = find_op<IntoOp>("mxdeconv::deconvolution_into");
  TORCH_CHECK_VALUE(!compute_requires_grad(data, weight, bias, out),
                    "out must be None where autograd records (a tensor requires a gradient), got "
                    "a tensor; call under torch.no_grad() or without out=");
  TORCH_CHECK_VALUE(!isFwGradDefined(data) && !isFwGradDefined(weight) && !isFwGradDefined(bias) &&
                        !isFwGradDefined(out),
                    "out must be None in forward-mode differentiation, got a tensor");
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    op.call(data, weight, bias, MXD_PASS_PARAMETERS, out);
  }
  impl::bump_version(out);
}

// torch's own fallback for lazily negated and conjugated views wants mutating ops to return what
// they mutate.
void forward_into_lazy(const at::Tensor& data, const at::Tensor& weight,
                       const std::optional<at::Tensor>& bias, MXD_SYMINT_PARAMETERS,
                       at::Tensor& out) {
  static const auto op = find_op<IntoOp>("mxdeconv::deconvolution_into");
  TORCH_CHECK_VALUE(!out.is_neg() && !out.is_conj(),
                    "out must not be a lazily negated or conjugated view");
  const auto resolve = [](const at::Tensor& tensor) { return tensor.resolve_neg().resolve_conj(); };
  const std::optional<at::Tensor> resolved =
      bias ? std::optional<at::Tensor>(resolve(*bias)) : std::nullopt;
  op.call(resolve(data), resolve(weight), resolved, MXD_PASS_PARAMETERS, out);
}

}  // namespace

TORCH_LIBRARY_IMPL(mxdeconv, Negative, m) { m.impl("deconvolution_into", forward_into_lazy); }
TORCH_LIBRARY_IMPL(mxdeconv, Conjugate, m) { m.impl("deconvolution_into", forward_into_lazy); }

TORCH_LIBRARY_IMPL(mxdeconv, Autograd, m) {
  m.impl("deconvolution", forward);
  m.impl("deconvolution_data", data_gradient);
  m.impl("deconvolution_weight", weight_gradient);
  m.impl("deconvolution_into", forward_into);
}

}  // namespace mxd::ops
