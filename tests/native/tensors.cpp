#include "tensors.h"

#include <algorithm>
#include <cstring>

#include "element.h"

namespace mxd::test {
namespace {

constexpr char kCanary = char(0xa5);

int64_t largest_offset(const Size& size, const Strides& strides) {
  int64_t last = 0;
  for (size_t d = 0; d < size.size(); ++d) last += (size[d] - 1) * strides[d];
  return last;
}

}  // namespace

int64_t count_of(const Size& size) {
  int64_t count = 1;
  for (const int64_t n : size) count *= n;
  return count;
}

Size data_size(const Geometry& g) {
  return {g.batch, g.groups * g.in_channels, g.axis[0].in, g.axis[1].in, g.axis[2].in};
}

Size weight_size(const Geometry& g) {
  return {g.groups * g.in_channels, g.out_channels, g.axis[0].kernel, g.axis[1].kernel,
          g.axis[2].kernel};
}

Size out_size(const Geometry& g) {
  return {g.batch, g.groups * g.out_channels, g.axis[0].out, g.axis[1].out, g.axis[2].out};
}

const char* name_of(Layout layout) {
  switch (layout) {
    case Layout::kFirst:
      return "first";
    case Layout::kLast:
      return "last";
    case Layout::kPermuted:
      return "permuted";
    case Layout::kSliced:
      return "sliced";
  }
  return "";
}

Strides strides_of(Layout layout, const Size& size, const std::array<bool, 5>& expanded,
                   Random& random) {
  std::array<int, 5> order{4, 3, 2, 1, 0};  // innermost first
  if (layout == Layout::kLast) order = {1, 4, 3, 2, 0};
  const bool odd = layout == Layout::kPermuted || layout == Layout::kSliced;
  if (odd) std::shuffle(order.begin(), order.end(), random);
  Strides strides{};
  int64_t next = layout == Layout::kSliced ? draw(random, 1, 3) : 1;
  for (const int d : order) {
    if (expanded[size_t(d)]) continue;
    strides[size_t(d)] = next;
    next *= size[size_t(d)];
    if (layout == Layout::kSliced) next += draw(random, 0, 3);
    if (odd && size[size_t(d)] == 1) {
      const int64_t meaningless[] = {0, 1, 2, 77, int64_t(1) << 33};
      strides[size_t(d)] = meaningless[draw(random, 0, 4)];
    }
  }
  return strides;
}

int64_t span_of(const Size& size, const Strides& strides) {
  return count_of(size) == 0 ? 0 : largest_offset(size, strides) + 1;
}

Input::Input(DType dtype, const Integers& values, const Strides& strides)
    : strides_(strides),
      bytes_(size_t(span_of(values.size, strides) * size_of(dtype)), char(0xff)) {
  for_each_element(values.size, strides, [&](size_t position, int64_t offset) {
    store_element(dtype, values.at[position], bytes_.data() + offset * size_of(dtype));
  });
}

Output::Output(DType dtype, const Size& size, const Strides& strides)
    : dtype_(dtype),
      size_(size),
      strides_(strides),
      bytes_(size_t(span_of(size, strides) * size_of(dtype) + 2 * kMarginBytes), kCanary) {}

std::string Output::compare(const Integers& expected) const {
  const int64_t element = size_of(dtype_);
  std::vector<char> image(bytes_.size(), kCanary);
  for_each_element(size_, strides_, [&](size_t position, int64_t offset) {
    store_element(dtype_, expected.at[position], image.data() + kMarginBytes + offset * element);
  });
  if (image == bytes_) return "";
  std::string difference = "memory outside of the result was written";
  bool found = false;
  for_each_element(size_, strides_, [&](size_t position, int64_t offset) {
    const int64_t at = kMarginBytes + offset * element;
    if (found || std::memcmp(&image[size_t(at)], &bytes_[size_t(at)], size_t(element)) == 0) return;
    found = true;
    const int64_t c = int64_t(position) % size_[1];
    int64_t rest = int64_t(position) / size_[1];
    int64_t axis[kAxes];
    for (int a = kAxes - 1; a >= 0; --a) {
      axis[a] = rest % size_[size_t(a) + 2];
      rest /= size_[size_t(a) + 2];
    }
    difference = "element (" + std::to_string(rest) + ", " + std::to_string(c) + ", " +
                 std::to_string(axis[0]) + ", " + std::to_string(axis[1]) + ", " +
                 std::to_string(axis[2]) + ") should be " +
                 std::to_string(load_element(dtype_, &image[size_t(at)])) + ", is " +
                 std::to_string(load_element(dtype_, &bytes_[size_t(at)]));
  });
  return difference;
}

TensorView view_of(void* data, const Strides& s) { return {data, s[0], s[1], {s[2], s[3], s[4]}}; }

WeightView weight_view_of(void* data, const Strides& s) {
  return {data, s[0], s[1], {s[2], s[3], s[4]}};
}

}  // namespace mxd::test
