// grad_w[c, f, tap] = sum over batch and results q of x[n, c, s(q, tap)] * g[n, f, q]:
// for every tap an outer product of channels, summed over pixels.
#pragma once

#include "cpu/engine.h"

namespace mxd::cpu {

void run_tap_outer(const Problem& problem, Lanes lanes, const Resources& resources);

}  // namespace mxd::cpu
