#include "cpu/in_place_sum.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "cpu/channels_copy.h"
#include "cpu/fill.h"
#include "cpu/in_place_plan.h"
#include "cpu/panels.h"
#include "cpu/scratch.h"

namespace mxd::cpu {
namespace {

constexpr size_t kMostKept = 8192;  // runs that a worker keeps for the next block

// Vectors of the result's channels of a group.
struct Panel {
  Panel(const InPlacePlan& plan, int64_t index)
      : vector(plan.first_vector(index)),
        vectors(plan.first_vector(index + 1) - vector),
        channel(vector * plan.lanes),
        width(vectors * plan.lanes),
        channels(std::min(width, plan.sum.dst_channels - channel)) {}

  int64_t vector, vectors;
  int64_t channel;   // the first
  int64_t width;     // of the packed weights
  int64_t channels;  // that exist
};

// Packs the weights of some steps, which begin and end with a tap's.
void pack_steps(const InPlacePlan& plan, int64_t group, const Panel& panel, Range steps,
                char* dst) {
  const TapSum& sum = plan.sum;
  const Kernels& kernels = *sum.products;
  if (panel.channels < panel.width) {
    std::memset(dst, 0, size_t((steps.end - steps.begin) * panel.width * kernels.acc_bytes));
  }
  const int64_t first = group * sum.weight_group + panel.channel * sum.weight_dst;
  int64_t step = steps.begin;
  for (int64_t p = 0; p < plan.parts; ++p) {
    const Range part = plan.part(p);
    const int64_t count = part.end - part.begin;
    const int64_t before = plan.taps() * part.begin;
    for (; step < std::min(steps.end, before + plan.taps() * count); step += count) {
      int64_t place = (step - before) / count;
      int64_t offset = first + part.begin * kernels.terms * sum.weight_src;
      for (int a = kAxes - 1; a >= 0; --a) {
        const int64_t taps = int64_t(plan.tap[a].size());
        offset += plan.tap[a][size_t(place % taps)] * sum.weight_tap[a];
        place /= taps;
      }
      kernels.pack(dst, panel.width, sum.weight + offset * kernels.elem_bytes, panel.channels,
                   sum.weight_dst,
                   std::min(count * kernels.terms, sum.src_channels - part.begin * kernels.terms),
                   sum.weight_src);
      dst += count * panel.width * kernels.acc_bytes;
    }
  }
}

// The same for all steps where the taps of a weight lie next to each other: all taps of a step.
void pack_taps(const InPlacePlan& plan, int64_t group, const Panel& panel, char* dst) {
  const TapSum& sum = plan.sum;
  const Kernels& kernels = *sum.products;
  if (panel.channels < panel.width) {
    std::memset(dst, 0, size_t(plan.steps() * panel.width * kernels.acc_bytes));
  }
  const int64_t first = group * sum.weight_group + panel.channel * sum.weight_dst;
  std::vector<int64_t> offsets(plan.places.size());
  for (int64_t p = 0; p < plan.parts; ++p) {
    const Range part = plan.part(p);
    for (int64_t step = part.begin; step < part.end; ++step) {
      for (size_t t = 0; t < offsets.size(); ++t) {
        offsets[t] = (plan.taps() * part.begin + plan.places[t] * (part.end - part.begin) + step -
                      part.begin) *
                     panel.width;
      }
      const int64_t channel = step * kernels.terms;
      const int terms = int(std::min<int64_t>(sum.src_channels - channel, kernels.terms));
      kernels.pack_scattered(
          dst, offsets.data(), sum.weight + (first + channel * sum.weight_src) * kernels.elem_bytes,
          panel.channels, sum.weight_dst, plan.taps(), sum.weight_tap[2], terms, sum.weight_src);
    }
  }
}

// Where the weights of a panel are among those of all.
int64_t weight_offset(const InPlacePlan& plan, int64_t group, const Panel& panel) {
  return (group * plan.vectors + panel.vector) * plan.lanes * plan.steps() *
         plan.sum.products->acc_bytes;
}

void pack_all(const InPlacePlan& plan, const Threads& threads, char* weights) {
  for_each_job(threads, plan.sum.groups * plan.panels(), [&] {
    return [&](int64_t job) {
      const int64_t group = job / plan.panels();
      const Panel panel(plan, job % plan.panels());
      char* const dst = weights + weight_offset(plan, group, panel);
      const bool apart = plan.sum.weight_dst != 1 && plan.sum.weight_src != 1;
      if (apart && plan.taps() > 1 && !plan.places.empty()) {
        pack_taps(plan, group, panel, dst);
      } else {
        pack_steps(plan, group, panel, {0, plan.steps()}, dst);
      }
    };
  });
}

PreparedWeights::Key key_of(const InPlacePlan& plan) {
  const TapSum& sum = plan.sum;
  PreparedWeights::Key key{int64_t(Algorithm::kInPlaceSum),
                           int64_t(reinterpret_cast<intptr_t>(sum.products)),
                           sum.groups,
                           sum.src_channels,
                           sum.dst_channels,
                           sum.weight_group,
                           sum.weight_src,
                           sum.weight_dst};
  for (int a = 0; a < kAxes; ++a) {
    key.insert(key.end(), {sum.first_tap[a], sum.weight_tap[a], int64_t(plan.tap[a].size())});
    key.insert(key.end(), plan.tap[a].begin(), plan.tap[a].end());
  }
  return key;
}

class Worker {
 public:
  // `weights` and `bias` are those of all groups, packed; null: the weights are packed as needed.
  Worker(const InPlacePlan& plan, const char* weights, const char* bias)
      : plan_(plan),
        sum_(plan.sum),
        kernels_(*plan.sum.products),
        weights_(weights),
        bias_(bias),
        scratch_(own_bytes() || plan.sum_bytes
                     ? new Scratch(align_up(own_bytes()) + align_up(plan.sum_bytes))
                     : nullptr),
        own_(weights ? nullptr : scratch_->take<char>(own_bytes())),
        sums_(plan.rounds ? scratch_->take<char>(plan.sum_bytes) : nullptr),
        runs_(plan.boxes.size()),
        src_offsets_(size_t(plan.block_pixels)),
        dst_offsets_(size_t(plan.block_pixels)),
        sum_offsets_(size_t(plan.rounds ? plan.block_pixels : 0)) {}

