// The three passes against scalar loops, on integer data, equal to the last bit.
#include "check.h"
#include "cpu/cpu_isa.h"
#include "element.h"
#include "passes.h"

namespace mxd::test {
namespace {

constexpr int64_t kWorkspaces[] = {0, int64_t(1) << 20, int64_t(512) << 20};

Layout random_layout(Random& random) { return Layout(draw(random, 0, kLayouts - 1)); }

// Every dtype on every instruction set, each with its own layouts, threads and workspace.
void check_everywhere(const Case& c, Random& random) {
  for (const std::string& isa : cpu::available_isas()) {
    for (const DType dtype : kDTypes) {
      const int thread_counts[] = {1, 2, 3, 5};
      const Setting setting{dtype,
                            random_layout(random),
                            random_layout(random),
                            random_layout(random),
                            thread_counts[draw(random, 0, 3)],
                            kWorkspaces[draw(random, 0, 2)],
                            draw(random, 0, 1) == 1,
                            isa};
      check_case(c, setting, random);
    }
  }
}

MXD_TEST(named_problems, "every named problem: ISA x dtype, channels first, last, any, expanded") {
  for (const NamedProblem& named : kNamedProblems) {
    Random random(options().seed);
    const Geometry geometry = parse_problem(named.name);
    const Case plain(geometry, false, random);
    for (const std::string& isa : cpu::available_isas()) {
      for (const DType dtype : kDTypes) {
        for (const Layout layout : {Layout::kFirst, Layout::kLast}) {
          check_case(plain, {dtype, layout, layout, layout, 1, 0, true, isa}, random);
        }
      }
    }
    check_everywhere(plain, random);
    check_everywhere(Case(geometry, true, random), random);
  }
}

MXD_TEST(random_problems, "a seeded campaign: ISA x dtype, any layout, threads, workspace") {
  for (int64_t i = 0; i < options().count; ++i) {
    // Each problem has a seed of its own, so that it does not depend on those before it.
    Random random(options().seed * 1000003 + uint64_t(i));
    // Most are small, for speed; one in eight is as large as allowed.
    const int64_t products = i % 8 ? options().products / 16 : options().products;
    const Geometry geometry = random_problem(random, products);
    check_everywhere(Case(geometry, draw(random, 0, 2) == 0, random), random);
  }
}

}  // namespace

void check_chosen_problem() {
  const Geometry geometry = parse_problem(options().problem);
  for (int64_t i = 0; i < options().count; ++i) {
    Random random(options().seed * 1000003 + uint64_t(i));
    check_everywhere(Case(geometry, i % 2 == 1, random), random);
  }
}

}  // namespace mxd::test
