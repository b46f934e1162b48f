#include "ops/op_inputs.h"

#include <ATen/CPUFunctions.h>
#include <ATen/EmptyTensor.h>
#include <ATen/Functions.h>
#include <ATen/MemoryOverlap.h>
#include <c10/util/Exception.h>

#include <sstream>

namespace mxd::ops {
namespace {

template <class List>
std::string tuple(const List& values) {
  std::ostringstream text;
  text << "(";
  for (size_t i = 0; i < values.size(); ++i) text << (i ? ", " : "") << values[i];
  text << (values.size() == 1 ? ",)" : ")");
  return text.str();
}

std::string name_of(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return "float32";
    case at::kDouble:
      return "float64";
    case at::kHalf:
      return "float16";
    case at::kBFloat16:
      return "bfloat16";
    case at::kByte:
      return "uint8";
    case at::kChar:
      return "int8";
    case at::kShort:
      return "int16";
    case at::kInt:
      return "int32";
    case at::kLong:
      return "int64";
    case at::kBool:
      return "bool";
    case at::kComplexHalf:
      return "complex32";
    case at::kComplexFloat:
      return "complex64";
    case at::kComplexDouble:
      return "complex128";
    default:
      break;
  }
  std::string name = c10::toString(dtype);  // "Float8_e5m2" -> "float8_e5m2", as torch prints it
  for (char& c : name) c = char(std::tolower(c));
  return name;
}

// Sizes of a tensor, as the integer type of the check.
template <class Int>
Shape<Int> sizes_of(const at::Tensor& tensor);
template <>
Shape<int64_t> sizes_of(const at::Tensor& tensor) {
  return Shape<int64_t>(tensor.sizes());
}
template <>
Shape<c10::SymInt> sizes_of(const at::Tensor& tensor) {
  return Shape<c10::SymInt>(tensor.sym_sizes());
}

// Arithmetic that remembers whether a value has left 64 bits. Symbols are taken to stay inside: the
// call that runs is checked again.
template <class Int>
struct Checked {
  bool overflow = false;
  Int add(const Int& a, const Int& b) {
    return apply(
        a, b, [](int64_t x, int64_t y, int64_t* r) { return __builtin_add_overflow(x, y, r); },
        [&] { return a + b; });
  }
  Int multiply(const Int& a, const Int& b) {
    return apply(
        a, b, [](int64_t x, int64_t y, int64_t* r) { return __builtin_mul_overflow(x, y, r); },
        [&] { return a * b; });
  }

 private:
  static std::optional<int64_t> value(int64_t a) { return a; }
  static std::optional<int64_t> value(const c10::SymInt& a) { return a.maybe_as_int(); }

