#include "ops/cudnn_plan.h"

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <sstream>

namespace mxd::ops {
namespace {

enum Uid : int64_t { kDataUid = 1, kWeightUid, kOutUid, kBiasUid, kSumUid };

cudnnDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
      return CUDNN_DATA_DOUBLE;
    case DType::kFloat16:
      return CUDNN_DATA_HALF;
    case DType::kBFloat16:
      return CUDNN_DATA_BFLOAT16;
    default:
      return CUDNN_DATA_FLOAT;
  }
}

// In which sums are formed.
cudnnDataType_t sum_type_of(DType dtype) {
  return dtype == DType::kFloat64 ? CUDNN_DATA_DOUBLE : CUDNN_DATA_FLOAT;
}

// cuDNN knows two and three spatial axes. A unit axis is left out where that leaves two.
int first_axis(const Geometry& geometry) {
  const Axis& a = geometry.axis[0];
  const bool unit = a.in == 1 && a.out == 1 && a.kernel == 1 && a.pad == 0;
  return unit ? 1 : 0;
}

struct TensorShape {
  std::vector<int64_t> sizes, strides;
};

TensorShape packed(int64_t first, int64_t channels, const Geometry& geometry, int64_t Axis::*size,
                   bool channels_last) {
  TensorShape shape{{first, channels}, {}};
  for (int a = first_axis(geometry); a < kAxes; ++a) {
    shape.sizes.push_back(geometry.axis[a].*size);
  }
  const size_t dims = shape.sizes.size();
  shape.strides.assign(dims, 0);
  int64_t step = 1;
  if (channels_last) {
    shape.strides[1] = 1;
    step = channels;
  }
  for (size_t d = dims; d-- > 0;) {
    if (d == 1 && channels_last) continue;
    shape.strides[d] = step;
    step *= shape.sizes[d];
  }
  return shape;
}

Descriptor tensor(Uid uid, const TensorShape& shape, cudnnDataType_t type, int64_t alignment,
                  bool is_virtual = false) {
  Descriptor tensor(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  tensor.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, int64_t(uid));
  tensor.set(CUDNN_ATTR_TENSOR_DATA_TYPE, type);
  tensor.set(CUDNN_ATTR_TENSOR_DIMENSIONS, shape.sizes);
  tensor.set(CUDNN_ATTR_TENSOR_STRIDES, shape.strides);
  tensor.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, alignment);
  if (is_virtual) tensor.set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, true);
  tensor.finalize();
  return tensor;
}

Descriptor convolution_of(const CudnnProblem& problem) {
  std::vector<int64_t> strides, dilations, pads;
  for (int a = first_axis(problem.geometry); a < kAxes; ++a) {
    const Axis& axis = problem.geometry.axis[a];
    strides.push_back(axis.stride);
    dilations.push_back(axis.dilate);
    pads.push_back(axis.pad);
  }
  Descriptor convolution(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  convolution.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, sum_type_of(problem.dtype));
  convolution.set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_CROSS_CORRELATION);
  convolution.set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, int64_t(strides.size()));
  convolution.set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, strides);
  convolution.set(CUDNN_ATTR_CONVOLUTION_DILATIONS, dilations);
  convolution.set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, pads);
  convolution.set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, pads);
  convolution.finalize();
  return convolution;
}

// The attributes of the three operations differ in name only.
struct OperationNames {
  cudnnBackendDescriptorType_t type;
  cudnnBackendAttributeName_t convolution, data, weight, out, alpha, beta;
};

OperationNames names_of(Pass pass) {
  switch (pass) {
    case Pass::kForward:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA};
    case Pass::kDataGradient:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA};
    default:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};
  }
}

