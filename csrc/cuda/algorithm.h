// Which kernel computes a pass, and why: the only place that chooses.
#pragma once

#include "cuda/product_plan.h"

namespace mxd::cuda {

struct Choice {
  std::string reason;
  ProductPlan product;

  int64_t scratch_bytes() const { return product.partial_bytes; }
};

Choice choose(Pass pass, const Problem& problem, const Device& device, const Settings& settings);

}  // namespace mxd::cuda
