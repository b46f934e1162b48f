// The kernel for results of few channels (few_channels.h). A thread holds kRows sums for each of
// kColumns columns: every source element that it reads is used kRows times, every weight kColumns
// times.
//
//   bring the weights of chunk 0, kChunk terms (step of the taps, channel), a line for each row
//   for each chunk i:
//     barrier                  all of i is there; nobody reads i - 1, whose buffer comes next
//     bring the weights of i + 1 to the other buffer
//     for kStep channels of one step at a time:
//       read them for each column from memory, neighbouring threads from neighbouring columns
//       for each row that has a tap: kStep weights from shared memory, kStep * kColumns products
//
// Why these numbers: in one cycle a multiprocessor does four warps' multiply-adds, and its load
// unit serves a warp's 128 bytes. A term costs kColumns loads of the source and kRows / 4 of
// weights for kRows * kColumns products: with 12 x 4, 7 cycles of loading beside 12 of arithmetic;
// with 4 x 8, 9 beside 8. The tiles of the product kernel would do 8 / 3 of the arithmetic for 3
// channels.
//
// A zero stands for a source element outside of the tensor. That is right as long as the weights
// are finite: the barrier tells all threads if one is not, and the chunk is multiplied slowly, by
// those products alone that exist.
#pragma once

#include "cuda/element.h"
#include "cuda/few_channels.h"
#include "cuda/tile.h"

namespace mxd::cuda {

template <class T, int kRows, int kColumns>
struct FewChannelsKernel {
  using Params = FewChannelsParams;
  using Value = SumOf<T>;
  static constexpr int kThreads = 128;
  static constexpr int kResident = sizeof(Value) == 8 ? 2 : 3;  // what the sums' registers allow
  static constexpr int kTile = kThreads * kColumns;
  static constexpr int kStep = sizeof(T) == 8 ? 2 : 4;  // channels at once
  static constexpr int kQuad = 16 / int(sizeof(Value));
  static constexpr int kChunk = 64;
  static constexpr int kLanes = kThreads / kRows;  // threads that fetch the weights of one row
  static constexpr uint32_t kAllRows = (uint32_t(1) << kRows) - 1;
  static_assert(kStep % kQuad == 0 && kChunk % kStep == 0, "whole quads");

  using Weights = Tile<Value, kRows, kChunk + kQuad>;
  struct Shared {
    Weights weights[2];
    Tile<uint32_t, kAxes, kMostSteps> rows;  // a bit for each row that has a tap in the step
    Tile<int32_t, kAxes, kRows> phase;
  };

  struct Row {
    int32_t filter, phase[kAxes];
  };
  struct Place {
    int64_t group;
    int32_t first_row, first_column;
  };

  // A thread's columns: where the step without a shift finds them in the source.
  struct Columns {
    int64_t offset[kColumns];
    int32_t at[kColumns][kAxes];
  };

  // What all channels of a step share.
  struct Step {
    uint32_t rows;     // that have a tap
    uint32_t present;  // columns whose source element exists
    int64_t shift;     // elements
  };

  static MXD_DEVICE void run(const Params& params, Shared& shared) {
    int buffer = 0;
    for (int64_t job = block_index(); job < params.jobs(); job += block_count()) {
      Place place;
      place.first_row = int32_t(job % params.row_tiles) * kRows;
      place.first_column = int32_t(job / params.row_tiles % params.column_tiles) * kTile;
      place.group = job / params.row_tiles / params.column_tiles;
      list_rows(params, place, shared);
      Value sums[kRows][kColumns];
      MXD_UNROLL for (int m = 0; m < kRows; ++m) {
        MXD_UNROLL for (int c = 0; c < kColumns; ++c) sums[m][c] = 0;
      }
      accumulate(params, place, shared, buffer, sums);
      if (params.bias) add_bias(params, place, sums);
      store(params, place, shared, sums);
      barrier();  // before the rows are those of the next job
    }
  }

