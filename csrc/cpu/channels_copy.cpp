#include "cpu/channels_copy.h"

#include <algorithm>

#include "cpu/panels.h"

namespace mxd::cpu {
namespace {

constexpr int64_t kPixels = 256;  // of a job: their copy stays in a cache while it is written

// Channels of a group in the copy.
int64_t width_of(const Kernels& products, int64_t channels) {
  return ceil_div(channels, products.terms) * products.terms;
}

}  // namespace

int64_t channels_copy_bytes(const Kernels& products, int64_t pixels, int64_t groups,
                            int64_t channels) {
  return pixels * groups * width_of(products, channels) * products.elem_bytes;
}

TapSum with_channels_copied(const TapSum& sum, const Threads& threads, char* memory) {
  const Kernels& kernels = *sum.products;
  const int64_t width = width_of(kernels, sum.src_channels);
  const int64_t pixel = sum.groups * width;
  int64_t size[kAxes];
  for (int a = 0; a < kAxes; ++a) size[a] = sum.axes[a].front().src_size;
  // Axes that go on where the inner ones end are one line of pixels.
  int64_t line = size[2], lines[2] = {size[0], size[1]};
  for (int a = 1; a >= 0 && sum.src.axis[a] == line * sum.src.axis[2]; --a) {
    line *= lines[a];
    lines[a] = 1;
  }
  const int64_t parts = ceil_div(line, kPixels);
  for_each_job(threads, sum.batch * lines[0] * lines[1] * parts, [&] {
    return [&](int64_t job) {
      const int64_t first = job % parts * kPixels;
      const int64_t row = job / parts;
      const int64_t src = row / lines[1] / lines[0] * sum.src.batch +
                          row / lines[1] % lines[0] * sum.src.axis[0] +
                          row % lines[1] * sum.src.axis[1] + first * sum.src.axis[2];
      for (int64_t group = 0; group < sum.groups; ++group) {
        const int64_t dst = (row * line + first) * pixel + group * width;
        kernels.in_place.copy(memory + dst * kernels.elem_bytes, pixel, width,
                              static_cast<const char*>(sum.src.data) +
                                  (src + group * sum.src_group) * kernels.elem_bytes,
                              sum.src_channels, sum.src.channel, std::min(line - first, kPixels),
                              sum.src.axis[2]);
      }
    };
  });
  TapSum copied = sum;
  copied.src.data = memory;
  copied.src.channel = 1;
  copied.src_group = width;
  copied.src.axis[2] = pixel;
  copied.src.axis[1] = size[2] * pixel;
  copied.src.axis[0] = size[1] * copied.src.axis[1];
  copied.src.batch = size[0] * copied.src.axis[0];
  return copied;
}

}  // namespace mxd::cpu
