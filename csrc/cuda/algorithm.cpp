#include "cuda/algorithm.h"

#include <string>

namespace mxd::cuda {
namespace {

std::string describe_tiles(const ProductPlan& plan) {
  const TileSize size = size_of(plan.choice.shape);
  std::string text = "implicit GEMM over the taps in tiles of " + std::to_string(size.rows) +
                     " x " + std::to_string(size.columns);
  if (plan.choice.tensor_cores) text += " on the tensor cores";
  if (plan.params.splits > 1) {
    text += ", its sum in " + std::to_string(plan.params.splits) +
            " parts because there are only " + std::to_string(plan.params.tiles()) + " tiles";
  }
  return text;
}

}  // namespace

Choice choose(Pass pass, const Problem& problem, const Device& device, const Settings& settings) {
  Choice choice;
  choice.product = plan_product(pass, problem, device, settings);
  choice.reason = choice.product.choice.direct
                      ? "direct sums: a group has too few channels to fill a tile"
                      : describe_tiles(choice.product);
  if (!fits_32_bits(choice.product.params)) {
    choice.reason += ", with 64-bit indices because a tensor is that large";
  }
  return choice;
}

}  // namespace mxd::cuda
