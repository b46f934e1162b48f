// The problem descriptor every engine understands: sizes only, no framework, no memory.
#pragma once

#include <cstdint>

namespace mxd {

// 1-D and 2-D problems are promoted to three axes by leading axes of size 1.
constexpr int kAxes = 3;

enum class DType { kFloat32, kFloat64, kFloat16, kBFloat16 };

constexpr int64_t size_of(DType dtype) {
  return dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2;
}

// One spatial axis of the trilinear form: input i, tap t and output o meet where
//   o = i * stride - pad + t * dilate,   0 <= i < in,  0 <= t < kernel,  0 <= o < out.
// MXNet's `adj` only enlarges `out`, so it needs no field of its own.
struct Axis {
  int64_t in = 1;
  int64_t out = 1;
  int64_t kernel = 1;
  int64_t stride = 1;
  int64_t dilate = 1;
  int64_t pad = 0;
};

// T(x, w, g) = sum x[n, c, i] * w[c, f, t] * g[n, f, o(i, t)], channels counted per group.
struct Geometry {
  int64_t batch = 1;
  int64_t groups = 1;
  int64_t in_channels = 1;   // per group
  int64_t out_channels = 1;  // per group
  Axis axis[kAxes];

  int64_t taps() const { return axis[0].kernel * axis[1].kernel * axis[2].kernel; }
  int64_t in_pixels() const { return axis[0].in * axis[1].in * axis[2].in; }
  int64_t out_pixels() const { return axis[0].out * axis[1].out * axis[2].out; }
  // Multiply-adds of a pass, cropped ones included. Beyond 64 bits for expanded operands.
  double products() const {
    double count = double(batch) * double(groups) * double(in_channels) * double(out_channels);
    for (const Axis& a : axis) count *= double(a.in) * double(a.kernel);
    return count;
  }
};

}  // namespace mxd
