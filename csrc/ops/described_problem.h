// A problem from names and sizes alone, as diagnostics speak of it: packed operands, no memory.
#pragma once

#include <string>
#include <tuple>
#include <vector>

#include "core/problem.h"

namespace mxd::ops {

// in, out, kernel, stride, dilate, pad
using AxisTuple = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t>;

Pass pass_named(const std::string& name);

// Channels are those of the whole tensors.
Problem described_problem(const std::string& dtype, int64_t batch, int64_t groups,
                          int64_t in_channels, int64_t out_channels,
                          const std::vector<AxisTuple>& axes, bool channels_last);

}  // namespace mxd::ops