  static MXD_DEVICE Row split_row(const Params& params, int32_t row) {
    Row split;
    if (params.filters_fastest) {
      split.filter = row % params.filters;
      row /= params.filters;
    }
    MXD_UNROLL for (int a = kAxes - 1; a >= 0; --a) {
      split.phase[a] = row % params.axis[a].phases;
      row /= params.axis[a].phases;
    }
    if (!params.filters_fastest) split.filter = row;
    return split;
  }

  // Ends with the phases stored; the rows of the steps are, after one more barrier.
  static MXD_DEVICE void list_rows(const Params& params, const Place& place, Shared& shared) {
    if (thread_index() < kRows) {
      const Row row = split_row(params, place.first_row + thread_index());
      MXD_UNROLL for (int a = 0; a < kAxes; ++a) shared.phase(a, thread_index()) = row.phase[a];
    }
    barrier();
    MXD_UNROLL for (int a = 0; a < kAxes; ++a) {
      const FewAxis& axis = params.axis[a];
      for (int32_t u = thread_index(); u < axis.steps; u += kThreads) {
        uint32_t rows = 0;
        MXD_NO_UNROLL for (int m = 0; m < kRows; ++m) {
          // Rows beyond the last are zeros that nobody stores: they need not be left out.
          const bool reached =
              place.first_row + m >= params.rows || axis.tap(u, shared.phase(a, m)) >= 0;
          rows |= uint32_t(reached) << m;
        }
        shared.rows(a, u) = rows;
      }
    }
  }

  // A thread brings weights of a single row.
  struct WeightShare {
    int64_t base;
    Row row;
    bool active;

    MXD_DEVICE WeightShare(const Params& params, const Place& place) {
      const int32_t index = place.first_row + thread_index() % kRows;
      active = thread_index() < kRows * kLanes;
      row = split_row(params, index < params.rows ? index : 0);
      base = place.group * params.weight_group + row.filter * params.weight_filter;
    }

    // Fills the chunk of terms from `first` on, with zeros where there is no weight. Whether all
    // are finite.
    MXD_DEVICE bool bring(const Params& params, int32_t first, Weights& weights) const {
      if (!active || first >= params.term_count()) return true;
      bool finite = true;
      for (int i = thread_index() / kRows; i < kChunk; i += kLanes) {
        T value = zero<T>();
        if (first + i < params.term_count()) {
          const Digits<int32_t> k = params.split_term.split(first + i);
          bool there = k.other < params.channels;
          int64_t at = base + k.other * params.weight_channel;
          MXD_UNROLL for (int a = 0; a < kAxes; ++a) {
            const int32_t tap = params.axis[a].tap(k.axis[a], row.phase[a]);
            there = there && tap >= 0;
            at += tap * params.axis[a].weight;
          }
          if (there) value = read(static_cast<const T*>(params.weight) + at);
        }
        weights(thread_index() % kRows, i) = widen(value);
        finite = finite && is_finite(value);
      }
      return finite;
    }
  };

  static MXD_DEVICE Digits<int32_t> split_column(const Params& params, const Place& place, int c,
                                                 bool& active) {
    const int32_t column = place.first_column + c * kThreads + thread_index();
    active = column < params.column_count();
    return params.split_column.split(active ? column : 0);
  }

