// What a kernel body may use of the machine. The same text is compiled by nvcc for the device and
// by a C++ compiler for the emulator of the tests, which puts its own versions of these names in
// place.
#pragma once

#include <cstdint>

#include "core/geometry.h"

#ifdef __CUDACC__

#include <cuda_fp16.h>

#define MXD_DEVICE __device__ __forceinline__
#define MXD_HOST_DEVICE __host__ __device__ __forceinline__
#define MXD_UNROLL _Pragma("unroll")
#define MXD_NO_UNROLL _Pragma("unroll 1")
#define MXD_EXPECT(condition)

namespace mxd::cuda {

// An element of shared memory. The emulator's records who touches it.
template <class T>
using Cell = T;

MXD_DEVICE int thread_index() { return int(threadIdx.x); }
MXD_DEVICE int64_t block_index() { return int64_t(blockIdx.x); }
MXD_DEVICE int64_t block_count() { return int64_t(gridDim.x); }
MXD_DEVICE void barrier() { __syncthreads(); }
// A barrier that also tells every thread whether any said yes.
MXD_DEVICE bool barrier_or(bool mine) { return __syncthreads_or(mine) != 0; }

// The value of the lane whose number differs in these bits.
template <class T>
MXD_DEVICE T shuffle_xor(T value, int bits) {
  return __shfl_xor_sync(0xffffffffu, value, bits);
}

template <class T>
MXD_DEVICE T read(const T* global) {
  return *global;
}
template <class T>
MXD_DEVICE void write(T* global, T value) {
  *global = value;
}

template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Packet {
  T at[kCount];
};

// kCount neighbours at once, from an address that is a multiple of their size.
template <int kCount, class T>
MXD_DEVICE void read_packet(const T* global, T* values) {
  const auto packet = *reinterpret_cast<const Packet<T, kCount>*>(global);
  MXD_UNROLL for (int i = 0; i < kCount; ++i) values[i] = packet.at[i];
}
template <int kCount, class T>
MXD_DEVICE void read_cells(const Cell<T>* shared, T* values) {
  read_packet<kCount>(shared, values);
}

MXD_DEVICE uint32_t multiply_high(uint32_t a, uint32_t b) { return __umulhi(a, b); }
MXD_DEVICE float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
MXD_DEVICE double multiply_add(double a, double b, double c) { return fma(a, b, c); }

MXD_DEVICE float float_of_half(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
MXD_DEVICE uint16_t half_of_float(float value) { return __half_as_ushort(__float2half_rn(value)); }
MXD_DEVICE uint32_t bits_of(float value) { return __float_as_uint(value); }
MXD_DEVICE float float_of_bits(uint32_t bits) { return __uint_as_float(bits); }
MXD_DEVICE uint32_t high_bits_of(double value) { return uint32_t(__double2hiint(value)); }

}  // namespace mxd::cuda

#else
#include "cuda_emulator.h"
#endif
