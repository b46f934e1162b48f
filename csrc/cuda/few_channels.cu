#include "cuda/few_channels.h"

#include <algorithm>
#include <initializer_list>

#include "cuda/element.h"
#include "cuda/product_plan.h"

namespace mxd::cuda {
namespace {

// Half of what 32 bits hold: a shift may be added to a position.
constexpr double kMost = double(1 << 29);

// As product.h has it: the phases of an axis that a single input widens are those of the product.
FewAxis axis_of(Pass pass, const Axis& axis, int64_t phases) {
  FewAxis few;
  few.kernel = int32_t(axis.kernel);
  few.dilate = int32_t(axis.dilate);
  if (pass == Pass::kForward) {
    const int64_t begin = axis.pad / phases;
    few.phases = int32_t(phases);
    few.steps = few.kernel;
    if (axis.dilate < phases) few.steps = int32_t((axis.kernel - 1) * axis.dilate / phases + 1);
    few.direction = -1;
    few.origin = int32_t(begin);
    few.column_step = 1;
    few.size = int32_t(axis.in);
    few.first = int32_t(begin * phases - axis.pad);
    few.count = int32_t(axis.out);
  } else {
    few.phases = 1;
    few.steps = few.kernel;
    few.direction = 1;
    few.origin = int32_t(-axis.pad);
    few.column_step = int32_t(axis.stride);
    few.size = int32_t(axis.out);
    few.first = 0;
    few.count = int32_t(axis.in);
  }
  return few;
}

// Whether the kernel's counters hold the sizes of an axis.
bool holds(const Axis& axis, int64_t phases) {
  const double kernel = double(axis.kernel) * double(axis.dilate);
  const double most = std::max({double(axis.in) * double(axis.stride), double(axis.out), kernel,
                                double(axis.pad), double(phases)});
  return most < kMost / 4 && axis.in > 0 && axis.out > 0;
}

int64_t columns_of(Pass pass, const Axis& axis, int64_t phases) {
  if (pass == Pass::kDataGradient) return axis.in;
  return (axis.out - 1 + axis.pad) / phases - axis.pad / phases + 1;
}

bool is_packet(const FewChannelsParams& params, int64_t element_bytes) {
  const int64_t packet = element_bytes == 8 ? 2 : 4;
  const auto address = reinterpret_cast<uintptr_t>(params.source);
  bool whole = params.source_channel == 1 && params.channels % packet == 0 &&
               address % uintptr_t(packet * element_bytes) == 0 &&
               params.source_batch % packet == 0 && params.source_group % packet == 0;
  for (const FewAxis& axis : params.axis) whole = whole && axis.source % packet == 0;
  return whole;
}

// Whether `run` rows after each other are neighbours in the result, on an address that is a
// multiple of their size, and all inside of it or none.
bool is_run(const FewChannelsParams& params, int64_t run, int64_t element_bytes) {
  const FewAxis& fastest = params.axis[kAxes - 1];
  const auto address = reinterpret_cast<uintptr_t>(params.result);
  const bool whole = address % uintptr_t(run * element_bytes) == 0 &&
                     params.result_batch % run == 0 && params.result_group % run == 0 &&
                     params.axis[0].result % run == 0 && params.axis[1].result % run == 0;
  if (params.filters_fastest) {
    return whole && params.filters % run == 0 && fastest.result % run == 0;
  }
  return whole && params.result_filter % run == 0 && fastest.result == 1 &&
         fastest.phases % run == 0 && fastest.first % run == 0 && fastest.count % run == 0;
}

}  // namespace

void cut_rows(int rows_each, FewChannelsPlan& plan) {
  FewChannelsParams& params = plan.params;
  plan.rows_each = rows_each;
  params.row_tiles = (params.rows + rows_each - 1) / rows_each;
  params.column_tiles =
      (int64_t(params.column_count()) + few_columns(rows_each) - 1) / few_columns(rows_each);
}

FewChannelsPlan plan_few_channels(Pass pass, const Problem& problem) {
  FewChannelsPlan plan;
  if (pass == Pass::kWeightGradient) return plan;
  const bool forward = pass == Pass::kForward;
  const Geometry& g = problem.geometry;
  const ProductParams<int64_t> roles = product_of(pass, problem);
  const Product<int64_t>& product = roles.product;
  const int64_t packet = problem.dtype == DType::kFloat64 ? 2 : 4;
  const int64_t channels = (product.terms.other + packet - 1) / packet * packet;
  double columns = double(g.batch), terms = double(channels), rows = double(product.rows);
  if (columns == 0 || terms == 0 || rows == 0 || g.groups == 0) return plan;

  FewChannelsParams& params = plan.params;
  for (int a = 0; a < kAxes; ++a) {
    const int64_t phases = forward ? roles.phase[a].stride : 1;
    if (!holds(g.axis[a], phases)) return plan;
    FewAxis& axis = params.axis[a];
    axis = axis_of(pass, g.axis[a], phases);
    if (axis.steps > kMostSteps) return plan;
    axis.source = product.b_axis[a];
    axis.weight = forward ? roles.phase[a].weight_stride : product.a_term.axis[a];
    axis.result = forward ? roles.phase[a].out_stride : product.c_column.axis[a];
    params.columns.axis[a] = int32_t(columns_of(pass, g.axis[a], phases));
    params.terms.axis[a] = axis.steps;
    columns *= params.columns.axis[a];
    terms *= params.terms.axis[a];
    rows *= axis.phases;
  }
  if (std::max({columns, terms, rows}) > kMost) return plan;
  params.columns.other = int32_t(g.batch);
  params.terms.other = int32_t(channels);
  params.split_column = Radix<int32_t, Other::kFirst>(params.columns);
  params.split_term = Radix<int32_t, Other::kLast>(params.terms);
  params.channels = int32_t(product.terms.other);
  params.filters = int32_t(product.rows);
  params.rows = int32_t(rows);
  params.groups = g.groups;
  params.source = product.b;
  params.source_batch = product.b_column;
  params.source_channel = product.b_term;
  params.source_group = roles.b_group;
  params.weight = product.a;
  params.weight_channel = product.a_term.other;
  params.weight_filter = product.a_row;
  params.weight_group = roles.a_group;
  params.result = product.c;
  params.result_batch = product.c_column.other;
  params.result_filter = product.c_row;
  params.result_group = roles.c_group;
  params.bias = product.bias;
  params.bias_filter = product.bias_row;
  params.bias_group = roles.bias_group;
  params.filters_fastest = params.result_filter == 1;
  params.packets = is_packet(params, size_of(problem.dtype));
  params.run = 1;
  for (const int run : {2, 4}) {
    if (is_run(params, run, size_of(problem.dtype))) params.run = run;
  }

  // A term costs about as much to load as four rows of it to multiply.
  const auto cost = [&](int each) { return (params.rows + each - 1) / each * (each + 4); };
  cut_rows(*std::min_element(kFewRows, kFewRows + few_row_choices(problem.dtype),
                             [&](int a, int b) { return cost(a) < cost(b); }),
           plan);
  return plan;
}

void run_few_channels(const FewChannelsPlan& plan, DType dtype, CUstream_st* stream) {
  switch (dtype) {
    case DType::kFloat32:
      return launch_few_channels<float>(plan, stream);
    case DType::kFloat64:
      return launch_few_channels<double>(plan, stream);
    case DType::kFloat16:
      return launch_few_channels<Half>(plan, stream);
    case DType::kBFloat16:
      return launch_few_channels<BFloat16>(plan, stream);
  }
}

}  // namespace mxd::cuda
