// Equal problems with fewer axes: what the axes of a problem mean to the engine, and no more.
#pragma once

#include "cpu/engine.h"

namespace mxd::cpu {

// The same sums over the same memory, said with as few axes as possible:
// - neighbouring axes on which every result meets exactly the input at its place (kernel and stride
//   1, nothing cropped) become one, where the tensors allow;
// - a single input pixel, all of whose taps are results, becomes a product over channels: the taps
//   become channels.
Problem folded(const Problem& problem);

}  // namespace mxd::cpu
