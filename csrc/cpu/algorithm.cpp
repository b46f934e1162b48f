#include "cpu/algorithm.h"

#include <algorithm>
#include <atomic>

#include "core/tap_plan.h"
#include "cpu/depthwise.h"
#include "cpu/engine.h"

namespace mxd::cpu {
namespace {

std::atomic<int64_t> g_runs[kAlgorithms];  // only ever counts up; read by tests

// Beyond so many candidates a call that really has the memory for its tensors takes far longer than
// this question; `explain` asks it of any sizes and must not hang.
constexpr int64_t kMostCandidates = int64_t(1) << 20;

bool reaches_any(const Geometry& geometry, Pass pass) {
  for (const Axis& axis : geometry.axis) {
    if (phase_candidates(axis) > kMostCandidates) continue;
    const bool empty = pass == Pass::kDataGradient ? data_gradient_taps(axis).empty()
                                                   : forward_phases(axis).empty();
    if (empty) return false;
  }
  return true;
}

// Lanes for the forward pass and the data gradient: what lies contiguous in the result, unless
// there is too little of it to fill a vector.
Choice choose_tap_sum(int64_t pixels, int64_t channels, bool channels_contiguous, int64_t vector,
                      Lanes channel_lanes) {
  if (channels_contiguous && channels >= vector) {
    return {Algorithm::kTapSum, channel_lanes,
            "implicit GEMM per phase; the result's channels are contiguous and fill a vector"};
  }
  if (pixels < vector && channels > pixels) {
    return {Algorithm::kTapSum, channel_lanes,
            "implicit GEMM per phase; a phase has too few pixels to fill a vector"};
  }
  return {Algorithm::kTapSum, Lanes::kPixels,
          "implicit GEMM per phase; the result's pixels fill the vectors"};
}

}  // namespace

const char* name_of(Algorithm algorithm) {
  switch (algorithm) {
    case Algorithm::kTapSum:
      return "tap_sum";
    case Algorithm::kTapOuter:
      return "tap_outer";
    case Algorithm::kDepthwise:
      return "depthwise";
    case Algorithm::kFill:
      return "fill";
  }
  return "";
}

const char* name_of(Lanes lanes) {
  switch (lanes) {
    case Lanes::kPixels:
      return "pixels";
    case Lanes::kInChannels:
      return "in_channels";
    case Lanes::kOutChannels:
      return "out_channels";
  }
  return "";
}

// Groups of so few channel pairs go without panels: a register tile would stand empty but for a
// row or two.
constexpr int64_t kDepthwiseProducts = 2;

// Whether a depthwise layer runs along its channels: they must be contiguous on both sides.
bool channels_fill_lanes(const Problem& problem) {
  const Geometry& g = problem.geometry;
  return g.in_channels == 1 && g.out_channels == 1 && g.groups > 1 && problem.data.channel == 1 &&
         problem.out.channel == 1;
}

Choice choose(Pass pass, const Problem& problem) {
  const Geometry& g = problem.geometry;
  if (g.batch == 0 || g.out_pixels() == 0 || !reaches_any(g, pass)) {
    return {Algorithm::kFill, Lanes::kPixels, "no tap connects an input with an output"};
  }
  const int64_t vector = kernels_for(problem.dtype).vector;
  if (g.in_channels * g.out_channels <= kDepthwiseProducts) {
    const Lanes channels = pass == Pass::kDataGradient ? Lanes::kInChannels : Lanes::kOutChannels;
    if (channels_fill_lanes(problem) && depthwise_fits(problem, pass, channels)) {
      return {Algorithm::kDepthwise, channels,
              "one channel a group; channels are contiguous and fill the vectors"};
    }
    if (depthwise_fits(problem, pass, Lanes::kPixels)) {
      return {Algorithm::kDepthwise, Lanes::kPixels,
              "a group has one or two channels; vectors of pixels along each row"};
    }
  }
  if (pass == Pass::kWeightGradient) {
    // The channels that fill their vectors better become the lanes.
    const auto used = [vector](int64_t channels) {
      return double(channels) / double((channels + vector - 1) / vector * vector);
    };
    const bool outputs = used(g.out_channels) >= used(g.in_channels);
    return {Algorithm::kTapOuter, outputs ? Lanes::kOutChannels : Lanes::kInChannels,
            outputs ? "outer products per tap; the output channels fill the vectors better"
                    : "outer products per tap; the input channels fill the vectors better"};
  }
  if (pass == Pass::kForward) {
    int64_t pixels = g.batch;
    for (const Axis& axis : g.axis) pixels *= (axis.out - 1) / axis.stride + 1;
    return choose_tap_sum(pixels, g.out_channels, problem.out.channel == 1, vector,
                          Lanes::kOutChannels);
  }
  return choose_tap_sum(g.batch * g.in_pixels(), g.in_channels, problem.data.channel == 1, vector,
                        Lanes::kInChannels);
}

void count_run(Algorithm algorithm) {
  g_runs[int(algorithm)].fetch_add(1, std::memory_order_relaxed);
}

int64_t runs_of(Algorithm algorithm) { return g_runs[int(algorithm)].load(); }

}  // namespace mxd::cpu
