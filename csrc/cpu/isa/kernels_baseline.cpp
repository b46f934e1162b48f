#include "cpu/kernels.inl"

MXD_DEFINE_KERNELS(baseline)