// The operation graph: one convolution, and for a bias one addition. Descriptors refer to each
// other, so all of them stay here.
class Graph {
 public:
  Graph(const CudnnProblem& problem, const CudnnDevice& device)
      : graph_(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR) {
    const Geometry& g = problem.geometry;
    const cudnnDataType_t type = type_of(problem.dtype);
    const int64_t in_channels = g.groups * g.in_channels;
    const int64_t out_channels = g.groups * g.out_channels;
    const auto shape = [&](int64_t first, int64_t channels, int64_t Axis::*size) {
      return packed(first, channels, g, size, problem.channels_last);
    };
    const TensorShape out_shape = shape(g.batch, out_channels, &Axis::out);
    Descriptor& data =
        keep(tensor(kDataUid, shape(g.batch, in_channels, &Axis::in), type, problem.alignment));
    Descriptor& weight = keep(tensor(kWeightUid, shape(in_channels, g.out_channels, &Axis::kernel),
                                     type, problem.alignment));
    Descriptor& out = keep(tensor(kOutUid, out_shape, type, problem.alignment));
    if (!problem.bias) {
      convolve(problem, data, weight, out);
    } else {
      TensorShape bias_shape = out_shape;
      for (size_t d = 0; d < bias_shape.sizes.size(); ++d) {
        bias_shape.sizes[d] = d == 1 ? out_channels : 1;
        bias_shape.strides[d] = d == 1 ? 1 : out_channels;
      }
      Descriptor& bias = keep(tensor(kBiasUid, bias_shape, type, size_of(problem.dtype)));
      Descriptor& sum = keep(tensor(kSumUid, out_shape, sum_type_of(problem.dtype), 16, true));
      convolve(problem, data, weight, sum);
      add(problem, sum, bias, out);
    }
    std::vector<cudnnBackendDescriptor_t> raw;
    for (const Descriptor& operation : operations_) raw.push_back(operation.get());
    graph_.set_array(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                     int64_t(raw.size()), raw.data());
    if (device.handle) graph_.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, device.handle);
    graph_.finalize();
  }

  const Descriptor& get() const { return graph_; }

 private:
  Descriptor& keep(Descriptor&& descriptor) {
    parts_.push_back(std::make_unique<Descriptor>(std::move(descriptor)));
    return *parts_.back();
  }

  void convolve(const CudnnProblem& problem, const Descriptor& data, const Descriptor& weight,
                const Descriptor& out) {
    const OperationNames names = names_of(problem.pass);
    const Descriptor& convolution = keep(convolution_of(problem));
    Descriptor operation(names.type);
    operation.set(names.convolution, convolution);
    operation.set(names.data, data);
    operation.set(names.weight, weight);
    operation.set(names.out, out);
    if (problem.dtype == DType::kFloat64) {
      operation.set(names.alpha, 1.0);
      operation.set(names.beta, 0.0);
    } else {
      operation.set(names.alpha, 1.0f);
      operation.set(names.beta, 0.0f);
    }
    operation.finalize();
    operations_.push_back(std::move(operation));
  }

  void add(const CudnnProblem& problem, const Descriptor& sum, const Descriptor& bias,
           const Descriptor& out) {
    Descriptor pointwise(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    pointwise.set(CUDNN_ATTR_POINTWISE_MODE, CUDNN_POINTWISE_ADD);
    pointwise.set(CUDNN_ATTR_POINTWISE_MATH_PREC, sum_type_of(problem.dtype));
    pointwise.finalize();
    Descriptor operation(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, keep(std::move(pointwise)));
    operation.set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, sum);
    operation.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, bias);
    operation.set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, out);
    operation.finalize();
    operations_.push_back(std::move(operation));
  }

  std::vector<std::unique_ptr<Descriptor>> parts_;
  std::vector<Descriptor> operations_;
  Descriptor graph_;
};

// The notes of an engine that rule it out. Engines that transform tiles (Winograd, FFT) let one
// infinity reach outputs that the direct sum leaves finite, and are less exact than the documented
// bound; those that round inputs or partial sums would break "accumulate in float32, round once".
bool is_ruled_out(const Descriptor& engine, const CudnnProblem& problem, const CudnnRules& rules) {
  std::array<cudnnBackendNumericalNote_t, CUDNN_NUMERICAL_NOTE_TYPE_COUNT> notes{};
  const int64_t count = engine.get_array(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                         CUDNN_TYPE_NUMERICAL_NOTE, notes.size(), notes.data());
  return std::any_of(notes.begin(), notes.begin() + count, [&](cudnnBackendNumericalNote_t note) {
    switch (note) {
      case CUDNN_NUMERICAL_NOTE_TENSOR_CORE:
        return problem.dtype == DType::kFloat32 && !rules.allow_tf32;
      case CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC:
        return rules.deterministic;
      case CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS:
      case CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION:
      case CUDNN_NUMERICAL_NOTE_FFT:
      case CUDNN_NUMERICAL_NOTE_WINOGRAD:
      case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4:
      case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6:
      case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13:
        return true;
      default:
        return false;
    }
  });
}

