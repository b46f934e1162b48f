// A matrix in shared memory.
#pragma once

#include "cuda/device.h"

namespace mxd::cuda {

template <class T, int kLines, int kPitch>
struct alignas(16) Tile {
  Cell<T> at[kLines][kPitch];

  MXD_DEVICE Cell<T>& operator()(int line, int place) {
    MXD_EXPECT(line >= 0 && line < kLines && place >= 0 && place < kPitch);
    return at[line][place];
  }
  MXD_DEVICE const Cell<T>& operator()(int line, int place) const {
    MXD_EXPECT(line >= 0 && line < kLines && place >= 0 && place < kPitch);
    return at[line][place];
  }
};

}  // namespace mxd::cuda
