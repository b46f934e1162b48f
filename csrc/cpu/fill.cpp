#include "cpu/fill.h"

#include <algorithm>

#include "cpu/scratch.h"

namespace mxd::cpu {
namespace {

constexpr int64_t kRun = 256;  // accumulators handed to one call of `store`

// Stores `count` elements `stride` apart, all equal to *bias (zero if null) of the accumulate type.
void fill_run(const Kernels& kernels, char* dst, int64_t stride, int64_t count, const void* zeros,
              const void* bias) {
  for (int64_t i = 0; i < count; i += kRun) {
    kernels.store(dst + i * stride * kernels.elem_bytes, 0, stride, zeros, 0, 1,
                  std::min(kRun, count - i), bias, 0, 0);
  }
}

// Where channels are contiguous: pixel after pixel, some channels of it.
void fill_channels(const Kernels& kernels, const TensorView& dst, const BiasView& bias,
                   int64_t batch, int64_t channels, const int64_t (&size)[kAxes]) {
  Scratch scratch(2 * (kRun * kernels.acc_bytes + kAlignment));
  char* zeros = scratch.take<char>(kRun * kernels.acc_bytes);
  char* biases = bias.data ? scratch.take<char>(kRun * kernels.acc_bytes) : nullptr;
  std::fill(zeros, zeros + kRun * kernels.acc_bytes, char(0));
  for (int64_t c = 0; c < channels; c += kRun) {
    const int64_t count = std::min(kRun, channels - c);
    if (biases) {
      kernels.pack(biases, count,
                   static_cast<const char*>(bias.data) + c * bias.stride * kernels.elem_bytes,
                   count, bias.stride, 1, 0);
    }
    for (int64_t row = 0; row < batch * size[0] * size[1]; ++row) {
      const int64_t offset = row / (size[0] * size[1]) * dst.batch +
                             row / size[1] % size[0] * dst.axis[0] + row % size[1] * dst.axis[1];
      kernels.store(static_cast<char*>(dst.data) + (offset + c) * kernels.elem_bytes, dst.axis[2],
                    1, zeros, 0, size[2], count, biases, 0, 1);
    }
  }
}

}  // namespace

void fill_with_bias(const Kernels& kernels, const TensorView& dst, const BiasView& bias,
                    int64_t batch, int64_t channels, const int64_t (&size)[kAxes]) {
  if (dst.channel == 1 && channels > 1) {
    return fill_channels(kernels, dst, bias, batch, channels, size);
  }
  Scratch scratch((kRun + 1) * kernels.acc_bytes + 2 * kAlignment);
  char* zeros = scratch.take<char>(kRun * kernels.acc_bytes);
  char* channel_bias = scratch.take<char>(kernels.acc_bytes);
  std::fill(zeros, zeros + kRun * kernels.acc_bytes, char(0));
  // The longest axis is the run: fewest calls, whatever the layout.
  const int run = int(std::max_element(size, size + kAxes) - size);
  const int outer = run == 0 ? 1 : 0;
  const int inner = run == 2 ? 1 : 2;
  for (int64_t n = 0; n < batch; ++n) {
    for (int64_t c = 0; c < channels; ++c) {
      if (bias.data) {
        kernels.pack(channel_bias, 1,
                     static_cast<const char*>(bias.data) + c * bias.stride * kernels.elem_bytes, 1,
                     1, 1, 0);
      }
      for (int64_t o = 0; o < size[outer]; ++o) {
        for (int64_t i = 0; i < size[inner]; ++i) {
          const int64_t offset =
              n * dst.batch + c * dst.channel + o * dst.axis[outer] + i * dst.axis[inner];
          fill_run(kernels, static_cast<char*>(dst.data) + offset * kernels.elem_bytes,
                   dst.axis[run], size[run], zeros, bias.data ? channel_bias : nullptr);
        }
      }
    }
  }
}

void fill_weight_with_zero(const Kernels& kernels, const WeightView& weight, int64_t in_channels,
                           int64_t out_channels, const int64_t (&kernel)[kAxes]) {
  TensorView view;
  view.data = weight.data;
  view.batch = weight.in_channel;
  view.channel = weight.out_channel;
  for (int a = 0; a < kAxes; ++a) view.axis[a] = weight.tap[a];
  fill_with_bias(kernels, view, BiasView{}, in_channels, out_channels, kernel);
}

}  // namespace mxd::cpu
