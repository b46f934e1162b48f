// Values of the four dtypes, from their definition: slow, plain, and none of the engine's code.
#pragma once

#include <cstdint>

#include "core/geometry.h"

namespace mxd::test {

constexpr DType kDTypes[] = {DType::kFloat32, DType::kFloat64, DType::kFloat16, DType::kBFloat16};
const char* name_of(DType dtype);

double value_of_half(uint16_t bits);
double value_of_bfloat16(uint16_t bits);

// Nearest, ties to even; not for NaN.
uint16_t nearest_half(double value);
uint16_t nearest_bfloat16(double value);

double load_element(DType dtype, const void* at);
void store_element(DType dtype, double value, void* at);

}  // namespace mxd::test
