// What must not change a result by a single bit: the number of threads and the workspace. And what
// the workspace must bound: the scratch memory of a call.
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <new>
#include <utility>

#include "check.h"
#include "cpu/cpu_isa.h"
#include "cpu/scratch.h"
#include "element.h"
#include "passes.h"
#include "std_threads.h"

namespace {

// Scratch is the engine's only over-aligned memory: it is counted here.
std::atomic<int64_t> g_scratch_bytes{0};
std::atomic<int64_t> g_scratch_peak{0};
constexpr size_t kHeader = 64;

}  // namespace

void* operator new(std::size_t size, std::align_val_t alignment) {
  void* block = nullptr;
  if (size_t(alignment) > kHeader || posix_memalign(&block, kHeader, size + kHeader) != 0) {
    throw std::bad_alloc();
  }
  *static_cast<size_t*>(block) = size;
  const int64_t now = g_scratch_bytes.fetch_add(int64_t(size)) + int64_t(size);
  int64_t peak = g_scratch_peak.load();
  while (now > peak && !g_scratch_peak.compare_exchange_weak(peak, now)) {
  }
  return static_cast<char*>(block) + kHeader;
}

void operator delete(void* at, std::align_val_t) noexcept {
  if (at == nullptr) return;
  char* block = static_cast<char*>(at) - kHeader;
  g_scratch_bytes.fetch_sub(int64_t(*reinterpret_cast<size_t*>(block)));
  std::free(block);
}

void operator delete(void* at, std::size_t, std::align_val_t alignment) noexcept {
  operator delete(at, alignment);
}

