// How the threads of a block bring a tile of an operand from its tensor, wherever its elements lie.
//
// A tile is kDepth terms (k) by kWidth rows or columns (w). A thread brings runs of kRun
// consecutive terms: `kColumns` values of w, `kRuns` runs of each. Neighbouring threads take
// neighbours in w (Along::kWidth) or neighbouring runs (Along::kDepth): whichever are neighbours in
// memory.
#pragma once

#include <type_traits>

#include "cuda/element.h"
#include "cuda/product.h"

namespace mxd::cuda {

enum class Along { kWidth, kDepth };

constexpr int smaller(int a, int b) { return a < b ? a : b; }
constexpr int larger(int a, int b) { return a > b ? a : b; }

template <class T, int kWidth, int kDepth, int kThreads, Along kAlong, int kPack>
struct Share {
  static constexpr int kPacket = 16 / int(sizeof(T));
  static constexpr int kRun = kAlong == Along::kDepth ? kPacket : kPack;
  static constexpr int kRunWords = kRun / kPack;
  static constexpr int kTileRuns = kDepth / kRun;  // of one w
  static constexpr int kWidthLanes = kAlong == Along::kWidth
                                         ? smaller(kWidth, kThreads)
                                         : smaller(kWidth, larger(kThreads / kTileRuns, 1));
  static constexpr int kRunLanes = smaller(kTileRuns, kThreads / kWidthLanes);
  static constexpr int kColumns = kWidth / kWidthLanes;
  static constexpr int kRuns = kTileRuns / kRunLanes;
  static constexpr int kCount = kColumns * kRuns * kRun;

  static_assert(kDepth % kRun == 0 && kRun % kPack == 0, "runs are whole");
  static_assert(kWidth % kWidthLanes == 0 && kTileRuns % kRunLanes == 0, "every share is equal");
  static_assert(kCount <= 32, "one bit for each element");

  // Threads beyond the lanes have no share.
  static MXD_DEVICE bool mine() { return thread_index() < kWidthLanes * kRunLanes; }
  static MXD_DEVICE int width(int column) {
    const int lane =
        kAlong == Along::kWidth ? thread_index() % kWidthLanes : thread_index() / kRunLanes;
    return lane + column * kWidthLanes;
  }
  static MXD_DEVICE int depth(int run) {
    const int lane =
        kAlong == Along::kWidth ? thread_index() / kWidthLanes : thread_index() % kRunLanes;
    return (lane + run * kRunLanes) * kRun;
  }
};

// A run as the words in which a tile keeps it (see simt_math.h, tensor_math.h).
template <class Math, class T, int kRun, int kWords>
MXD_DEVICE void pack_run(const T (&values)[kRun], typename Math::Word (&words)[kWords]) {
  MXD_UNROLL for (int w = 0; w < kWords; ++w) words[w] = Math::pack(values + w * (kRun / kWords));
}

// Brings tiles of A, which has an element for every term and row.
template <class Math, class T, class Index, Other kTerms, class Share>
class GatherA {
 public:
  typename Math::Word words[Share::kColumns][Share::kRuns][Share::kRunWords] = {};

  MXD_DEVICE GatherA(const ProductParams<Index>& params, const Product<Index>& product,
                     const Radix<Index, kTerms>& radix, int64_t group, Index first_row)
      : product_(product), radix_(radix), packets_(params.packets_a) {
    base_ = static_cast<const T*>(product.a) + group * params.a_group + product.a_begin;
    MXD_UNROLL for (int c = 0; c < Share::kColumns; ++c) {
      const Index row = first_row + Share::width(c);
      active_[c] = Share::mine() && row < product.rows;
      row_[c] = active_[c] ? row * product.a_row : 0;
    }
  }