  static MXD_DEVICE void accumulate(const Params& params, const Place& place, Shared& shared,
                                    int& buffer, Value (&sums)[kRows][kColumns]) {
    Columns columns;
    MXD_UNROLL for (int c = 0; c < kColumns; ++c) {
      bool active;
      const Digits<int32_t> n = split_column(params, place, c, active);
      columns.offset[c] = place.group * params.source_group + n.other * params.source_batch;
      MXD_UNROLL for (int a = 0; a < kAxes; ++a) {
        const FewAxis& axis = params.axis[a];
        const int32_t at = axis.origin + n.axis[a] * axis.column_step;
        columns.offset[c] += at * axis.source;
        columns.at[c][a] = active ? at : -(1 << 30);  // no shift leads from there to the source
      }
    }
    const int32_t terms = params.term_count();
    const WeightShare share(params, place);
    bool finite = share.bring(params, 0, shared.weights[buffer]);
    for (int32_t first = 0; first < terms; first += kChunk) {
      const bool exactly = barrier_or(!finite);
      const Weights& weights = shared.weights[buffer];
      buffer ^= 1;
      finite = share.bring(params, first + kChunk, shared.weights[buffer]);
      const int32_t count = terms - first < kChunk ? terms - first : kChunk;
      multiply(params, shared, weights, columns, first, count, exactly, sums);
    }
  }

  static MXD_DEVICE Step enter(const Params& params, const Shared& shared, const Columns& columns,
                               const Digits<int32_t>& k) {
    Step step{kAllRows, (uint32_t(1) << kColumns) - 1, 0};
    MXD_UNROLL for (int a = 0; a < kAxes; ++a) {
      const FewAxis& axis = params.axis[a];
      const int32_t shift = axis.shift(k.axis[a]);
      step.rows &= shared.rows(a, k.axis[a]);
      step.shift += shift * axis.source;
      MXD_UNROLL for (int c = 0; c < kColumns; ++c) {
        const bool inside = uint32_t(columns.at[c][a] + shift) < uint32_t(axis.size);
        if (!inside) step.present &= ~(uint32_t(1) << c);
      }
    }
    return step;
  }

  static MXD_DEVICE void multiply(const Params& params, const Shared& shared,
                                  const Weights& weights, const Columns& columns, int32_t first,
                                  int32_t count, bool exactly, Value (&sums)[kRows][kColumns]) {
    Digits<int32_t> k = params.split_term.split(first);
    Step step = enter(params, shared, columns, k);
    MXD_NO_UNROLL for (int32_t i = 0; i < count; i += kStep) {
      if (step.rows != 0) {
        Value values[kStep][kColumns];
        bring(params, columns, step, k.other, values);
        if (exactly) {
          combine_present(weights, i, step, values, sums);
        } else if (params.channels == 1) {
          combine<false, 1>(weights, i, step.rows, values, sums);
        } else if (step.rows == kAllRows) {
          combine<true, kQuad>(weights, i, step.rows, values, sums);
        } else {
          combine<false, kQuad>(weights, i, step.rows, values, sums);
        }
      }
      k.other += kStep;
      if (k.other == params.terms.other && i + kStep < count) {
        k = params.split_term.split(first + i + kStep);
        step = enter(params, shared, columns, k);
      }
    }
  }

  // kStep channels from `channel` on of every column; zeros where there is none.
  static MXD_DEVICE void bring(const Params& params, const Columns& columns, const Step& step,
                               int32_t channel, Value (&values)[kStep][kColumns]) {
    const T* source =
        static_cast<const T*>(params.source) + step.shift + channel * params.source_channel;
    MXD_UNROLL for (int c = 0; c < kColumns; ++c) {
      const bool present = step.present >> c & 1;
      const T* from = source + columns.offset[c];
      T got[kStep];
      if (params.packets && present) {
        read_packet<kStep>(from, got);
      } else {
        MXD_UNROLL for (int i = 0; i < kStep; ++i) {
          const bool there = present && channel + i < params.channels;
          got[i] = there ? read(from + i * params.source_channel) : zero<T>();
        }
      }
      MXD_UNROLL for (int i = 0; i < kStep; ++i) values[i][c] = widen(got[i]);
    }
  }

