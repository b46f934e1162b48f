// Kernels for products of very few rows and terms, depthwise layers above all: bound by memory, so
// every thread sums its results from memory as they are, and tiles would stand empty.
#pragma once

#include "cuda/element.h"
#include "cuda/product.h"
#include "cuda/tile.h"

namespace mxd::cuda {

// Forward pass and data gradient. An item is a column of a group; neighbouring threads take
// neighbouring items, in the order in which they lie in memory: a row of pixels, or the groups.
// A job is (block of items, phase, row), the last changing fastest: phases of the same pixels are
// written at about the same time, so that their interleaved results meet in the cache.
template <class T, class Index>
struct DirectKernel {
  using Params = ProductParams<Index>;
  using Value = SumOf<T>;
  static constexpr int kThreads = 256;
  static constexpr int kEach = 2;  // items of a thread: loads of one need not wait for another's
  static constexpr int kItems = kThreads * kEach;
  struct Shared {};

  struct Item {
    bool active;
    Index group;
    int64_t b, c;     // offsets of the group and the column
    Index at[kAxes];  // which element of B the first tap meets
  };

  static MXD_HOST_DEVICE int64_t jobs(const Params& params) {
    const int64_t items = params.groups * params.product.column_count();
    return (items + kItems - 1) / kItems * params.phases[0] * params.phases[1] * params.phases[2] *
           params.product.rows;
  }

  static MXD_DEVICE void run(const Params& params, Shared&) {
    for (int64_t job = block_index(); job < jobs(params); job += block_count()) {
      Product<Index> product = params.product;
      int64_t rest = job / product.rows;
      const Index row = Index(job % product.rows);
      MXD_UNROLL for (int a = kAxes - 1; a >= 0; --a) {
        if (params.phased) params.phase[a].enter(Index(rest % params.phases[a]), a, product);
        rest /= params.phases[a];
      }
      Item items[kEach];
      Value sums[kEach];
      const Radix<Index, Other::kFirst> radix(product.columns);
      const Divisor<Index> inner(params.groups_fastest ? Index(params.groups)
                                                       : product.column_count());
      MXD_UNROLL for (int e = 0; e < kEach; ++e) {
        items[e] = find(params, product, radix, inner,
                        Index(rest * kItems + e * kThreads + thread_index()));
        sums[e] = 0;
      }
      sum(params, product, row, items, sums);
      store(params, product, row, items, sums);
    }
  }

  static MXD_DEVICE Item find(const Params& params, const Product<Index>& product,
                              const Radix<Index, Other::kFirst>& radix, const Divisor<Index>& inner,
                              Index index) {
    const Index outer = inner.divide(index);
    const Index group = params.groups_fastest ? index - outer * inner.value : outer;
    const Index column = params.groups_fastest ? outer : index - outer * inner.value;
    Item item;
    item.active = group < params.groups && column < product.column_count();
    const Digits<Index> n = radix.split(item.active ? column : 0);
    item.group = group;
    item.b = group * params.b_group + n.other * product.b_column;
    item.c = group * params.c_group + n.other * product.c_column.other;
    MXD_UNROLL for (int a = 0; a < kAxes; ++a) {
      item.c += n.axis[a] * product.c_column.axis[a];
      item.at[a] = product.axis[a].origin + n.axis[a] * product.axis[a].column_step;
    }
    return item;
  }

  static MXD_DEVICE bool inside(const Product<Index>& product, int a, Index at) {
    return at >= 0 && at < product.axis[a].size;
  }