  // The tile of terms first, first + 1, ...; those at `end` and beyond are zero.
  template <int kDepth>
  MXD_DEVICE void fetch(Index first, Index end) {
    const Digits<Index> digits = radix_.split(first);
    const bool straight =
        radix_.fastest(digits) + kDepth <= radix_.fastest_count() && first + kDepth <= end;
    if (straight) {
      const T* at = base_ + offset(digits);
      const Index step = kTerms == Other::kLast ? product_.a_term.other : product_.a_term.axis[2];
      MXD_UNROLL for (int c = 0; c < Share::kColumns; ++c) {
        MXD_UNROLL for (int r = 0; r < Share::kRuns; ++r) {
          const T* run = at + row_[c] + Share::depth(r) * step;
          T values[Share::kRun];
          if (Share::kRun == Share::kPacket && packets_ && active_[c]) {
            read_packet<Share::kRun>(run, values);
          } else {
            MXD_UNROLL for (int i = 0; i < Share::kRun; ++i) {
              values[i] = active_[c] ? read(run + i * step) : zero<T>();
            }
          }
          pack_run<Math>(values, words[c][r]);
        }
      }
    } else {
      MXD_UNROLL for (int r = 0; r < Share::kRuns; ++r) {
        T values[Share::kColumns][Share::kRun];
        MXD_UNROLL for (int i = 0; i < Share::kRun; ++i) {
          const Index term = first + Share::depth(r) + i;
          const Index at = term < end ? offset(radix_.split(term)) : 0;
          MXD_UNROLL for (int c = 0; c < Share::kColumns; ++c) {
            values[c][i] = active_[c] && term < end ? read(base_ + row_[c] + at) : zero<T>();
          }
        }
        MXD_UNROLL for (int c = 0; c < Share::kColumns; ++c) {
          pack_run<Math>(values[c], words[c][r]);
        }
      }
    }
  }

 private:
  MXD_DEVICE Index offset(const Digits<Index>& k) const {
    const Digits<Index>& stride = product_.a_term;
    return k.other * stride.other + k.axis[0] * stride.axis[0] + k.axis[1] * stride.axis[1] +
           k.axis[2] * stride.axis[2];
  }

  const Product<Index>& product_;
  const Radix<Index, kTerms>& radix_;
  const bool packets_;
  const T* base_;
  bool active_[Share::kColumns];
  Index row_[Share::kColumns];
};

// A column's digits, by divisions: once per tile.
template <class Index>
MXD_DEVICE Digits<Index> split_column(const Product<Index>& product, bool other_last,
                                      Index column) {
  const Digits<Index>& count = product.columns;
  Digits<Index> digits;
  if (other_last) {
    digits.other = column % count.other;
    column /= count.other;
  }
  digits.axis[2] = column % count.axis[2];
  column /= count.axis[2];
  digits.axis[1] = column % count.axis[1];
  column /= count.axis[1];
  digits.axis[0] = other_last ? column : column % count.axis[0];
  if (!other_last) digits.other = column / count.axis[0];
  return digits;
}

// Brings tiles of B, where elements may be missing.
template <class Math, class T, class Index, Other kTerms, class Share>
class GatherB {
 public:
  typename Math::Word words[Share::kColumns][Share::kRuns][Share::kRunWords] = {};
  uint32_t present = 0;  // a bit for each value, the last index changing fastest

  MXD_DEVICE GatherB(const ProductParams<Index>& params, const Product<Index>& product,
                     const Radix<Index, kTerms>& radix, int64_t group, Index first_column)
      : product_(product), radix_(radix), packets_(params.packets_b) {
    base_ = static_cast<const T*>(product.b) + group * params.b_group;
    const Index columns = product.column_count();
    MXD_UNROLL for (int c = 0; c < Share::kColumns; ++c) {
      const Index column = first_column + Share::width(c);
      active_[c] = Share::mine() && column < columns;
      Digits<Index> digits;
      if (active_[c]) digits = split_column(product, params.column_other_last, column);
      other_[c] = digits.other * product.b_column;
      MXD_UNROLL for (int a = 0; a < kAxes; ++a) {
        at_[c][a] = product.axis[a].origin + digits.axis[a] * product.axis[a].column_step;
      }
    }
  }