namespace mxd::test {
namespace {

const char* const kProblems[] = {
    "n2g1c24k40-i7x9-w3x4-s2x3-p1x0-d1x2-a1x0",            // few blocks
    "n1g1c128k96-i4x4-w3x3-s1x1-p1x1-d1x1-a0x0",           // weights beyond the scratch floor
    "n1g1c130k300-i3x3-w4x4-s2x2-p1x1-d1x1-a0x0",          // and several blocks of both channels
    "n2g1c3k5-i60x60-w3x3-s1x1-p1x1-d1x1-a0x0",            // one tile of the weight, its sum split
    "n1g1c16k20-i64x64-w2x2-s2x2-p0x0-d1x1-a0x0",          // many spans
    "n3g4c8k12-i5x6-w3x3-s2x2-p1x1-d1x1-a1x0",             // groups
    "n4g24c24k24-i13x11-w4x4-s2x2-p1x1-d1x1-a0x0",         // depthwise
    "n2g1c9k7-i500-w16-s8-p4-d1-a0",                       // 1-D
    "n1g1c8k6-i4x5x6-w3x3x3-s2x2x2-p1x1x1-d1x1x1-a1x1x1",  // 3-D
    "n1g1c2k2-i6x6-w3x3-s4x6-p2x3-d2x4-a1x1",              // outputs without a tap
    "n2g1c70k40-i20x31-w4x4-s2x2-p1x1-d1x1-a0x0",          // blocks of tiles, several chunks
};

// Numbers of many magnitudes, whose sums depend on the order.
Output random_numbers(DType dtype, const Size& size, Layout layout, Random& random) {
  Output numbers(dtype, size, strides_of(layout, size, {}, random));
  char* data = static_cast<char*>(numbers.data());
  for_each_element(size, numbers.strides(), [&](size_t, int64_t offset) {
    const double magnitude = double(int64_t(1) << draw(random, 0, 12));
    const double value = double(draw(random, -1000003, 1000003)) / 1000003.0;
    store_element(dtype, value * magnitude / 64, data + offset * size_of(dtype));
  });
  return numbers;
}

// Results of one pass for every thread count and workspace, compared with the first of them that
// the same algorithm computes: where it needs memory, the workspace decides whether it does.
void check_bits(Pass pass, const char* name, Problem problem, Layout layout, bool filtered,
                Random& random) {
  const Geometry& g = problem.geometry;
  const Size size = pass == Pass::kForward        ? out_size(g)
                    : pass == Pass::kDataGradient ? data_size(g)
                                                  : weight_size(g);
  const Strides strides = strides_of(layout, size, {}, random);
  std::map<cpu::Algorithm, std::vector<char>> first_of;
  // Not all twelve pairs, for time: every count and every workspace, tight and ample.
  const std::pair<int, int64_t> kPairs[] = {{1, 512}, {2, 512}, {5, 512}, {3, 1}, {1, 0}, {5, 0}};
  for (const auto& [count, megabytes] : kPairs) {
    if (filtered && megabytes != 512) continue;  // it might not fit: then the direct sum runs
    Output result(problem.dtype, size, strides);
    if (pass == Pass::kForward) problem.out = view_of(result.data(), strides);
    if (pass == Pass::kDataGradient) problem.data = view_of(result.data(), strides);
    if (pass == Pass::kWeightGradient) {
      problem.weight = weight_view_of(result.data(), strides);
    }
    const StdThreads threads(count);
    run_pass(pass, problem, {&threads, megabytes << 20});
    std::vector<char>& first = first_of[cpu::choose(pass, problem, megabytes << 20).algorithm];
    if (first.empty()) first = result.bytes();
    MXD_CHECK(result.bytes() == first,
              std::string(name_of(pass)) + " of " + name + " in " + name_of(problem.dtype) + ", " +
                  cpu::isa_in_use() + ", differs with " + std::to_string(count) +
                  " threads and workspace " + std::to_string(megabytes) + " MB");
  }
}

MXD_TEST(threads_and_workspace, "bitwise equal for 1, 2, 3, 5 threads and 0, 1, 512 MB") {
  for (const char* name : kProblems) {
    Random random(options().seed);
    const Geometry g = parse_problem(name);
    for (const std::string& isa : cpu::available_isas()) {
      cpu::set_isa(isa);
      for (const DType dtype : kDTypes) {
        const Layout layout = draw(random, 0, 1) ? Layout::kFirst : Layout::kLast;
        Output data = random_numbers(dtype, data_size(g), layout, random);
        Output weight = random_numbers(dtype, weight_size(g), layout, random);
        Output out = random_numbers(dtype, out_size(g), layout, random);
        Output bias =
            random_numbers(dtype, {1, g.groups * g.out_channels, 1, 1, 1}, layout, random);
        for (const Pass pass : kPasses) {
          Problem problem;
          problem.geometry = g;
          problem.dtype = dtype;
          problem.data = view_of(data.data(), data.strides());
          problem.weight = weight_view_of(weight.data(), weight.strides());
          problem.out = view_of(out.data(), out.strides());
          if (pass == Pass::kForward) problem.bias = {bias.data(), bias.strides()[1]};
          check_bits(pass, name, problem, layout, false, random);
          cpu::force_algorithm(int(cpu::Algorithm::kMinimalFilter));
          check_bits(pass, name, problem, layout, true, random);
          cpu::force_algorithm(int(cpu::Algorithm::kInPlaceSum));
          if (layout == Layout::kLast) check_bits(pass, name, problem, layout, false, random);
          cpu::force_algorithm(cpu::kAlgorithms);
        }
      }
    }
  }
}

// Passes that want more scratch than they may have.
struct Greedy {
  const char* problem;
  Pass pass;
};
const Greedy kGreedy[] = {
    // Packed weights, with one and with several blocks of both channels.
    {"n1g1c128k96-i4x4-w3x3-s1x1-p1x1-d1x1-a0x0", Pass::kForward},
    {"n1g1c130k300-i3x3-w4x4-s2x2-p1x1-d1x1-a0x0", Pass::kForward},
    {"n1g1c130k300-i3x3-w4x4-s2x2-p1x1-d1x1-a0x0", Pass::kDataGradient},
    // Partial sums: one tile of the weight, as large as a tile may be, and many pixels.
    {"n1g1c128k128-i128x130-w2x1-s1x1-p0x0-d1x1-a0x0", Pass::kWeightGradient},
    // Minimal filtering, of tiles that fill a block.
    {"n2g1c70k80-i20x20-w4x4-s2x2-p1x1-d1x1-a0x0", Pass::kForward},
    {"n2g1c70k80-i20x20-w4x4-s2x2-p1x1-d1x1-a0x0", Pass::kDataGradient},
    {"n2g1c70k80-i20x20-w4x4-s2x2-p1x1-d1x1-a0x0", Pass::kWeightGradient},
    // Depthwise, with a kernel that is itself larger than the floor.
    {"n1g1c1k1-i1x1-w520x520-s520x520-p0x0-d1x1-a0x0", Pass::kForward},
    {"n1g1c1k1-i1x1-w520x520-s520x520-p0x0-d1x1-a0x0", Pass::kDataGradient},
    {"n1g1c1k1-i1x1-w520x520-s520x520-p0x0-d1x1-a0x0", Pass::kWeightGradient},
};

MXD_TEST(scratch_bound, "scratch stays below max(workspace, 1 MiB a thread)") {
  cpu::set_isa(cpu::available_isas().back());
  for (const Greedy& greedy : kGreedy) {
    Random random(options().seed);
    Problem problem;
    problem.geometry = parse_problem(greedy.problem);
    const Geometry& g = problem.geometry;
    // Zeros: other values might soon be subnormal and slow.
    const auto tensor = [&](const Size& size) {
      Output zeros(DType::kFloat32, size, strides_of(Layout::kFirst, size, {}, random));
      std::memset(zeros.data(), 0, size_t(count_of(size) * size_of(DType::kFloat32)));
      return zeros;
    };
    Output data = tensor(data_size(g));
    Output weight = tensor(weight_size(g));
    Output out = tensor(out_size(g));
    problem.data = view_of(data.data(), data.strides());
    problem.weight = weight_view_of(weight.data(), weight.strides());
    problem.out = view_of(out.data(), out.strides());
    const std::pair<int, int64_t> kPairs[] = {{1, 0}, {2, 2}, {2, 3}, {5, 0}, {5, 6}, {3, 16}};
    for (const auto& [count, megabytes] : kPairs) {
      const StdThreads threads(count);
      const int64_t bound = std::max(megabytes << 20, count * cpu::kScratchFloorBytes);
      g_scratch_peak = 0;
      run_pass(greedy.pass, problem, {&threads, megabytes << 20});
      cpu::force_algorithm(int(cpu::Algorithm::kMinimalFilter));
      run_pass(greedy.pass, problem, {&threads, megabytes << 20});
      cpu::force_algorithm(cpu::kAlgorithms);
      MXD_CHECK(g_scratch_peak <= bound,
                std::string(name_of(greedy.pass)) + " of " + greedy.problem + " with " +
                    std::to_string(count) + " threads takes " + std::to_string(g_scratch_peak) +
                    " bytes of scratch, workspace " + std::to_string(megabytes) + " MB");
    }
  }
  MXD_CHECK(g_scratch_bytes == 0, "scratch was not given back");
}

}  // namespace
}  // namespace mxd::test