  static MXD_DEVICE void sum(const Params& params, const Product<Index>& product, Index row,
                             const Item (&items)[kEach], Value (&sums)[kEach]) {
    const T* a = static_cast<const T*>(product.a) + product.a_begin + row * product.a_row;
    const T* b = static_cast<const T*>(product.b);
    for (Index k0 = 0; k0 < product.terms.axis[0]; ++k0) {
      for (Index k1 = 0; k1 < product.terms.axis[1]; ++k1) {
        for (Index k2 = 0; k2 < product.terms.axis[2]; ++k2) {
          const Index k[kAxes] = {k0, k1, k2};
          bool there[kEach];
          int64_t from[kEach], tap = 0;
          MXD_UNROLL for (int x = 0; x < kAxes; ++x) tap += k[x] * product.a_term.axis[x];
          MXD_UNROLL for (int e = 0; e < kEach; ++e) {
            there[e] = items[e].active;
            from[e] = items[e].b;
            MXD_UNROLL for (int x = 0; x < kAxes; ++x) {
              const Index at = items[e].at[x] + k[x] * product.axis[x].term_step;
              there[e] = there[e] && inside(product, x, at);
              from[e] += int64_t(at) * product.b_axis[x];
            }
          }
          for (Index other = 0; other < product.terms.other; ++other) {
            MXD_UNROLL for (int e = 0; e < kEach; ++e) {
              if (!there[e]) continue;
              const T weight =
                  read(a + items[e].group * params.a_group + tap + other * product.a_term.other);
              const T value = read(b + from[e] + other * product.b_term);
              sums[e] = multiply_add(widen(weight), widen(value), sums[e]);
            }
          }
        }
      }
    }
  }

  static MXD_DEVICE void store(const Params& params, const Product<Index>& product, Index row,
                               const Item (&items)[kEach], const Value (&sums)[kEach]) {
    T* c = static_cast<T*>(product.c) + product.c_begin + row * product.c_row;
    const T* bias = static_cast<const T*>(product.bias) + row * product.bias_row;
    MXD_UNROLL for (int e = 0; e < kEach; ++e) {
      if (!items[e].active) continue;
      const Value more =
          product.bias ? widen(read(bias + items[e].group * params.bias_group)) : Value(0);
      write(c + items[e].c, narrow<T>(sums[e] + more));
    }
  }
};

// Weight gradient. A block sums kEach taps of a line (neighbours on the last axis) of a row and a
// column's other digit, for kGroups groups at once: threads are neighbours along the groups where
// these are neighbours in memory, else along the pixels.
//
//   thread = lane * kGroups + group;  lane l sums the terms l, l + kLanes, ...;  then the sums of
//   all lanes are added in pairs, halving their number from barrier to barrier.
//
// A thread reads an element of A once for the line, and finds the line in B once: what is left of a
// product is a comparison, a load and the product. kTermsAtOnce terms are on their way together.
template <class T, class Index, int kGroups>
struct DirectReduction {
  using Params = ProductParams<Index>;
  using Value = SumOf<T>;
  static constexpr int kThreads = 256;
  static constexpr int kLanes = kThreads / kGroups;
  static constexpr int kEach = 4;
  static constexpr int kTermsAtOnce = 2;
  struct Shared {
    Tile<Value, kEach, kThreads> sums;
  };

  // Lines of kEach taps: the columns with the last digit cut short.
  static MXD_HOST_DEVICE Digits<Index> lines(const Product<Index>& product) {
    Digits<Index> counts = product.columns;
    counts.axis[2] = (counts.axis[2] + kEach - 1) / kEach;
    return counts;
  }
  static MXD_HOST_DEVICE int64_t line_count(const Product<Index>& product) {
    const Digits<Index> counts = lines(product);
    return int64_t(counts.other) * counts.axis[0] * counts.axis[1] * counts.axis[2];
  }
  static MXD_HOST_DEVICE int64_t jobs(const Params& params) {
    return (params.groups + kGroups - 1) / kGroups * params.product.rows *
           line_count(params.product);
  }

