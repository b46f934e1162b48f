// The instruction sets that were built, which this CPU runs, and which one is in use.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace mxd::cpu {

// Built and runnable here, narrowest first: "baseline", then "avx2", "avx512", "avx512_bf16" where
// they apply.
std::vector<std::string> available_isas();

std::string isa_in_use();

// Lowers (or restores) the instruction set of all later calls. False if `name` is not available.
// For tests and for MXDECONV_CPU_ISA; not meant to be called while other threads compute.
bool set_isa(const std::string& name);

}  // namespace mxd::cpu
