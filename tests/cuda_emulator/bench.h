// Operands and result of a pass on the emulated device, and what they are held against.
#pragma once

#include <cmath>
#include <limits>

#include "check.h"
#include "core/problem.h"
#include "cuda_emulator.h"
#include "element.h"
#include "passes.h"

namespace mxd::test {

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

  // Another value for one element of an operand.
  void set_value(Pass operand_of, std::vector<double>& values, int64_t place, double value) {
    const Operand& operand = operand_named(operand_of);
    for_each_element(size_named(operand_of), operand.strides, [&](size_t position, int64_t offset) {
      if (int64_t(position) != place) return;
      values[position] = value;
      store_element(problem.dtype, value,
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

inline Layout random_layout(Random& random) { return Layout(draw(random, 0, kLayouts - 1)); }

inline Emulated random_setting(DType dtype, Random& random) {
  const Layout common = random_layout(random);
  const bool mixed = draw(random, 0, 2) == 0;
  return {dtype, common, mixed ? random_layout(random) : common,
          mixed ? random_layout(random) : common, draw(random, 0, 1) == 1};
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

}  // namespace mxd::test
