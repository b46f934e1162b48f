#include "cuda/engine.h"

#include "cuda/algorithm.h"
#include "cuda/weight_copy.h"

namespace mxd::cuda {

Plan plan(Pass pass, const Problem& problem, const Device& device, const Settings& settings) {
  const Choice choice = choose(pass, problem, device, settings);
  return {choice.reason, choice.scratch_bytes(), choice.filter.unfiltered};
}

void run(Pass pass, const Problem& problem, const Device& device, const Settings& settings,
         void* scratch, CUstream_st* stream) {
  Choice choice = choose(pass, problem, device, settings);
  if (choice.filter) return run_minimal_filter(choice.filter, device, scratch, stream);
  if (choice.few) return run_few_channels(choice.few, problem.dtype, stream);
  if (choice.weight_bytes > 0) {
    copy_weight(pass, choice.problem, scratch, stream);
    choice.product.params.product.a = scratch;
  }
  void* partial = static_cast<char*>(scratch) + choice.weight_bytes;
  run_product(choice.product, problem.dtype, partial, stream);
}

}  // namespace mxd::cuda
