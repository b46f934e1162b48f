#include "cuda/algorithm.h"

#include <iomanip>
#include <sstream>
#include <string>

#include "cuda/fold.h"
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

// The copy counts them in 32 bits.
constexpr int64_t kMostCopiedTaps = 1 << 30;

// Bytes of a copy of the weight that pays, or 0.
int64_t bytes_to_copy(Pass pass, const Problem& problem, const ProductPlan& plan,
                      int64_t workspace_bytes) {
  if (pass == Pass::kWeightGradient || plan.choice.direct) return 0;
  const Product<int64_t>& product = plan.params.product;
  if (product.rows == 1 || product.a_row == 1) return 0;
  if (plan.params.column_tiles < kTilesThatPay) return 0;
  const Geometry& g = problem.geometry;
  if (g.taps() > kMostCopiedTaps) return 0;
  const int64_t elements = g.groups * g.in_channels * g.out_channels * g.taps();
  const int64_t bytes = elements * size_of(problem.dtype);
  const int64_t grains = bytes / kScratchGrain + (bytes % kScratchGrain != 0);
  return grains * kScratchGrain <= workspace_bytes ? grains * kScratchGrain : 0;
}

// Whether neighbouring threads find the columns of a few channels close together in the source, or
// a packet of channels at each, that enough rows share.
bool reads_whole_lines(const FewChannelsParams& params) {
  constexpr int64_t kClose = 4, kRowsForPackets = 8;
  if (params.packets && params.rows >= kRowsForPackets) return true;
  for (int a = kAxes - 1; a >= 0; --a) {
    const FewAxis& axis = params.axis[a];
    if (params.columns.axis[a] > 1) return axis.source * axis.column_step <= kClose;
  }
  return params.source_batch <= kClose;
}

// Up to 8 rows stand in a narrow tile, phase by phase, and leave some of it empty; 9 to 16 fill a
// quarter of the next larger one at most, which only matrix units can afford. Groups of a channel
// or two that lie in rows of pixels are better off than with the direct kernel, too, which finds
// taps and pixels anew for every result. Layers of too few columns to occupy the device need a
// split sum, or many groups side by side.
bool pays(const FewChannelsPlan& plan, DType dtype, const Device& device,
          const Settings& settings) {
  if (!plan) return false;
  const FewChannelsParams& params = plan.params;
  const bool tensor_cores = has_tensor_cores(dtype, device, settings.allow_tf32);
  const int64_t columns = params.column_tiles * few_columns(plan.rows_each);
  return params.filters <= (tensor_cores ? 8 : 16) && 2 * params.jobs() >= device.processors &&
         2 * params.column_count() >= columns && reads_whole_lines(params);
}

std::string describe_few(const FewChannelsParams& params) {
  std::string text = "direct sums of " + std::to_string(params.filters) + " channels";
  int64_t phases = 1;
  for (const FewAxis& axis : params.axis) phases *= axis.phases;
  if (phases > 1) text += " by " + std::to_string(phases) + " phases";
  return text + " for each pixel of the source: too few channels to fill a tile";
}

std::string describe_filter(const FilterPlan& plan) {
  std::ostringstream text;
  text << std::setprecision(3) << "minimal filtering of the phases: " << plan.gain
       << " times fewer products than the direct sum";
  return text.str();
}

}  // namespace

Choice choose(Pass pass, const Problem& asked, const Device& device, const Settings& settings) {
  Choice choice;
  if (settings.minimal_filtering) {
    choice.filter = plan_minimal_filter(pass, asked, device, settings);
    if (choice.filter && choice.filter.gain <= 1) {
      choice.filter = {};
      choice.filter.unfiltered = "no products are saved";
    }
    if (choice.filter) {
      choice.reason = describe_filter(choice.filter);
      return choice;
    }
  }
  choice.problem = fold_taps(asked);
  const Problem& problem = choice.problem;
  choice.few = plan_few_channels(pass, problem);
  if (pays(choice.few, problem.dtype, device, settings)) {
    choice.reason = describe_few(choice.few.params);
    return choice;
  }
  choice.few = {};
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
  if (problem.geometry.taps() < asked.geometry.taps()) {
    choice.reason += ", the taps of the single input pixel folded into the channels";
  }
  if (choice.weight_bytes > 0) choice.reason += ", of a weight copied into the order of its tiles";
  if (!fits_32_bits(choice.product.params)) {
    choice.reason += ", with 64-bit indices because a tensor is that large";
  }
  return choice;
}

}  // namespace mxd::cuda
