// The CUDA engine's kernels on the emulator, against scalar loops: exact on integer data.
#include <cmath>
#include <limits>

#include "check.h"
#include "cuda/algorithm.h"
#include "cuda/few_channels.h"
#include "cuda/weight_copy.h"
#include "cuda_emulator.h"
#include "element.h"
#include "passes.h"

namespace mxd::test {
namespace {

using cuda::Device;
using cuda::ProductPlan;

constexpr Device kDevice{90, 3, 227 * 1024};  // few processors: small problems fill them
constexpr Device kSmallest{90, 1, 227 * 1024};

struct Emulated {
  DType dtype;
  Layout data, weight, out;
  bool with_bias;
};

// A pass's operands and result in memory that kernels may touch, and nothing else.
class Bench {
 public:
  Bench(const Case& c, const Emulated& setting, Pass pass, Random& random)
      : case_(c),
        pass_(pass),
        data_(pass == Pass::kDataGradient, setting.dtype, setting.data, c.data, c.expanded[0],
              random),
        weight_(pass == Pass::kWeightGradient, setting.dtype, setting.weight, c.weight,
                c.expanded[1], random),
        out_(pass == Pass::kForward, setting.dtype, setting.out, c.out_grad, c.expanded[2], random),
        bias_(setting.dtype, bias_values(c), {0, draw(random, 1, 3), 0, 0, 0}) {
    problem.geometry = c.geometry;
    problem.dtype = setting.dtype;
    problem.data = view_of(data_.data, data_.strides);
    problem.weight = weight_view_of(weight_.data, weight_.strides);
    problem.out = view_of(out_.data, out_.strides);
    biased_ = setting.with_bias && pass == Pass::kForward;
    if (biased_) problem.bias = {bias_.data(), bias_.strides()[1]};
  }

  // Gives the kernels so much scratch, full of NaNs.
  void* allow(int64_t scratch_bytes) {
    scratch_.assign(size_t(scratch_bytes), 0xff);
    const int64_t element = size_of(problem.dtype);
    std::vector<cuda::emulator::Range> ranges{{scratch_.data(), scratch_.size(), true}};
    const auto add = [&](const Operand& operand, const Size& size, bool result) {
      const int64_t bytes = span_of(size, operand.strides) * element;
      ranges.push_back({operand.data, size_t(bytes), result});
    };
    const Geometry& g = case_.geometry;
    add(data_, data_size(g), pass_ == Pass::kDataGradient);
    add(weight_, weight_size(g), pass_ == Pass::kWeightGradient);
    add(out_, out_size(g), pass_ == Pass::kForward);
    const int64_t filters = g.groups * g.out_channels;
    if (biased_) {
      const size_t bytes = size_t(((filters - 1) * bias_.strides()[1] + 1) * element);
      ranges.push_back({bias_.data(), bytes, false});
    }
    cuda::emulator::set_global_memory(ranges);
    return scratch_.data();
  }

  void check(const std::string& how) {
    const std::string violation = cuda::emulator::failure();
    std::string difference = violation.empty() ? difference_from_expected() : violation;
    MXD_CHECK(difference.empty(), std::string(name_of(pass_)) + " of " + name_of(case_.geometry) +
                                      " in " + name_of(problem.dtype) + " (" + how +
                                      "): " + difference);
  }

  // Makes some elements of an operand infinite: one in so many.
  void set_infinities(Pass operand_of, std::vector<double>& values, int64_t in, Random& random) {
    const Operand& operand = operand_named(operand_of);
    for_each_element(size_named(operand_of), operand.strides, [&](size_t position, int64_t offset) {
      if (draw(random, 1, in) != 1) return;
      values[position] = std::numeric_limits<double>::infinity();
      store_element(problem.dtype, values[position],
                    static_cast<char*>(operand.data) + offset * size_of(problem.dtype));
    });
  }

