#include "cpu/kernels.inl"

MXD_DEFINE_PAIR_KERNELS(avx512_bf16)
