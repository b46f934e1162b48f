// CPU kernels of the ops: torch's threads and memory, lent to the engine.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

#include "cpu/engine.h"
#include "ops/at_threads.h"
#include "ops/frozen_weight.h"
#include "ops/pass_call.h"

namespace mxd::ops {
namespace {

struct Cpu {
  static Memory memory(const at::Tensor&) {
    // Asked once: a system call.
    static const int64_t bytes = int64_t(sysconf(_SC_PHYS_PAGES)) * int64_t(sysconf(_SC_PAGESIZE));
    return {bytes, "this machine"};
  }

  // Asks the system for huge pages: a page fault for every 4 KiB of a fresh result takes longer
  // than a memory-bound layer computes on it. Only those that lie within the result whole are asked
  // for, so that it takes no more memory; where there are none, nothing happens.
  static void about_to_fill([[maybe_unused]] const at::Tensor& result) {
#ifdef MADV_HUGEPAGE
    constexpr uintptr_t kPage = uintptr_t(2) << 20;
    const auto start = reinterpret_cast<uintptr_t>(result.const_data_ptr());
    const uintptr_t first = (start + kPage - 1) & -kPage;
    const uintptr_t last = (start + result.nbytes()) & -kPage;
    if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
  }

  static void run(const PassCall& call) {
    const AtThreads threads(call.problem.geometry.products());
    const cpu::Resources resources{&threads, workspace_bytes(call.arguments.workspace),
                                   FrozenWeight::prepared(call.weight)};
    switch (call.pass) {
      case Pass::kForward:
        return cpu::forward(call.problem, resources);
      case Pass::kDataGradient:
        return cpu::data_gradient(call.problem, resources);
      case Pass::kWeightGradient:
        return cpu::weight_gradient(call.problem, resources);
    }
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(mxdeconv, CPU, m) { DeviceOps<Cpu>::register_in(m); }

}  // namespace mxd::ops