  // Like check, for values beyond the integers.
  void check_values(const std::vector<double>& expected, const std::string& how) {
    const Operand& operand = operand_named(pass_);
    const Size size = size_named(pass_);
    std::string difference = cuda::emulator::failure();
    for_each_element(size, operand.strides, [&](size_t position, int64_t offset) {
      char rounded[8];
      store_element(problem.dtype, std::isnan(expected[position]) ? 0 : expected[position],
                    rounded);
      const char* at = static_cast<const char*>(operand.data) + offset * size_of(problem.dtype);
      const double is = load_element(problem.dtype, at);
      const double should = std::isnan(expected[position]) ? expected[position]
                                                           : load_element(problem.dtype, rounded);
      if (difference.empty() && is != should && !(std::isnan(is) && std::isnan(should))) {
        difference = "element " + std::to_string(position) + " should be " +
                     std::to_string(should) + ", is " + std::to_string(is);
      }
    });
    MXD_CHECK(difference.empty(), std::string(name_of(pass_)) + " of " + name_of(case_.geometry) +
                                      " in " + name_of(problem.dtype) + " (" + how +
                                      "): " + difference);
  }

  Problem problem;

 private:
  static Integers bias_values(const Case& c) {
    Integers values({1, int64_t(c.bias.size()), 1, 1, 1});
    values.at = c.bias;
    return values;
  }

  // An operand by the pass that makes it.
  const Operand& operand_named(Pass pass) const {
    return pass == Pass::kForward ? out_ : pass == Pass::kDataGradient ? data_ : weight_;
  }
  const Size& size_named(Pass pass) const {
    return pass == Pass::kForward        ? case_.out.size
           : pass == Pass::kDataGradient ? case_.data.size
                                         : case_.weight.size;
  }

  std::string difference_from_expected() {
    if (pass_ == Pass::kDataGradient) return data_.output.compare(case_.data_grad);
    if (pass_ == Pass::kWeightGradient) return weight_.output.compare(case_.weight_grad);
    Integers expected = case_.out;
    for (size_t p = 0; biased_ && p < expected.at.size(); ++p) {
      expected.at[p] += case_.bias[p % case_.bias.size()];
    }
    return out_.output.compare(expected);
  }

  const Case& case_;
  const Pass pass_;
  Operand data_, weight_, out_;
  Input bias_;
  bool biased_;
  std::vector<unsigned char> scratch_;
};

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

Layout random_layout(Random& random) { return Layout(draw(random, 0, kLayouts - 1)); }

Emulated random_setting(DType dtype, Random& random) {
  const Layout common = random_layout(random);
  const bool mixed = draw(random, 0, 2) == 0;
  return {dtype, common, mixed ? random_layout(random) : common,
          mixed ? random_layout(random) : common, draw(random, 0, 1) == 1};
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

// The operands as floating point, some of one of them infinite, and the sums of a pass.
struct Unbounded {
  std::vector<double> data, weight, out;

  explicit Unbounded(const Case& c)
      : data(c.data.at.begin(), c.data.at.end()),
        weight(c.weight.at.begin(), c.weight.at.end()),
        out(c.out_grad.at.begin(), c.out_grad.at.end()) {}

  std::vector<double>& of(Pass pass) {
    return pass == Pass::kForward ? out : pass == Pass::kDataGradient ? data : weight;
  }

  void compute(const Geometry& g, Pass pass) {
    std::fill(of(pass).begin(), of(pass).end(), 0.0);
    const int64_t channels = g.groups * g.in_channels, filters = g.groups * g.out_channels;
    for_each_meeting(g, [&](int64_t i, int64_t t, int64_t o) {
      for (int64_t n = 0; n < g.batch; ++n) {
        for (int64_t c = 0; c < channels; ++c) {
          for (int64_t f = 0; f < g.out_channels; ++f) {
            double& x = data[size_t((n * g.in_pixels() + i) * channels + c)];
            double& w = weight[size_t((c * g.taps() + t) * g.out_channels + f)];
            double& y = out[size_t((n * g.out_pixels() + o) * filters +
                                   c / g.in_channels * g.out_channels + f)];
            if (pass == Pass::kForward) y += x * w;
            if (pass == Pass::kDataGradient) x += y * w;
            if (pass == Pass::kWeightGradient) w += x * y;
          }
        }
      }
    });
  }
};

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
