#include "reference.h"

namespace mxd::test {
namespace {

// Visits batch and group too, with the positions of the first channel of data, weight and out.
template <class Visit>
void for_each_block(const Geometry& g, const Visit& visit) {
  const int64_t channels = g.groups * g.in_channels;
  const int64_t filters = g.groups * g.out_channels;
  for_each_meeting(g, [&](int64_t i, int64_t t, int64_t o) {
    for (int64_t n = 0; n < g.batch; ++n) {
      for (int64_t group = 0; group < g.groups; ++group) {
        const int64_t c = group * g.in_channels;
        visit((n * g.in_pixels() + i) * channels + c, (c * g.taps() + t) * g.out_channels,
              (n * g.out_pixels() + o) * filters + group * g.out_channels);
      }
    }
  });
}

}  // namespace

Integers reference_forward(const Geometry& g, const Integers& data, const Integers& weight,
                           const std::vector<int32_t>& bias) {
  Integers out(out_size(g));
  const size_t filters = size_t(g.groups * g.out_channels);
  if (!bias.empty()) {
    for (size_t p = 0; p < out.at.size(); ++p) out.at[p] = bias[p % filters];
  }
  const int64_t next_channel = g.taps() * g.out_channels;
  for_each_block(g, [&](int64_t x, int64_t w, int64_t y) {
    int32_t* dst = out.at.data() + y;
    for (int64_t c = 0; c < g.in_channels; ++c) {
      const int32_t value = data.at[size_t(x + c)];
      const int32_t* row = weight.at.data() + w + c * next_channel;
      for (int64_t f = 0; f < g.out_channels; ++f) dst[f] += value * row[f];
    }
  });
  return out;
}

Integers reference_data_gradient(const Geometry& g, const Integers& weight,
                                 const Integers& out_grad) {
  Integers grad(data_size(g));
  const int64_t next_channel = g.taps() * g.out_channels;
  for_each_block(g, [&](int64_t x, int64_t w, int64_t y) {
    const int32_t* src = out_grad.at.data() + y;
    for (int64_t c = 0; c < g.in_channels; ++c) {
      const int32_t* row = weight.at.data() + w + c * next_channel;
      int32_t sum = 0;
      for (int64_t f = 0; f < g.out_channels; ++f) sum += src[f] * row[f];
      grad.at[size_t(x + c)] += sum;
    }
  });
  return grad;
}

Integers reference_weight_gradient(const Geometry& g, const Integers& data,
                                   const Integers& out_grad) {
  Integers grad(weight_size(g));
  const int64_t next_channel = g.taps() * g.out_channels;
  for_each_block(g, [&](int64_t x, int64_t w, int64_t y) {
    const int32_t* src = out_grad.at.data() + y;
    for (int64_t c = 0; c < g.in_channels; ++c) {
      const int32_t value = data.at[size_t(x + c)];
      int32_t* row = grad.at.data() + w + c * next_channel;
      for (int64_t f = 0; f < g.out_channels; ++f) row[f] += value * src[f];
    }
  });
  return grad;
}

}  // namespace mxd::test
