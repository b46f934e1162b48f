// Turns a FewChannelsPlan into the kernel that is meant. Included by few_channels_*.cu alone.
#pragma once

#include "cuda/few_channels.h"
#include "cuda/few_channels_kernel.h"
#include "cuda/launch.h"

namespace mxd::cuda {

template <class T, int kRows, int kColumns>
void launch_rows(FewChannelsParams params, CUstream_st* stream) {
  using Kernel = FewChannelsKernel<T, kRows, kColumns>;
  static_assert(Kernel::kTile == few_columns(kRows), "as planned");
  launch<Kernel>(params, params.jobs(), stream);
}

template <class T>
void launch_few_channels(const FewChannelsPlan& plan, CUstream_st* stream) {
  if (plan.rows_each == 4) return launch_rows<T, 4, 8>(plan.params, stream);
  if (plan.rows_each == 8) return launch_rows<T, 8, 4>(plan.params, stream);
  if (plan.rows_each == 12) return launch_rows<T, 12, 4>(plan.params, stream);
  if constexpr (sizeof(T) < 8) launch_rows<T, 16, 4>(plan.params, stream);
}

}  // namespace mxd::cuda
