#include "cpu/cpu_isa.h"

#include <atomic>

#include "cpu/engine.h"

namespace mxd::cpu {

// Of each translation unit in isa/: a table, indexed by DType, or what it has for pairs of
// bfloat16.
extern const Kernels k_baseline_kernels[4];
#if defined(MXD_HAVE_AVX2)
extern const Kernels k_avx2_kernels[4];
#endif
#if defined(MXD_HAVE_AVX512)
extern const Kernels k_avx512_kernels[4];
#endif
#if defined(MXD_HAVE_AVX512_BF16)
extern const Kernels k_avx512_bf16_kernels;
#endif

namespace {

struct Isa {
  const char* name;
  bool runnable;
  const Kernels* kernels;
  const Kernels* pairs = nullptr;
};

std::vector<Isa> find_isas() {
  std::vector<Isa> built{{"baseline", true, k_baseline_kernels}};
#if defined(MXD_HAVE_AVX2) || defined(MXD_HAVE_AVX512)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
#endif
#if defined(MXD_HAVE_AVX2)
  built.push_back({"avx2", avx2, k_avx2_kernels});
#endif
#if defined(MXD_HAVE_AVX512)
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  built.push_back({"avx512", avx512, k_avx512_kernels});
#endif
#if defined(MXD_HAVE_AVX512_BF16)
  const bool avx512_bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
  built.push_back({"avx512_bf16", avx512_bf16, k_avx512_kernels, &k_avx512_bf16_kernels});
#endif
  return built;
}

const std::vector<Isa>& built_isas() {
  static const std::vector<Isa> built = find_isas();
  return built;
}

std::atomic<const Isa*>& in_use() {
  static std::atomic<const Isa*> isa = [] {
    const Isa* widest = nullptr;
    for (const Isa& built : built_isas()) {
      if (built.runnable) widest = &built;
    }
    return widest;
  }();
  return isa;
}

}  // namespace

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Isa& isa : built_isas()) {
    if (isa.runnable) names.push_back(isa.name);
  }
  return names;
}

std::string isa_in_use() { return in_use().load()->name; }

bool set_isa(const std::string& name) {
  for (const Isa& isa : built_isas()) {
    if (isa.runnable && name == isa.name) {
      in_use().store(&isa);
      return true;
    }
  }
  return false;
}

const Kernels& kernels_for(DType dtype) { return in_use().load()->kernels[int(dtype)]; }

const Kernels& product_kernels_for(DType dtype) {
  const Isa& isa = *in_use().load();
  return isa.pairs && dtype == DType::kBFloat16 ? *isa.pairs : isa.kernels[int(dtype)];
}

}  // namespace mxd::cpu
