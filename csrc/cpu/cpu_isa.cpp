#include "cpu/cpu_isa.h"

#include <atomic>

#include "cpu/engine.h"

namespace mxd::cpu {

// One table per translation unit in isa/, indexed by DType.
extern const Kernels k_baseline_kernels[4];
#if defined(MXD_HAVE_AVX2)
extern const Kernels k_avx2_kernels[4];
#endif
#if defined(MXD_HAVE_AVX512)
extern const Kernels k_avx512_kernels[4];
#endif

namespace {

struct Isa {
  const Kernels* kernels;
  bool runnable;
};

std::vector<Isa> built_isas() {
  std::vector<Isa> built{{k_baseline_kernels, true}};
#if defined(MXD_HAVE_AVX2) || defined(MXD_HAVE_AVX512)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
#endif
#if defined(MXD_HAVE_AVX2)
  built.push_back({k_avx2_kernels, avx2});
#endif
#if defined(MXD_HAVE_AVX512)
  built.push_back({k_avx512_kernels, avx2 && __builtin_cpu_supports("avx512f") &&
                                         __builtin_cpu_supports("avx512bw") &&
                                         __builtin_cpu_supports("avx512dq") &&
                                         __builtin_cpu_supports("avx512vl")});
#endif
  return built;
}

std::atomic<const Kernels*>& in_use() {
  static std::atomic<const Kernels*> kernels = [] {
    const Kernels* widest = nullptr;
    for (const Isa& isa : built_isas()) {
      if (isa.runnable) widest = isa.kernels;
    }
    return widest;
  }();
  return kernels;
}

}  // namespace

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Isa& isa : built_isas()) {
    if (isa.runnable) names.push_back(isa.kernels->isa);
  }
  return names;
}

std::string isa_in_use() { return in_use().load()->isa; }

bool set_isa(const std::string& name) {
  for (const Isa& isa : built_isas()) {
    if (isa.runnable && name == isa.kernels->isa) {
      in_use().store(isa.kernels);
      return true;
    }
  }
  return false;
}

const Kernels& kernels_for(DType dtype) { return in_use().load()[int(dtype)]; }

}  // namespace mxd::cpu
