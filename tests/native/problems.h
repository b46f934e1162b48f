// Problems under names that can be parsed back, as the Python tests call them:
// n2g1c24k40-i7x9-w3x4-s2x3-p1x0-d1x2-a1x0 is batch 2, 1 group, 24 channels, 40 filters, input 7x9,
// kernel (window) 3x4, stride 2x3, pad 1x0, dilate 1x2, adj 1x0.
#pragma once

#include <random>
#include <string>
#include <vector>

#include "core/geometry.h"

namespace mxd::test {

using Random = std::mt19937_64;

// Uniform in [least, most].
int64_t draw(Random& random, int64_t least, int64_t most);

struct NamedProblem {
  const char* name;
  const char* intent;
};
extern const std::vector<NamedProblem> kNamedProblems;

Geometry parse_problem(const std::string& name);
std::string name_of(const Geometry& geometry);

// Multiplications of one pass before cropping.
int64_t products_of(const Geometry& geometry);

// Of at most about `most_products` multiplications: all features, from one channel to hundreds.
Geometry random_problem(Random& random, int64_t most_products);

}  // namespace mxd::test
