// One problem on integer data: operands, expected results, and the engine held against them.
#pragma once

#include <string>
#include <vector>

#include "cpu/engine.h"
#include "reference.h"

namespace mxd::test {

constexpr Pass kPasses[] = {Pass::kForward, Pass::kDataGradient, Pass::kWeightGradient};
const char* name_of(Pass pass);
void run_pass(Pass pass, const Problem& problem, const cpu::Resources& resources);

// Operands and the three results. Every sum of products stays below 2^24 in magnitude, so that the
// order of summation does not matter and a result is the exact sum, rounded once.
struct Case {
  // `expand` lets some dimensions of the operands have stride 0.
  Case(const Geometry& geometry, bool expand, Random& random);

  Geometry geometry;
  std::array<bool, 5> expanded[3];  // of data, weight, out
  Integers data, weight, out_grad;
  std::vector<int32_t> bias;
  Integers out, data_grad, weight_grad;
};

// An operand where the pass reads it, a result where it writes it.
struct Operand {
  Operand(bool is_result, DType dtype, Layout layout, const Integers& values,
          const std::array<bool, 5>& expanded, Random& random)
      : strides(
            strides_of(layout, values.size, is_result ? std::array<bool, 5>{} : expanded, random)),
        input(dtype, is_result ? Integers({0, 0, 0, 0, 0}) : values, strides),
        output(dtype, is_result ? values.size : Size{}, strides),
        data(is_result ? output.data() : input.data()) {}
  Strides strides;
  Input input;
  Output output;
  void* data;
};

struct Setting {
  DType dtype;
  Layout data, weight, out;
  int threads;
  int64_t workspace_bytes;
  bool with_bias;
  std::string isa;
};
std::string name_of(const Setting& setting);

// Runs all passes in a setting and checks each result to the last bit, and its surroundings.
void check_case(const Case& problem, const Setting& setting, Random& random);

// The one that --problem names, in many settings.
void check_chosen_problem();

}  // namespace mxd::test