  void operator()(int64_t job) {
    const PixelBlock& block = plan_.blocks[size_t(job)];
    const Box& box = plan_.boxes[block.box];
    const std::vector<SourceRun>& runs = runs_of(block.box);
    const int64_t pixels = std::min(plan_.block_pixels, box.pixels - block.first);
    find_pixels(box, block.first, pixels);
    // The tiles round what they have summed up, unless more is to be added.
    int64_t steps = 0;
    for (const SourceRun& run : runs) steps += run.length;
    in_scratch_ = plan_.rounds &&
                  (plan_.transposes || plan_.lanes < kernels_.vector || steps > kInPlaceSteps);
    const int64_t together = weights_ && plan_.vectors == 1 ? plan_.slice_groups : 1;
    for (int64_t group = 0; group < sum_.groups; group += together) {
      const int64_t groups = std::min(together, sum_.groups - group);
      for (int64_t panel = 0; panel < plan_.panels(); panel += plan_.slice_panels) {
        const Slice slice{group, groups, panel,
                          std::min(panel + plan_.slice_panels, plan_.panels())};
        sum_slice(runs, slice, pixels);
        if (in_scratch_) round(slice);
      }
    }
  }

 private:
  // Groups and panels that are summed together.
  struct Slice {
    int64_t group, groups;
    int64_t first_panel, last_panel;
  };
  // Results that follow each other on the innermost axis.
  struct Line {
    int64_t pixel, pixels;  // of the block
    int64_t dst, dst_step;
  };

  int64_t own_bytes() const {
    if (weights_) return 0;
    return 2 * kInPlaceSteps * plan_.panel_vectors * plan_.lanes * kernels_.acc_bytes;
  }

  const std::vector<SourceRun>& runs_of(size_t box) {
    if (!runs_[box].empty()) return runs_[box];
    if (kept_ > kMostKept) {
      for (std::vector<SourceRun>& runs : runs_) std::vector<SourceRun>().swap(runs);
      kept_ = 0;
    }
    runs_[box] = plan_.runs(plan_.boxes[box]);
    kept_ += runs_[box].size();
    return runs_[box];
  }

  // The vector of a slice's sums at which those of a panel begin.
  int64_t sum_vector(const Slice& slice, const Panel& panel) const {
    return panel.vector - plan_.first_vector(slice.first_panel);
  }
  // Elements from one pixel's sums to the next, in scratch.
  int64_t sum_width(const Slice& slice) const {
    const int64_t vectors =
        plan_.first_vector(slice.last_panel) - plan_.first_vector(slice.first_panel);
    return slice.groups * vectors * plan_.lanes;
  }

  // Some runs for all panels, then the next: the sums are kept meanwhile.
  void sum_slice(const std::vector<SourceRun>& runs, const Slice& slice, int64_t pixels) {
    const int64_t width = sum_width(slice);
    for (size_t p = 0; p < sum_offsets_.size(); ++p) sum_offsets_[p] = int64_t(p) * width;
    size_t first = 0;
    do {
      size_t last = first;
      for (int64_t steps = 0; last < runs.size() && steps < kInPlaceSteps; ++last) {
        steps += runs[last].length;
      }
      for (int64_t panel = slice.first_panel; panel < slice.last_panel; ++panel) {
        sum_panel(slice, Panel(plan_, panel), runs.data() + first, last - first, first > 0, pixels);
      }
      first = last;
    } while (first < runs.size());
  }

