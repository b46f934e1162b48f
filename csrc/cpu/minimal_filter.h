// Minimal filtering (Winograd, Toom-Cook) of the phases: forward and data gradient as products of
// transformed weights and transformed tiles of the source, fewer than the direct sum has.
//
// Tiles mix neighbouring source values before they are multiplied. A value that is not finite, or
// so large that a mixture could overflow, would reach results that the direct sum keeps from it:
// a call that meets one is left to the direct sum.
#pragma once

#include "cpu/filter_plan.h"

namespace mxd::cpu {

// False if a value was met that must not be filtered: the result is then to be computed anew.
bool run_minimal_filter(const FilterPlan& plan, const Resources& resources);

}  // namespace mxd::cpu
