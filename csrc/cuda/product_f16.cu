#include "cuda/product_launch.h"

namespace mxd::cuda {

template void launch_product<Half>(const ProductChoice&, const ProductParams<int32_t>&,
                                   CUstream_st*);
template void launch_product<Half>(const ProductChoice&, const ProductParams<int64_t>&,
                                   CUstream_st*);

}  // namespace mxd::cuda
