// Whether tensors are packed in one of the two orders that convolution libraries know.
#pragma once

#include <array>

#include "core/problem.h"

namespace mxd::ops {

// Sizes and strides of a whole tensor: first axis, channels, then kAxes spatial axes.
struct Layout {
  std::array<int64_t, 2 + kAxes> sizes, strides;

  // Packed means without gaps or overlap, axes in the order of the sizes or with the channels
  // last. The stride of an axis of one element says nothing.
  bool is_packed(bool channels_last) const {
    int64_t expected = 1;
    const auto matches = [&](size_t d) {
      if (sizes[d] != 1 && strides[d] != expected) return false;
      expected *= sizes[d];
      return true;
    };
    if (channels_last && !matches(1)) return false;
    for (size_t d = sizes.size(); d-- > 0;) {
      if (!(d == 1 && channels_last) && !matches(d)) return false;
    }
    return true;
  }

  int64_t elements() const {
    int64_t count = 1;
    for (const int64_t size : sizes) count *= size;
    return count;
  }
};

struct Layouts {
  Layout data, weight, out;

  explicit Layouts(const Problem& problem) {
    const Geometry& g = problem.geometry;
    const auto fill = [&](Layout& layout, int64_t first, int64_t channels, int64_t Axis::*size,
                          int64_t first_stride, int64_t channel_stride, const int64_t* strides) {
      layout.sizes[0] = first;
      layout.sizes[1] = channels;
      layout.strides[0] = first_stride;
      layout.strides[1] = channel_stride;
      for (int a = 0; a < kAxes; ++a) {
        layout.sizes[size_t(2 + a)] = g.axis[a].*size;
        layout.strides[size_t(2 + a)] = strides[a];
      }
    };
    fill(data, g.batch, g.groups * g.in_channels, &Axis::in, problem.data.batch,
         problem.data.channel, problem.data.axis);
    fill(weight, g.groups * g.in_channels, g.out_channels, &Axis::kernel, problem.weight.in_channel,
         problem.weight.out_channel, problem.weight.tap);
    fill(out, g.batch, g.groups * g.out_channels, &Axis::out, problem.out.batch,
         problem.out.channel, problem.out.axis);
  }

  // The order that most of the pass is in: the result's, where it has just one, else the other
  // operands'.
  bool channels_last(Pass pass) const {
    const Layout& result = pass == Pass::kForward        ? out
                           : pass == Pass::kDataGradient ? data
                                                         : weight;
    if (!result.is_packed(true)) return false;
    if (!result.is_packed(false)) return true;
    for (const Layout* layout : {&data, &weight, &out}) {
      if (layout->is_packed(true) && !layout->is_packed(false)) return true;
    }
    return false;
  }
};

}  // namespace mxd::ops
