// Which kernel computes a pass, and why: the only place that chooses.
#pragma once

#include "cuda/few_channels.h"
#include "cuda/minimal_filter.h"
#include "cuda/product_plan.h"

namespace mxd::cuda {

struct Choice {
  std::string reason;
  Problem problem;      // as it is computed
  FilterPlan filter;    // empty: not filtered
  FewChannelsPlan few;  // empty: the product runs
  ProductPlan product;
  int64_t weight_bytes = 0;  // of a copy of the weight with its rows innermost; 0: none is made

  int64_t scratch_bytes() const {
    return filter ? filter.scratch_bytes : weight_bytes + product.partial_bytes;
  }
};

Choice choose(Pass pass, const Problem& problem, const Device& device, const Settings& settings);

}  // namespace mxd::cuda
