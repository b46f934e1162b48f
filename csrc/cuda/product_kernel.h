// The kernel of every dense pass: tiles of C (see product.h), a block for each, its threads
// bringing tiles of A and B through shared memory.
//
//   for each tile i, and once more:
//     fetch i                  what a thread fetches waits in its registers, on its way while
//     multiply i - 1           from buffer (i - 1) % 2
//     store i to buffer i % 2
//     barrier                  all of i is stored; nobody reads i - 1, whose buffer comes next
//
// The text of `fetch` stands there once: it is most of a kernel, and of the time to compile it.
//
// A zero stands for every missing element of B. That is right as long as the A it meets is finite:
// the barrier tells all threads if one of them stored an A that is not, and the tile is multiplied
// again slowly, by those products alone that exist.
#pragma once

#include "cuda/gather.h"
#include "cuda/tile.h"

namespace mxd::cuda {

// Where the tiles of C are.
template <class Math, class T, class Index>
struct ProductTiles {
  using Params = ProductParams<Index>;
  using Value = SumOf<T>;
  static constexpr int kThreads = Math::kThreads;
  static constexpr int kResults = Math::kResults;
  // Of each column, in C; negative: beyond the last one.
  using Offsets = Tile<Index, 1, Math::kColumns>;

  // The place of a job's tile among all.
  struct Place {
    int64_t split, group, tile;
    Index first_row, first_column;
  };

  // Which tile a job is, and in `product` which phase.
  static MXD_DEVICE Place locate(const Params& params, int64_t job, Product<Index>& product) {
    Place place;
    place.split = job / params.tiles();
    place.tile = job % params.tiles();
    int64_t rest = place.tile;
    place.first_row = Index(rest % params.row_tiles * Math::kRows);
    rest /= params.row_tiles;
    MXD_UNROLL for (int a = kAxes - 1; a >= 0; --a) {
      if (params.phased) params.phase[a].enter(Index(rest % params.phases[a]), a, product);
      rest /= params.phases[a];
    }
    place.first_column = Index(rest % params.column_tiles * Math::kColumns);
    place.group = rest / params.column_tiles;
    return place;
  }

  static MXD_DEVICE void find_columns(const Params& params, const Product<Index>& product,
                                      const Place& place, Offsets& offsets) {
    for (int i = thread_index(); i < Math::kColumns; i += kThreads) {
      const Index column = place.first_column + i;
      Index offset = -1;
      if (column < product.column_count()) {
        const Digits<Index> n = split_column(product, params.column_other_last, column);
        offset = n.other * product.c_column.other;
        MXD_UNROLL for (int a = 0; a < kAxes; ++a) {
          offset += n.axis[a] * product.c_column.axis[a];
        }
      }
      offsets(0, i) = offset;
    }
  }

  static MXD_DEVICE void store(const Params& params, const Product<Index>& product,
                               const Place& place, const Offsets& offsets,
                               const Value (&sums)[kResults]) {
    T* c = static_cast<T*>(product.c) + place.group * params.c_group + product.c_begin;
    const T* bias = static_cast<const T*>(product.bias) + place.group * params.bias_group;
    MXD_UNROLL for (int i = 0; i < kResults; ++i) {
      const Index row = place.first_row + Math::row(i);
      const Index offset = offsets(0, Math::column(i));
      if (row >= product.rows || offset < 0) continue;
      const Value more = product.bias ? widen(read(bias + row * product.bias_row)) : Value(0);
      write(c + row * product.c_row + offset, narrow<T>(sums[i] + more));
    }
  }

  // Partial sums lie as the threads hold them, so that they come and go in whole lines.
  static MXD_DEVICE Value* partial_of(const Params& params, int64_t split, int64_t tile) {
    return static_cast<Value*>(params.partial) +
           (split * params.tiles() + tile) * (kThreads * kResults) + thread_index();
  }
  static MXD_DEVICE void store_partial(const Params& params, const Place& place,
                                       const Value (&sums)[kResults]) {
    Value* at = partial_of(params, place.split, place.tile);
    MXD_UNROLL for (int i = 0; i < kResults; ++i) write(at + i * kThreads, sums[i]);
  }
};

template <class Math, class T, class Index, Other kTerms, Along kAlongA, Along kAlongB>
struct ProductKernel {
  using Tiles = ProductTiles<Math, T, Index>;
  using Params = typename Tiles::Params;
  using Place = typename Tiles::Place;
  using Value = typename Tiles::Value;
  static constexpr int kThreads = Math::kThreads;
  static constexpr int kDepth = Math::kDepth;
  static constexpr int kResults = Math::kResults;
  using ShareA = Share<T, Math::kRows, kDepth, kThreads, kAlongA, Math::kPack>;
  using ShareB = Share<T, Math::kColumns, kDepth, kThreads, kAlongB, Math::kPack>;

  struct Shared {
    typename Math::TileA a[2];
    typename Math::TileB b[2];
    Tile<uint8_t, kDepth, Math::kColumns> present;  // only used where an A is not finite
    typename Tiles::Offsets offsets;
  };

  static MXD_DEVICE void run(const Params& params, Shared& shared) {
    if (params.only_if && read(params.only_if) == 0) return;
    int buffer = 0;
    for (int64_t job = block_index(); job < params.tiles() * params.splits; job += block_count()) {
      Value sums[kResults];
      MXD_UNROLL for (int i = 0; i < kResults; ++i) sums[i] = 0;
      if (!accumulate(params, job, shared, buffer, sums)) continue;
      // Found again, and not kept in registers for as long as the sum took.
      Product<Index> product = params.product;
      const Place place = Tiles::locate(params, anew(job), product);
      if (params.splits > 1) {
        Tiles::store_partial(params, place, sums);
      } else {
        Tiles::find_columns(params, product, place, shared.offsets);
        barrier();
        Tiles::store(params, product, place, shared.offsets, sums);
        barrier();  // before the offsets are those of the next job
      }
    }
  }

