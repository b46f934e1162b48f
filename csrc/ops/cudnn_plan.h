// A pass as cuDNN computes it: its graph, the execution plans that cuDNN offers for the graph, and
// the run of one.
//
// With x = out, y = data and the weight as the filter, a convolution meets the same triples as the
// trilinear form. So the forward pass of a transposed convolution is cuDNN's gradient of a
// convolution's data, the data gradient its forward pass, the weight gradient its own.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/problem.h"
#include "ops/cudnn_api.h"

namespace mxd::ops {

// What cuDNN is asked for. All tensors are packed, in one order: channels first or last.
struct CudnnProblem {
  Pass pass = Pass::kForward;
  DType dtype = DType::kFloat32;
  Geometry geometry;
  bool channels_last = false;
  bool bias = false;       // added inside the plan, before the result is rounded
  int64_t alignment = 16;  // bytes that divide every address
};

// What a plan may do to the numbers.
struct CudnnRules {
  bool allow_tf32 = false;
  bool deterministic = false;
};

// The device that plans are made for: torch's handle, or a description of a device that need not
// be there (its JSON), for which plans can be made but not run.
struct CudnnDevice {
  cudnnHandle_t handle = nullptr;
  std::string json;
};

// The addresses of a run. `bias` is read only if the problem has one.
struct CudnnOperands {
  void* data = nullptr;
  void* weight = nullptr;
  void* out = nullptr;
  void* bias = nullptr;
};

class CudnnPlan {
 public:
  CudnnPlan(std::string name, Descriptor plan);

  const std::string& name() const { return name_; }  // the engine and its settings
  int64_t workspace_bytes() const { return workspace_bytes_; }

  // On the handle's stream. Plans are not promised to be safe to use by two threads at once, so
  // launches take turns.
  void run(cudnnHandle_t handle, const CudnnOperands& operands, void* workspace) const;

 private:
  std::string name_;
  Descriptor plan_;
  int64_t workspace_bytes_;
  mutable std::mutex mutex_;
};

// What was found on the way to a plan.
struct CudnnSurvey {
  int offered = 0;      // engine configurations that cuDNN's heuristics named
  int ruled_out = 0;    // of these: would break the rules, or decisions that always hold
  int unsupported = 0;  // of these: cannot do the problem after all
  std::string error;    // why nothing was offered, in cuDNN's words; mostly empty
};

// Where candidates are looked for: kBest is the order of cuDNN's heuristics, then its fallbacks;
// kAll adds its other heuristics.
enum class CudnnSearch { kBest, kAll };

// Hands plans that respect the rules to `take`, the most promising first, until it returns false.
CudnnSurvey survey_plans(const CudnnProblem& problem, const CudnnRules& rules,
                         const CudnnDevice& device, CudnnSearch search,
                         const std::function<bool(std::shared_ptr<CudnnPlan>)>& take);

}  // namespace mxd::ops
