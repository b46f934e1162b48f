// A copy of a source in which the channels of a pixel lie side by side and fill whole steps of a
// panel, zeros behind them: what a sum needs that reads its source in place.
#pragma once

#include "cpu/tap_sum.h"

namespace mxd::cpu {

// Whether channels with this stride lie so already, those of a group.
inline bool channels_fill_steps(const Kernels& products, int64_t channels, int64_t stride) {
  return (channels == 1 || stride == 1) && channels % products.terms == 0;
}

// Of the copy of so many pixels, over the batch.
int64_t channels_copy_bytes(const Kernels& products, int64_t pixels, int64_t groups,
                            int64_t channels);

// The sum, with such a copy of its source in `memory`.
TapSum with_channels_copied(const TapSum& sum, const Threads& threads, char* memory);

}  // namespace mxd::cpu
