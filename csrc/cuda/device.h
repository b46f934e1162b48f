// What a kernel body may use of the machine. The same text is compiled by nvcc for the device and
// by a C++ compiler for the emulator of the tests, which puts its own versions of these names in
// place.
#pragma once

#include <cstdint>

#include "core/geometry.h"
#include "cuda/matrix_type.h"

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

// The same number, of which the compiler does not know so: what follows from it is worked out anew
// instead of being kept in registers.
MXD_DEVICE int64_t anew(int64_t number) {
  asm volatile("" : "+l"(number));
  return number;
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
MXD_DEVICE void write_packet(T* global, const T* values) {
  Packet<T, kCount> packet;
  MXD_UNROLL for (int i = 0; i < kCount; ++i) packet.at[i] = values[i];
  *reinterpret_cast<Packet<T, kCount>*>(global) = packet;
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

// Rounds to the 10 bits of mantissa that the matrix units read of a float.
MXD_DEVICE uint32_t tf32_of_float(float value) {
#if __CUDA_ARCH__ >= 800
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
#else
  return bits_of(value);
#endif
}

// C += A * B by a warp, on its lanes' fragments of a 16 x 8 tile of C and eight words of terms: two
// 16-bit terms to a word, or one of TF32. Lane 4 * g + t has, of
//   A   words t of rows g and g + 8, then words t + 4 of these rows
//   B   words t and t + 4 of column g
//   C   columns 2 * t and 2 * t + 1 of row g, then of row g + 8
// What an architecture lacks (BFloat16 and TF32 below sm_80) is never asked of it.
template <MatrixType kType>
MXD_DEVICE void multiply_fragments(float* c, const uint32_t* a, const uint32_t* b) {
#if __CUDA_ARCH__ >= 800
#define MXD_MMA(shape)                                  \
  asm("mma.sync.aligned." shape                         \
      " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, " \
      "{%0, %1, %2, %3};"                               \
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])  \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
  if constexpr (kType == MatrixType::kHalf) MXD_MMA("m16n8k16.row.col.f32.f16.f16.f32");
  if constexpr (kType == MatrixType::kBFloat16) MXD_MMA("m16n8k16.row.col.f32.bf16.bf16.f32");
  if constexpr (kType == MatrixType::kTf32) MXD_MMA("m16n8k8.row.col.f32.tf32.tf32.f32");
#undef MXD_MMA
#elif __CUDA_ARCH__ >= 750
  if constexpr (kType == MatrixType::kHalf) {
    for (int half = 0; half < 2; ++half) {
      asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
          "{%0, %1, %2, %3};"
          : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
          : "r"(a[2 * half]), "r"(a[2 * half + 1]), "r"(b[half]));
    }
  }
#endif
}

}  // namespace mxd::cuda

#else
#include "cuda_emulator.h"
#endif
