// A pass by cuDNN: which of its plans computes it, or our own kernels where they do it better.
//
// A decision is made once for a problem and kept. Without tuning it is cuDNN's own first choice
// that keeps the rules and the workspace; with tuning, plans and own kernels are timed on the
// call's operands. No decision is made by a clock while a CUDA graph is being captured.
#include <ATen/Context.h>
#include <ATen/cudnn/Handle.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "cpu/algorithm.h"
#include "ops/cuda_stopwatch.h"
#include "ops/cudnn_plan.h"
#include "ops/library_pass.h"
#include "ops/lru_cache.h"
#include "ops/own_kernels.h"
#include "ops/packed_layout.h"
#include "ops/packed_operands.h"

namespace mxd::ops {
namespace {

constexpr size_t kMostDecisions = 1024;
constexpr int64_t kMostElements = (int64_t(1) << 31) - 1;  // that cuDNN's kernels can index
constexpr char kOwnName[] = "own kernels";
constexpr char kFilteredName[] = "own kernels with minimal filtering";

enum class Tune : int64_t { kHeuristic, kTimed };

// Everything that a decision depends on.
struct Request {
  CudnnProblem problem;  // problem.bias: whether the call has one
  CudnnRules rules;
  Tune tune;
  int64_t limit_bytes;
  bool filtering;  // minimal filtering takes part in the race
  int device;

