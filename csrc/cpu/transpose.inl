// Rearrangement of vectors in registers.

namespace {

// The integer vector that selects the lanes of a shuffle of V.
template <class Acc>
struct LaneIndex;
template <>
struct LaneIndex<float> {
  typedef int32_t Vec __attribute__((vector_size(kVectorBytes)));
};
template <>
struct LaneIndex<double> {
  typedef int64_t Vec __attribute__((vector_size(kVectorBytes)));
};

// Lanes of the pair (a, b): index i < lanes selects a[i], the rest b[i - lanes].
template <class V, class Index>
inline __attribute__((always_inline)) V shuffle(V a, V b, Index index) {
#if defined(__clang__)
  constexpr int kLanes = int(sizeof(V) / sizeof(a[0]));
  V result;
  for (int i = 0; i < kLanes; ++i) {
    result[i] = index[i] < kLanes ? a[index[i]] : b[index[i] - kLanes];
  }
  return result;
#else
  return __builtin_shuffle(a, b, index);
#endif
}

// From a = p[0 .. lanes) and b = p[lanes-1 .. 2 lanes-1): the lanes p[0], p[2], p[4], ...
template <class Acc>
inline __attribute__((always_inline)) auto even_lanes(Vec<Acc> a, Vec<Acc> b) {
  constexpr int kLanes = Simd<Acc>::kLanes;
  typename LaneIndex<Acc>::Vec index;
  for (int i = 0; i < kLanes; ++i) index[i] = i < kLanes / 2 ? 2 * i : 2 * i + 1;
  return shuffle(a, b, index);
}

// The even (`odd` = 0) or the odd lanes of the pair (a, b).
template <class Acc>
inline __attribute__((always_inline)) Vec<Acc> unzip(Vec<Acc> a, Vec<Acc> b, int odd) {
  constexpr int kLanes = Simd<Acc>::kLanes;
  typename LaneIndex<Acc>::Vec index;
  for (int i = 0; i < kLanes; ++i) index[i] = 2 * i + odd;
  return shuffle(a, b, index);
}

// Lane i of the result is lane i - by of v, and zero for i < by.
template <class Acc>
inline __attribute__((always_inline)) Vec<Acc> shift_up(Vec<Acc> v, int64_t by) {
  constexpr int kLanes = Simd<Acc>::kLanes;
  typename LaneIndex<Acc>::Vec index;
  for (int i = 0; i < kLanes; ++i) index[i] = i + kLanes;
  index -= typename LaneIndex<Acc>::Vec{} + decltype(index[0] + 0)(by);
  return shuffle(Vec<Acc>{}, v, index);
}

// Transpose of a square of vectors, by log2(lanes) rounds of butterfly exchanges.

// Exchanges the off-diagonal blocks of size `kBlock` of rows a (upper) and b (lower):
//   a = [a0 a1], b = [b0 b1]  ->  a = [a0 b0], b = [a1 b1]   (per pair of blocks)
template <int kBlock, class V, class Index, int kLanes>
inline __attribute__((always_inline)) void exchange(V& a, V& b) {
  Index low, high;
  for (int i = 0; i < kLanes; ++i) {
    const int within = i % kBlock;
    const int base = i - i % (2 * kBlock);
    const bool upper = (i / kBlock) % 2 == 1;
    low[i] = upper ? kLanes + base + within : base + within;
    high[i] = upper ? kLanes + base + kBlock + within : base + kBlock + within;
  }
  const V new_a = shuffle(a, b, low);
  const V new_b = shuffle(a, b, high);
  a = new_a;
  b = new_b;
}

template <int kBlock, class V, class Index, int kLanes>
inline __attribute__((always_inline)) void transpose_blocks(V (&rows)[kLanes]) {
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    if ((i / kBlock) % 2 == 0) exchange<kBlock, V, Index, kLanes>(rows[i], rows[i + kBlock]);
  }
  if constexpr (kBlock > 1) transpose_blocks<kBlock / 2, V, Index, kLanes>(rows);
}

template <class Acc>
inline __attribute__((always_inline)) void transpose(Vec<Acc> (&rows)[Simd<Acc>::kLanes]) {
  constexpr int kLanes = Simd<Acc>::kLanes;
  transpose_blocks<kLanes / 2, Vec<Acc>, typename LaneIndex<Acc>::Vec, kLanes>(rows);
}

}  // namespace
