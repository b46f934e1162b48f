#include "passes.h"

#include <algorithm>
#include <cmath>

#include "check.h"
#include "cpu/cpu_isa.h"
#include "element.h"
#include "std_threads.h"

namespace mxd::test {
namespace {

// Largest magnitude of the operands for which no sum of `terms` products reaches 2^24; at most 12.
int32_t magnitude_for(int64_t terms) {
  const double most = std::sqrt(double(int64_t(1) << 23) / double(std::max<int64_t>(terms, 1)));
  return int32_t(std::min(12.0, std::max(1.0, std::floor(most))));
}

int64_t longest_sum(const Geometry& g) {
  return std::max(std::max(g.in_channels, g.out_channels) * g.taps(), g.batch * g.in_pixels());
}

Integers random_integers(const Size& size, const std::array<bool, 5>& expanded, int32_t magnitude,
                         Random& random) {
  Integers values(size);
  for (int32_t& value : values.at) value = int32_t(draw(random, -magnitude, magnitude));
  // An expanded dimension repeats its first element.
  Strides dense{}, repeated{};
  int64_t next = 1;
  for (const size_t d : {1, 4, 3, 2, 0}) {
    dense[d] = next;
    repeated[d] = expanded[d] ? 0 : next;
    next *= size[d];
  }
  const std::vector<int32_t> source = values.at;
  for_each_element(size, repeated, [&](size_t position, int64_t offset) {
    values.at[position] = source[size_t(offset)];
  });
  return values;
}

std::array<bool, 5> random_expansion(bool expand, Random& random) {
  std::array<bool, 5> expanded{};
  for (bool& dimension : expanded) dimension = expand && draw(random, 0, 3) == 0;
  return expanded;
}

}  // namespace

const char* name_of(Pass pass) {
  switch (pass) {
    case Pass::kForward:
      return "forward";
    case Pass::kDataGradient:
      return "data gradient";
    case Pass::kWeightGradient:
      return "weight gradient";
  }
  return "";
}

void run_pass(Pass pass, const Problem& problem, const cpu::Resources& resources) {
  switch (pass) {
    case Pass::kForward:
      return cpu::forward(problem, resources);
    case Pass::kDataGradient:
      return cpu::data_gradient(problem, resources);
    case Pass::kWeightGradient:
      return cpu::weight_gradient(problem, resources);
  }
}

Case::Case(const Geometry& g, bool expand, Random& random)
    : geometry(g),
      expanded{random_expansion(expand, random), random_expansion(expand, random),
               random_expansion(expand, random)},
      data(random_integers(data_size(g), expanded[0], magnitude_for(longest_sum(g)), random)),
      weight(random_integers(weight_size(g), expanded[1], magnitude_for(longest_sum(g)), random)),
      out_grad(random_integers(out_size(g), expanded[2], magnitude_for(longest_sum(g)), random)),
      bias(size_t(g.groups * g.out_channels)),
      out(out_size(g)),
      data_grad(data_size(g)),
      weight_grad(weight_size(g)) {
  for (int32_t& value : bias) value = int32_t(draw(random, -100, 100));
  out = reference_forward(g, data, weight, {});
  data_grad = reference_data_gradient(g, weight, out_grad);
  weight_grad = reference_weight_gradient(g, data, out_grad);
}

std::string name_of(const Setting& setting) {
  return std::string(name_of(setting.dtype)) + ", " + setting.isa + ", " +
         std::to_string(setting.threads) + " threads, workspace " +
         std::to_string(setting.workspace_bytes >> 20) + " MB, data " + name_of(setting.data) +
         ", weight " + name_of(setting.weight) + ", out " + name_of(setting.out) +
         (setting.with_bias ? ", bias" : "");
}

// One pass by the algorithm that is forced, or that would be chosen.
void check_pass(const Case& c, const Setting& setting, Pass pass, const Input& bias,
                const cpu::Resources& resources, Random& random) {
  const Geometry& g = c.geometry;
  Operand data(pass == Pass::kDataGradient, setting.dtype, setting.data, c.data, c.expanded[0],
               random);
  Operand weight(pass == Pass::kWeightGradient, setting.dtype, setting.weight, c.weight,
                 c.expanded[1], random);
  Operand out(pass == Pass::kForward, setting.dtype, setting.out, c.out_grad, c.expanded[2],
              random);
  Problem problem;
  problem.geometry = g;
  problem.dtype = setting.dtype;
  problem.data = view_of(data.data, data.strides);
  problem.weight = weight_view_of(weight.data, weight.strides);
  problem.out = view_of(out.data, out.strides);
  const bool biased = setting.with_bias && pass == Pass::kForward;
  if (biased) problem.bias = {bias.data(), bias.strides()[1]};
  run_pass(pass, problem, resources);

  std::string difference;
  if (pass == Pass::kDataGradient) {
    difference = data.output.compare(c.data_grad);
  } else if (pass == Pass::kWeightGradient) {
    difference = weight.output.compare(c.weight_grad);
  } else if (!biased) {
    difference = out.output.compare(c.out);
  } else {
    Integers expected = c.out;
    for (size_t p = 0; p < expected.at.size(); ++p) expected.at[p] += c.bias[p % c.bias.size()];
    difference = out.output.compare(expected);
  }
  MXD_CHECK(difference.empty(), std::string(name_of(pass)) + " of " + name_of(g) + " (" +
                                    name_of(setting) + "): " + difference);
}

void check_case(const Case& c, const Setting& setting, Random& random) {
  MXD_CHECK(cpu::set_isa(setting.isa), "cannot choose " + setting.isa);
  const StdThreads threads(setting.threads);
  const cpu::Resources resources{&threads, setting.workspace_bytes};
  const Integers bias_values = [&] {
    Integers values({1, int64_t(c.bias.size()), 1, 1, 1});
    values.at = c.bias;
    return values;
  }();
  const Input bias(setting.dtype, bias_values, {0, draw(random, 1, 3), 0, 0, 0});
  for (const Pass pass : kPasses) {
    check_pass(c, setting, pass, bias, resources, random);
    // And by minimal filtering, wherever it can do the problem and has the room.
    const cpu::Resources ample{&threads, int64_t(512) << 20};
    cpu::force_algorithm(int(cpu::Algorithm::kMinimalFilter));
    check_pass(c, setting, pass, bias, ample, random);
    if (setting.data == Layout::kLast && setting.out == Layout::kLast) {
      cpu::force_algorithm(int(cpu::Algorithm::kInPlaceSum));
      check_pass(c, setting, pass, bias, resources, random);
    }
    cpu::force_algorithm(cpu::kAlgorithms);
  }
}

}  // namespace mxd::test
