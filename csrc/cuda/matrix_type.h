// What the matrix units multiply; they sum in float.
#pragma once

namespace mxd::cuda {

enum class MatrixType { kHalf, kBFloat16, kTf32 };

}  // namespace mxd::cuda