  // False for a tile beyond the columns of its phase, which is shorter than others.
  static MXD_DEVICE bool accumulate(const Params& params, int64_t job, Shared& shared, int& buffer,
                                    Value (&sums)[kResults]) {
    Product<Index> product = params.product;
    const Place place = Tiles::locate(params, job, product);
    if (place.first_column >= product.column_count()) return false;
    const Index terms = product.term_count();
    const Index tiles = Index((terms + kDepth - 1) / kDepth);
    const Index first_tile = Index(int64_t(tiles) * place.split / params.splits);
    const Index last_tile = Index(int64_t(tiles) * (place.split + 1) / params.splits);
    if (first_tile >= last_tile) return true;
    const Radix<Index, kTerms> radix(product.terms);
    GatherA<Math, T, Index, kTerms, ShareA> a(params, product, radix, place.group, place.first_row);
    GatherB<Math, T, Index, kTerms, ShareB> b(params, product, radix, place.group,
                                              place.first_column);
    bool exactly = false;
    MXD_NO_UNROLL for (Index tile = first_tile;; ++tile) {
      const bool more = tile < last_tile;
      if (more) {
        a.template fetch<kDepth>(tile * kDepth, terms);
        b.template fetch<kDepth>(tile * kDepth, terms);
      }
      if (tile > first_tile) {
        if (exactly) {
          multiply_present(shared, buffer, sums);
        } else {
          Math::multiply(shared.a[buffer], shared.b[buffer], sums);
        }
        buffer ^= 1;
      }
      if (!more) break;
      store_tile<ShareA>(shared.a[buffer], a.words);
      store_tile<ShareB>(shared.b[buffer], b.words);
      exactly = barrier_or(!all_finite<ShareA>(a.words));
      if (exactly) {
        store_present(shared.present, b.present);
        barrier();
      }
    }
    return true;
  }

  template <class Share, class AnyTile, class Words>
  static MXD_DEVICE void store_tile(AnyTile& tile, const Words& words) {
    if (!Share::mine()) return;
    MXD_UNROLL for (int c = 0; c < Share::kColumns; ++c) {
      MXD_UNROLL for (int r = 0; r < Share::kRuns; ++r) {
        MXD_UNROLL for (int w = 0; w < Share::kRunWords; ++w) {
          Math::store(tile, Share::width(c), Share::depth(r) + w * Math::kPack, words[c][r][w]);
        }
      }
    }
  }

  template <class Share, class Words>
  static MXD_DEVICE bool all_finite(const Words& words) {
    bool finite = true;
    MXD_UNROLL for (int c = 0; c < Share::kColumns; ++c) {
      MXD_UNROLL for (int r = 0; r < Share::kRuns; ++r) {
        MXD_UNROLL for (int w = 0; w < Share::kRunWords; ++w) {
          finite = finite && Math::finite(words[c][r][w]);
        }
      }
    }
    return finite;
  }

  static MXD_DEVICE void store_present(Tile<uint8_t, kDepth, Math::kColumns>& tile,
                                       uint32_t present) {
    if (!ShareB::mine()) return;
    MXD_NO_UNROLL for (int e = 0; e < ShareB::kCount; ++e) {
      const int i = e % ShareB::kRun, r = e / ShareB::kRun % ShareB::kRuns;
      const int c = e / ShareB::kRun / ShareB::kRuns;
      tile(ShareB::depth(r) + i, ShareB::width(c)) = uint8_t(present >> e & 1);
    }
  }

  static MXD_DEVICE void multiply_present(const Shared& shared, int buffer,
                                          Value (&sums)[kResults]) {
    MXD_NO_UNROLL for (int k = 0; k < kDepth; ++k) {
      MXD_UNROLL for (int i = 0; i < kResults; ++i) {
        const int row = Math::row(i), column = Math::column(i);
        if (shared.present(k, column)) {
          sums[i] = multiply_add(Math::load(shared.a[buffer], row, k),
                                 Math::load(shared.b[buffer], column, k), sums[i]);
        }
      }
    }
  }
};

// Adds up the partial sums of a launch's splits, in their order.
template <class Math, class T, class Index>
struct SplitSum {
  using Tiles = ProductTiles<Math, T, Index>;
  using Params = typename Tiles::Params;
  using Value = typename Tiles::Value;
  static constexpr int kThreads = Math::kThreads;
  static constexpr int kResults = Math::kResults;

  struct Shared {
    typename Tiles::Offsets offsets;
  };

  static MXD_DEVICE void run(const Params& params, Shared& shared) {
    for (int64_t tile = block_index(); tile < params.tiles(); tile += block_count()) {
      Product<Index> product = params.product;
      const auto place = Tiles::locate(params, tile, product);
      if (place.first_column >= product.column_count()) continue;
      Tiles::find_columns(params, product, place, shared.offsets);
      Value sums[kResults];
      MXD_UNROLL for (int i = 0; i < kResults; ++i) sums[i] = 0;
      for (int64_t split = 0; split < params.splits; ++split) {
        const Value* at = Tiles::partial_of(params, split, tile);
        MXD_UNROLL for (int i = 0; i < kResults; ++i) sums[i] += read(at + i * kThreads);
      }
      barrier();
      Tiles::store(params, product, place, shared.offsets, sums);
      barrier();
    }
  }
};

}  // namespace mxd::cuda
