// How the weight gradient is cut into tiles of the weight and blocks of input pixels.
//
// Per axis, input i meets tap t at output i * stride - pad + t * dilate. With
// g = gcd(stride, dilate), period = stride / g and reach = dilate / g, write t = phase + j * period
// and let a *cell* of out be the pixels cell * stride - pad + phase * dilate of all phases. Then
// input i meets the tap in cell i + j * reach, whatever the phase:
//
//     grad_w[c, f, phase + j * period] =
//         sum over i of data[c, i] * out[entry (phase, f), cell i + j * reach]
//
// So for every j the gradient is one product of the channels of data with the phases x out_channels
// entries of a cell, in which the phases fill the register tile side by side even where there is
// but one out channel; and data and out are packed once for all phases and all j.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/cell_panels.h"
#include "cpu/engine.h"

namespace mxd::cpu {

// One axis of the weight. Taps that meet no output are left out: `first_tap` is the first that
// does.
struct TapAxis {
  TapAxis() = default;
  explicit TapAxis(const Axis& axis);

  // How many phases have a tap j.
  int64_t phases_with(int64_t j) const {
    return std::min(phases, std::max<int64_t>(kernel - j * period, 0));
  }

  int64_t in = 1;
  CellAxis out;
  int64_t first_tap = 0, kernel = 1;
  int64_t period = 1, reach = 1;
  int64_t phases = 1, steps = 1;  // 0 <= phase < phases, 0 <= j < steps
};

// `total` things in pieces of `step`; the last may be smaller.
struct Cut {
  int64_t total = 1, step = 1;
  int64_t pieces() const { return ceil_div(total, step); }
  Range piece(int64_t i) const { return {i * step, std::min((i + 1) * step, total)}; }
};

// What one job sums: the weights of some channels, filters, phases and steps j of one group.
struct WeightTile {
  int64_t group;
  Range channels, filters;
  Range phases[kAxes], steps[kAxes];

  int64_t channel_count() const { return channels.end - channels.begin; }
  int64_t step_count() const;
};

// A block whose steps go in pairs. Its rows, the cells of all images along the innermost axis, are
// filled up with zeros: an input meets a tap some steps further on in a row of out, and where that
// is an odd number, pairs of data of the other parity meet the same pairs of out.
//
//     even   (0 1) (2 3) (4 .)        odd   (. 0) (1 2) (3 4)
struct PairRows {
  PairRows(int64_t rows, int64_t length, bool both_parities)
      : rows(rows),
        length(length),
        both_parities(both_parities),
        pairs((length + (both_parities ? 2 : 1)) / 2) {}

  // The pairs of a row that hold its steps.
  int64_t pairs_of(bool odd) const { return odd ? length / 2 + 1 : (length + 1) / 2; }

  int64_t rows;
  int64_t length;      // steps of a row
  bool both_parities;  // whether some step j of a tile asks for the other
  int64_t pairs;       // from one row to the next
};

struct OuterPlan {
  OuterPlan(const Problem& problem, Lanes lanes, const Resources& resources);

  WeightTile tile(int64_t index) const;
  EntrySet data_entries(const WeightTile& tile) const;
  EntrySet out_entries(const WeightTile& tile) const;
  CellBlock data_block(int64_t index) const;
  // The cells of out that the pixels of a block meet. Empty if there are none.
  CellBlock out_block(const WeightTile& tile, const CellBlock& data) const;
  // The rows of such blocks, those of out reaching as far as the steps j of the tile do.
  PairRows data_rows(const CellBlock& data) const;
  PairRows out_rows(const WeightTile& tile, const CellBlock& data, const CellBlock& out) const;
  // What a worker needs that sums whole tiles.
  int64_t scratch_bytes() const;
  // Whether some tap meets no output: its gradient is zero, and no tile has it.
  bool skips_taps() const;

  const Problem& problem;
  const Kernels& kernels;
  const Kernels* pairs;    // that multiply pairs, if these pay
  bool lanes_are_entries;  // of out; else the lanes are the channels of data
  TapAxis axis[kAxes];
  CellAxis data_axis[kAxes], out_axis[kAxes];

  Innermost innermost;                                 // of the entries of out
  int64_t axes_apart;                                  // likewise: see EntrySet
  Cut channels, filters, phases[kAxes], steps[kAxes];  // tiles
  int64_t tiles;

  Cut batch, box[kAxes];  // blocks of input pixels
  int64_t blocks;
  int64_t splits;  // the blocks of a tile are summed in so many parts, which are added in order

  // The largest of any tile and block; elements of the accumulate type.
  int64_t data_steps, out_steps;
  int64_t data_pairs, out_pairs;  // steps of panels of pairs, those of data of both parities
  int64_t data_elements, out_elements, tile_elements;
  int64_t number_elements;  // of a panel of numbers that is to be packed in pairs

 private:
  void choose_entry_order();
  void cut_steps();
  void cut_pixels();
  void choose_pairs();
  bool both_parities(int64_t images) const;
  void cut_weight(int64_t times);
  int64_t choose_panels();
};

}  // namespace mxd::cpu
