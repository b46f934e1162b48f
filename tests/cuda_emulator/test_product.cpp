// The CUDA engine's kernels on the emulator, against scalar loops: exact on integer data.
#include "bench.h"
#include "check.h"
#include "cuda/algorithm.h"
#include "cuda/few_channels.h"
#include "cuda/weight_copy.h"

namespace mxd::test {
namespace {

using cuda::Device;
using cuda::ProductPlan;

constexpr Device kDevice{90, 3, 227 * 1024};  // few processors: small problems fill them
constexpr Device kSmallest{90, 1, 227 * 1024};

// As a caller would: the kernel that is chosen.
void check_chosen(const Case& c, const Emulated& setting, Random& random) {
  for (const Pass pass : kPasses) {
    Bench bench(c, setting, pass, random);
    const cuda::Settings settings{draw(random, 0, 1) == 1, draw(random, 0, 1) << 22};
    const cuda::Plan plan = cuda::plan(pass, bench.problem, kDevice, settings);
    MXD_CHECK(plan.scratch_bytes <= settings.workspace_bytes, "more scratch than allowed");
    void* scratch = bench.allow(plan.scratch_bytes);
    cuda::emulator::set_most_blocks(draw(random, 1, 9));
    cuda::run(pass, bench.problem, kDevice, settings, scratch, nullptr);
    bench.check(plan.reason);
  }
}

MXD_TEST(cuda_named_problems, "every named problem on the emulated device, in every dtype") {
  for (const NamedProblem& named : kNamedProblems) {
    Random random(options().seed);
    const Geometry geometry = parse_problem(named.name);
    for (const bool expand : {false, true}) {
      const Case c(geometry, expand, random);
      const DType dtype = kDTypes[draw(random, 0, 3)];
      if (!expand) {
        const Layout layout = draw(random, 0, 1) ? Layout::kFirst : Layout::kLast;
        check_chosen(c, {dtype, layout, layout, layout, true}, random);
      }
      check_chosen(c, random_setting(kDTypes[draw(random, 0, 3)], random), random);
    }
  }
}

// Every configuration of the product kernel that is built, whatever would be chosen.
enum class Kind { kPlain, kWide, kTensorCores };

bool is_built(cuda::TileShape shape, DType dtype, Kind kind) {
  using cuda::TileShape;
  if (kind == Kind::kWide) return shape == TileShape::kMedium;
  if (kind == Kind::kTensorCores) return shape != TileShape::kNarrow && dtype != DType::kFloat64;
  return shape != TileShape::kLarge || size_of(dtype) > 2;
}

void check_products(const Case& c, const Emulated& setting, Kind kind, Random& random) {
  using cuda::Along;
  using cuda::TileShape;
  for (const Pass pass : kPasses) {
    for (const TileShape shape : {TileShape::kLarge, TileShape::kMedium, TileShape::kNarrow}) {
      if (!is_built(shape, setting.dtype, kind)) continue;
      for (const Along along : {Along::kWidth, Along::kDepth}) {
        Bench bench(c, setting, pass, random);
        ProductPlan plan = cuda::plan_product(pass, bench.problem, kDevice, {});
        plan.choice.tensor_cores = kind == Kind::kTensorCores;
        plan.choice.b = along;
        plan.choice.a = pass == Pass::kWeightGradient ? along : Along::kWidth;
        cuda::cut_into(shape, plan);
        plan.params.splits = draw(random, 0, 2) ? 1 : draw(random, 2, 3);
        const cuda::TileSize size = cuda::size_of(shape);
        const int64_t partial = plan.params.splits * plan.params.tiles() * size.rows *
                                size.columns * (setting.dtype == DType::kFloat64 ? 8 : 4);
        void* scratch = bench.allow(plan.params.splits > 1 ? partial : 0);
        cuda::emulator::set_most_blocks(draw(random, 1, 9));
        cuda::run_product(plan, setting.dtype, scratch, nullptr, kind == Kind::kWide);
        bench.check(std::string("tiles of ") + std::to_string(size.rows) + " x " +
                    std::to_string(size.columns) +
                    (along == Along::kWidth ? ", width" : ", depth") +
                    (kind == Kind::kWide          ? ", 64 bits"
                     : kind == Kind::kTensorCores ? ", tensor cores"
                                                  : "") +
                    ", " + std::to_string(plan.params.splits) + " splits");
      }
    }
  }
}

// The kernels without tiles, which must do any problem too.
void check_direct(const Case& c, const Emulated& setting, Random& random) {
  for (const Pass pass : kPasses) {
    Bench bench(c, setting, pass, random);
    ProductPlan plan = cuda::plan_product(pass, bench.problem, kDevice, {});
    plan.choice.direct = true;
    plan.params.groups_fastest = draw(random, 0, 1) == 1;
    const bool wide = draw(random, 0, 2) == 0;
    void* scratch = bench.allow(0);
    cuda::emulator::set_most_blocks(draw(random, 1, 9));
    cuda::run_product(plan, setting.dtype, scratch, nullptr, wide);
    bench.check(std::string("direct") + (plan.params.groups_fastest ? ", groups fastest" : "") +
                (wide ? ", 64 bits" : ""));
  }
}

// The kernel for few channels, which must do any number of them too. Takes turns in the rows.
void check_few_channels(const Case& c, const Emulated& setting, int64_t turn, Random& random) {
  for (const Pass pass : {Pass::kForward, Pass::kDataGradient}) {
    Bench bench(c, setting, pass, random);
    cuda::FewChannelsPlan plan = cuda::plan_few_channels(pass, bench.problem);
    if (!plan) continue;
    cuda::cut_rows(cuda::kFewRows[turn % cuda::few_row_choices(setting.dtype)], plan);
    bench.allow(0);
    cuda::emulator::set_most_blocks(draw(random, 1, 9));
    cuda::run_few_channels(plan, setting.dtype, nullptr);
    bench.check("few channels, rows by " + std::to_string(plan.rows_each) +
                (plan.params.packets ? ", packets" : ""));
  }
}

// With the weight copied into another order first, whether that pays or not.
void check_copied_weight(const Case& c, const Emulated& setting, Random& random) {
  for (const Pass pass : {Pass::kForward, Pass::kDataGradient}) {
    Bench bench(c, setting, pass, random);
    const Problem arranged = cuda::with_rows_innermost(pass, bench.problem);
    ProductPlan plan = cuda::plan_product(pass, arranged, kDevice, {});
    void* scratch = bench.allow(count_of(c.weight.size) * size_of(setting.dtype));
    cuda::emulator::set_most_blocks(draw(random, 1, 9));
    cuda::copy_weight(pass, bench.problem, scratch, nullptr);
    plan.params.product.a = scratch;
    cuda::run_product(plan, setting.dtype, nullptr, nullptr);
    bench.check("copied weight");
  }
}

MXD_TEST(cuda_configurations, "every product kernel on random problems: tile, direction, index") {
  const int64_t count = std::max<int64_t>(options().count / 6, 1);
  for (int64_t i = 0; i < count; ++i) {
    Random random(options().seed * 1000003 + uint64_t(i));
    const Geometry geometry = random_problem(random, options().products / 64);
    const Case c(geometry, draw(random, 0, 2) == 0, random);
    const DType dtype = kDTypes[i % 4];
    const Layout layout = i / 4 % 2 ? Layout::kLast : Layout::kFirst;
    const Emulated tidy{dtype, layout, layout, layout, true};
    check_products(c, draw(random, 0, 1) ? tidy : random_setting(dtype, random), Kind(i / 8 % 3),
                   random);
    check_direct(c, random_setting(dtype, random), random);
    check_few_channels(c, draw(random, 0, 1) ? tidy : random_setting(dtype, random), i / 8, random);
    check_copied_weight(c, random_setting(dtype, random), random);
  }
}

MXD_TEST(cuda_weight_copy_lines, "a copy of a weight comes and goes in runs of about 32 elements") {
  struct Row {
    const char* name;
    Pass pass;
    bool filters_last;  // in the weight
  };
  const Row rows[] = {{"n1g1c64k96-i8x8-w2x2-s2x2-p0x0-d1x1-a0x0", Pass::kForward, false},
                      {"n1g1c64k96-i8x8-w2x2-s2x2-p0x0-d1x1-a0x0", Pass::kDataGradient, false},
                      {"n1g1c64k96-i8x8-w2x2-s2x2-p0x0-d1x1-a0x0", Pass::kDataGradient, true},
                      {"n1g1c64k96-i8x8-w3x3-s2x2-p0x0-d1x1-a0x0", Pass::kForward, false},
                      {"n1g1c64k96-i8x8-w3x3-s2x2-p0x0-d1x1-a0x0", Pass::kDataGradient, false},
                      {"n1g1c64k96-i8-w64-s2-p0-d1-a0", Pass::kForward, false},
                      {"n1g1c40k96-i8x8-w1x1-s2x2-p0x0-d1x1-a0x0", Pass::kDataGradient, false}};
  for (const Row& row : rows) {
    Problem problem;
    problem.geometry = parse_problem(row.name);
    const Geometry& g = problem.geometry;
    WeightView& weight = problem.weight;
    weight.in_channel = g.out_channels * g.taps();
    weight.out_channel = row.filters_last ? 1 : g.taps();
    int64_t stride = row.filters_last ? g.out_channels : 1;
    for (int a = kAxes - 1; a >= 0; stride *= g.axis[a].kernel, --a) weight.tap[a] = stride;
    const cuda::WeightCopyParams params = cuda::plan_weight_copy(row.pass, problem);
    int64_t run = 1;
    for (const cuda::WeightDigit& digit : params.digit) {
      if (digit.src != run) break;
      run *= digit.box;
      if (digit.box < digit.count) break;
    }
    MXD_CHECK(run >= 32 - 32 % g.taps(),
              std::string(row.name) + ": reads runs of " + std::to_string(run));
    const cuda::WeightDigit& written = params.digit[params.row];
    MXD_CHECK(written.dst == 1 && written.box >= 32, std::string(row.name) + ": writes");
  }
}

MXD_TEST(cuda_single_pixel, "a single input pixel: the taps are folded into the filters") {
  struct Row {
    const char* name;
    Layout layout;
    bool folded;
  };
  const Row rows[] = {{"n9g1c20k12-i1x1-w4x4-s1x1-p0x0-d1x1-a0x0", Layout::kFirst, true},
                      {"n9g1c20k12-i1x1-w4x4-s1x1-p0x0-d1x1-a0x0", Layout::kLast, true},
                      {"n3g2c20k12-i1x1-w4x3-s4x3-p0x0-d1x1-a0x0", Layout::kFirst, true},
                      {"n3g2c20k12-i1x1-w4x3-s4x3-p0x0-d1x1-a0x0", Layout::kLast, false},
                      {"n3g1c20k12-i1x1-w4x4-s1x1-p1x1-d1x1-a0x0", Layout::kFirst, false},
                      {"n3g1c20k12-i1x1-w4x4-s2x2-p0x0-d1x1-a0x1", Layout::kFirst, false},
                      {"n3g1c20k12-i1x2-w4x4-s2x2-p0x0-d1x1-a0x0", Layout::kFirst, false},
                      {"n3g1c20k12-i1x1-w4x4-s2x2-p0x0-d2x2-a0x0", Layout::kFirst, false},
                      {"n3g1c20k12-i1x1-w4x4-s3x3-p1x1-d1x1-a2x2", Layout::kFirst, false},
                      {"n2g6c12k6-i1x1-w3x3-s1x1-p0x0-d1x1-a0x0", Layout::kFirst, true},
                      {"n2g6c12k6-i1x1-w3x3-s1x1-p0x0-d1x1-a0x0", Layout::kLast, false},
                      {"n4g1c6k70-i1-w5-s1-p0-d1-a0", Layout::kLast, true},
                      {"n4g1c6k7-i1x1x1-w2x3x4-s1x1x1-p0x0x0-d1x1x1-a0x0x0", Layout::kFirst, true}};
  for (const Row& row : rows) {
    Random random(options().seed);
    const Case c(parse_problem(row.name), false, random);
    for (const Pass pass : kPasses) {
      for (const bool biased : {false, true}) {
        const DType dtype = kDTypes[draw(random, 0, 3)];
        Bench bench(c, {dtype, row.layout, row.layout, row.layout, biased}, pass, random);
        const cuda::Choice choice = cuda::choose(pass, bench.problem, kDevice, {});
        const bool folded = choice.problem.geometry.taps() < c.geometry.taps();
        const bool with_bias = biased && pass == Pass::kForward;
        MXD_CHECK(folded == (row.folded && !with_bias), row.name + (": " + choice.reason));
        bench.allow(0);
        cuda::run(pass, bench.problem, kDevice, {}, nullptr, nullptr);
        bench.check(choice.reason);
      }
    }
  }
}

MXD_TEST(cuda_infinities, "an infinite weight or datum meets the elements that exist, no padding") {
  const char* const problems[] = {
      "n2g1c24k40-i7x9-w3x4-s2x3-p1x0-d1x2-a1x0", "n1g1c9k20-i9x8-w3x3-s1x1-p1x1-d1x1-a0x0",
      "n2g2c10k24-i5-w5-s1-p0-d2-a0", "n1g1c20k3-i6x6-w4x4-s2x2-p1x1-d1x1-a0x0",
      "n2g6c6k6-i5x6-w3x3-s2x2-p1x1-d1x1-a0x0"};
  for (const char* name : problems) {
    Random random(options().seed);
    const Case c(parse_problem(name), false, random);
    for (const Pass pass : kPasses) {
      const DType dtype = kDTypes[draw(random, 0, 3)];
      const Layout layout = draw(random, 0, 1) ? Layout::kFirst : Layout::kLast;
      Bench bench(c, {dtype, layout, layout, layout, false}, pass, random);
      Unbounded expected(c);
      // In the operand that zeros could meet for missing elements of the other.
      const Pass of = pass == Pass::kWeightGradient ? Pass::kDataGradient : Pass::kWeightGradient;
      bench.set_infinities(of, expected.of(of), 40, random);
      expected.compute(c.geometry, pass);
      const cuda::Settings settings{draw(random, 0, 1) == 1, 0};
      void* scratch = bench.allow(0);
      cuda::run(pass, bench.problem, kDevice, settings, scratch, nullptr);
      bench.check_values(expected.of(pass),
                         cuda::plan(pass, bench.problem, kDevice, settings).reason);
    }
  }
}

MXD_TEST(cuda_few_channels,
         "few channels: the kernel that is chosen, both ends of a sum infinite") {
  const char* const problems[] = {"n2g1c12k3-i13x19-w4x4-s2x2-p1x1-d1x1-a0x0",
                                  "n1g1c9k3-i21x17-w3x3-s2x2-p1x0-d1x1-a1x1",
                                  "n2g1c8k1-i30x30-w3x3-s1x1-p1x1-d1x1-a0x0",
                                  "n1g1c7k1-i300-w16-s8-p4-d1-a0",
                                  "n1g1c5k2-i15x16-w3x3-s2x3-p2x1-d3x2-a1x0",
                                  "n1g1c8k1-i9x10x11-w4x4x4-s2x2x2-p1x1x1-d1x1x1-a0x0x0",
                                  "n1g2c8k6-i30x20-w3x3-s2x2-p1x1-d1x1-a1x1",
                                  "n600g1c8k5-i1x1-w4x4-s1x1-p1x1-d1x1-a0x0",
                                  "n1g1c7k1-i600-w3-s2-p0-d1-a0",
                                  "n1g1c3k14-i20x30-w5x5-s2x2-p2x2-d1x1-a1x1",
                                  "n1g1c4k3-i20x30-w2x2-s2x2-p0x0-d1x1-a0x0"};
  for (const char* name : problems) {
    Random random(options().seed);
    const Case c(parse_problem(name), false, random);
    for (const Pass pass : {Pass::kForward, Pass::kDataGradient}) {
      for (const DType dtype : kDTypes) {
        const Layout layout = draw(random, 0, 1) ? Layout::kFirst : Layout::kLast;
        for (const int infinite : {0, 1, 2, 3}) {
          Bench bench(c, {dtype, layout, layout, layout, false}, pass, random);
          const Pass source = pass == Pass::kForward ? Pass::kDataGradient : Pass::kForward;
          Unbounded expected(c);
          if (infinite & 1) {
            bench.set_infinities(source, expected.of(source), 300, random);
          }
          if (infinite & 2) {
            const Pass weight = Pass::kWeightGradient;
            bench.set_infinities(weight, expected.of(weight), 100, random);
          }
          expected.compute(c.geometry, pass);
          const cuda::Settings settings{draw(random, 0, 1) == 1, 0};
          const cuda::Choice choice = cuda::choose(pass, bench.problem, kSmallest, settings);
          MXD_CHECK(choice.few || layout == Layout::kLast || pass == Pass::kDataGradient ||
                        (c.geometry.out_channels > 8 && dtype != DType::kFloat64),
                    std::string(name) + ": " + choice.reason);
          bench.allow(0);
          cuda::emulator::set_most_blocks(draw(random, 1, 9));
          cuda::run(pass, bench.problem, kSmallest, settings, nullptr, nullptr);
          bench.check_values(expected.of(pass), choice.reason);
        }
      }
    }
  }
}

}  // namespace
}  // namespace mxd::test
