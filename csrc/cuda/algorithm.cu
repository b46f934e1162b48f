#include "cuda/algorithm.h"

#include <string>

#include "cuda/weight_copy.h"

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

// Scratch is handed out in multiples of what every access is aligned to.
constexpr int64_t kScratchGrain = 256;

// A copy is read once for every tile of columns, and costs about as much as reading the original.
constexpr int64_t kTilesThatPay = 4;

// Bytes of a copy of the weight that pays, or 0.
int64_t bytes_to_copy(Pass pass, const Problem& problem, const ProductPlan& plan,
                      int64_t workspace_bytes) {
  if (pass == Pass::kWeightGradient || plan.choice.direct) return 0;
  const Product<int64_t>& product = plan.params.product;
  if (product.rows == 1 || product.a_row == 1) return 0;
  if (plan.params.column_tiles < kTilesThatPay) return 0;
  const Geometry& g = problem.geometry;
  const int64_t elements = g.groups * g.in_channels * g.out_channels * g.taps();
  const int64_t bytes = elements * size_of(problem.dtype);
  const int64_t grains = bytes / kScratchGrain + (bytes % kScratchGrain != 0);
  return grains * kScratchGrain <= workspace_bytes ? grains * kScratchGrain : 0;
}

}  // namespace

Choice choose(Pass pass, const Problem& problem, const Device& device, const Settings& settings) {
  Choice choice;
  choice.product = plan_product(pass, problem, device, settings);
  choice.weight_bytes = bytes_to_copy(pass, problem, choice.product, settings.workspace_bytes);
  if (choice.weight_bytes > 0) {
    Settings rest = settings;
    rest.workspace_bytes -= choice.weight_bytes;
    choice.product = plan_product(pass, with_rows_innermost(pass, problem), device, rest);
  }
  choice.reason = choice.product.choice.direct
                      ? "direct sums: a group has too few channels to fill a tile"
                      : describe_tiles(choice.product);
  if (choice.weight_bytes > 0) choice.reason += ", of a weight copied into the order of its tiles";
  if (!fits_32_bits(choice.product.params)) {
    choice.reason += ", with 64-bit indices because a tensor is that large";
  }
  return choice;
}

}  // namespace mxd::cuda
