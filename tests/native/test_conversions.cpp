// float16 and bfloat16 through pack and store: all 65536 values, and every rounding decision.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "check.h"
#include "cpu/cpu_isa.h"
#include "cpu/engine.h"
#include "element.h"
#include "problems.h"

namespace mxd::test {
namespace {

constexpr int64_t kPatterns = 65536;
constexpr DType kShortTypes[] = {DType::kFloat16, DType::kBFloat16};

double value_of(DType dtype, uint16_t bits) {
  return dtype == DType::kFloat16 ? value_of_half(bits) : value_of_bfloat16(bits);
}

uint16_t nearest(DType dtype, double value) {
  return dtype == DType::kFloat16 ? nearest_half(value) : nearest_bfloat16(value);
}

std::string text_of(const cpu::Kernels& kernels, DType dtype, uint32_t bits) {
  char text[100];
  std::snprintf(text, sizeof text, "%s for %s: bits 0x%x", name_of(dtype), kernels.isa, bits);
  return text;
}

bool same_float(float a, float b) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return a == b && std::signbit(a) == std::signbit(b);
}

MXD_TEST(load_16_bit, "all 65536 values of float16 and bfloat16, by every path of pack") {
  for (const std::string& isa : cpu::available_isas()) {
    cpu::set_isa(isa);
    for (const DType dtype : kShortTypes) {
      const cpu::Kernels& kernels = cpu::kernels_for(dtype);
      constexpr int64_t kWide = 256;
      for (const int64_t step : {1, 2, 3}) {
        for (const bool transposed : {false, true}) {
          // 256 rows of 256 steps; the elements are `step` apart along one of the two.
          const int64_t near = step;
          const int64_t far = step * kWide;
          std::vector<uint16_t> src(size_t((kPatterns - 1) * step + 1), 0x7fff);
          for (int64_t bits = 0; bits < kPatterns; ++bits) {
            src[size_t(bits * step)] = uint16_t(bits);
          }
          std::vector<float> dst(static_cast<size_t>(kPatterns));
          kernels.pack(dst.data(), kWide, src.data(), kWide, transposed ? far : near, kWide,
                       transposed ? near : far);
          for (int64_t at = 0; at < kPatterns; ++at) {
            const uint16_t bits = uint16_t(transposed ? at % kWide * kWide + at / kWide : at);
            MXD_CHECK(same_float(dst[size_t(at)], float(value_of(dtype, bits))),
                      text_of(kernels, dtype, bits));
          }
        }
      }
    }
  }
}

// Stores the values by vectors, and one by one, and holds both against the nearest number.
void check_rounding(const cpu::Kernels& kernels, DType dtype, const std::vector<float>& values) {
  const int64_t count = int64_t(values.size());
  for (const int64_t step : {1, 2}) {
    std::vector<uint16_t> dst(size_t((count - 1) * step + 1));
    kernels.store(dst.data(), 0, step, values.data(), 0, 1, count, nullptr, 0, 0);
    for (int64_t e = 0; e < count; ++e) {
      const float value = values[size_t(e)];
      const uint16_t bits = dst[size_t(e * step)];
      uint32_t source;
      std::memcpy(&source, &value, sizeof source);
      // A sum with the absent bias, +0, turns -0 into +0.
      const bool right = std::isnan(value) ? std::isnan(value_of(dtype, bits))
                                           : bits == nearest(dtype, double(value + 0.0f));
      MXD_CHECK(right, text_of(kernels, dtype, source) + " becomes " + std::to_string(bits));
    }
  }
}

MXD_TEST(round_to_16_bit, "ties, their neighbours, overflow, subnormals, NaN, random bits") {
  for (const std::string& isa : cpu::available_isas()) {
    cpu::set_isa(isa);
    for (const DType dtype : kShortTypes) {
      const float infinity = std::numeric_limits<float>::infinity();
      std::vector<float> values{infinity,
                                -infinity,
                                65519.0f,
                                65520.0f,
                                65521.0f,
                                1e30f,
                                std::numeric_limits<float>::max(),
                                std::numeric_limits<float>::denorm_min()};
      for (int64_t bits = 0; bits < kPatterns; ++bits) {
        const double value = value_of(dtype, uint16_t(bits));
        values.push_back(float(value));
        const double next = value_of(dtype, uint16_t(bits + 1));
        if (!std::isfinite(value) || !std::isfinite(next)) continue;
        // Halfway to the next number: a float holds it, except below the least bfloat16 there is.
        const float tie = float(value / 2 + next / 2);
        values.push_back(tie);
        values.push_back(std::nextafterf(tie, infinity));
        values.push_back(std::nextafterf(tie, -infinity));
      }
      Random random(options().seed);
      for (int i = 0; i < 300000; ++i) {
        const uint32_t bits = uint32_t(random());
        float value;
        std::memcpy(&value, &bits, sizeof value);
        values.push_back(value);
      }
      // NaNs whose payload lies in the bits that the result does not have.
      for (const uint32_t bits : {0x7f800001u, 0xff800001u, 0x7fffffffu, 0xffffffffu}) {
        float value;
        std::memcpy(&value, &bits, sizeof value);
        values.push_back(value);
      }
      check_rounding(cpu::kernels_for(dtype), dtype, values);
    }
  }
}

}  // namespace
}  // namespace mxd::test
