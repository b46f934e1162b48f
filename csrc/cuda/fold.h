// A single input pixel, as a generator's first layer has it: where every tap reaches an output of
// its own, (filter, tap) is one long digit of the weight and of the output alike, and the layer is
// a product of matrices with that many filters of a single tap. Its tiles are full, and it reads
// whole lines, where each tap by itself would be a small product.
#pragma once

#include "core/problem.h"

namespace mxd::cuda {

// The same pass with its taps folded into the filters, or the problem itself where they lie
// otherwise, or where a bias differs from filter to filter.
Problem fold_taps(const Problem& problem);

}  // namespace mxd::cuda
