// The primitives that work on rows of a single channel, held against cpu/kernels.h.
#include <vector>

#include "check.h"
#include "cpu/cpu_isa.h"
#include "cpu/engine.h"
#include "element.h"
#include "problems.h"

namespace mxd::test {
namespace {

// `count` small integers, `stride` apart in memory that ends with the last of them.
struct Row {
  Row(DType dtype, int64_t stride, int64_t count, Random& random)
      : values(static_cast<size_t>(count)),
        bytes(size_t(((count - 1) * stride + 1) * size_of(dtype)), char(0xff)) {
    for (int64_t i = 0; i < count; ++i) {
      // Elements that share their place share their value.
      values[size_t(i)] = stride || i == 0 ? draw(random, -9, 9) : values[0];
      store_element(dtype, double(values[size_t(i)]), bytes.data() + i * stride * size_of(dtype));
    }
  }
  std::vector<int64_t> values;
  std::vector<char> bytes;
};

std::string name_of_call(const cpu::Kernels& kernels, DType dtype, const char* primitive,
                         int64_t count, int64_t stride) {
  return std::string(primitive) + " of " + name_of(dtype) + " for " + kernels.isa + ": " +
         std::to_string(count) + " elements, stride " + std::to_string(stride);
}

MXD_TEST(rows, "add_scaled and dot: every tail, strides, exact memory, nothing else written") {
  Random random(options().seed);
  for (const std::string& isa : cpu::available_isas()) {
    cpu::set_isa(isa);
    for (const DType dtype : kDTypes) {
      const cpu::Kernels& kernels = cpu::kernels_for(dtype);
      const DType acc_type = dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
      for (int64_t count = 1; count <= 5 * kernels.vector + 1; ++count) {
        for (const int64_t stride : {0, 1, 2, 3, 40}) {
          const Row src(dtype, stride, count, random);
          Row acc(acc_type, 1, count, random);
          for (int64_t i = 0; i < count; ++i) {
            const int64_t value = acc.values[size_t(i)] - 7 * src.values[size_t(i)];
            acc.values[size_t(i)] = value;
          }
          kernels.add_scaled(acc.bytes.data(), src.bytes.data(), stride, -7.0, count);
          bool right = true;
          for (int64_t i = 0; i < count; ++i) {
            const double value = load_element(acc_type, acc.bytes.data() + i * kernels.acc_bytes);
            right = right && value == double(acc.values[size_t(i)]);
          }
          MXD_CHECK(right, name_of_call(kernels, dtype, "add_scaled", count, stride));

          for (const int64_t other_stride : {0, 1, 2, 3}) {
            const Row other(dtype, other_stride, count, random);
            int64_t expected = 0;
            for (int64_t i = 0; i < count; ++i) {
              expected += src.values[size_t(i)] * other.values[size_t(i)];
            }
            const double sum =
                kernels.dot(src.bytes.data(), stride, other.bytes.data(), other_stride, count);
            MXD_CHECK(sum == double(expected), name_of_call(kernels, dtype, "dot", count, stride) +
                                                   " and " + std::to_string(other_stride));
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace mxd::test
