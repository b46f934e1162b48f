#include "cpu/gathered_block.h"

#include <algorithm>
#include <cstring>

namespace mxd::cpu {
namespace {

// Room for so many is asked for at once; more is found when it is needed.
constexpr size_t kFewParts = 8;
constexpr size_t kFewRuns = 64;

}  // namespace

GatheredBlock::GatheredBlock(const ColumnGrid& grid, const TensorView& src, int64_t begin,
                             const Panels& panels)
    : ColumnBlock(panels, panels.width(0)), grid_(grid), src_(src) {
  const std::vector<Section>& sections = grid.sections();
  auto section =
      std::upper_bound(sections.begin(), sections.end(), begin,
                       [](int64_t column, const Section& s) { return column < s.first; });
  --section;
  runs_.reserve(kFewParts);
  parts_.reserve(kFewParts);
  for (int64_t column = 0; column < panels.total(); column += runs_.back().length) {
    const int64_t at = begin + column;
    if (at >= section->first + section->columns) ++section;
    add_run(*section, at - section->first, column);
  }
  mark_used();
}

void GatheredBlock::add_run(const Section& section, int64_t index, int64_t column) {
  ColumnRun run{column, 0, 0, {0, 0, 0}, section.run_axis};
  int64_t rest = index;
  if (section.batch_inner) {
    run.batch = rest % grid_.batch();
    rest /= grid_.batch();
  }
  for (int a = kAxes - 1; a >= 0; --a) {
    run.at[a] = section.axis[a].begin + rest % section.extent(a);
    rest /= section.extent(a);
  }
  if (!section.batch_inner) run.batch = rest;
  const int64_t left =
      run.axis < 0 ? grid_.batch() - run.batch : section.axis[run.axis].end - run.at[run.axis];
  run.length = std::min(left, panels_.total() - column);
  runs_.push_back(run);

  Part part{0, 0, run, run.batch * src_.batch, src_.batch, true};
  for (int a = 0; a < kAxes; ++a) {
    const int64_t step = grid_.axis(a).src_step * src_.axis[a];
    part.src += run.at[a] * step;
    if (a == run.axis) part.src_step = step;
    const int64_t length = a == run.axis ? run.length : 1;
    part.inside = part.inside && grid_.inside(a, {run.at[a], run.at[a] + length});
  }
  all_inside_ = all_inside_ && part.inside;
  int64_t panel = parts_.empty() ? 0 : parts_.back().panel;
  for (int64_t done = 0; done < run.length;) {
    while (column + done >= panels_.begin(panel) + panels_.width(panel)) ++panel;
    part.panel = panel;
    part.offset = column + done - panels_.begin(panel);
    part.run.column = column + done;
    part.run.length = std::min(run.length - done, panels_.width(panel) - part.offset);
    parts_.push_back(part);
    done += part.run.length;
    part.src += part.run.length * part.src_step;
    (run.axis < 0 ? part.run.batch : part.run.at[run.axis]) += part.run.length;
  }
}

Range GatheredBlock::valid(const Part& part, int a, size_t shift) const {
  const Range whole{0, part.run.length};
  if (part.inside) return whole;
  const Range valid = grid_.axis(a).valid[shift];
  const int64_t at = part.run.at[a];
  if (a != part.run.axis) return at < valid.begin || at >= valid.end ? Range{0, 0} : whole;
  const int64_t begin = std::clamp<int64_t>(valid.begin - at, 0, part.run.length);
  return {begin, std::clamp(valid.end - at, begin, part.run.length)};
}

void GatheredBlock::mark_used() {
  if (all_inside_) return;
  const auto shifts = [this](int a) { return grid_.axis(a).shifts.size(); };
  const auto both = [](Range a, Range b) {
    const int64_t begin = std::max(a.begin, b.begin);
    return Range{begin, std::max(begin, std::min(a.end, b.end))};
  };
  used_.assign(size_t(panels_.count() * grid_.shifts()), 0);
  valid_.reserve(parts_.size() * size_t(grid_.shifts()));
  for (const Part& part : parts_) {
    char* used = used_.data() + part.panel * grid_.shifts();
    for (size_t s0 = 0; s0 < shifts(0); ++s0) {
      const Range range0 = valid(part, 0, s0);
      for (size_t s1 = 0; s1 < shifts(1); ++s1) {
        const Range range1 = both(range0, valid(part, 1, s1));
        for (size_t s2 = 0; s2 < shifts(2); ++s2, ++used) {
          valid_.push_back(both(range1, valid(part, 2, s2)));
          *used = *used || valid_.back().begin < valid_.back().end;
        }
      }
    }
  }
}

void GatheredBlock::pack(const Kernels& kernels, const char* src, const Chunk& chunk,
                         char* dst) const {
  const char* source = src + chunk.channels.begin * src_.channel * kernels.elem_bytes;
  const int64_t last = panels_.count() - 1;
  if (panels_.present(last) < panels_.width(last)) {
    std::memset(dst + panels_.begin(last) * chunk.steps() * kernels.acc_bytes, 0,
                size_t(panels_.width(last) * chunk.steps() * kernels.acc_bytes));
  }
  std::vector<ShiftedRun> runs;
  runs.reserve(std::min(parts_.size() * size_t(chunk.shifts.end - chunk.shifts.begin), kFewRuns));
  for (size_t p = 0; p < parts_.size(); ++p) {
    const Part& part = parts_[p];
    const int64_t width = panels_.width(part.panel);
    for (int64_t s = chunk.shifts.begin; s < chunk.shifts.end; ++s) {
      if (!uses(part.panel, s)) continue;
      const Range range =
          all_inside_ ? Range{0, part.run.length} : valid_[p * size_t(grid_.shifts()) + size_t(s)];
      const int64_t at = panels_.begin(part.panel) * chunk.steps() +
                         (s - chunk.shifts.begin) * chunk.depth() * width + part.offset;
      runs.push_back({at, part.src + grid_.offset(s), part.run.length, range.begin, range.end});
    }
    // All that can be packed in one go.
    const bool goes_on = p + 1 < parts_.size() && parts_[p + 1].src_step == part.src_step &&
                         panels_.width(parts_[p + 1].panel) == width;
    if (goes_on) continue;
    kernels.pack_shifted(dst, width, source, part.src_step, chunk.channel_count(), src_.channel,
                         runs.data(), int64_t(runs.size()));
    runs.clear();
  }
}

}  // namespace mxd::cpu
