#include "cpu/result_store.h"

#include <algorithm>

namespace mxd::cpu {
namespace {

// Results of the next channel lie too far from those of this one for the hardware to foresee.
void fetch_for_writing(const char* begin, int64_t bytes) {
  for (int64_t b = 0; b < bytes; b += kAlignment) __builtin_prefetch(begin + b, 1);
}

}  // namespace

ResultStore::ResultStore(const TapSumPlan& plan, Scratch& scratch)
    : plan_(plan),
      sum_(plan.sum),
      kernels_(*plan.sum.kernels),
      line_(scratch.take<char>(plan.line_bytes)),
      bias_(scratch.take<char>((plan.max_channels + kernels_.cols) * kernels_.acc_bytes)) {
  const GridAxis& axis = plan.grid.axis(2);
  const int64_t phases = int64_t(axis.phases.size());
  plain_ =
      sum_.lanes == Lanes::kPixels && sum_.dst.axis[2] == 1 && sum_.dst.axis[1] == sum_.dst_size[2];
  for (int a = 0; a < kAxes; ++a) {
    plain_ = plain_ && plan.grid.axis(a).phases.size() == 1 &&
             plan.grid.axis(a).phases[0].taps->dst_count == sum_.dst_size[a];
  }
  interleaves_ = sum_.lanes == Lanes::kPixels && sum_.dst.axis[2] == 1 && phases > 1 &&
                 phases * kernels_.vector * kernels_.acc_bytes <= plan.line_bytes &&
                 axis.phases[0].taps->dst_step == phases;
  for (int64_t p = 0; p < phases; ++p) {
    interleaves_ = interleaves_ && axis.phases[size_t(p)].dst_at(0) == axis.phases[0].dst_at(0) + p;
  }
  if (!interleaves_) return;
  members_.resize(size_t(phases));
  rows_.resize(size_t(phases));
  for (size_t g = 0; g < axis.groups.size(); ++g) {
    for (size_t i = 0; i < axis.groups[g].phases.size(); ++i) {
      members_[size_t(axis.groups[g].phases[i])] = {int64_t(g), int64_t(i)};
    }
  }
}

void ResultStore::start_job(int64_t group, int64_t begin, int64_t channels) {
  group_ = group;
  begin_ = begin;
  channels_ = channels;
  has_bias_ = sum_.bias.data != nullptr;
  if (!has_bias_) return;
  const int64_t first = group * sum_.dst_channels + begin;
  kernels_.pack(
      bias_, channels,
      static_cast<const char*>(sum_.bias.data) + first * sum_.bias.stride * kernels_.elem_bytes,
      channels, sum_.bias.stride, 1, 0);
}

void ResultStore::add(int64_t index, const Bundle& bundle, const char* acc, Range channels,
                      int64_t stride) {
  entries_.push_back({index, bundle, acc, channels, stride});
}

void ResultStore::write(const std::vector<ColumnRun>& runs) {
  if (plain_ &&
      std::all_of(runs.begin(), runs.end(), [](const ColumnRun& run) { return run.axis == 2; })) {
    write_plain(runs);
    return;
  }
  const int64_t line = int64_t(plan_.grid.axis(2).groups.size());
  const bool whole_lines =
      entries_.front().index % line == 0 && int64_t(entries_.size()) % line == 0;
  const bool along_line = std::all_of(runs.begin(), runs.end(), [](const ColumnRun& run) {
    return run.axis == 2 || run.length == 1;
  });
  if (interleaves_ && whole_lines && along_line) {
    write_lines(runs);
    return;
  }
  const int64_t channels = entries_.front().channels.end - entries_.front().channels.begin;
  // Channel by channel where each has a part of memory to itself, so that it is written in order.
  const int64_t step = sum_.lanes == Lanes::kPixels && sum_.dst.channel != 1 ? 1 : channels;
  for (int64_t channel = 0; channel < channels; channel += step) {
    for (const ColumnRun& run : runs) {
      for (const Entry& entry : entries_) write_phases(entry, run, {channel, channel + step});
    }
  }
}

// Every column is a result: rows that follow each other are written as one.
void ResultStore::write_plain(const std::vector<ColumnRun>& runs) {
  const Entry& entry = entries_.front();
  struct Stretch {
    int64_t column, dst, length;
  };
  std::vector<Stretch> stretches;
  for (const ColumnRun& run : runs) {
    const int64_t dst = run.batch * sum_.dst.batch + run.at[0] * sum_.dst.axis[0] +
                        run.at[1] * sum_.dst.axis[1] + run.at[2];
    if (!stretches.empty()) {
      Stretch& last = stretches.back();
      if (last.column + last.length == run.column && last.dst + last.length == dst) {
        last.length += run.length;
        continue;
      }
    }
    stretches.push_back({run.column, dst, run.length});
  }
  char* dst = dst_of(entry);
  for (int64_t c = 0; c < entry.channels.end - entry.channels.begin; ++c) {
    for (const Stretch& stretch : stretches) {
      fetch_for_writing(dst + ((c + 1) * sum_.dst.channel + stretch.dst) * kernels_.elem_bytes,
                        stretch.length * kernels_.elem_bytes);
      kernels_.store(dst + (c * sum_.dst.channel + stretch.dst) * kernels_.elem_bytes, 0, 1,
                     entry.acc + (c * entry.stride + stretch.column) * kernels_.acc_bytes, 0, 1,
                     stretch.length, bias(entry.channels.begin + c), 0, 0);
    }
  }
}

// The phases of the innermost axis are merged into lines, for each phase of the other axes.
void ResultStore::write_lines(const std::vector<ColumnRun>& runs) {
  const size_t phases = members_.size();
  lines_.clear();
  line_phases_.clear();
  for (const ColumnRun& run : runs) {
    for (size_t e = 0; e < entries_.size(); e += plan_.grid.axis(2).groups.size()) {
      list_lines(&entries_[e], run);
    }
  }
  const Range channels = entries_.front().channels;
  for (int64_t channel = 0; channel < channels.end - channels.begin; ++channel) {
    char* dst = dst_of(entries_.front()) + channel * sum_.dst.channel * kernels_.elem_bytes;
    const LinePhase* phase = line_phases_.data();
    for (const Line& line : lines_) {
      fetch_for_writing(dst + (sum_.dst.channel + line.dst) * kernels_.elem_bytes,
                        (line.last - line.first) * kernels_.elem_bytes);
      for (size_t p = 0; p < phases; ++p, ++phase) rows_[p] = phase->acc + channel * phase->step;
      kernels_.interleave(line_, rows_.data(), int64_t(phases), line.columns);
      kernels_.store(dst + line.dst * kernels_.elem_bytes, 0, 1,
                     line_ + line.first * kernels_.acc_bytes, 0, 1, line.last - line.first,
                     bias(channels.begin + channel), 0, 0);
    }
  }
}

void ResultStore::list_lines(const Entry* line, const ColumnRun& run) {
  const GridAxis& axis = plan_.grid.axis(2);
  const Bundle& bundle = line->bundle;
  const int64_t phases = int64_t(axis.phases.size());
  const int64_t most =
      plan_.line_bytes / kernels_.acc_bytes / phases / kernels_.vector * kernels_.vector;
  const int64_t channels = line->channels.end - line->channels.begin;
  for (int64_t i0 = 0; i0 < int64_t(bundle.group[0]->phases.size()); ++i0) {
    for (int64_t i1 = 0; i1 < int64_t(bundle.group[1]->phases.size()); ++i1) {
      const GridPhase& phase0 = phase(bundle, 0, i0);
      const GridPhase& phase1 = phase(bundle, 1, i1);
      if (!phase0.has(run.at[0]) || !phase1.has(run.at[1])) continue;
      const int64_t base = run.batch * sum_.dst.batch +
                           phase0.dst_at(run.at[0]) * sum_.dst.axis[0] +
                           phase1.dst_at(run.at[1]) * sum_.dst.axis[1];
      for (int64_t begin = 0; begin < run.length; begin += most) {
        const int64_t columns = std::min(most, run.length - begin);
        const int64_t result = axis.phases[0].dst_at(run.at[2] + begin);
        const int64_t first = std::max<int64_t>(-result, 0);
        const int64_t last = std::min(columns * phases, sum_.dst_size[2] - result);
        if (first >= last) continue;
        lines_.push_back({columns, base + result + first, first, last});
        for (const Member& member : members_) {
          const Entry& entry = line[member.group];
          const int64_t row = entry.bundle.row(i0, i1, 0, member.place, channels);
          const int64_t row_step = int64_t(entry.bundle.group[2]->phases.size()) * entry.stride;
          line_phases_.push_back(
              {entry.acc + (row * entry.stride + run.column + begin) * kernels_.acc_bytes,
               row_step * kernels_.acc_bytes});
        }
      }
    }
  }
}

char* ResultStore::dst_of(const Entry& entry) const {
  const int64_t channel = group_ * sum_.dst_channels + begin_ + entry.channels.begin;
  return static_cast<char*>(sum_.dst.data) + channel * sum_.dst.channel * kernels_.elem_bytes;
}

void ResultStore::write_phases(const Entry& entry, const ColumnRun& run, Range channels) {
  for (int64_t i0 = 0; i0 < int64_t(entry.bundle.group[0]->phases.size()); ++i0) {
    for (int64_t i1 = 0; i1 < int64_t(entry.bundle.group[1]->phases.size()); ++i1) {
      for (int64_t i2 = 0; i2 < int64_t(entry.bundle.group[2]->phases.size()); ++i2) {
        write_phase(entry, run, channels, i0, i1, i2);
      }
    }
  }
}

void ResultStore::write_phase(const Entry& entry, const ColumnRun& run, Range channels, int64_t i0,
                              int64_t i1, int64_t i2) {
  const int64_t place[kAxes] = {i0, i1, i2};
  int64_t first = 0;
  int64_t last = run.length;
  int64_t offset = run.batch * sum_.dst.batch;
  int64_t step = sum_.dst.batch;
  for (int a = 0; a < kAxes; ++a) {
    const GridPhase& phase = this->phase(entry.bundle, a, place[a]);
    offset += phase.dst_at(run.at[a]) * sum_.dst.axis[a];
    if (a == run.axis) {
      first = std::max(first, phase.first_column - run.at[a]);
      last = std::min(last, phase.first_column + phase.taps->dst_count - run.at[a]);
      step = phase.taps->dst_step * sum_.dst.axis[a];
    } else if (!phase.has(run.at[a])) {
      return;
    }
  }
  if (first >= last) return;
  const int64_t count = channels.end - channels.begin;
  char* at = dst_of(entry) +
             (offset + first * step + channels.begin * sum_.dst.channel) * kernels_.elem_bytes;
  const char* bias = this->bias(entry.channels.begin + channels.begin);
  const int64_t column = run.column + first;
  if (sum_.lanes == Lanes::kPixels) {
    const int64_t all = entry.channels.end - entry.channels.begin;
    const int64_t row = entry.bundle.row(i0, i1, channels.begin, i2, all);
    const int64_t row_step = int64_t(entry.bundle.group[2]->phases.size()) * entry.stride;
    kernels_.store(at, sum_.dst.channel, step,
                   entry.acc + (row * entry.stride + column) * kernels_.acc_bytes, row_step, count,
                   last - first, bias, 1, 0);
  } else {
    kernels_.store(at, step, sum_.dst.channel,
                   entry.acc + column * entry.stride * kernels_.acc_bytes, entry.stride,
                   last - first, count, bias, 0, 1);
  }
}

}  // namespace mxd::cpu