  static MXD_DEVICE void run(const Params& params, Shared& shared) {
    const Product<Index>& product = params.product;
    const int64_t columns = line_count(product);
    const Radix<Index, Other::kFirst> radix(lines(product));
    for (int64_t job = block_index(); job < jobs(params); job += block_count()) {
      Digits<Index> column = radix.split(Index(job % columns));
      column.axis[2] *= kEach;
      const Index row = Index(job / columns % product.rows);
      const int64_t group = job / columns / product.rows * kGroups + thread_index() % kGroups;
      const bool active = group < params.groups;
      Value sums[kEach];
      MXD_UNROLL for (int e = 0; e < kEach; ++e) sums[e] = 0;
      if (active) sum(params, group, row, column, sums);
      MXD_UNROLL for (int e = 0; e < kEach; ++e) shared.sums(e, thread_index()) = sums[e];
      barrier();
      for (int half = kThreads / 2; half >= kGroups; half /= 2) {
        if (thread_index() < half) {
          MXD_UNROLL for (int e = 0; e < kEach; ++e) {
            shared.sums(e, thread_index()) =
                shared.sums(e, thread_index()) + shared.sums(e, thread_index() + half);
          }
        }
        barrier();
      }
      if (active && thread_index() < kGroups) {
        int64_t to =
            group * params.c_group + row * product.c_row + column.other * product.c_column.other;
        MXD_UNROLL for (int x = 0; x < kAxes; ++x) to += column.axis[x] * product.c_column.axis[x];
        MXD_UNROLL for (int e = 0; e < kEach; ++e) {
          if (column.axis[2] + e >= product.columns.axis[2]) continue;
          write(static_cast<T*>(product.c) + to + e * product.c_column.axis[2],
                narrow<T>(shared.sums(e, thread_index())));
        }
      }
      barrier();  // before the next job writes its sums
    }
  }

  // A term: its element of A, and where the line begins in B.
  struct Term {
    Value left;
    int64_t at;
    Index first;  // on the last axis
    bool there;   // as far as the other axes say
  };

  static MXD_DEVICE void sum(const Params& params, int64_t group, Index row,
                             const Digits<Index>& column, Value (&sums)[kEach]) {
    const Product<Index>& product = params.product;
    const T* a = static_cast<const T*>(product.a) + group * params.a_group + row * product.a_row;
    const T* b =
        static_cast<const T*>(product.b) + group * params.b_group + column.other * product.b_column;
    const Index terms = product.term_count();
    if (terms == 0) return;
    const Radix<Index, Other::kFirst> radix(product.terms);
    const Index step = product.axis[2].column_step, size = product.axis[2].size;
    const int64_t b_step = int64_t(step) * product.b_axis[2];
    for (Index first = thread_index() / kGroups; first < terms; first += kTermsAtOnce * kLanes) {
      Term term[kTermsAtOnce];
      T right[kTermsAtOnce][kEach];
      MXD_UNROLL for (int i = 0; i < kTermsAtOnce; ++i) {
        const bool within = first + i * kLanes < terms;
        term[i] = find(product, radix.split(within ? first + i * kLanes : 0), column, a);
        term[i].there = term[i].there && within;
        MXD_UNROLL for (int e = 0; e < kEach; ++e) {
          right[i][e] =
              is_there(term[i], e, step, size) ? read(b + term[i].at + e * b_step) : zero<T>();
        }
      }
      MXD_UNROLL for (int i = 0; i < kTermsAtOnce; ++i) {
        MXD_UNROLL for (int e = 0; e < kEach; ++e) {
          if (is_there(term[i], e, step, size)) {
            sums[e] = multiply_add(term[i].left, widen(right[i][e]), sums[e]);
          }
        }
      }
    }
  }

  static MXD_DEVICE bool is_there(const Term& term, int e, Index step, Index size) {
    const Index at = term.first + e * step;
    return term.there && at >= 0 && at < size;
  }

  static MXD_DEVICE Term find(const Product<Index>& product, const Digits<Index>& k,
                              const Digits<Index>& column, const T* a) {
    int64_t from = k.other * product.a_term.other;
    Term term{Value(0), k.other * product.b_term, 0, true};
    MXD_UNROLL for (int x = 0; x < kAxes; ++x) {
      const ProductAxis<Index>& axis = product.axis[x];
      const Index at = axis.origin + column.axis[x] * axis.column_step + k.axis[x] * axis.term_step;
      from += k.axis[x] * product.a_term.axis[x];
      term.at += int64_t(at) * product.b_axis[x];
      if (x == kAxes - 1) {
        term.first = at;
      } else {
        term.there = term.there && at >= 0 && at < axis.size;
      }
    }
    term.left = widen(read(a + from));
    return term;
  }
};

}  // namespace mxd::cuda