  template <int kDepth>
  MXD_DEVICE void fetch(Index first, Index end) {
    present = 0;
    const Digits<Index> digits = radix_.split(first);
    const bool straight =
        radix_.fastest(digits) + kDepth <= radix_.fastest_count() && first + kDepth <= end;
    if (straight) {
      fetch_straight(digits);
    } else {
      MXD_UNROLL for (int r = 0; r < Share::kRuns; ++r) {
        T values[Share::kColumns][Share::kRun];
        MXD_UNROLL for (int i = 0; i < Share::kRun; ++i) {
          const Index term = first + Share::depth(r) + i;
          const Digits<Index> k = radix_.split(term < end ? term : 0);
          MXD_UNROLL for (int c = 0; c < Share::kColumns; ++c) {
            const bool there = active_[c] && term < end && inside(c, 0, k.axis[0]) &&
                               inside(c, 1, k.axis[1]) && inside(c, 2, k.axis[2]);
            values[c][i] = there ? read(base_ + offset(c, k)) : zero<T>();
            note(c, r, i, there);
          }
        }
        MXD_UNROLL for (int c = 0; c < Share::kColumns; ++c) {
          pack_run<Math>(values[c], words[c][r]);
        }
      }
    }
  }

 private:
  MXD_DEVICE bool inside(int c, int a, Index term) const {
    return Unsigned(at_[c][a] + term * product_.axis[a].term_step) <
           Unsigned(product_.axis[a].size);
  }
  MXD_DEVICE Index offset(int c, const Digits<Index>& k) const {
    Index sum = other_[c] + k.other * product_.b_term;
    MXD_UNROLL for (int a = 0; a < kAxes; ++a) {
      sum += (at_[c][a] + k.axis[a] * product_.axis[a].term_step) * product_.b_axis[a];
    }
    return sum;
  }
  MXD_DEVICE void note(int c, int r, int i, bool there) {
    present |= uint32_t(there) << ((c * Share::kRuns + r) * Share::kRun + i);
  }

  // All terms of the tile differ in the fastest digit alone.
  MXD_DEVICE void fetch_straight(const Digits<Index>& k) {
    MXD_UNROLL for (int c = 0; c < Share::kColumns; ++c) {
      if constexpr (kTerms == Other::kLast) {  // they are all there or none is
        const bool there = active_[c] && inside(c, 0, k.axis[0]) && inside(c, 1, k.axis[1]) &&
                           inside(c, 2, k.axis[2]);
        const T* at = base_ + (there ? offset(c, k) : 0);
        MXD_UNROLL for (int r = 0; r < Share::kRuns; ++r) {
          const T* run = at + Share::depth(r) * product_.b_term;
          T values[Share::kRun];
          if (Share::kRun == Share::kPacket && packets_ && there) {
            read_packet<Share::kRun>(run, values);
          } else {
            MXD_UNROLL for (int i = 0; i < Share::kRun; ++i) {
              values[i] = there ? read(run + i * product_.b_term) : zero<T>();
            }
          }
          MXD_UNROLL for (int i = 0; i < Share::kRun; ++i) note(c, r, i, there);
          pack_run<Math>(values, words[c][r]);
        }
      } else {
        const bool line = active_[c] && inside(c, 0, k.axis[0]) && inside(c, 1, k.axis[1]);
        MXD_UNROLL for (int r = 0; r < Share::kRuns; ++r) {
          T values[Share::kRun];
          MXD_UNROLL for (int i = 0; i < Share::kRun; ++i) {
            Digits<Index> term = k;
            term.axis[2] += Share::depth(r) + i;
            const bool there = line && inside(c, 2, term.axis[2]);
            values[i] = there ? read(base_ + offset(c, term)) : zero<T>();
            note(c, r, i, there);
          }
          pack_run<Math>(values, words[c][r]);
        }
      }
    }
  }

  using Unsigned = std::make_unsigned_t<Index>;
  const Product<Index>& product_;
  const Radix<Index, kTerms>& radix_;
  const bool packets_;
  const T* base_;
  bool active_[Share::kColumns];
  Index other_[Share::kColumns];
  Index at_[Share::kColumns][kAxes];
};

}  // namespace mxd::cuda
