// CPU kernels of the ops: torch's threads and memory, lent to the engine.
#include <unistd.h>

#include "core/huge_pages.h"
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

  static void about_to_fill(const at::Tensor& result) {
    ask_for_huge_pages(result.data_ptr(), result.nbytes());
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
