#include "element.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace mxd::test {
namespace {

// An IEEE-like format of 16 bits: sign, exponent, mantissa.
struct Format {
  int exponent_bits;
  int mantissa_bits;

  double magnitude(int bits) const {
    const int top = (1 << exponent_bits) - 1;
    const int bias = top / 2;
    const int exponent = bits >> mantissa_bits;
    const int mantissa = bits & ((1 << mantissa_bits) - 1);
    if (exponent == top) {
      return mantissa ? std::numeric_limits<double>::quiet_NaN()
                      : std::numeric_limits<double>::infinity();
    }
    if (exponent == 0) return std::ldexp(mantissa, 1 - bias - mantissa_bits);
    return std::ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits);
  }

  double value(uint16_t bits) const {
    const double size = magnitude(bits & 0x7fff);
    return bits & 0x8000 ? -size : size;
  }
};

constexpr Format kHalf{5, 10};
constexpr Format kBFloat16{8, 7};

// All magnitudes of a format in order: their index is their bit pattern. In the place of infinity
// stands the power of two that would follow the largest number: rounding is decided against it.
class Magnitudes {
 public:
  explicit Magnitudes(const Format& format) {
    const int infinity = ((1 << format.exponent_bits) - 1) << format.mantissa_bits;
    for (int bits = 0; bits < infinity; ++bits) values_.push_back(format.magnitude(bits));
    values_.push_back(2 * format.magnitude(infinity - (1 << format.mantissa_bits)));
  }

  uint16_t nearest(double value) const {
    const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
    const double size = std::fabs(value);
    const auto above = std::lower_bound(values_.begin(), values_.end(), size);
    if (above == values_.end()) return uint16_t(sign | (values_.size() - 1));
    size_t index = size_t(above - values_.begin());
    if (*above != size) {
      const double up = *above - size;
      const double down = size - *(above - 1);
      if (down < up || (down == up && index % 2 == 1)) --index;
    }
    return uint16_t(sign | index);
  }

 private:
  std::vector<double> values_;
};

}  // namespace

const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return "float32";
    case DType::kFloat64:
      return "float64";
    case DType::kFloat16:
      return "float16";
    case DType::kBFloat16:
      return "bfloat16";
  }
  return "";
}

double value_of_half(uint16_t bits) { return kHalf.value(bits); }
double value_of_bfloat16(uint16_t bits) { return kBFloat16.value(bits); }

uint16_t nearest_half(double value) {
  static const Magnitudes magnitudes(kHalf);
  return magnitudes.nearest(value);
}

uint16_t nearest_bfloat16(double value) {
  static const Magnitudes magnitudes(kBFloat16);
  return magnitudes.nearest(value);
}

double load_element(DType dtype, const void* at) {
  float f;
  double d;
  uint16_t bits;
  switch (dtype) {
    case DType::kFloat32:
      std::memcpy(&f, at, sizeof f);
      return double(f);
    case DType::kFloat64:
      std::memcpy(&d, at, sizeof d);
      return d;
    case DType::kFloat16:
      std::memcpy(&bits, at, sizeof bits);
      return value_of_half(bits);
    case DType::kBFloat16:
      std::memcpy(&bits, at, sizeof bits);
      return value_of_bfloat16(bits);
  }
  return 0;
}

void store_element(DType dtype, double value, void* at) {
  const float f = float(value);
  uint16_t bits;
  switch (dtype) {
    case DType::kFloat32:
      std::memcpy(at, &f, sizeof f);
      break;
    case DType::kFloat64:
      std::memcpy(at, &value, sizeof value);
      break;
    case DType::kFloat16:
      bits = nearest_half(value);
      std::memcpy(at, &bits, sizeof bits);
      break;
    case DType::kBFloat16:
      bits = nearest_bfloat16(value);
      std::memcpy(at, &bits, sizeof bits);
      break;
  }
}

}  // namespace mxd::test