  template <class Exact, class Symbolic>
  Int apply(const Int& a, const Int& b, const Exact& exact, const Symbolic& symbolic) {
    const std::optional<int64_t> x = value(a);
    const std::optional<int64_t> y = value(b);
    if (!x || !y) return symbolic();
    int64_t result = 0;
    overflow |= exact(*x, *y, &result);
    return result;
  }
};

// The memory that the sizes and strides speak of must exist: a storage can have been resized away
// (as sharded training does between steps), and reading it would kill the process.
void check_storage(const char* name, const at::Tensor& tensor) {
  if (tensor.device().is_meta() || tensor.unsafeGetTensorImpl()->has_symbolic_sizes_strides() ||
      tensor.numel() == 0) {
    return;
  }
  const size_t needed = at::detail::computeStorageNbytes(
      tensor.sizes(), tensor.strides(), tensor.element_size(), size_t(tensor.storage_offset()));
  TORCH_CHECK_VALUE(tensor.storage().nbytes() >= needed, name, " must have its memory, ", needed,
                    " bytes, got a storage of ", tensor.storage().nbytes(), " bytes");
}

// Even a result that is never allocated must have a size that can be spoken of.
template <class Int>
void check_bytes(const char* name, const Shape<Int>& shape, at::ScalarType dtype) {
  Checked<Int> checked;
  Int bytes = int64_t(c10::elementSize(dtype));
  for (const Int& size : shape) bytes = checked.multiply(bytes, size);
  TORCH_CHECK_VALUE(!checked.overflow, name,
                    " must have a size in bytes that fits in 64 bits, got ", "shape ", tuple(shape),
                    " of ", name_of(dtype));
}

void check_tensor(const char* name, const at::Tensor& tensor) {
  const at::ScalarType dtype = tensor.scalar_type();
  TORCH_CHECK_TYPE(tensor.layout() == at::kStrided, name,
                   " must be a dense tensor of dtype float32, float64, float16 or bfloat16, got "
                   "layout ",
                   tensor.layout());
  TORCH_CHECK_TYPE(
      dtype == at::kFloat || dtype == at::kDouble || dtype == at::kHalf || dtype == at::kBFloat16,
      name,
      " must be a dense tensor of dtype float32, float64, float16 or bfloat16, "
      "got ",
      name_of(dtype));
  check_storage(name, tensor);
}

void check_like(const char* name, const at::Tensor& tensor, const char* first_name,
                const at::Tensor& first) {
  TORCH_CHECK_TYPE(tensor.layout() == at::kStrided, name, " must be a dense tensor, got layout ",
                   tensor.layout());
  TORCH_CHECK_TYPE(tensor.scalar_type() == first.scalar_type(), name, " must have the dtype of ",
                   first_name, ", ", name_of(first.scalar_type()), ", got ",
                   name_of(tensor.scalar_type()));
  TORCH_CHECK_VALUE(tensor.device() == first.device(), name, " must be on the device of ",
                    first_name, ", ", first.device(), ", got ", tensor.device());
  check_storage(name, tensor);
}

void check_rank(const char* name, const at::Tensor& tensor) {
  const int64_t rank = tensor.dim();
  TORCH_CHECK_VALUE(rank >= 3 && rank <= 5, name,
                    " must have 3, 4 or 5 dimensions (batch, channels, spatial axes), got shape ",
                    tuple(tensor.sym_sizes()));
}

void check_same_rank(const char* name, const at::Tensor& tensor, const char* meaning,
                     int64_t rank) {
  TORCH_CHECK_VALUE(tensor.dim() == rank, name, " must have ", rank, " dimensions (", meaning,
                    "), got shape ", tuple(tensor.sym_sizes()));
}

template <class List>
void check_length(const char* name, const List& values, size_t axes) {
  TORCH_CHECK_VALUE(values.size() == axes, name, " must have ", axes, " value",
                    axes == 1 ? "" : "s", ", one for each spatial axis, got ", tuple(values));
}

template <class List>
void check_least(const char* name, const List& values, int64_t least) {
  for (const auto& value : values) {
    TORCH_CHECK_VALUE(value >= least, name, " must be at least ", least, " on every axis, got ",
                      tuple(values));
  }
}

template <class Int>
void check_lengths(const Arguments<Int>& arguments, size_t axes) {
  check_length("stride", arguments.stride, axes);
  check_length("dilate", arguments.dilate, axes);
  check_length("pad", arguments.pad, axes);
  check_length("adj", arguments.adj, axes);
}

template <class Int>
void check_values(const Arguments<Int>& arguments) {
  check_least("stride", arguments.stride, 1);
  check_least("dilate", arguments.dilate, 1);
  check_least("pad", arguments.pad, 0);
  check_least("adj", arguments.adj, 0);
  for (size_t a = 0; a < arguments.adj.size(); ++a) {
    TORCH_CHECK_VALUE(arguments.adj[a] < arguments.stride[a],
                      "adj must be smaller than stride on every axis, got adj ",
                      tuple(arguments.adj), " with stride ", tuple(arguments.stride));
  }
  TORCH_CHECK_VALUE(arguments.workspace >= 0, "workspace must be at least 0 (MB), got ",
                    arguments.workspace);
  if (arguments.cudnn_tune) {
    const c10::string_view tune = *arguments.cudnn_tune;
    TORCH_CHECK_VALUE(tune == "off" || tune == "limited_workspace" || tune == "fastest",
                      "cudnn_tune must be one of None, 'off', 'limited_workspace', 'fastest', "
                      "got '",
                      tune, "'");
  }
}

template <class Int>
void check_groups(const Int& num_group, const char* name, const Int& channels) {
  TORCH_CHECK_VALUE(num_group >= 1, "num_group must be at least 1, got ", num_group);
  TORCH_CHECK_VALUE(channels % num_group == 0, "num_group must divide the channels of ", name, ", ",
                    channels, ", got ", num_group);
}

template <class Int>
void check_data_sizes(const Shape<Int>& data) {
  TORCH_CHECK_VALUE(data[1] >= 1, "data must have at least 1 channel, got shape ", tuple(data));
  for (size_t a = 2; a < data.size(); ++a) {
    TORCH_CHECK_VALUE(data[a] >= 1,
                      "data must have a spatial size of at least 1 on every axis, got shape ",
                      tuple(data));
  }
}

// The sizes behind the batch and the channels.
template <class Int>
c10::ArrayRef<Int> spatial(const Shape<Int>& shape) {
  return c10::ArrayRef<Int>(shape).slice(2);
}

template <class Int>
void check_weight_sizes(const Shape<Int>& weight) {
  TORCH_CHECK_VALUE(weight[0] >= 1 && weight[1] >= 1,
                    "weight must have at least 1 channel and 1 filter, got shape ", tuple(weight));
  const auto kernel = spatial(weight);
  check_least("kernel", kernel, 1);
}

// stride * (in - 1) + dilate * (kernel - 1) + 1: the output before it is cropped.
template <class Int>
Int unpadded(Checked<Int>& checked, const Int& in, const Int& kernel, int64_t stride,
             int64_t dilate) {
  return checked.add(
      checked.add(checked.multiply(stride, in - 1), checked.multiply(dilate, kernel - 1)), 1);
}

// Fills the spatial part of sizes.out.
template <class Int>
void derive_out(Sizes<Int>& sizes, const Arguments<Int>& arguments) {
  const auto in = spatial(sizes.data);
  const auto kernel = spatial(sizes.weight);
  Checked<Int> checked;
  Shape<Int> out;
  for (size_t a = 0; a < in.size(); ++a) {
    const Int total = unpadded(checked, in[a], kernel[a], arguments.stride[a], arguments.dilate[a]);
    const Int crop = checked.multiply(2, arguments.pad[a]);
    out.push_back(checked.add(checked.add(total, -crop), arguments.adj[a]));
  }
  TORCH_CHECK_VALUE(!checked.overflow, "output size must fit in 64 bits, got data of spatial size ",
                    tuple(in), " with kernel ", tuple(kernel), ", stride ", tuple(arguments.stride),
                    ", dilate ", tuple(arguments.dilate), ", pad ", tuple(arguments.pad), ", adj ",
                    tuple(arguments.adj));
  for (const Int& size : out) {
    TORCH_CHECK_VALUE(size >= 0,
                      "pad must leave an output size of at least 0 on every axis, got an output "
                      "size of ",
                      tuple(out), " from pad ", tuple(arguments.pad));
  }
  sizes.out.insert(sizes.out.end(), out.begin(), out.end());
}

// The number i with  step * i + rest == size  on every axis, at least `least`; or an error.
template <class Int, class List>
Shape<Int> solve_axes(const Sizes<Int>& sizes, const Arguments<Int>& arguments,
                      const List& other_extent, at::IntArrayRef step, const char* unknown) {
  Shape<Int> solved;
  Checked<Int> checked;
  bool solvable = true;
  for (size_t a = 0; a < arguments.stride.size(); ++a) {
    const Int uncropped = checked.add(
        checked.add(sizes.out[a + 2], checked.multiply(2, arguments.pad[a])), -arguments.adj[a]);
    const Int rest = checked.add(checked.add(uncropped, -other_extent[a]), -1);
    solvable = solvable && rest >= 0 && rest % Int(step[a]) == 0;
    solved.push_back(rest / Int(step[a]) + 1);
  }
  TORCH_CHECK_VALUE(solvable && !checked.overflow, "out_grad must have a spatial size that some ",
                    unknown, " produces, got shape ", tuple(sizes.out), " for stride ",
                    tuple(arguments.stride), ", dilate ", tuple(arguments.dilate), ", pad ",
                    tuple(arguments.pad), ", adj ", tuple(arguments.adj));
  return solved;
}

template <class Int>
void check_extents(bool overflow, const Sizes<Int>& sizes) {
  TORCH_CHECK_VALUE(!overflow, "output size must fit in 64 bits, got out_grad of shape ",
                    tuple(sizes.out));
}

}  // namespace

