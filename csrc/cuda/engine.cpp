#include "cuda/engine.h"

#include "cuda/algorithm.h"

namespace mxd::cuda {

Plan plan(Pass pass, const Problem& problem, const Device& device, const Settings& settings) {
  const Choice choice = choose(pass, problem, device, settings);
  return {choice.reason, choice.scratch_bytes()};
}

void run(Pass pass, const Problem& problem, const Device& device, const Settings& settings,
         void* scratch, CUstream_st* stream) {
  const Choice choice = choose(pass, problem, device, settings);
  run_product(choice.product, problem.dtype, scratch, stream);
}

}  // namespace mxd::cuda