  void sum_panel(const Slice& slice, const Panel& panel, const SourceRun* runs, size_t count,
                 bool accumulate, int64_t pixels) {
    const int64_t group = slice.group;
    InPlaceSum call{};
    call.src =
        static_cast<const char*>(sum_.src.data) + group * sum_.src_group * kernels_.elem_bytes;
    call.src_offsets = src_offsets_.data();
    if (in_scratch_) {
      call.dst = sums_ + sum_vector(slice, panel) * plan_.lanes * kernels_.acc_bytes;
      call.dst_offsets = sum_offsets_.data();
      call.dst_group = plan_.lanes;
      call.channels = panel.width;
    } else {
      call.dst = dst_of(group, panel.channel);
      call.dst_offsets = dst_offsets_.data();
      call.dst_group = sum_.dst_channels * sum_.dst.channel;
      call.channels = panel.channels;
      call.bias = bias_of(group, panel);
      call.rounds = plan_.rounds;
    }
    call.pixels = pixels;
    call.weights = weights_ ? weights_ + weight_offset(plan_, group, panel) : own_;
    place_weights(group, panel, runs, count);
    call.runs = placed_.data();
    call.run_count = int64_t(placed_.size());
    call.vectors = int(panel.vectors);
    call.lanes = int(plan_.lanes);
    call.accumulate = accumulate;
    call.groups = slice.groups;
    call.src_group = sum_.src_group;
    call.weight_group = plan_.steps() * plan_.lanes;
    kernels_.in_place.sum(call);
  }

  char* dst_of(int64_t group, int64_t channel) const {
    return static_cast<char*>(sum_.dst.data) +
           (group * sum_.dst_channels + channel) * sum_.dst.channel * kernels_.elem_bytes;
  }

  const char* bias_of(int64_t group, const Panel& panel) const {
    const int64_t vector = group * plan_.vectors + panel.vector;
    return bias_ ? bias_ + vector * plan_.lanes * kernels_.acc_bytes : nullptr;
  }

  // Takes the sums of a slice to where the results lie.
  void round(const Slice& slice) {
    const int64_t width = sum_width(slice);
    for (int64_t g = 0; g < slice.groups; ++g) {
      for (int64_t panel = slice.first_panel; panel < slice.last_panel; ++panel) {
        const Panel at(plan_, panel);
        const int64_t column = (g + sum_vector(slice, at)) * plan_.lanes;
        const char* const bias = bias_of(slice.group + g, at);
        for (const Line& line : lines_) {
          char* const dst = dst_of(slice.group + g, at.channel) + line.dst * kernels_.elem_bytes;
          const char* const sums = sums_ + (line.pixel * width + column) * kernels_.acc_bytes;
          if (plan_.transposes) {
            kernels_.in_place.store(dst, sum_.dst.channel, sums, width, line.pixels, at.channels,
                                    bias);
          } else {
            kernels_.store(dst, line.dst_step, 1, sums, width, line.pixels, at.channels, bias, 0,
                           bias != nullptr);
          }
        }
      }
    }
  }

  // The runs, with the places of their weights in the packed panel.
  void place_weights(int64_t group, const Panel& panel, const SourceRun* runs, size_t count) {
    placed_.clear();
    int64_t packed = 0;
    for (size_t r = 0; r < count; ++r) {
      SourceRun run = runs[r];
      if (!weights_) {
        pack_steps(plan_, group, panel, {run.weight, run.weight + run.length},
                   own_ + packed * panel.width * kernels_.acc_bytes);
        run.weight = packed;
        packed += run.length;
      }
      run.weight *= panel.width;
      placed_.push_back(run);
    }
  }

