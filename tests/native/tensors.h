// Dense integer tensors, and tensors of a dtype on strided memory of exactly the size they need.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/tensor_view.h"
#include "problems.h"

namespace mxd::test {

// data and out: batch, channel, three axes. weight: input channel, filter of the group, three axes.
using Size = std::array<int64_t, 5>;
using Strides = std::array<int64_t, 5>;

int64_t count_of(const Size& size);
Size data_size(const Geometry& geometry);
Size weight_size(const Geometry& geometry);
Size out_size(const Geometry& geometry);

// Integers in the order [0][axis 0][axis 1][axis 2][1]: channels innermost.
struct Integers {
  explicit Integers(const Size& s) : size(s), at(size_t(count_of(s))) {}
  Size size;
  std::vector<int32_t> at;
};

// Calls visit(position, offset) in the order of Integers; `offset` is in elements.
template <class Visit>
void for_each_element(const Size& size, const Strides& strides, const Visit& visit) {
  size_t position = 0;
  for (int64_t n = 0; n < size[0]; ++n) {
    for (int64_t i0 = 0; i0 < size[2]; ++i0) {
      for (int64_t i1 = 0; i1 < size[3]; ++i1) {
        for (int64_t i2 = 0; i2 < size[4]; ++i2) {
          for (int64_t c = 0; c < size[1]; ++c) {
            visit(position++, n * strides[0] + c * strides[1] + i0 * strides[2] + i1 * strides[3] +
                                  i2 * strides[4]);
          }
        }
      }
    }
  }
}

enum class Layout {
  kFirst,     // channels first, contiguous
  kLast,      // channels last, contiguous
  kPermuted,  // any order of the dimensions
  kSliced,    // any order, with gaps between the elements of every dimension
};
constexpr int kLayouts = 4;
const char* name_of(Layout layout);

// `expanded` dimensions get stride 0. Dimensions of size 1 get a stride that means nothing where
// the layout is permuted or sliced: nothing may depend on it.
Strides strides_of(Layout layout, const Size& size, const std::array<bool, 5>& expanded,
                   Random& random);

// Elements from the first to the last, gaps included.
int64_t span_of(const Size& size, const Strides& strides);

// The memory of an input: nothing before, between or after its elements may be read. Between them
// lie NaNs; before and after lies what the sanitizer guards.
class Input {
 public:
  Input(DType dtype, const Integers& values, const Strides& strides);
  const Strides& strides() const { return strides_; }
  void* data() const { return const_cast<char*>(bytes_.data()); }

 private:
  Strides strides_;
  std::vector<char> bytes_;
};

// The memory of a result: nothing but its elements may be written.
class Output {
 public:
  Output(DType dtype, const Size& size, const Strides& strides);
  const Strides& strides() const { return strides_; }
  void* data() { return bytes_.data() + kMarginBytes; }

  // Empty if every element has the value, rounded once, and everything else is untouched.
  std::string compare(const Integers& expected) const;
  const std::vector<char>& bytes() const { return bytes_; }

 private:
  // Not a multiple of a vector: results need not be aligned beyond their elements.
  static constexpr int64_t kMarginBytes = 264;
  DType dtype_;
  Size size_;
  Strides strides_;
  std::vector<char> bytes_;
};

TensorView view_of(void* data, const Strides& strides);
WeightView weight_view_of(void* data, const Strides& strides);

}  // namespace mxd::test
