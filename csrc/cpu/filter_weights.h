// The transformed weights of minimal filtering.
#pragma once

#include "cpu/filter_plan.h"

namespace mxd::cpu {

// Writes the transformed weights of all groups, each for one convolution group after the other:
//   product after product, panel after panel of dst channels, steps of the summation within one.
// Returns the largest magnitude of a weight, as bits.
uint32_t transform_weights(const FilterPlan& plan, const Threads& threads, float* weights);

// What they depend on, apart from the values of the weights.
PreparedWeights::Key transformed_key(const FilterPlan& plan);

}  // namespace mxd::cpu
