// Flat indices taken apart into digits: (batch, i0, i1, i2), (t0, t1, t2, channel) and the like.
#pragma once

#include "cuda/device.h"

namespace mxd::cuda {

// Division by a number that is used often: a multiplication and a shift where 32 bits do.
template <class Index>
struct Divisor;

template <>
struct Divisor<int32_t> {
  uint32_t magic = 1;
  int32_t shift = 0;
  int32_t value = 1;

  Divisor() = default;
  MXD_HOST_DEVICE explicit Divisor(int32_t divisor) : shift(0), value(divisor) {
    while ((int64_t(1) << shift) < divisor) ++shift;
    const uint64_t excess = (uint64_t(1) << shift) - uint64_t(divisor);
    magic = uint32_t((excess << 32) / uint64_t(divisor)) + 1;
  }
  // Exact for 0 <= n: n < 2^31 and the product's upper half is at most n, so the sum fits.
  MXD_DEVICE int32_t divide(int32_t n) const {
    return int32_t((multiply_high(uint32_t(n), magic) + uint32_t(n)) >> shift);
  }
};

template <>
struct Divisor<int64_t> {
  int64_t value = 1;

  Divisor() = default;
  MXD_HOST_DEVICE explicit Divisor(int64_t divisor) : value(divisor) {}
  MXD_DEVICE int64_t divide(int64_t n) const { return n / value; }
};

// Where the digit that belongs to no axis stands: before those of the axes, or after them, where it
// changes fastest.
enum class Other { kFirst, kLast };

template <class Index>
struct Digits {
  Index other = 0;
  Index axis[kAxes] = {0, 0, 0};
};

template <class Index, Other kOther>
class Radix {
 public:
  Radix() = default;
  MXD_HOST_DEVICE explicit Radix(const Digits<Index>& counts)
      : slow_(kOther == Other::kFirst ? counts.axis[0] : counts.axis[1]),
        middle_(kOther == Other::kFirst ? counts.axis[1] : counts.axis[2]),
        fast_(kOther == Other::kFirst ? counts.axis[2] : counts.other) {}

  MXD_DEVICE Digits<Index> split(Index flat) const {
    const Index d = fast_.divide(flat);
    const Index c = middle_.divide(d);
    const Index b = slow_.divide(c);
    const Index fast = flat - d * fast_.value;
    const Index middle = d - c * middle_.value;
    const Index slow = c - b * slow_.value;
    if constexpr (kOther == Other::kFirst) {
      return {b, {slow, middle, fast}};
    } else {
      return {fast, {b, slow, middle}};
    }
  }
  // How many values the fastest digit has, and which it is.
  MXD_DEVICE Index fastest_count() const { return fast_.value; }
  static MXD_DEVICE Index fastest(const Digits<Index>& digits) {
    return kOther == Other::kFirst ? digits.axis[2] : digits.other;
  }

 private:
  Divisor<Index> slow_, middle_, fast_;
};

}  // namespace mxd::cuda