  // Where the pixels of the box from `first` on have their source and their results.
  void find_pixels(const Box& box, int64_t first, int64_t pixels) {
    int64_t at[kAxes], src_step[kAxes], dst_step[kAxes], dst_first = 0, extent[kAxes];
    int64_t batch = first;
    lines_.clear();
    for (int a = kAxes - 1; a >= 0; --a) {
      const AxisPiece& piece = plan_.piece(box, a);
      const AxisTaps& phase = sum_.axes[a][size_t(piece.phase)];
      extent[a] = piece.results.end - piece.results.begin;
      at[a] = batch % extent[a];
      batch /= extent[a];
      src_step[a] = phase.src_step * sum_.src.axis[a];
      dst_step[a] = phase.dst_step * sum_.dst.axis[a];
      dst_first += (phase.dst_begin + piece.results.begin * phase.dst_step) * sum_.dst.axis[a];
    }
    for (int64_t p = 0; p < pixels;) {
      const int64_t src = batch * sum_.src.batch + at[0] * src_step[0] + at[1] * src_step[1];
      const int64_t dst =
          dst_first + batch * sum_.dst.batch + at[0] * dst_step[0] + at[1] * dst_step[1];
      if (plan_.rounds) {
        lines_.push_back(
            {p, std::min(extent[2] - at[2], pixels - p), dst + at[2] * dst_step[2], dst_step[2]});
      }
      for (; at[2] < extent[2] && p < pixels; ++at[2], ++p) {
        src_offsets_[size_t(p)] = src + at[2] * src_step[2];
        dst_offsets_[size_t(p)] = dst + at[2] * dst_step[2];
      }
      at[2] = 0;
      if (++at[1] < extent[1]) continue;
      at[1] = 0;
      if (++at[0] < extent[0]) continue;
      at[0] = 0;
      ++batch;
    }
  }

  const InPlacePlan& plan_;
  const TapSum& sum_;
  const Kernels& kernels_;
  const char* const weights_;
  const char* const bias_;
  std::unique_ptr<Scratch> scratch_;
  char* const own_;          // weights of the runs at hand, if all of them have no room
  char* const sums_;         // of a slice, if they are to be rounded
  bool in_scratch_ = false;  // whether the sums of the box at hand are
  std::vector<std::vector<SourceRun>> runs_;  // of each box, once they were needed
  size_t kept_ = 0;                           // of these, in all
  std::vector<SourceRun> placed_;
  std::vector<int64_t> src_offsets_, dst_offsets_;  // of the block's pixels
  std::vector<int64_t> sum_offsets_;                // likewise, of their sums
  std::vector<Line> lines_;                         // of the block, if sums are to be rounded
};

// The bias of each group, padded to whole vectors.
void pack_bias(const InPlacePlan& plan, char* bias) {
  const TapSum& sum = plan.sum;
  const Kernels& kernels = *sum.kernels;
  const int64_t width = plan.vectors * plan.lanes;
  std::memset(bias, 0, size_t(sum.groups * width * kernels.acc_bytes));
  for (int64_t group = 0; group < sum.groups; ++group) {
    const int64_t first = group * sum.dst_channels * sum.bias.stride;
    kernels.pack(bias + group * width * kernels.acc_bytes, width,
                 static_cast<const char*>(sum.bias.data) + first * kernels.elem_bytes,
                 sum.dst_channels, sum.bias.stride, 1, 0);
  }
}

void run(const TapSum& sum, const Resources& resources, int64_t copy_bytes) {
  const InPlacePlan plan(sum, resources, copy_bytes);
  const Threads& threads = *resources.threads;
  const int64_t bias_bytes =
      sum.bias.data ? sum.groups * plan.vectors * plan.lanes * sum.kernels->acc_bytes : 0;
  const bool own = plan.resident && !resources.weights;
  Scratch scratch(align_up(own ? plan.weight_bytes : 0) + align_up(bias_bytes));
  char* const bias = sum.bias.data ? scratch.take<char>(bias_bytes) : nullptr;
  if (bias) pack_bias(plan, bias);
  const char* weights = nullptr;
  std::shared_ptr<const PreparedWeights::Form> kept;
  if (own) {
    char* const packed = scratch.take<char>(plan.weight_bytes);
    pack_all(plan, threads, packed);
    weights = packed;
  } else if (plan.resident) {
    kept = resources.weights->get(key_of(plan), plan.weight_bytes, [&](char* memory) {
      pack_all(plan, threads, memory);
      return uint32_t(0);
    });
    weights = kept->start;
  }
  for_each_job(threads, int64_t(plan.blocks.size()), [&] { return Worker(plan, weights, bias); });
}

}  // namespace

void run_in_place_sum(const TapSum& sum, const Resources& resources) {
  if (!phases_cover_results(sum)) {
    fill_with_bias(*sum.kernels, sum.dst, sum.bias, sum.batch, sum.groups * sum.dst_channels,
                   sum.dst_size);
  }
  if (channels_fill_steps(*sum.products, sum.src_channels, sum.src.channel)) {
    return run(sum, resources, 0);
  }
  int64_t pixels = sum.batch;
  for (const std::vector<AxisTaps>& phases : sum.axes) pixels *= phases.front().src_size;
  const int64_t bytes = channels_copy_bytes(*sum.products, pixels, sum.groups, sum.src_channels);
  Scratch scratch(align_up(bytes));
  run(with_channels_copied(sum, *resources.threads, scratch.take<char>(bytes)), resources,
      align_up(bytes));
}

}  // namespace mxd::cpu
