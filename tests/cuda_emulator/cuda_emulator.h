// The host's stand-in for the device, for tests: kernel bodies (csrc/cuda) compiled by an ordinary
// compiler, the threads of a block as fibers. It looks for what a GPU would not show:
//
// - shared memory is full of NaNs before each block
// - between two barriers no thread may touch a cell that another one wrote, or write one that
//   another one read
// - every thread of a block reaches the same barriers, every lane of a warp the same collectives
// - global memory is read and written inside of the declared ranges only, vectors on their
// alignment
//
// A violation is reported once per kernel through emulator::failure().
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "cuda/matrix_type.h"

#define MXD_DEVICE inline
#define MXD_HOST_DEVICE inline
#define MXD_UNROLL
#define MXD_NO_UNROLL
#define MXD_EXPECT(condition) \
  ((condition) ? void() : ::mxd::cuda::emulator::fail(#condition " does not hold"))

namespace mxd::cuda {
namespace emulator {

constexpr int kLanes = 32;

// Runs a grid, one block after another.
void run_blocks(int64_t blocks, int threads, size_t shared_bytes,
                void (*body)(const void* params, void* shared), const void* params);

// Blocks of a launch at most, from now on: fewer make a block do several jobs.
void set_most_blocks(int64_t most);

// Memory that kernels may use, until the next call.
struct Range {
  const void* begin;
  size_t bytes;
  bool writable;
};
void set_global_memory(std::vector<Range> ranges);

// The first violation since the last call, or empty.
std::string failure();
void fail(const std::string& what);

struct Position {
  int thread = 0;
  int64_t block = 0, blocks = 0;
};
const Position& position();

void note_shared(const void* cell, bool writes);
// Whether it may be touched.
bool check_global(const void* at, size_t bytes, bool writes);
bool block_barrier(bool mine);

// Every lane of the warp gives `bytes` (the same number each), gets those of all lanes in turn.
// Valid until the lane's next but one exchange.
constexpr size_t kMostExchanged = 64;
const unsigned char* exchange(const void* mine, size_t bytes);

float float_of_half(uint16_t bits);
uint16_t half_of_float(float value);
void multiply_fragments(MatrixType type, float* c, const uint32_t* a, const uint32_t* b);

}  // namespace emulator

// An element of shared memory.
template <class T>
class Cell {
 public:
  operator T() const {
    emulator::note_shared(this, false);
    return value_;
  }
  Cell& operator=(T value) {
    emulator::note_shared(this, true);
    value_ = value;
    return *this;
  }

 private:
  T value_;
};

inline int thread_index() { return emulator::position().thread; }
inline int64_t block_index() { return emulator::position().block; }
inline int64_t block_count() { return emulator::position().blocks; }
inline int64_t anew(int64_t number) { return number; }
inline void barrier() { emulator::block_barrier(false); }
inline bool barrier_or(bool mine) { return emulator::block_barrier(mine); }

template <class T>
T read(const T* global) {
  return emulator::check_global(global, sizeof(T), false) ? *global : T{};
}
template <class T>
void write(T* global, T value) {
  if (emulator::check_global(global, sizeof(T), true)) *global = value;
}

template <int kCount, class T>
void read_packet(const T* global, T* values) {
  MXD_EXPECT(reinterpret_cast<uintptr_t>(global) % (kCount * sizeof(T)) == 0);
  const bool ok = emulator::check_global(global, kCount * sizeof(T), false);
  for (int i = 0; i < kCount; ++i) values[i] = ok ? global[i] : T{};
}
template <int kCount, class T>
void write_packet(T* global, const T* values) {
  MXD_EXPECT(reinterpret_cast<uintptr_t>(global) % (kCount * sizeof(T)) == 0);
  if (!emulator::check_global(global, kCount * sizeof(T), true)) return;
  for (int i = 0; i < kCount; ++i) global[i] = values[i];
}
template <int kCount, class T>
void read_cells(const Cell<T>* shared, T* values) {
  MXD_EXPECT(reinterpret_cast<uintptr_t>(shared) % (kCount * sizeof(T)) == 0);
  for (int i = 0; i < kCount; ++i) values[i] = shared[i];
}

inline uint32_t multiply_high(uint32_t a, uint32_t b) { return uint32_t(uint64_t(a) * b >> 32); }
inline float multiply_add(float a, float b, float c) { return std::fma(a, b, c); }
inline double multiply_add(double a, double b, double c) { return std::fma(a, b, c); }

inline float float_of_half(uint16_t bits) { return emulator::float_of_half(bits); }
inline uint16_t half_of_float(float value) { return emulator::half_of_float(value); }
inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline float float_of_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline uint32_t high_bits_of(double value) {
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return uint32_t(bits >> 32);
}

inline uint32_t tf32_of_float(float value) {
  const uint32_t bits = bits_of(value);
  const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
  return finite ? (bits + 0x1000u) & 0xffffe000u : bits;  // ties away from zero
}

template <MatrixType kType>
void multiply_fragments(float* c, const uint32_t* a, const uint32_t* b) {
  emulator::multiply_fragments(kType, c, a, b);
}

}  // namespace mxd::cuda
