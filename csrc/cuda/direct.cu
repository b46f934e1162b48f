#include "cuda/direct_kernel.h"
#include "cuda/launch.h"
#include "cuda/product_shapes.h"

namespace mxd::cuda {

template <class T, class Index>
void launch_direct(Other terms, const ProductParams<Index>& params, CUstream_st* stream) {
  if (terms == Other::kLast) {
    using Kernel = DirectKernel<T, Index>;
    launch<Kernel>(params, Kernel::jobs(params), stream);
  } else if (params.groups_fastest) {
    using Kernel = DirectReduction<T, Index, 32>;
    launch<Kernel>(params, Kernel::jobs(params), stream);
  } else {
    using Kernel = DirectReduction<T, Index, 1>;
    launch<Kernel>(params, Kernel::jobs(params), stream);
  }
}

template void launch_direct<float>(Other, const ProductParams<int32_t>&, CUstream_st*);
template void launch_direct<float>(Other, const ProductParams<int64_t>&, CUstream_st*);
template void launch_direct<double>(Other, const ProductParams<int32_t>&, CUstream_st*);
template void launch_direct<double>(Other, const ProductParams<int64_t>&, CUstream_st*);
template void launch_direct<Half>(Other, const ProductParams<int32_t>&, CUstream_st*);
template void launch_direct<Half>(Other, const ProductParams<int64_t>&, CUstream_st*);
template void launch_direct<BFloat16>(Other, const ProductParams<int32_t>&, CUstream_st*);
template void launch_direct<BFloat16>(Other, const ProductParams<int64_t>&, CUstream_st*);

}  // namespace mxd::cuda
