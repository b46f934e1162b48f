#include "cuda/few_channels_launch.h"

namespace mxd::cuda {

template void launch_few_channels<double>(const FewChannelsPlan&, CUstream_st*);

}  // namespace mxd::cuda
