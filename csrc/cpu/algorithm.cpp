#include "cpu/algorithm.h"

#include <algorithm>
#include <atomic>
#include <numeric>

#include "core/tap_plan.h"
#include "cpu/channels_copy.h"
#include "cpu/depthwise.h"
#include "cpu/engine.h"
#include "cpu/filter_plan.h"
#include "cpu/in_place_sum.h"
#include "cpu/minimal_filter_weight.h"

namespace mxd::cpu {
namespace {

std::atomic<int64_t> g_runs[kAlgorithms];  // only ever counts up; read by tests
std::atomic<bool> g_filtering{true};       // the public switch
std::atomic<int> g_forced{kAlgorithms};    // set by tests only

// Beyond so many candidates a call that really has the memory for its tensors takes far longer than
// this question; `explain` asks it of any sizes and must not hang.
constexpr int64_t kMostCandidates = int64_t(1) << 20;

// Whether the first tap connects the first input that it does not crop away: nearly always.
bool first_tap_reaches(const Axis& axis) {
  const int64_t input = axis.pad / axis.stride + (axis.pad % axis.stride != 0);
  return input < axis.in && input * axis.stride - axis.pad < axis.out;
}

bool reaches_any(const Geometry& geometry, Pass pass) {
  for (const Axis& axis : geometry.axis) {
    if (first_tap_reaches(axis) || phase_candidates(axis) > kMostCandidates) continue;
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

// Cycles a step of a matrix product of `rows` by `cols` in register tiles: of multiply-adds, two a
// cycle, or loads, two a cycle, and never less than the four of a chain of additions.
double tile_cost(const Kernels& kernels, int64_t rows, int64_t cols) {
  const int64_t row_panels = (rows + kernels.max_rows - 1) / kernels.max_rows;
  const double height = double(rows) / double(row_panels);
  const auto tile = [height](double vectors) {
    return std::max({height * vectors / 2, (height + vectors) / 2, 4.0});
  };
  const int64_t rest = cols % kernels.cols;
  const double row_cost = double(cols / kernels.cols) * tile(2) +
                          (rest == 0 ? 0 : tile(rest <= kernels.vector ? 1 : 2));
  return double(row_panels) * row_cost;
}

}  // namespace

const char* name_of(Algorithm algorithm) {
  switch (algorithm) {
    case Algorithm::kTapSum:
      return "tap_sum";
    case Algorithm::kInPlaceSum:
      return "in_place_sum";
    case Algorithm::kTapOuter:
      return "tap_outer";
    case Algorithm::kMinimalFilter:
      return "minimal_filter";
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

// Whether the channels of several groups can fill vectors: contiguous on both sides.
bool channels_fill_lanes(const Problem& problem) {
  return problem.geometry.groups > 1 && problem.data.channel == 1 && problem.out.channel == 1;
}

namespace {

// The depthwise choice, or kFill where the direct sums of dense layers must do.
Choice choose_depthwise(Pass pass, const Problem& problem) {
  const Geometry& g = problem.geometry;
  const char* unfiltered = "a group has too few channels";
  const Lanes channels = pass == Pass::kDataGradient ? Lanes::kInChannels : Lanes::kOutChannels;
  if (channels_fill_lanes(problem) && depthwise_fits(problem, pass, channels)) {
    const bool single = g.in_channels == 1 && g.out_channels == 1;
    return {Algorithm::kDepthwise, channels,
            single ? "one channel a group; channels are contiguous and fill the vectors"
                   : "channels are contiguous; those of several groups share a vector",
            unfiltered};
  }
  if (g.in_channels * g.out_channels <= kDepthwiseProducts) {
    if (depthwise_fits(problem, pass, Lanes::kPixels)) {
      return {Algorithm::kDepthwise, Lanes::kPixels,
              "a group has one or two channels; vectors of pixels along each row", unfiltered};
    }
  }
  return {Algorithm::kFill, Lanes::kPixels, ""};
}

Choice choose_direct(Pass pass, const Problem& problem) {
  const Geometry& g = problem.geometry;
  const int64_t vector = kernels_for(problem.dtype).vector;
  if (pass == Pass::kWeightGradient) {
    // The out channels of all phases stand side by side.
    int64_t entries = g.out_channels;
    for (const Axis& axis : g.axis) {
      entries *= std::min(axis.kernel, axis.stride / std::gcd(axis.stride, axis.dilate));
    }
    const Kernels& kernels = kernels_for(problem.dtype);
    const bool outputs =
        tile_cost(kernels, g.in_channels, entries) <= tile_cost(kernels, entries, g.in_channels);
    return {Algorithm::kTapOuter, outputs ? Lanes::kOutChannels : Lanes::kInChannels,
            outputs ? "outer products per tap; the output channels of all phases are the lanes"
                    : "outer products per tap; the input channels are the lanes"};
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

Choice choose_in_place(Pass pass, const Problem& problem) {
  const Geometry& g = problem.geometry;
  const bool forward = pass == Pass::kForward;
  const bool in_place = channels_fill_steps(product_kernels_for(problem.dtype),
                                            forward ? g.in_channels : g.out_channels,
                                            forward ? problem.data.channel : problem.out.channel);
  return {Algorithm::kInPlaceSum, forward ? Lanes::kOutChannels : Lanes::kInChannels,
          in_place
              ? "channels are contiguous on both sides: the source is read in place, the "
                "result's channels are the lanes"
              : "the source is copied with its channels side by side, in pairs, and read there; "
                "the result's channels are the lanes"};
}

// Results of a phase over the batch.
double results_of_phase(Pass pass, const Geometry& g) {
  double results = double(g.batch);
  for (const Axis& axis : g.axis) {
    results *=
        pass == Pass::kDataGradient ? double(axis.in) : double((axis.out - 1) / axis.stride + 1);
  }
  return results;
}

// Weights that do not stay in a cache are read again for every box of results, at the borders.
constexpr double kCachedWeightBytes = 0x1p22;
constexpr double kLeastResultsInPlace = 512;  // of a phase, with larger weights

// Where the channels are not contiguous, rearranging source and results needs that many steps of a
// sum to pay: 1.05x to 1.35x with more, 0.6x to 0.9x with fewer.
constexpr double kLeastStepsRearranged = 64;

// Whether reading the source in place is faster than packing it: 1.1x to 6x. It is not where the
// channels leave more than half of the lanes empty, which pixels and phases side by side would
// fill.
bool in_place_pays(Pass pass, const Problem& problem, int64_t workspace_bytes) {
  const Geometry& g = problem.geometry;
  const int64_t channels = pass == Pass::kForward ? g.out_channels : g.in_channels;
  const int64_t vector = kernels_for(problem.dtype).vector;
  if (g.groups == 1 && 2 * channels < std::max<int64_t>(vector, 8)) return false;
  const bool contiguous = (g.in_channels == 1 || problem.data.channel == 1) &&
                          (g.out_channels == 1 || problem.out.channel == 1);
  if (!contiguous) {
    double steps = double(pass == Pass::kForward ? g.in_channels : g.out_channels) /
                   double(product_kernels_for(problem.dtype).terms);
    for (const Axis& axis : g.axis) {
      steps *= pass == Pass::kForward ? double((axis.kernel - 1) / axis.stride + 1)
                                      : double(axis.kernel);
    }
    if (g.groups > 1 || steps < kLeastStepsRearranged) return false;
  }
  double weights = double(g.groups) * double(size_of(problem.dtype));
  for (const Axis& axis : g.axis) weights *= double(axis.kernel);
  weights *= double(g.in_channels) * double(g.out_channels);
  bool bordered = false;
  for (const Axis& axis : g.axis) {
    bordered = bordered ||
               (pass == Pass::kForward ? axis.kernel > axis.stride && axis.in > 1 : axis.pad > 0);
  }
  const bool reread = bordered && weights > kCachedWeightBytes;
  if (reread && results_of_phase(pass, g) < kLeastResultsInPlace) return false;
  return in_place_fits(problem, pass, workspace_bytes);
}

// Why minimal filtering cannot do the problem, or null.
const char* cannot_filter(Pass pass, const Problem& problem, int64_t workspace_bytes) {
  if (const char* reason = why_not_filtered(pass, problem)) return reason;
  const int64_t bytes = pass == Pass::kWeightGradient ? WeightFilterPlan(problem).worker_bytes()
                                                      : FilterPlan(pass, problem).bytes();
  return bytes > workspace_bytes ? "the transformed weights and a block do not fit the workspace"
                                 : nullptr;
}

// Where minimal filtering is faster than the direct sum: with one thread, AVX-512 and float32 it
// reaches 0.67 to 0.97 of the FMA peak, counted in direct products, where the direct sum reaches
// 0.46 to 0.79 (k4 s2, k3 s2 and k3 s1; forward and data gradient; the closest are k3 s2 with 1.06x
// and 3-D with 1.1x). With fewer results the weights that are transformed and read for them weigh
// more; with 32 channels the transforms cost as much as the products.
constexpr int64_t kLeastFilteredChannels = 64;
constexpr double kLeastFilteredResults = 1024;  // of a phase, over the batch
constexpr double kLeastFilteredGain = 1.3;
constexpr double kLeastGainOverInPlace = 1.5;  // of a data gradient: k3 s2 loses 0.8x

// Why minimal filtering is not expected to be faster than the direct sum, or null, as far as the
// sizes alone say: small calls should not have to plan it.
const char* too_small_to_filter(Pass pass, const Problem& problem) {
  const Geometry& g = problem.geometry;
  if (std::min(g.in_channels, g.out_channels) < kLeastFilteredChannels) {
    return "too few channels to pay for the transforms";
  }
  return results_of_phase(pass, g) < kLeastFilteredResults ? "too few pixels to pay for the weights"
                                                           : nullptr;
}

// The same for what has to be planned to be known.
const char* filtering_loses(Pass pass, const Problem& problem, int64_t workspace_bytes) {
  if (pass == Pass::kWeightGradient) {  // 1.35x the direct sum with one phase, else 0.9x to 1.25x
    bool one_phase = true;
    for (const Axis& axis : problem.geometry.axis) one_phase = one_phase && axis.stride == 1;
    return one_phase ? nullptr : "a weight gradient of several phases transforms its data for each";
  }
  const bool in_place =
      pass == Pass::kDataGradient && in_place_pays(pass, problem, workspace_bytes);
  const double least = in_place ? kLeastGainOverInPlace : kLeastFilteredGain;
  return FilterPlan(pass, problem).gain() < least ? "too few products are saved" : nullptr;
}

}  // namespace

Choice choose(Pass pass, const Problem& problem, int64_t workspace_bytes) {
  const Geometry& g = problem.geometry;
  if (g.batch == 0 || g.out_pixels() == 0 || !reaches_any(g, pass)) {
    return {Algorithm::kFill, Lanes::kPixels, "no tap connects an input with an output",
            "there is nothing to compute"};
  }
  Choice filtered = {Algorithm::kMinimalFilter,
                     pass == Pass::kForward ? Lanes::kOutChannels : Lanes::kInChannels,
                     "minimal filtering of the phases: fewer products than the direct sum"};
  const int forced = g_forced.load(std::memory_order_relaxed);
  if (forced == int(Algorithm::kMinimalFilter) && !cannot_filter(pass, problem, workspace_bytes)) {
    return filtered;
  }
  if (forced == int(Algorithm::kInPlaceSum) && in_place_fits(problem, pass, workspace_bytes)) {
    return choose_in_place(pass, problem);
  }
  if (forced == int(Algorithm::kTapSum) || forced == int(Algorithm::kTapOuter)) {
    return choose_direct(pass, problem);
  }
  const Choice depthwise = choose_depthwise(pass, problem);
  if (depthwise.algorithm == Algorithm::kDepthwise) return depthwise;
  const char* unfiltered = !minimal_filtering() ? "minimal filtering is switched off"
                           : product_kernels_for(problem.dtype).terms > 1
                               ? "pairs of bfloat16 are multiplied faster than what filtering saves"
                               : too_small_to_filter(pass, problem);
  if (!unfiltered) unfiltered = cannot_filter(pass, problem, workspace_bytes);
  if (!unfiltered) unfiltered = filtering_loses(pass, problem, workspace_bytes);
  if (!unfiltered) return filtered;
  Choice direct = in_place_pays(pass, problem, workspace_bytes) ? choose_in_place(pass, problem)
                                                                : choose_direct(pass, problem);
  direct.unfiltered = unfiltered;
  return direct;
}

bool minimal_filtering() { return g_filtering.load(std::memory_order_relaxed); }
void set_minimal_filtering(bool enabled) { g_filtering.store(enabled); }
void force_algorithm(int algorithm) { g_forced.store(algorithm); }
bool is_forced(Algorithm algorithm) {
  return g_forced.load(std::memory_order_relaxed) == int(algorithm);
}

void count_run(Algorithm algorithm) {
  g_runs[int(algorithm)].fetch_add(1, std::memory_order_relaxed);
}

int64_t runs_of(Algorithm algorithm) { return g_runs[int(algorithm)].load(); }

}  // namespace mxd::cpu
