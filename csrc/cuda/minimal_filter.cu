#include "cuda/minimal_filter.h"

#include <algorithm>
#include <cmath>

#include "cuda/launch.h"
#include "cuda/minimal_filter_kernel.h"

namespace mxd::cuda {
namespace {

// A block of tiles takes about so much scratch, where the workspace allows: its products shall find
// what the transforms have written in the cache of a large GPU.
constexpr int64_t kBlockBytes = int64_t(64) << 20;
// And is at least as wide as the largest tile of the product.
constexpr int64_t kLeastTiles = 128;
constexpr double kMostElements = 0x1p31 - 1;  // of any step
constexpr int64_t kGrain = 256;               // of scratch

// Every sum of every map stays below this.
constexpr int kMostExponent = 126;

int64_t in_grains(int64_t elements) {
  return (elements * int64_t(sizeof(float)) + kGrain - 1) / kGrain * kGrain;
}

using Phases = std::vector<FilterAxis>;

// Whether results of both are rows of the same product.
bool read_the_same(const FilterAxis& a, const FilterAxis& b) {
  return a.kind == b.kind && a.src_begin == b.src_begin && a.src.first == b.src.first &&
         a.src.step == b.src.step && a.src.size == b.src.size;
}

// The correlations of an axis, those together that a stage can take at once.
std::vector<Phases> stages_of(Pass pass, const Axis& axis) {
  const Phases all = correlations_of(pass, axis);
  if (pass == Pass::kDataGradient && !splits(pass, axis)) return {all};
  std::vector<Phases> stages;
  for (const FilterAxis& phase : all) {
    const auto like = std::find_if(stages.begin(), stages.end(), [&](const Phases& stage) {
      return pass == Pass::kForward && read_the_same(stage[0], phase);
    });
    if (like == stages.end()) {
      stages.push_back({phase});
    } else {
      like->push_back(phase);
    }
  }
  return stages;
}

FilterStageAxis stage_axis(const Phases& phases) {
  FilterStageAxis axis;
  axis.kind = phases[0].kind;
  axis.taps = int32_t(taps_of(axis.kind));
  axis.results = int32_t(results_of(axis.kind));
  axis.points = int32_t(products_of(axis.kind));
  axis.phases = int32_t(phases.size());
  axis.src_step = phases[0].src.step;
  axis.tap_step = phases[0].tap_step;
  axis.dst_step = phases[0].dst_step;
  int64_t results = 0;
  for (size_t p = 0; p < phases.size(); ++p) {
    const FilterAxis& from = phases[p];
    axis.phase[p] = {from.src_begin, from.src.first, from.src.size, from.tap_first,
                     from.dst_first, from.dst_begin, from.dst_end};
    results = std::max(results, from.dst_end);
  }
  axis.tiles = int32_t(products_for(axis.kind, results) / axis.points);
  return axis;
}

// A stage but for its axes.
FilterParams params_of(Pass pass, const Problem& problem) {
  const Geometry& g = problem.geometry;
  const bool forward = pass == Pass::kForward;
  FilterParams params;
  params.phases_are_rows = forward;
  params.groups = int32_t(g.groups);
  params.src_channels = int32_t(forward ? g.in_channels : g.out_channels);
  params.dst_channels = int32_t(forward ? g.out_channels : g.in_channels);
  params.src = forward ? problem.data : problem.out;
  params.dst = forward ? problem.out : problem.data;
  params.src_channels_fastest = params.src.channel == 1;
  params.dst_channels_fastest = params.dst.channel == 1;
  params.weight = problem.weight;
  params.weight_group = g.in_channels * problem.weight.in_channel;
  if (!forward) std::swap(params.weight.in_channel, params.weight.out_channel);
  if (forward) params.bias = problem.bias;
  return params;
}

// Of weights and source values alike, so that no sum of a tile's maps and products overflows.
float limit_of(const FilterParams& params) {
  double growth = params.terms();
  for (const FilterStageAxis& axis : params.axis) growth *= growth_of(axis.kind);
  return float(std::ldexp(1.0, (kMostExponent - int(std::ceil(std::log2(growth)))) / 2));
}

// Elements of U, and of V and M for so many tiles.
double weight_elements(const FilterParams& p) {
  return double(p.groups) * p.points() * double(p.terms()) * p.rows();
}
double tile_elements(const FilterParams& p, int64_t channels) {
  return double(p.groups) * p.points() * double(channels);
}

// Cuts the stage into blocks; says why not, or null.
const char* cut(FilterStage& stage, int64_t workspace_bytes) {
  const FilterParams& params = stage.params;
  const int64_t least = std::min<int64_t>(stage.tiles, kLeastTiles);
  const double widest = tile_elements(params, std::max(params.terms(), params.rows()));
  if (weight_elements(params) > kMostElements || widest * double(least) > kMostElements) {
    return "minimal filtering needs fewer weights";
  }
  const double tile_bytes = 4 * tile_elements(params, params.terms() + params.rows());
  const double room = double(workspace_bytes - stage.weight_bytes() - 3 * kGrain);
  const double block = std::max(std::floor(double(kBlockBytes) / tile_bytes), double(least));
  stage.block =
      int32_t(std::min({block, double(stage.tiles), std::max(std::floor(room / tile_bytes), 0.0)}));
  return stage.block < least ? "the transformed weights and a block do not fit the workspace"
                             : nullptr;
}

// The products of a block, as a layer of a single tap with a group for each group and point.
Problem products_of(const FilterParams& params) {
  Problem problem;
  Geometry& g = problem.geometry;
  g.groups = int64_t(params.groups) * params.points();
  g.in_channels = params.terms();
  g.out_channels = params.rows();
  g.axis[2].in = g.axis[2].out = params.tiles;
  const FilterStrides source = params.source_strides(), products = params.product_strides();
  problem.data = {params.source, 0, source.channel, {0, 0, source.tile}};
  problem.out = {params.products, 0, products.channel, {0, 0, products.tile}};
  problem.weight = {params.weights, g.out_channels, 1, {0, 0, 0}};
  return problem;
}

template <template <int> class Body>
void launch_items(const FilterParams& params, CUstream_st* stream) {
  if (params.axis[0].points > 1) {
    using Items = FilterItems<Body<kMostPoints>>;
    launch<Items>(params, Items::jobs(params), stream);
  } else {
    using Items = FilterItems<Body<1>>;
    launch<Items>(params, Items::jobs(params), stream);
  }
}

void run_stage(const FilterStage& stage, const Device& device, int32_t* unsafe, char* scratch,
               CUstream_st* stream) {
  FilterParams params = stage.params;
  params.unsafe = unsafe;
  params.weights = reinterpret_cast<float*>(scratch);
  params.source = reinterpret_cast<float*>(scratch + stage.weight_bytes());
  params.products = reinterpret_cast<float*>(scratch + stage.weight_bytes() + stage.source_bytes());
  launch_items<FilterWeights>(params, stream);
  for (int64_t first = 0; first < stage.tiles; first += stage.block) {
    params.first_tile = int32_t(first);
    params.tiles = int32_t(std::min<int64_t>(stage.block, stage.tiles - first));
    launch_items<FilterSource>(params, stream);
    const ProductPlan products = plan_product(Pass::kForward, products_of(params), device, {});
    run_product(products, DType::kFloat32, nullptr, stream);
    launch_items<FilterResults>(params, stream);
  }
}

// Why the problem cannot be filtered here, or null.
const char* why_not(Pass pass, const Problem& problem, const Device& device,
                    const Settings& settings) {
  if (pass == Pass::kWeightGradient) return "weight gradients are not filtered on a GPU";
  if (problem.dtype != DType::kFloat32) return "on a GPU only float32 is filtered";
  if (has_tensor_cores(problem.dtype, device, settings.allow_tf32)) {
    return "the matrix units multiply float32, as TF32 is allowed";
  }
  const Geometry& g = problem.geometry;
  bool empty = g.batch == 0;
  for (const Axis& axis : g.axis) empty = empty || axis.in == 0 || axis.out == 0;
  if (empty) return "there is nothing to compute";
  if (const char* reason = why_not_filtered(pass, problem)) return reason;
  if (double(g.groups) > kMostElements) return "minimal filtering needs fewer groups";
  double tiles = double(g.batch);
  for (const Axis& axis : g.axis) {
    for (const Phases& phases : stages_of(pass, axis)) {
      if (phases.size() > kMostFilterPhases) return "minimal filtering needs few phases";
    }
    tiles *= double(pass == Pass::kForward ? axis.out : axis.in);
  }
  return tiles > kMostElements ? "minimal filtering needs fewer pixels" : nullptr;
}

FilterPlan unfiltered(const char* why) {
  FilterPlan plan;
  plan.unfiltered = why;
  return plan;
}

}  // namespace

int64_t FilterStage::weight_bytes() const { return in_grains(int64_t(weight_elements(params))); }
int64_t FilterStage::source_bytes() const {
  return in_grains(int64_t(tile_elements(params, params.terms())) * block);
}
int64_t FilterStage::product_bytes() const {
  return in_grains(int64_t(tile_elements(params, params.rows())) * block);
}

FilterPlan plan_minimal_filter(Pass pass, const Problem& problem, const Device& device,
                               const Settings& settings) {
  if (const char* why = why_not(pass, problem, device, settings)) return unfiltered(why);
  const Geometry& g = problem.geometry;
  FilterPlan plan;
  plan.direct = plan_product(pass, problem, device, {});
  if (plan.direct.choice.direct) return unfiltered("a group has too few channels");
  FilterStage stage;
  stage.params = params_of(pass, problem);
  double products = 0;
  for (const Phases& p0 : stages_of(pass, g.axis[0])) {
    for (const Phases& p1 : stages_of(pass, g.axis[1])) {
      for (const Phases& p2 : stages_of(pass, g.axis[2])) {
        const Phases* const phases[kAxes] = {&p0, &p1, &p2};
        int64_t tiles = g.batch;
        for (int a = 0; a < kAxes; ++a) {
          stage.params.axis[a] = stage_axis(*phases[a]);
          tiles *= stage.params.axis[a].tiles;
        }
        stage.tiles = int32_t(tiles);
        stage.params.limit = limit_of(stage.params);
        if (const char* why = cut(stage, settings.workspace_bytes)) return unfiltered(why);
        plan.scratch_bytes = std::max(plan.scratch_bytes, kGrain + stage.bytes());
        products += weight_elements(stage.params) * double(tiles);
        plan.stages.push_back(stage);
      }
    }
  }
  plan.gain = g.products() / products;
  return plan;
}

void run_minimal_filter(const FilterPlan& plan, const Device& device, void* scratch,
                        CUstream_st* stream) {
  FilterParams begin;
  begin.unsafe = static_cast<int32_t*>(scratch);
  launch<FilterBegin>(begin, 1, stream);
  for (const FilterStage& stage : plan.stages) {
    run_stage(stage, device, begin.unsafe, static_cast<char*>(scratch) + kGrain, stream);
  }
  ProductPlan direct = plan.direct;
  direct.params.only_if = begin.unsafe;
  run_product(direct, DType::kFloat32, nullptr, stream);
}

}  // namespace mxd::cuda
