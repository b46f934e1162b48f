#include "cuda/product_launch.h"

namespace mxd::cuda {

template void launch_tensor_product<BFloat16>(const ProductChoice&, const ProductParams<int32_t>&,
                                              CUstream_st*);

}  // namespace mxd::cuda