// "engine 40, 2=1 13=0": enough to tell configurations apart and to name them to NVIDIA.
std::string name_of(const Descriptor& config, const Descriptor& engine) {
  std::ostringstream text;
  text << "engine " << engine.get_int64(CUDNN_ATTR_ENGINE_GLOBAL_INDEX);
  const char* separator = ", ";
  for (const Descriptor& choice : config.get_descriptors(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES,
                                                         CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR)) {
    cudnnBackendKnobType_t type{};
    choice.get_array(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &type);
    text << separator << int(type) << "=" << choice.get_int64(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE);
    separator = " ";
  }
  return text.str();
}

std::vector<Descriptor> configurations(const Graph& graph, cudnnBackendHeurMode_t mode,
                                       const Descriptor* device) {
  Descriptor heuristic(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  heuristic.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph.get());
  heuristic.set(CUDNN_ATTR_ENGINEHEUR_MODE, mode);
  if (device) heuristic.set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, *device);
  heuristic.finalize();
  return heuristic.get_descriptors(CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                   CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
}

Descriptor engine_of(const Descriptor& config) {
  Descriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  cudnnBackendDescriptor_t raw = engine.get();
  config.get_array(CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &raw);
  return engine;
}

// Null where the engine cannot do the problem after all.
std::shared_ptr<CudnnPlan> plan_of(const Descriptor& config, std::string name,
                                   const CudnnDevice& device, const Descriptor* description) {
  try {
    Descriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    plan.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    if (device.handle) plan.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, device.handle);
    if (description) plan.set(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, *description);
    plan.finalize();
    return std::make_shared<CudnnPlan>(std::move(name), std::move(plan));
  } catch (const CudnnError&) {
    return nullptr;
  }
}

std::optional<Descriptor> description_of(const CudnnDevice& device) {
  if (device.handle) return std::nullopt;
  Descriptor description(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  description.set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, device.json);
  description.finalize();
  return description;
}

}  // namespace

CudnnPlan::CudnnPlan(std::string name, Descriptor plan)
    : name_(std::move(name)),
      plan_(std::move(plan)),
      workspace_bytes_(plan_.get_int64(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE)) {}

void CudnnPlan::run(cudnnHandle_t handle, const CudnnOperands& operands, void* workspace) const {
  std::vector<int64_t> uids = {kDataUid, kWeightUid, kOutUid};
  std::vector<void*> addresses = {operands.data, operands.weight, operands.out};
  if (operands.bias) {
    uids.push_back(kBiasUid);
    addresses.push_back(operands.bias);
  }
  Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, uids);
  pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, addresses);
  pack.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, workspace);
  pack.finalize();
  std::lock_guard<std::mutex> lock(mutex_);
  const cudnnStatus_t status = cudnn_api()->execute(handle, plan_.get(), pack.get());
  if (status != CUDNN_STATUS_SUCCESS) throw CudnnError("run " + name_, status);
}

CudnnSurvey survey_plans(const CudnnProblem& problem, const CudnnRules& rules,
                         const CudnnDevice& device, CudnnSearch search,
                         const std::function<bool(std::shared_ptr<CudnnPlan>)>& take) {
  CudnnSurvey survey;
  std::set<std::string> seen;
  std::vector<cudnnBackendHeurMode_t> modes = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
  if (search == CudnnSearch::kAll) modes.insert(modes.begin() + 1, CUDNN_HEUR_MODE_B);
  try {
    const std::optional<Descriptor> description = description_of(device);
    const Descriptor* const described = description ? &*description : nullptr;
    const Graph graph(problem, device);
    for (const cudnnBackendHeurMode_t mode : modes) {
      std::vector<Descriptor> found;
      try {
        found = configurations(graph, mode, described);
      } catch (const CudnnError& error) {
        survey.error = error.what();  // another mode may know more
      }
      for (const Descriptor& config : found) {
        const Descriptor engine = engine_of(config);
        const std::string name = name_of(config, engine);
        if (!seen.insert(name).second) continue;
        ++survey.offered;
        if (is_ruled_out(engine, problem, rules)) {
          ++survey.ruled_out;
          continue;
        }
        std::shared_ptr<CudnnPlan> plan = plan_of(config, name, device, described);
        if (!plan) {
          ++survey.unsupported;
        } else if (!take(std::move(plan))) {
          return survey;
        }
      }
    }
  } catch (const CudnnError& error) {
    survey.error = error.what();
  }
  return survey;
}

}  // namespace mxd::ops
