// The element types of tensors, and what their products are summed in.
#pragma once

#include "cuda/device.h"

namespace mxd::cuda {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// 16-bit elements are summed in float.
template <class T>
struct Sum {
  using Type = float;
};
template <>
struct Sum<double> {
  using Type = double;
};
template <class T>
using SumOf = typename Sum<T>::Type;

MXD_DEVICE float widen(float value) { return value; }
MXD_DEVICE double widen(double value) { return value; }
MXD_DEVICE float widen(Half value) { return float_of_half(value.bits); }
MXD_DEVICE float widen(BFloat16 value) { return float_of_bits(uint32_t(value.bits) << 16); }

// Rounds to nearest, ties to even.
template <class T>
MXD_DEVICE T narrow(SumOf<T> value) {
  return value;
}
template <>
MXD_DEVICE Half narrow<Half>(float value) {
  return {half_of_float(value)};
}
template <>
MXD_DEVICE BFloat16 narrow<BFloat16>(float value) {
  const uint32_t bits = bits_of(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {uint16_t(bits >> 16 | 0x40)};  // NaN stays one
  return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

// Neither infinite nor NaN.
MXD_DEVICE bool is_finite(float value) { return (bits_of(value) & 0x7f800000u) != 0x7f800000u; }
MXD_DEVICE bool is_finite(double value) {
  return (high_bits_of(value) & 0x7ff00000u) != 0x7ff00000u;
}
MXD_DEVICE bool is_finite(Half value) { return (value.bits & 0x7c00) != 0x7c00; }
MXD_DEVICE bool is_finite(BFloat16 value) { return (value.bits & 0x7f80) != 0x7f80; }

template <class T>
MXD_DEVICE T zero() {
  return T{};
}

}  // namespace mxd::cuda