  std::vector<int64_t> key() const {
    const Geometry& g = problem.geometry;
    std::vector<int64_t> key = {int64_t(problem.pass),
                                int64_t(problem.dtype),
                                problem.channels_last,
                                problem.bias,
                                problem.alignment,
                                rules.allow_tf32,
                                rules.deterministic,
                                matmul_allows_tf32(),
                                int64_t(tune),
                                limit_bytes,
                                filtering,
                                device,
                                g.batch,
                                g.groups,
                                g.in_channels,
                                g.out_channels};
    for (const Axis& a : g.axis) {
      key.insert(key.end(), {a.in, a.out, a.kernel, a.stride, a.dilate, a.pad});
    }
    return key;
  }
};

struct Decision {
  std::shared_ptr<CudnnPlan> plan;  // null: our own kernels
  bool adds_bias = false;           // the plan does
  Choice choice;
};

// Never destroyed: at the end of the process cuDNN may be gone before it.
LruCache<Decision>& decisions() {
  static auto* const cache = new LruCache<Decision>(kMostDecisions);
  return *cache;
}

// A captured graph runs the kernels of a plan as long as it lives, which nobody knows here.
void keep_forever(const std::shared_ptr<CudnnPlan>& plan) {
  static std::mutex mutex;
  static auto* const kept = new std::vector<std::shared_ptr<CudnnPlan>>;
  std::lock_guard<std::mutex> lock(mutex);
  if (std::find(kept->begin(), kept->end(), plan) == kept->end()) kept->push_back(plan);
}

CudnnDevice this_device() { return {at::native::getCudnnHandle(), {}}; }

CudnnRules rules_of_torch() {
  const at::Context& context = at::globalContext();
  return {context.float32Precision(at::Float32Backend::CUDA, at::Float32Op::CONV) ==
              at::Float32Precision::TF32,
          context.deterministicCuDNN() || context.deterministicAlgorithms()};
}

Request request_of(Pass pass, const Problem& problem, bool channels_last,
                   const Arguments<int64_t>& arguments, bool bias, int device) {
  Request request;
  request.problem.pass = pass;
  request.problem.dtype = problem.dtype;
  request.problem.geometry = problem.geometry;
  request.problem.channels_last = channels_last;
  request.problem.bias = bias;
  request.rules = rules_of_torch();
  const bool timed =
      arguments.cudnn_tune ? *arguments.cudnn_tune != "off" : at::globalContext().benchmarkCuDNN();
  request.tune = timed ? Tune::kTimed : Tune::kHeuristic;
  request.limit_bytes =
      arguments.cudnn_tune == "fastest" ? kUnboundedBytes : workspace_bytes(arguments.workspace);
  request.filtering = timed && cpu::minimal_filtering();
  request.device = device;
  return request;
}

// Why cuDNN is not asked at all; null if it is.
const char* obstacle(const Layouts& layouts) {
  if (!cudnn_api()) return "torch has loaded no cuDNN of the version this was built with";
  if (!at::globalContext().userEnabledCuDNN()) return "torch.backends.cudnn.enabled is False";
  for (const Layout* layout : {&layouts.data, &layouts.weight, &layouts.out}) {
    if (layout->elements() == 0) return "cuDNN takes no tensor without elements";
    if (layout->elements() > kMostElements) return "cuDNN cannot index more than 2^31 elements";
  }
  return nullptr;
}

Decision own_decision(const std::string& why) {
  Decision decision;
  decision.choice.engine = "cuda";
  decision.choice.reason = why;
  return decision;
}

std::string megabytes(int64_t bytes) {
  if (bytes >= kUnboundedBytes) return "unbounded";
  std::ostringstream text;
  text << double(bytes) / double(1 << 20) << " MB";
  return text.str();
}

// 16-bit results are rounded once, so only a plan that adds the bias itself will do for them.
bool must_add_bias(const CudnnProblem& problem) {
  return problem.bias && size_of(problem.dtype) == 2;
}

CudnnProblem without_bias(CudnnProblem problem) {
  problem.bias = false;
  return problem;
}

std::string why_none(const CudnnSurvey& survey, int too_large, const Request& request) {
  std::ostringstream text;
  text << "cuDNN has no plan for this problem";
  if (must_add_bias(request.problem)) text << " that adds the bias before it rounds";
  if (survey.offered) {
    text << ": of " << survey.offered << " offered, " << survey.unsupported << " cannot do it, "
         << survey.ruled_out << " break the rules of precision or determinism, " << too_large
         << " want more than the workspace, " << megabytes(request.limit_bytes);
  }
  if (!survey.error.empty()) text << " (" << survey.error << ")";
  return text.str();
}

Decision by_heuristic(const Request& request) {
  const CudnnProblem problem =
      must_add_bias(request.problem) ? request.problem : without_bias(request.problem);
  Decision decision;
  int too_large = 0;
  const CudnnSurvey survey = survey_plans(problem, request.rules, this_device(), CudnnSearch::kBest,
                                          [&](std::shared_ptr<CudnnPlan> plan) {
                                            if (plan->workspace_bytes() > request.limit_bytes) {
                                              ++too_large;
                                              return true;
                                            }
                                            decision.plan = std::move(plan);
                                            return false;
                                          });
  if (!decision.plan) return own_decision(why_none(survey, too_large, request));
  decision.adds_bias = problem.bias;
  decision.choice.engine = "cudnn";
  decision.choice.reason = "the first plan of cuDNN's heuristics that keeps the rules and the " +
                           std::string("workspace is ") + decision.plan->name();
  decision.choice.workspace_bytes = decision.plan->workspace_bytes();
  return decision;
}

void run_plan(const CudnnPlan& plan, bool adds_bias, const PassCall& call, PackedOperands& packed) {
  CudnnOperands operands = packed.operands();
  if (!adds_bias) operands.bias = nullptr;
  c10::DataPtr workspace;
  if (plan.workspace_bytes() > 0) {
    workspace = c10::cuda::CUDACachingAllocator::get()->allocate(size_t(plan.workspace_bytes()));
  }
  plan.run(at::native::getCudnnHandle(), operands, workspace.get());
  if (call.bias && !adds_bias) {
    std::vector<int64_t> shape(size_t(call.out.dim()), 1);
    shape[1] = call.bias->size(0);
    packed.result().add_(call.bias->view(shape));
  }
}

// All that a call does for a plan, each time: a clock has to see the copies, which the own kernels
// do without.
void run_with_copies(const CudnnPlan& plan, bool adds_bias, const PassCall& call,
                     PackedOperands& packed) {
  packed.operands();
  packed.copy_in();
  run_plan(plan, adds_bias, call, packed);
  packed.hand_back();
}

Decision by_time(const Request& request, const PassCall& call, PackedOperands& packed) {
  std::vector<Timing> timings;
  Decision best;
  double best_time = INFINITY;
  const auto enter = [&](const std::string& name, int64_t bytes, const auto& run) {
    try {
      const double time = Stopwatch().milliseconds(run, best_time);
      timings.push_back({name, time, bytes});
      if (time >= best_time) return false;
      best_time = time;
      return true;
    } catch (const CudnnError&) {             // it said that it could
    } catch (const c10::OutOfMemoryError&) {  // of the unbounded ones
    }
    return false;
  };

  // Without copies, so with all of the workspace.
  for (const bool filtered : {false, true}) {
    const OwnKernels own(call.pass, call.problem, request.device,
                         request.limit_bytes + packed.bytes(), filtered);
    const cuda::Plan plan = own.plan();
    if (filtered && !(request.filtering && plan.unfiltered.empty())) continue;
    const char* name = filtered ? kFilteredName : kOwnName;
    if (enter(name, plan.scratch_bytes, [&] { own.run(); })) {
      best = own_decision("");
      best.choice.workspace_bytes = plan.scratch_bytes;
      best.choice.filtered = filtered;
    }
  }
  const size_t own_candidates = timings.size();
  int too_large = 0;
  CudnnSurvey survey;
  for (const bool adds_bias : {false, true}) {
    if (adds_bias ? !request.problem.bias : must_add_bias(request.problem)) continue;
    const CudnnProblem problem = adds_bias ? request.problem : without_bias(request.problem);
    const auto take = [&](std::shared_ptr<CudnnPlan> plan) {
      const std::string name = plan->name() + (adds_bias ? " with bias" : "");
      if (plan->workspace_bytes() > request.limit_bytes) {
        ++too_large;
      } else if (enter(name, plan->workspace_bytes(),
                       [&] { run_with_copies(*plan, adds_bias, call, packed); })) {
        best = Decision{plan, adds_bias, {}};
        best.choice.engine = "cudnn";
        best.choice.workspace_bytes = plan->workspace_bytes();
      }
      return true;
    };
    survey = survey_plans(problem, request.rules, this_device(), CudnnSearch::kAll, take);
  }
  std::ostringstream reason;
  if (timings.size() > own_candidates) {
    reason << (best.plan              ? best.plan->name()
               : best.choice.filtered ? kFilteredName
                                      : kOwnName)
           << " was the fastest of " << timings.size();
  } else {
    reason << why_none(survey, too_large, request);
  }
  best.choice.reason = reason.str();
  best.choice.timings = std::move(timings);
  return best;
}

bool is_capturing() {
  return c10::cuda::currentStreamCaptureStatusMayInitCtx() != c10::cuda::CaptureStatus::None;
}

// `packed` null: nothing may be timed, and a decision that only a clock could make is null. The
// request becomes one without a clock where that is what was decided.
std::shared_ptr<const Decision> decide(Request& request, const PassCall* call,
                                       PackedOperands* packed) {
  std::shared_ptr<const Decision> known = decisions().find(request.key());
  if (known) return known;
  if (request.tune == Tune::kTimed) {
    if (!packed) return nullptr;
    if (is_capturing()) {
      request.tune = Tune::kHeuristic;
      if ((known = decisions().find(request.key()))) return known;
    }
  }
  static std::mutex mutex;  // one at a time: clocks would measure each other
  std::lock_guard<std::mutex> lock(mutex);
  if ((known = decisions().find(request.key()))) return known;
  known = std::make_shared<const Decision>(
      request.tune == Tune::kTimed ? by_time(request, *call, *packed) : by_heuristic(request));
  decisions().put(request.key(), known);
  return known;
}

}  // namespace

bool run_by_library(const PassCall& call, int device) {
  const Layouts layouts(call.problem);
  if (obstacle(layouts)) return false;
  const bool channels_last = layouts.channels_last(call.pass);
  Request request = request_of(call.pass, call.problem, channels_last, call.arguments,
                               call.bias.has_value(), device);
  PackedOperands packed(call, layouts, channels_last);
  request.limit_bytes -= packed.bytes();
  if (request.limit_bytes < 0) return false;  // the own kernels need no copies
  request.problem.alignment = packed.alignment();
  // Making a handle, loading a kernel, and waiting for an event are forbidden in every thread while
  // one captures, unless the thread says that it means no harm.
  const c10::cuda::CUDAStreamCaptureModeGuard harmless(cudaStreamCaptureModeRelaxed);
  const std::shared_ptr<const Decision> decision = decide(request, &call, &packed);
  if (!decision->plan) {
    if (!decision->choice.filtered) return false;
    OwnKernels(call.pass, call.problem, device, request.limit_bytes + packed.bytes(), true).run();
    return true;
  }
  if (is_capturing()) keep_forever(decision->plan);
  try {
    run_plan(*decision->plan, decision->adds_bias, call, packed);
  } catch (const CudnnError& error) {
    const Decision own = own_decision(error.what());
    decisions().put(request.key(), std::make_shared<const Decision>(own));
    return false;
  }
  packed.hand_back();
  return true;
}

Choice library_choice(Pass pass, const Problem& problem, bool channels_last,
                      const Arguments<int64_t>& arguments, bool bias, int device) {
  if (const char* why = obstacle(Layouts(problem))) return own_decision(why).choice;
  Request request =
      request_of(pass, problem, channels_last, arguments, bias && pass == Pass::kForward, device);
  const c10::cuda::CUDAStreamCaptureModeGuard harmless(cudaStreamCaptureModeRelaxed);
  const std::shared_ptr<const Decision> decision = decide(request, nullptr, nullptr);
  if (decision) return decision->choice;
  Choice choice;
  choice.engine = "undecided";
  choice.reason = "the first call of this problem will time cuDNN's plans and the own kernels";
  return choice;
}

int64_t library_decisions() { return int64_t(decisions().size()); }
void forget_library_decisions() { decisions().clear(); }

std::string library_version() {
  return std::to_string(CUDNN_MAJOR) + "." + std::to_string(CUDNN_MINOR) + "." +
         std::to_string(CUDNN_PATCHLEVEL);
}

}  // namespace mxd::ops
