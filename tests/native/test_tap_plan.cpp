// The tap plan against the definition o = i * stride - pad + t * dilate, one axis at a time.
#include <algorithm>
#include <chrono>
#include <numeric>
#include <set>
#include <tuple>

#include "check.h"
#include "core/tap_plan.h"
#include "problems.h"

namespace mxd::test {
namespace {

using Meeting = std::tuple<int64_t, int64_t, int64_t>;  // input, tap, output

std::string text_of(const Axis& axis) {
  return "in " + std::to_string(axis.in) + ", out " + std::to_string(axis.out) + ", kernel " +
         std::to_string(axis.kernel) + ", stride " + std::to_string(axis.stride) + ", dilate " +
         std::to_string(axis.dilate) + ", pad " + std::to_string(axis.pad);
}

Axis random_axis(Random& random) {
  Axis axis;
  axis.in = draw(random, 1, 14);
  axis.kernel = draw(random, 1, draw(random, 0, 9) ? 8 : 80);
  axis.stride = draw(random, 1, 9);
  axis.dilate = draw(random, 1, 9);
  const int64_t full = axis.stride * (axis.in - 1) + axis.dilate * (axis.kernel - 1) + 1 +
                       draw(random, 0, axis.stride - 1);
  axis.pad = std::min(draw(random, 0, 12), full / 2);
  axis.out = full - 2 * axis.pad;
  return axis;
}

std::set<Meeting> meetings_of(const Axis& axis) {
  std::set<Meeting> meetings;
  for (int64_t i = 0; i < axis.in; ++i) {
    for (int64_t t = 0; t < axis.kernel; ++t) {
      const int64_t o = i * axis.stride - axis.pad + t * axis.dilate;
      if (o >= 0 && o < axis.out) meetings.insert({i, t, o});
    }
  }
  return meetings;
}

// What a phase says about itself, whichever pass it is of.
void check_phase(const AxisTaps& phase, const Axis& axis) {
  MXD_CHECK(phase.tap_count > 0 && phase.dst_count > 0, "an empty phase: " + text_of(axis));
  const auto inside = [&phase](int64_t q, int64_t j) {
    const int64_t src = phase.src_begin + q * phase.src_step + j * phase.src_tap_step;
    return src >= 0 && src < phase.src_size;
  };
  for (int64_t q = 0; q < phase.dst_count; ++q) {
    const Range taps = valid_taps(phase, q);
    for (int64_t j = 0; j < phase.tap_count; ++j) {
      const Range results = valid_results(phase, j, {0, phase.dst_count});
      MXD_CHECK(inside(q, j) == (q >= results.begin && q < results.end),
                "valid_results is wrong: " + text_of(axis));
      MXD_CHECK(inside(q, j) == (j >= taps.begin && j < taps.end),
                "valid_taps is wrong: " + text_of(axis));
    }
  }
}

struct Work {
  std::set<Meeting> meetings;
  int64_t products = 0;  // pairs of result and tap that meet the source
};

// Walks a plan as an engine does. `forward`: src is the input and dst the output, else reversed.
Work walk(const std::vector<AxisTaps>& phases, bool forward) {
  Work work;
  for (const AxisTaps& phase : phases) {
    for (int64_t j = 0; j < phase.tap_count; ++j) {
      const Range results = valid_results(phase, j, {0, phase.dst_count});
      for (int64_t q = results.begin; q < results.end; ++q) {
        ++work.products;
        const int64_t src = phase.src_begin + q * phase.src_step + j * phase.src_tap_step;
        const int64_t dst = phase.dst_begin + q * phase.dst_step;
        const int64_t tap = phase.tap_begin + j * phase.tap_step;
        work.meetings.insert(forward ? Meeting{src, tap, dst} : Meeting{dst, tap, src});
      }
    }
  }
  return work;
}

void check_work(const std::vector<AxisTaps>& phases, bool forward, const Axis& axis) {
  const std::set<Meeting> expected = meetings_of(axis);
  const std::string pass = forward ? "forward" : "data gradient";
  const Work work = walk(phases, forward);
  MXD_CHECK(work.meetings == expected, pass + " plan is wrong: " + text_of(axis));
  MXD_CHECK(work.products == int64_t(expected.size()),
            pass + " plan counts a product twice: " + text_of(axis));
}

MXD_TEST(forward_phases, "all meetings once; phases share no output, taps fit their phase") {
  Random random(options().seed);
  for (int64_t i = 0; i < 3000; ++i) {
    const Axis axis = random_axis(random);
    const std::vector<AxisTaps> phases = forward_phases(axis);
    const int64_t residues = axis.stride / std::gcd(axis.stride, axis.dilate);
    MXD_CHECK(int64_t(phases.size()) <= std::min(axis.kernel, residues),
              "more phases than residues that a tap can have: " + text_of(axis));
    MXD_CHECK(int64_t(phases.size()) <= phase_candidates(axis) &&
                  phase_candidates(axis) <= std::min({axis.kernel, axis.stride, axis.out}),
              "phase_candidates is wrong: " + text_of(axis));
    std::set<int64_t> outputs;
    size_t count = 0;
    for (const AxisTaps& phase : phases) {
      check_phase(phase, axis);
      for (int64_t q = 0; q < phase.dst_count; ++q) {
        outputs.insert(phase.dst_begin + q * phase.dst_step);
        ++count;
      }
      MXD_CHECK(phase.dst_begin >= 0 &&
                    phase.dst_begin + (phase.dst_count - 1) * phase.dst_step < axis.out,
                "a phase leaves the output: " + text_of(axis));
      for (int64_t j = 0; j < phase.tap_count; ++j) {
        const int64_t tap = phase.tap_begin + j * phase.tap_step;
        MXD_CHECK(tap >= 0 && tap < axis.kernel &&
                      (tap * axis.dilate - phase.dst_begin - axis.pad) % axis.stride == 0,
                  "a tap of another residue: " + text_of(axis));
      }
    }
    MXD_CHECK(outputs.size() == count, "two phases share an output: " + text_of(axis));
    check_work(phases, true, axis);
  }
}

MXD_TEST(data_gradient_taps, "all meetings once, in one progression") {
  Random random(options().seed);
  for (int64_t i = 0; i < 3000; ++i) {
    const Axis axis = random_axis(random);
    const std::vector<AxisTaps> taps = data_gradient_taps(axis);
    MXD_CHECK(taps.size() <= 1, "more than one progression: " + text_of(axis));
    for (const AxisTaps& phase : taps) check_phase(phase, axis);
    check_work(taps, false, axis);
  }
}

// Sizes whose result fits in 64 bits, as every entry of the engine ensures, and no more than that.
const Axis kHostile[] = {
    // in, out, kernel, stride, dilate, pad
    {1, 1, 1, int64_t(1) << 40, 1, 0},
    {3, (int64_t(1) << 41) + 1, 1, int64_t(1) << 40, 1, 0},
    {1, 1, 1, INT64_MAX, 1, 0},
    {1, INT64_MAX, 1, INT64_MAX, 1, 0},
    {1, 19, 1, INT64_MAX, 1, (int64_t(1) << 62) - 10},  // adj is stride - 1
    {2, 1, 1, int64_t(1) << 61, 1, int64_t(1) << 60},
    {1, 1, 2, 1, int64_t(1) << 61, int64_t(1) << 60},
    {2, 1, 2, int64_t(1) << 60, int64_t(1) << 60, int64_t(1) << 60},
    {2, 1, 2, (int64_t(1) << 60) + 1, int64_t(1) << 60, int64_t(1) << 60},
    {1, 5, 3, INT64_MAX - 1, INT64_MAX / 4, INT64_MAX / 4},
    {1, 1, int64_t(1) << 40, 1, 1, int64_t(1) << 39},
    {int64_t(1) << 40, 2, 3, 1, 1, int64_t(1) << 39},
    {1, 2, int64_t(1) << 30, int64_t(1) << 40, 1, int64_t(1) << 29},
};

__extension__ typedef __int128 Wide;

MXD_TEST(hostile_sizes, "planning takes no time and stays in range, whatever the sizes") {
  for (const Axis& axis : kHostile) {
    const auto start = std::chrono::steady_clock::now();
    for (const bool forward : {true, false}) {
      if (!forward && axis.in > 1000) continue;  // its result would not fit in memory
      for (const AxisTaps& phase : forward ? forward_phases(axis) : data_gradient_taps(axis)) {
        const int64_t results = forward ? axis.out : axis.in;
        MXD_CHECK(phase.dst_begin >= 0 && phase.dst_count >= 1 &&
                      (results - 1 - phase.dst_begin) / phase.dst_step >= phase.dst_count - 1,
                  "results out of range: " + text_of(axis));
        MXD_CHECK(phase.tap_begin >= 0 && phase.tap_count >= 1 &&
                      (axis.kernel - 1 - phase.tap_begin) / phase.tap_step >= phase.tap_count - 1,
                  "taps out of range: " + text_of(axis));
        // The corners against the definition, in wider arithmetic.
        for (const int64_t q : {int64_t(0), phase.dst_count - 1}) {
          for (const int64_t j : {int64_t(0), phase.tap_count - 1}) {
            const Wide src =
                Wide(phase.src_begin) + Wide(q) * phase.src_step + Wide(j) * phase.src_tap_step;
            const Wide dst = Wide(phase.dst_begin) + Wide(q) * phase.dst_step;
            const Wide tap = Wide(phase.tap_begin) + Wide(j) * phase.tap_step;
            const Wide in = forward ? src : dst;
            const Wide out = forward ? dst : src;
            MXD_CHECK(out == in * axis.stride - axis.pad + tap * axis.dilate,
                      "not a meeting: " + text_of(axis));
          }
        }
      }
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    MXD_CHECK(seconds.count() < 0.5,
              "planning took " + std::to_string(seconds.count()) + " s: " + text_of(axis));
  }
}

}  // namespace
}  // namespace mxd::test