template <class Int>
Sizes<Int> check_forward(const at::Tensor& data, const at::Tensor& weight,
                         const std::optional<at::Tensor>& bias, const Arguments<Int>& arguments) {
  check_tensor("data", data);
  check_rank("data", data);
  const int64_t rank = data.dim();
  check_lengths(arguments, size_t(rank - 2));
  check_same_rank("weight", weight, "channels, filters of one group, kernel", rank);
  Sizes<Int> sizes{sizes_of<Int>(data), sizes_of<Int>(weight), {}};
  Shape<Int> expected = sizes.weight;
  expected[0] = sizes.data[1];
  TORCH_CHECK_VALUE(sizes.weight[0] == sizes.data[1], "weight must have shape ", tuple(expected),
                    ", got ", tuple(sizes.weight));
  TORCH_CHECK_VALUE(arguments.num_group >= 1, "num_group must be at least 1, got ",
                    arguments.num_group);
  Checked<Int> checked;
  const Int filters = checked.multiply(sizes.weight[1], arguments.num_group);
  if (bias) {
    const Shape<Int> bias_size = sizes_of<Int>(*bias);
    TORCH_CHECK_VALUE(bias_size.size() == 1 && bias_size[0] == filters, "bias must have shape ",
                      tuple(Shape<Int>{filters}), ", got ", tuple(bias_size));
  }
  check_groups(arguments.num_group, "data", sizes.data[1]);
  check_data_sizes(sizes.data);
  check_weight_sizes(sizes.weight);
  check_values(arguments);
  check_like("weight", weight, "data", data);
  if (bias) check_like("bias", *bias, "data", data);
  sizes.out = {sizes.data[0], filters};
  derive_out(sizes, arguments);
  check_extents(checked.overflow, sizes);
  check_bytes("out", sizes.out, data.scalar_type());
  return sizes;
}