  // Of a single channel (kRead = 1) only the first value is not a zero.
  template <bool kAll, int kRead>
  static MXD_DEVICE void combine(const Weights& weights, int term, uint32_t rows,
                                 const Value (&values)[kStep][kColumns],
                                 Value (&sums)[kRows][kColumns]) {
    MXD_UNROLL for (int m = 0; m < kRows; ++m) {
      if (!kAll && !(rows >> m & 1)) continue;
      MXD_UNROLL for (int first = 0; first < (kRead == 1 ? 1 : kStep); first += kRead) {
        Value factors[kRead];
        read_cells<kRead>(&weights(m, term + first), factors);
        MXD_UNROLL for (int i = 0; i < kRead; ++i) {
          MXD_UNROLL for (int c = 0; c < kColumns; ++c) {
            sums[m][c] = multiply_add(factors[i], values[first + i][c], sums[m][c]);
          }
        }
      }
    }
  }

  // The same, without the elements that are missing.
  static MXD_DEVICE void combine_present(const Weights& weights, int term, const Step& step,
                                         const Value (&values)[kStep][kColumns],
                                         Value (&sums)[kRows][kColumns]) {
    MXD_UNROLL for (int m = 0; m < kRows; ++m) {
      MXD_UNROLL for (int i = 0; i < kStep; ++i) {
        const Value factor = weights(m, term + i);
        MXD_UNROLL for (int c = 0; c < kColumns; ++c) {
          if (step.rows >> m & step.present >> c & 1) {
            sums[m][c] = multiply_add(factor, values[i][c], sums[m][c]);
          }
        }
      }
    }
  }

  static MXD_DEVICE void add_bias(const Params& params, const Place& place,
                                  Value (&sums)[kRows][kColumns]) {
    const T* bias = static_cast<const T*>(params.bias) + place.group * params.bias_group;
    MXD_UNROLL for (int m = 0; m < kRows; ++m) {
      const int32_t index = place.first_row + m;
      if (index >= params.rows) continue;
      const Value more = widen(read(bias + split_row(params, index).filter * params.bias_filter));
      MXD_UNROLL for (int c = 0; c < kColumns; ++c) sums[m][c] += more;
    }
  }

  static MXD_DEVICE void store(const Params& params, const Place& place, const Shared& shared,
                               const Value (&sums)[kRows][kColumns]) {
    T* result = static_cast<T*>(params.result) + place.group * params.result_group;
    int64_t offset[kColumns];
    int32_t at[kColumns][kAxes];
    MXD_UNROLL for (int c = 0; c < kColumns; ++c) {
      bool active;
      const Digits<int32_t> n = split_column(params, place, c, active);
      offset[c] = n.other * params.result_batch;
      MXD_UNROLL for (int a = 0; a < kAxes; ++a) {
        const FewAxis& axis = params.axis[a];
        at[c][a] = active ? axis.first + n.axis[a] * axis.phases : -(1 << 30);
      }
    }
    // A run's rows are all inside of the result or none is, which the first one tells.
    MXD_UNROLL for (int m = 0; m < kRows; ++m) {
      const int32_t index = place.first_row + m;
      if (index >= params.rows || (m & (params.run - 1)) != 0) continue;
      const int32_t filter = split_row(params, index).filter;
      MXD_UNROLL for (int c = 0; c < kColumns; ++c) {
        bool inside = true;
        int64_t to = offset[c] + filter * params.result_filter;
        MXD_UNROLL for (int a = 0; a < kAxes; ++a) {
          const int32_t out = at[c][a] + shared.phase(a, m);
          inside = inside && uint32_t(out) < uint32_t(params.axis[a].count);
          to += out * params.axis[a].result;
        }
        if (!inside) continue;
        T values[4];
        MXD_UNROLL for (int i = 0; i < 4; ++i) {
          if (m + i < kRows) values[i] = narrow<T>(sums[m + i][c]);
        }
        if (m % 4 == 0 && params.run == 4) {
          write_packet<4>(result + to, values);
        } else if (m % 2 == 0 && params.run == 2) {
          write_packet<2>(result + to, values);
        } else {
          write(result + to, values[0]);
        }
      }
    }
  }
};

}  // namespace mxd::cuda
