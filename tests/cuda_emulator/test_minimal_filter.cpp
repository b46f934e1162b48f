// Minimal filtering on the emulator. Wherever the transforms shall be the ones that compute a
// result, the direct sum that stands behind them is taken away.
#include "bench.h"
#include "check.h"
#include "cuda/algorithm.h"

namespace mxd::test {
namespace {

using cuda::Device;
using cuda::FilterPlan;

constexpr Device kDevice{90, 3, 227 * 1024};
constexpr Pass kFiltered[] = {Pass::kForward, Pass::kDataGradient};
constexpr int64_t kPlenty = int64_t(1) << 40;

FilterPlan plan_of(Pass pass, const Problem& problem, int64_t workspace_bytes) {
  return cuda::plan_minimal_filter(pass, problem, kDevice, {false, workspace_bytes});
}

// As much workspace as blocks of so many tiles take, if that is more than they must have.
int64_t workspace_for(const FilterPlan& plan, int64_t tiles) {
  int64_t bytes = 0;
  for (cuda::FilterStage stage : plan.stages) {
    stage.block = int32_t(std::min<int64_t>(tiles, stage.tiles));
    bytes = std::max(bytes, stage.bytes() + 4 * 256);
  }
  return bytes;
}

void check_filtered(const Case& c, const Emulated& setting, Pass pass, int64_t tiles,
                    Random& random) {
  Bench bench(c, setting, pass, random);
  FilterPlan plan = plan_of(pass, bench.problem, kPlenty);
  if (!plan) return;
  const int64_t workspace_bytes = workspace_for(plan, tiles);
  plan = plan_of(pass, bench.problem, workspace_bytes);
  MXD_CHECK(plan, plan.unfiltered);
  MXD_CHECK(plan.scratch_bytes <= workspace_bytes, "more scratch than allowed");
  plan.direct.params.groups = 0;
  void* scratch = bench.allow(plan.scratch_bytes);
  cuda::emulator::set_most_blocks(draw(random, 1, 9));
  cuda::run_minimal_filter(plan, kDevice, scratch, nullptr);
  bench.check("minimal filtering in blocks of " + std::to_string(plan.stages[0].block) + " of " +
              std::to_string(plan.stages[0].tiles) + " tiles");
}

struct Row {
  const char* name;
  bool forward, data_gradient;  // whether it can be filtered
};
const Row kRows[] = {
    {"n2g1c5k6-i9x11-w4x4-s2x2-p1x1-d1x1-a0x0", true, true},
    {"n2g2c6k8-i17x13-w4x4-s2x2-p1x1-d1x1-a1x0", true, true},
    {"n1g1c70k40-i7x8-w4x4-s2x2-p1x1-d1x1-a0x0", true, true},
    {"n3g1c4k3-i10x7-w4x4-s2x2-p0x1-d1x1-a0x0", true, true},
    {"n2g1c4k5-i8x9-w3x3-s1x1-p1x1-d1x1-a0x0", true, true},
    {"n2g1c4k5-i8x9-w3x2-s1x1-p0x1-d1x1-a0x0", true, true},
    {"n1g3c6k9-i6x7-w3x3-s2x2-p1x1-d1x1-a1x1", true, false},
    {"n2g1c6k7-i9x8-w6x6-s3x3-p2x1-d1x1-a1x0", true, true},
    {"n1g1c4k5-i9x8-w6x6-s2x2-p2x2-d1x1-a0x0", true, true},
    {"n2g1c3k4-i301-w4-s2-p1-d1-a0", true, true},
    {"n1g2c10k6-i50-w16-s8-p4-d1-a0", true, true},
    {"n1g1c3k4-i4x5x6-w4x4x4-s2x2x2-p1x1x1-d1x1x1-a0x0x0", true, true},
    {"n2g1c3k4-i4x5x6-w3x3x3-s1x1x1-p1x1x1-d1x1x1-a0x0x0", true, true},
    {"n1g1c4k5-i12x13-w3x3-s1x1-p2x2-d2x2-a0x0", true, true},
    {"n1g1c4k5-i12x13-w3x4-s1x2-p2x1-d2x1-a0x0", true, false},
    {"n1g1c4k5-i9x9-w2x2-s2x2-p0x0-d1x1-a0x0", false, false},   // a tap a phase
    {"n1g1c4k5-i9x9-w5x5-s1x1-p2x2-d1x1-a0x0", false, false},   // five
    {"n1g1c4k5-i40-w18-s9-p4-d1-a1", false, false},             // nine phases
    {"n1g4c4k4-i9x9-w4x4-s2x2-p1x1-d1x1-a0x0", false, false}};  // groups of a channel

MXD_TEST(cuda_minimal_filter, "minimal filtering alone, exact: kinds, ranks, layouts, blocks") {
  for (const Row& row : kRows) {
    Random random(options().seed);
    const Geometry geometry = parse_problem(row.name);
    const Case c(geometry, false, random);
    for (const Pass pass : kFiltered) {
      Problem problem;
      problem.geometry = geometry;
      const FilterPlan plan = plan_of(pass, problem, kPlenty);
      const bool can = pass == Pass::kForward ? row.forward : row.data_gradient;
      MXD_CHECK(bool(plan) == can, row.name + (": " + plan.unfiltered));
      for (const Layout layout : {Layout::kFirst, Layout::kLast}) {
        check_filtered(c, {DType::kFloat32, layout, layout, layout, true}, pass, kPlenty, random);
      }
      check_filtered(c, random_setting(DType::kFloat32, random), pass, 128, random);
      check_filtered(Case(geometry, true, random), random_setting(DType::kFloat32, random), pass,
                     draw(random, 128, 200), random);
    }
  }
}

MXD_TEST(cuda_minimal_filter_random, "minimal filtering alone, of random problems that it can do") {
  const int64_t wanted = std::max<int64_t>(options().count / 12, 1);
  int64_t found = 0;
  for (int64_t i = 0; found < wanted && i < 400 * wanted; ++i) {
    Random random(options().seed * 1000003 + uint64_t(i));
    Problem problem;
    problem.geometry = random_problem(random, options().products / 64);
    if (!plan_of(Pass::kForward, problem, kPlenty)) continue;
    ++found;
    const Case c(problem.geometry, draw(random, 0, 2) == 0, random);
    for (const Pass pass : kFiltered) {
      check_filtered(c, random_setting(DType::kFloat32, random), pass, draw(random, 128, 1024),
                     random);
    }
  }
  MXD_CHECK(found == wanted, "only " + std::to_string(found) + " random problems are filtered");
}

MXD_TEST(cuda_minimal_filter_values,
         "Inf, NaN or a huge value at any place: what the direct sum makes of it") {
  const char* const problems[] = {
      "n2g1c5k6-i9x11-w4x4-s2x2-p1x1-d1x1-a0x0", "n1g2c6k8-i8x9-w3x3-s1x1-p1x1-d1x1-a0x0",
      "n1g1c3k4-i9x8-w3x3-s2x2-p1x1-d1x1-a1x1",
      "n1g1c3k4-i4x5x6-w4x4x4-s2x2x2-p1x1x1-d1x1x1-a0x0x0", "n1g1c3k4-i301-w4-s2-p1-d1-a0"};
  const double infinity = std::numeric_limits<double>::infinity();
  const double values[] = {infinity, -infinity, std::nan(""), 0x1p100, -0x1p70};
  for (const char* name : problems) {
    Random random(options().seed);
    const Case c(parse_problem(name), false, random);
    for (const Pass pass : kFiltered) {
      const Pass source = pass == Pass::kForward ? Pass::kDataGradient : Pass::kForward;
      for (const Pass operand : {Pass::kWeightGradient, source}) {
        for (const double value : values) {
          const Layout layout = draw(random, 0, 1) ? Layout::kFirst : Layout::kLast;
          Bench bench(c, {DType::kFloat32, layout, layout, layout, false}, pass, random);
          const cuda::Settings settings{false, kPlenty, true};
          const cuda::Plan plan = cuda::plan(pass, bench.problem, kDevice, settings);
          if (!plan.unfiltered.empty()) continue;
          Unbounded expected(c);
          const int64_t places = int64_t(expected.of(operand).size());
          bench.set_value(operand, expected.of(operand), draw(random, 0, places - 1), value);
          expected.compute(c.geometry, pass);
          void* scratch = bench.allow(plan.scratch_bytes);
          cuda::run(pass, bench.problem, kDevice, settings, scratch, nullptr);
          bench.check_values(expected.of(pass), plan.reason + ", with " + std::to_string(value));
        }
      }
    }
  }
}

MXD_TEST(cuda_minimal_filter_choice, "filtered where that is asked for, possible, and fits") {
  struct Asked {
    DType dtype;
    Pass pass;
    cuda::Settings settings;
    bool filtered;
  };
  const Asked asked[] = {{DType::kFloat32, Pass::kForward, {false, kPlenty, true}, true},
                         {DType::kFloat32, Pass::kDataGradient, {false, kPlenty, true}, true},
                         {DType::kFloat32, Pass::kWeightGradient, {false, kPlenty, true}, false},
                         {DType::kFloat32, Pass::kForward, {false, kPlenty, false}, false},
                         {DType::kFloat32, Pass::kForward, {true, kPlenty, true}, false},
                         {DType::kFloat32, Pass::kForward, {false, 1 << 20, true}, false},
                         {DType::kFloat64, Pass::kForward, {false, kPlenty, true}, false},
                         {DType::kFloat16, Pass::kForward, {false, kPlenty, true}, false},
                         {DType::kBFloat16, Pass::kForward, {false, kPlenty, true}, false}};
  Problem problem;
  problem.geometry = parse_problem("n32g1c128k64-i32x32-w4x4-s2x2-p1x1-d1x1-a0x0");
  for (const Asked& row : asked) {
    problem.dtype = row.dtype;
    const cuda::Choice choice = cuda::choose(row.pass, problem, kDevice, row.settings);
    MXD_CHECK(bool(choice.filter) == row.filtered, choice.reason + choice.filter.unfiltered);
    const cuda::Plan plan = cuda::plan(row.pass, problem, kDevice, row.settings);
    MXD_CHECK(plan.scratch_bytes <= row.settings.workspace_bytes, "more scratch than allowed");
    MXD_CHECK(plan.unfiltered.empty() == (row.filtered || !row.settings.minimal_filtering),
              plan.unfiltered);
  }
}

MXD_TEST(cuda_minimal_filter_sizes, "sizes beyond any memory overflow nothing") {
  const char* const problems[] = {
      "n4611686018427387904g1c2k2-i8x8-w4x4-s2x2-p1x1-d1x1-a0x0",
      "n1g1000000000000c8000000000000k8000000000000-i8x8-w4x4-s2x2-p1x1-d1x1-a0x0",
      "n1g1c1000000k1000000-i8x8-w4x4-s2x2-p1x1-d1x1-a0x0",
      "n1g1c8k8-i2000000000x2000000000-w4x4-s2x2-p1x1-d1x1-a0x0"};
  for (const char* name : problems) {
    for (const Pass pass : kFiltered) {
      Problem problem;
      problem.geometry = parse_problem(name);
      MXD_CHECK(!plan_of(pass, problem, kPlenty), name);
    }
  }
}

}  // namespace
}  // namespace mxd::test