template <class Int>
Sizes<Int> check_data_gradient(const at::Tensor& weight, const at::Tensor& out_grad,
                               const Arguments<Int>& arguments) {
  check_tensor("weight", weight);
  check_rank("weight", weight);
  const int64_t rank = weight.dim();
  check_lengths(arguments, size_t(rank - 2));
  check_same_rank("out_grad", out_grad, "batch, channels, spatial axes", rank);
  Sizes<Int> sizes{{}, sizes_of<Int>(weight), sizes_of<Int>(out_grad)};
  TORCH_CHECK_VALUE(arguments.num_group >= 1, "num_group must be at least 1, got ",
                    arguments.num_group);
  Checked<Int> checked;
  Shape<Int> expected = sizes.out;
  expected[1] = checked.multiply(sizes.weight[1], arguments.num_group);
  TORCH_CHECK_VALUE(!checked.overflow && sizes.out[1] == expected[1], "out_grad must have shape ",
                    tuple(expected), ", got ", tuple(sizes.out));
  check_groups(arguments.num_group, "weight", sizes.weight[0]);
  check_weight_sizes(sizes.weight);
  check_values(arguments);
  check_like("out_grad", out_grad, "weight", weight);
  Shape<Int> extent;
  for (size_t a = 0; a < size_t(rank - 2); ++a) {
    extent.push_back(checked.multiply(arguments.dilate[a], sizes.weight[a + 2] - 1));
  }
  check_extents(checked.overflow, sizes);
  sizes.data = {sizes.out[0], sizes.weight[0]};
  for (const Int& size : solve_axes(sizes, arguments, extent, arguments.stride, "data size")) {
    sizes.data.push_back(size);
  }
  check_bytes("data gradient", sizes.data, weight.scalar_type());
  return sizes;
}

