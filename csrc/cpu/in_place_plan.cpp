#include "cpu/in_place_plan.h"

#include <algorithm>

#include "cpu/channels_copy.h"
#include "cpu/in_place_sum.h"
#include "cpu/panels.h"

namespace mxd::cpu {
namespace {

// More borders or taps than this are not worth a plan that grows with them.
constexpr double kMostBoxes = 4096;
constexpr double kMostTaps = 8192;
constexpr double kMostWeightBytes = 0x1p40;  // a kernel expanded from one element may have more

constexpr int64_t kPixels = 256;                 // of a block
constexpr int64_t kSumBytes = int64_t(1) << 18;  // of results that are to be rounded
constexpr int64_t kPixelsOfGroups = 28;  // their source and results stay in the L1 cache meanwhile

// Vectors no wider than a small group asks for.
int64_t lanes_of(const Kernels& kernels, int64_t channels) {
  int64_t lanes = kernels.vector;
  while (channels <= lanes / 2 && lanes / 2 >= kernels.in_place.least_lanes) lanes /= 2;
  return lanes;
}

std::vector<AxisPiece> pieces_of(const std::vector<AxisTaps>& phases) {
  std::vector<AxisPiece> pieces;
  for (size_t p = 0; p < phases.size(); ++p) {
    const AxisTaps& taps = phases[p];
    std::vector<int64_t> cuts{0, taps.dst_count};
    for (int64_t j = 0; j < taps.tap_count; ++j) {
      const Range valid = valid_results(taps, j, {0, taps.dst_count});
      cuts.push_back(valid.begin);
      cuts.push_back(valid.end);
    }
    std::sort(cuts.begin(), cuts.end());
    cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
    for (size_t c = 0; c + 1 < cuts.size(); ++c) {
      pieces.push_back({int64_t(p), {cuts[c], cuts[c + 1]}, valid_taps(taps, cuts[c])});
    }
  }
  return pieces;
}

}  // namespace

bool in_place_fits(const Problem& problem, Pass pass, int64_t workspace_bytes) {
  const Geometry& g = problem.geometry;
  const Kernels& kernels = product_kernels_for(problem.dtype);
  if (pass == Pass::kWeightGradient || !kernels.in_place.sum) return false;
  const bool forward = pass == Pass::kForward;
  const TensorView& src = forward ? problem.data : problem.out;
  const TensorView& dst = forward ? problem.out : problem.data;
  const int64_t src_channels = forward ? g.in_channels : g.out_channels;
  const int64_t dst_channels = forward ? g.out_channels : g.in_channels;
  if (!channels_fill_steps(kernels, src_channels, src.channel)) {
    const double bytes = double(g.batch) * double(forward ? g.in_pixels() : g.out_pixels()) *
                         double(g.groups) * double(src_channels + 1) * double(kernels.elem_bytes);
    // With a worker's scratch, no more than the workspace or the floor.
    const int64_t room = std::max(workspace_bytes, kScratchFloorBytes) / 4;
    if (kernels.terms == 1 || bytes > double(room)) return false;
  }
  const bool transposed = dst_channels > 1 && dst.channel != 1;
  const bool pixels_contiguous =
      dst.axis[2] == 1 && (!forward || g.axis[2].stride == 1 || g.axis[2].out == 1);
  if (transposed && (kernels.terms == 1 || !pixels_contiguous)) return false;
  double boxes = 1, taps = 1;
  for (const Axis& axis : g.axis) {
    taps *= double(axis.kernel);
    boxes *= std::min(3.0 * double(axis.kernel), double(forward ? axis.out : axis.in));
  }
  const double bytes = taps * double(g.groups) * double(g.in_channels + kernels.vector) *
                       double(g.out_channels + kernels.vector) * double(kernels.acc_bytes);
  return boxes <= kMostBoxes && taps <= kMostTaps && bytes <= kMostWeightBytes;
}

InPlacePlan::InPlacePlan(const TapSum& tap_sum, const Resources& resources, int64_t copy_bytes)
    : sum(tap_sum) {
  const Kernels& kernels = *sum.products;
  lanes = lanes_of(kernels, sum.dst_channels);
  vectors = ceil_div(sum.dst_channels, lanes);
  panel_vectors = kernels.in_place.vectors;
  parts = ceil_div(sum.src_steps(), kInPlaceSteps);
  for (int a = 0; a < kAxes; ++a) {
    pieces[a] = pieces_of(sum.axes[a]);
    for (const AxisTaps& phase : sum.axes[a]) {
      first_tap[a].push_back(int64_t(tap[a].size()));
      for (int64_t i = 0; i < phase.tap_count; ++i) {
        const int64_t j = phase.src_tap_step < 0 ? phase.tap_count - 1 - i : i;
        tap[a].push_back(phase.tap_begin + j * phase.tap_step - sum.first_tap[a]);
      }
    }
  }
  find_places();
  block_pixels = sum.groups > 1 ? kPixelsOfGroups : kPixels;
  for (size_t p0 = 0; p0 < pieces[0].size(); ++p0) {
    for (size_t p1 = 0; p1 < pieces[1].size(); ++p1) {
      for (size_t p2 = 0; p2 < pieces[2].size(); ++p2) {
        Box box{{int64_t(p0), int64_t(p1), int64_t(p2)}, sum.batch};
        for (int a = 0; a < kAxes; ++a) {
          const Range results = piece(box, a).results;
          box.pixels *= results.end - results.begin;
        }
        for (int64_t first = 0; first < box.pixels; first += block_pixels) {
          blocks.push_back({boxes.size(), first, double(first) / double(box.pixels)});
        }
        boxes.push_back(box);
      }
    }
  }
  std::stable_sort(blocks.begin(), blocks.end(),
                   [](const PixelBlock& a, const PixelBlock& b) { return a.place < b.place; });
  weight_bytes = sum.groups * vectors * lanes * steps() * kernels.acc_bytes;
  rounds = kernels.elem_bytes != kernels.acc_bytes;
  transposes = sum.dst_channels > 1 && sum.dst.channel != 1;
  slice_panels = panels();
  slice_groups = sum.groups;
  sum_bytes = 0;
  if (rounds) {
    const int64_t vector_bytes = block_pixels * lanes * kernels.acc_bytes;
    const int64_t most = std::max(kSumBytes / vector_bytes, panel_vectors);
    slice_panels = std::min(most / panel_vectors, panels());
    slice_groups = std::min(most, sum.groups);
    sum_bytes = vector_bytes * (vectors == 1 ? slice_groups : slice_panels * panel_vectors);
  }
  const int64_t room = std::max(resources.workspace_bytes, kScratchFloorBytes);
  const int64_t sums = resources.threads->count() * sum_bytes;
  resident = resources.weights || weight_bytes <= room - kScratchFloorBytes / 4 - sums - copy_bytes;
}

void InPlacePlan::find_places() {
  const int64_t* stride = sum.weight_tap;
  if (sum.taps() != taps() || (sum.kernel[1] > 1 && stride[1] != sum.kernel[2] * stride[2]) ||
      (sum.kernel[0] > 1 && stride[0] != sum.kernel[1] * sum.kernel[2] * stride[2])) {
    return;
  }
  places.resize(size_t(taps()));
  int64_t place = 0;
  for (const int64_t t0 : tap[0]) {
    for (const int64_t t1 : tap[1]) {
      for (const int64_t t2 : tap[2]) {
        places[size_t((t0 * sum.kernel[1] + t1) * sum.kernel[2] + t2)] = place++;
      }
    }
  }
}

std::vector<SourceRun> InPlacePlan::runs(const Box& box) const {
  Range range[kAxes];  // the taps that reach the box
  int64_t src[kAxes], src_step[kAxes];
  for (int a = 0; a < kAxes; ++a) {
    const AxisPiece& at = piece(box, a);
    const AxisTaps& phase = sum.axes[a][size_t(at.phase)];
    const bool falling = phase.src_tap_step < 0;
    const int64_t first = falling ? at.taps.end - 1 : at.taps.begin;
    range[a].begin =
        first_tap[a][size_t(at.phase)] + (falling ? phase.tap_count - 1 - first : first);
    range[a].end = range[a].begin + at.taps.end - at.taps.begin;
    src[a] = (phase.src_begin + at.results.begin * phase.src_step + first * phase.src_tap_step) *
             sum.src.axis[a];
    src_step[a] = std::abs(phase.src_tap_step) * sum.src.axis[a];
  }
  const int64_t terms = sum.products->terms;
  std::vector<SourceRun> runs;
  for (int64_t p = 0; p < parts; ++p) {
    const Range steps = part(p);
    const int64_t count = steps.end - steps.begin;
    for (int64_t t0 = range[0].begin; t0 < range[0].end; ++t0) {
      for (int64_t t1 = range[1].begin; t1 < range[1].end; ++t1) {
        for (int64_t t2 = range[2].begin; t2 < range[2].end; ++t2) {
          const int64_t place = (t0 * int64_t(tap[1].size()) + t1) * int64_t(tap[2].size()) + t2;
          const int64_t step = taps() * steps.begin + place * count;
          const int64_t at = src[0] + (t0 - range[0].begin) * src_step[0] + src[1] +
                             (t1 - range[1].begin) * src_step[1] + src[2] +
                             (t2 - range[2].begin) * src_step[2] + steps.begin * terms;
          SourceRun* last = runs.empty() ? nullptr : &runs.back();
          if (last && last->src + last->length * terms == at &&
              last->weight + last->length == step && last->length + count <= kInPlaceSteps) {
            last->length += count;
          } else {
            runs.push_back({at, step, count});
          }
        }
      }
    }
  }
  return runs;
}

}  // namespace mxd::cpu