template <class Int>
Sizes<Int> check_weight_gradient(const at::Tensor& data, const at::Tensor& out_grad,
                                 const Arguments<Int>& arguments) {
  check_tensor("data", data);
  check_rank("data", data);
  const int64_t rank = data.dim();
  check_lengths(arguments, size_t(rank - 2));
  check_same_rank("out_grad", out_grad, "batch, channels, spatial axes", rank);
  Sizes<Int> sizes{sizes_of<Int>(data), {}, sizes_of<Int>(out_grad)};
  Shape<Int> expected = sizes.out;
  expected[0] = sizes.data[0];
  TORCH_CHECK_VALUE(sizes.out[0] == sizes.data[0], "out_grad must have shape ", tuple(expected),
                    ", got ", tuple(sizes.out));
  check_groups(arguments.num_group, "data", sizes.data[1]);
  check_groups(arguments.num_group, "out_grad", sizes.out[1]);
  check_data_sizes(sizes.data);
  TORCH_CHECK_VALUE(sizes.out[1] >= 1, "out_grad must have at least 1 channel, got shape ",
                    tuple(sizes.out));
  check_values(arguments);
  check_like("out_grad", out_grad, "data", data);
  Checked<Int> checked;
  Shape<Int> extent;
  for (size_t a = 0; a < size_t(rank - 2); ++a) {
    extent.push_back(checked.multiply(arguments.stride[a], sizes.data[a + 2] - 1));
  }
  check_extents(checked.overflow, sizes);
  sizes.weight = {sizes.data[1], sizes.out[1] / arguments.num_group};
  for (const Int& size : solve_axes(sizes, arguments, extent, arguments.dilate, "kernel")) {
    sizes.weight.push_back(size);
  }
  check_bytes("weight gradient", sizes.weight, data.scalar_type());
  return sizes;
}

template <class Int>
void check_out(const at::Tensor& out, const Sizes<Int>& sizes, const at::Tensor& data,
               const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  check_like("out", out, "data", data);
  const Shape<Int> given = sizes_of<Int>(out);
  TORCH_CHECK_VALUE(given == sizes.out, "out must have shape ", tuple(sizes.out), ", got ",
                    tuple(given));
  // Traced tensors may have no memory layout yet; the call that runs is checked.
  const auto traced = [](const at::Tensor& tensor) {
    return tensor.unsafeGetTensorImpl()->has_symbolic_sizes_strides();
  };
  if (traced(out)) return;
  TORCH_CHECK_VALUE(at::has_internal_overlap(out) != at::MemOverlap::Yes,
                    "out must not have elements that share memory, got strides ",
                    tuple(out.sym_strides()));
  const auto check_apart = [&](const char* name, const at::Tensor& input) {
    if (traced(input)) return;
    const at::MemOverlapStatus status = at::get_overlap_status(out, input);
    TORCH_CHECK_VALUE(
        status != at::MemOverlapStatus::Full && status != at::MemOverlapStatus::Partial,
        "out must not share memory with ", name);
  };
  check_apart("data", data);
  check_apart("weight", weight);
  if (bias) check_apart("bias", *bias);
}

void check_memory(const char* name, at::IntArrayRef shape, at::ScalarType dtype,
                  const Memory& memory) {
  int64_t bytes = int64_t(c10::elementSize(dtype));  // cannot overflow: check_bytes
  for (const int64_t size : shape) bytes *= size;
  TORCH_CHECK_VALUE(bytes <= memory.bytes, name, " must fit in the memory of ", memory.owner, ", ",
                    memory.bytes >> 20, " MiB, got shape ", tuple(shape), " of ", name_of(dtype));
}

namespace {

at::Tensor empty(const Shape<int64_t>& shape, const at::TensorOptions& options,
                 at::MemoryFormat format) {
  // Where the caller is: below the dispatcher, for the device that pays for the detour.
  if (options.device().is_cpu()) return at::cpu::empty(shape, options, format);
  return at::empty(shape, options, format);
}
at::Tensor empty(const Shape<c10::SymInt>& shape, const at::TensorOptions& options,
                 at::MemoryFormat format) {
  return at::empty_symint(shape, options, format);
}

}  // namespace

template <class Int>
at::Tensor empty_result(const Shape<Int>& shape, const at::Tensor& first,
                        const at::Tensor& second) {
  const bool promote = shape.size() == 3;
  const auto format_of = [promote](const at::Tensor& tensor) {
    return (promote ? tensor.unsqueeze(2) : tensor).suggest_memory_format();
  };
  at::MemoryFormat format = format_of(first);
  if (format == at::MemoryFormat::Contiguous) format = format_of(second);
  const at::TensorOptions options = at::dtype(first.scalar_type()).device(first.device());
  if (!promote) return empty(shape, options, format);
  Shape<Int> promoted = shape;
  promoted.insert(promoted.begin() + 2, Int(1));
  return empty(promoted, options, format).squeeze(2);
}

Geometry geometry_of(const Sizes<int64_t>& sizes, const Arguments<int64_t>& arguments) {
  Geometry geometry;
  geometry.batch = sizes.data[0];
  geometry.groups = arguments.num_group;
  geometry.in_channels = sizes.data[1] / arguments.num_group;
  geometry.out_channels = sizes.weight[1];
  const size_t axes = arguments.stride.size();
  for (size_t a = 0; a < axes; ++a) {
    Axis& axis = geometry.axis[size_t(kAxes) - axes + a];
    axis.in = sizes.data[a + 2];
    axis.out = sizes.out[a + 2];
    axis.kernel = sizes.weight[a + 2];
    axis.stride = arguments.stride[a];
    axis.dilate = arguments.dilate[a];
    axis.pad = arguments.pad[a];
  }
  return geometry;
}

template Sizes<int64_t> check_forward(const at::Tensor&, const at::Tensor&,
                                      const std::optional<at::Tensor>&, const Arguments<int64_t>&);
template Sizes<c10::SymInt> check_forward(const at::Tensor&, const at::Tensor&,
                                          const std::optional<at::Tensor>&,
                                          const Arguments<c10::SymInt>&);
template Sizes<int64_t> check_data_gradient(const at::Tensor&, const at::Tensor&,
                                            const Arguments<int64_t>&);
template Sizes<c10::SymInt> check_data_gradient(const at::Tensor&, const at::Tensor&,
                                                const Arguments<c10::SymInt>&);
template Sizes<int64_t> check_weight_gradient(const at::Tensor&, const at::Tensor&,
                                              const Arguments<int64_t>&);
template Sizes<c10::SymInt> check_weight_gradient(const at::Tensor&, const at::Tensor&,
                                                  const Arguments<c10::SymInt>&);
template at::Tensor empty_result(const Shape<int64_t>&, const at::Tensor&, const at::Tensor&);
template at::Tensor empty_result(const Shape<c10::SymInt>&, const at::Tensor&, const at::Tensor&);
template void check_out(const at::Tensor&, const Sizes<int64_t>&, const at::Tensor&,
                        const at::Tensor&, const std::optional<at::Tensor>&);
template void check_out(const at::Tensor&, const Sizes<c10::SymInt>&, const at::Tensor&,
                        const at::Tensor&, const std::optional<at::Tensor>&);

}  // namespace mxd::ops
