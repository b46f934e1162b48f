#include "cuda/product_plan.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <numeric>

#include "core/tap_plan.h"

namespace mxd::cuda {
namespace {

using Wide = ProductParams<int64_t>;

int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0); }

// x with  a * x = 1 (mod m)  for coprime a and m, 0 <= x < m.
int64_t inverse_modulo(int64_t a, int64_t m) {
  int64_t r0 = m, r1 = a % m, x0 = 0, x1 = 1;
  while (r1 != 0) {
    const int64_t q = r0 / r1;
    std::swap(r0 -= q * r1, r1);
    std::swap(x0 -= q * x1, x1);
  }
  return x0 < 0 ? x0 + m : x0;
}

// A stride that is never stepped over may be anything; here it is 0.
int64_t stride_of(int64_t stride, int64_t size) { return size > 1 ? stride : 0; }

// A single input never meets another: with a stride as long as the kernel each output is a phase of
// its own, with the one tap that reaches it.
Axis apart(Axis axis) {
  if (axis.in == 1) axis.stride = axis.dilate * (axis.kernel - 1) + 1;
  return axis;
}

PhaseAxis<int64_t> phases_of(const Axis& axis, int64_t out_stride, int64_t weight_stride) {
  PhaseAxis<int64_t> phase;
  phase.out = axis.out;
  phase.kernel = axis.kernel;
  phase.stride = axis.stride;
  phase.dilate = axis.dilate;
  phase.pad = axis.pad;
  phase.common = std::gcd(axis.stride, axis.dilate);
  phase.tap_step = axis.stride / phase.common;
  phase.inverse = inverse_modulo(axis.dilate / phase.common, phase.tap_step);
  phase.out_stride = out_stride;
  phase.weight_stride = weight_stride;
  return phase;
}

Wide forward_product(const Problem& problem) {
  const Geometry& g = problem.geometry;
  Wide params;
  Product<int64_t>& product = params.product;
  product.rows = g.out_channels;
  product.columns.other = g.batch;
  product.terms.other = g.in_channels;
  product.a = problem.weight.data;
  product.a_row = stride_of(problem.weight.out_channel, g.out_channels);
  product.a_term.other = problem.weight.in_channel;
  product.b = problem.data.data;
  product.b_column = stride_of(problem.data.batch, g.batch);
  product.b_term = problem.data.channel;
  product.c = problem.out.data;
  product.c_row = problem.out.channel;
  product.c_column.other = stride_of(problem.out.batch, g.batch);
  product.bias = problem.bias.data;
  product.bias_row = problem.bias.stride;
  params.phased = true;
  for (int a = 0; a < kAxes; ++a) {
    const Axis axis = apart(g.axis[a]);
    const int64_t out_stride = stride_of(problem.out.axis[a], axis.out);
    const int64_t weight_stride = stride_of(problem.weight.tap[a], axis.kernel);
    params.phase[a] = phases_of(axis, out_stride, weight_stride);
    params.phases[a] = std::min(axis.stride, axis.out);
    const int64_t tap_step = params.phase[a].tap_step;
    // Upper bounds: each phase has its own.
    product.columns.axis[a] = ceil_div(axis.out, axis.stride);
    product.terms.axis[a] = ceil_div(axis.kernel, tap_step);
    product.axis[a].column_step = 1;
    product.axis[a].size = axis.in;
    product.a_term.axis[a] = tap_step < axis.kernel ? tap_step * weight_stride : 0;
    product.b_axis[a] = stride_of(problem.data.axis[a], axis.in);
    product.c_column.axis[a] = axis.stride < axis.out ? axis.stride * out_stride : 0;
  }
  return params;
}

Wide data_gradient_product(const Problem& problem) {
  const Geometry& g = problem.geometry;
  Wide params;
  Product<int64_t>& product = params.product;
  product.rows = g.in_channels;
  product.columns.other = g.batch;
  product.terms.other = g.out_channels;
  product.a = problem.weight.data;
  product.a_row = problem.weight.in_channel;
  product.a_term.other = stride_of(problem.weight.out_channel, g.out_channels);
  product.b = problem.out.data;
  product.b_column = stride_of(problem.out.batch, g.batch);
  product.b_term = problem.out.channel;
  product.c = problem.data.data;
  product.c_row = problem.data.channel;
  product.c_column.other = stride_of(problem.data.batch, g.batch);
  for (int a = 0; a < kAxes; ++a) {
    const Axis& axis = g.axis[a];
    const std::vector<AxisTaps> all = data_gradient_taps(axis);
    const AxisTaps taps = all.empty() ? AxisTaps{} : all[0];
    const int64_t weight_stride = stride_of(problem.weight.tap[a], axis.kernel);
    product.columns.axis[a] = axis.in;
    product.terms.axis[a] = taps.tap_count;
    product.axis[a] = {taps.src_begin, axis.in > 1 ? taps.src_step : 0, taps.src_tap_step,
                       axis.out};
    product.a_begin += taps.tap_begin * weight_stride;
    product.a_term.axis[a] = weight_stride;
    product.b_axis[a] = stride_of(problem.out.axis[a], axis.out);
    product.c_column.axis[a] = stride_of(problem.data.axis[a], axis.in);
  }
  return params;
}

Wide weight_gradient_product(const Problem& problem) {
  const Geometry& g = problem.geometry;
  Wide params;
  Product<int64_t>& product = params.product;
  product.rows = g.in_channels;
  product.columns.other = g.out_channels;
  product.terms.other = g.batch;
  product.a = problem.data.data;
  product.a_row = problem.data.channel;
  product.a_term.other = stride_of(problem.data.batch, g.batch);
  product.b = problem.out.data;
  product.b_column = problem.out.channel;
  product.b_term = stride_of(problem.out.batch, g.batch);
  product.c = problem.weight.data;
  product.c_row = problem.weight.in_channel;
  product.c_column.other = stride_of(problem.weight.out_channel, g.out_channels);
  for (int a = 0; a < kAxes; ++a) {
    const Axis& axis = g.axis[a];
    product.columns.axis[a] = axis.kernel;
    product.terms.axis[a] = axis.in;
    product.axis[a] = {-axis.pad, axis.dilate, axis.in > 1 ? axis.stride : 0, axis.out};
    product.a_term.axis[a] = stride_of(problem.data.axis[a], axis.in);
    product.b_axis[a] = stride_of(problem.out.axis[a], axis.out);
    product.c_column.axis[a] = stride_of(problem.weight.tap[a], axis.kernel);
  }
  return params;
}

// Groups of so few pairs of channels would leave nearly all of a tile empty.
constexpr int64_t kDirectProducts = 4;

// The largest offset of count-many steps each, in floating point: it may be beyond 64 bits.
double reach(const Digits<int64_t>& count, const Digits<int64_t>& stride) {
  double sum = double(count.other) * double(stride.other);
  for (int a = 0; a < kAxes; ++a) sum += double(count.axis[a]) * double(stride.axis[a]);
  return sum;
}

bool is_packed(const void* base, int64_t packet, std::initializer_list<int64_t> strides,
               int64_t element_bytes) {
  if (reinterpret_cast<uintptr_t>(base) % uintptr_t(packet * element_bytes) != 0) return false;
  return std::all_of(strides.begin(), strides.end(),
                     [packet](int64_t stride) { return stride % packet == 0; });
}

// Whether threads that are neighbours in k rather than in m or n find neighbours in memory.
void choose_directions(Wide& params, ProductChoice& choice, int64_t element_bytes) {
  const Product<int64_t>& product = params.product;
  const int64_t packet = 16 / element_bytes;
  if (choice.terms == Other::kLast) {
    const int64_t pixel = product.b_axis[2] * std::max<int64_t>(product.axis[2].column_step, 1);
    const bool by_channel = product.b_term == 1 && product.terms.other >= packet &&
                            (pixel != 1 || product.axis[2].size == 1);
    choice.b = by_channel ? Along::kDepth : Along::kWidth;
    params.packets_b = by_channel && product.terms.other % packet == 0 &&
                       is_packed(product.b, packet,
                                 {params.b_group, product.b_column, product.b_axis[0],
                                  product.b_axis[1], product.b_axis[2]},
                                 element_bytes);
  } else {
    const bool by_channel =
        product.b_column == 1 && product.a_row == 1 && product.columns.other >= packet;
    choice.a = choice.b = by_channel ? Along::kWidth : Along::kDepth;
    params.column_other_last = by_channel;
    params.packets_a = !by_channel && product.a_term.axis[2] == 1 &&
                       product.terms.axis[2] % packet == 0 &&
                       is_packed(product.a, packet,
                                 {params.a_group, product.a_row, product.a_term.other,
                                  product.a_term.axis[0], product.a_term.axis[1]},
                                 element_bytes);
  }
}

void choose_tiles(ProductPlan& plan, DType dtype, const Device& device, bool tensor_cores) {
  const Product<int64_t>& product = plan.params.product;
  if (!fits_32_bits(plan.params)) return cut_into(TileShape::kMedium, plan);
  if (product.rows <= size_of(TileShape::kNarrow).rows) return cut_into(TileShape::kNarrow, plan);
  plan.choice.tensor_cores = tensor_cores;
  if (size_of(dtype) == 2 && !plan.choice.tensor_cores) return cut_into(TileShape::kMedium, plan);
  cut_into(TileShape::kLarge, plan);
  const bool fills = product.rows > 64 && product.column_count() > 64;
  if (!fills || plan.params.tiles() < device.processors) cut_into(TileShape::kMedium, plan);
}

// So many parts of the sum that every processor has a block or two, each part long enough to be
// worth its trip through memory.
void split(ProductPlan& plan, const Device& device, int64_t scratch_bytes, int64_t sum_bytes) {
  constexpr int64_t kShortestPart = 128;
  Wide& params = plan.params;
  const int64_t tiles = params.tiles();
  const int64_t processors = std::max(device.processors, 1);
  if (tiles == 0 || tiles >= processors) return;
  const TileSize size = size_of(plan.choice.shape);
  const int64_t tile_bytes = size.rows * size.columns * sum_bytes;
  const int64_t parts =
      std::min({2 * processors / tiles, params.product.term_count() / kShortestPart,
                scratch_bytes / (tiles * tile_bytes)});
  if (parts < 2) return;
  params.splits = parts;
  plan.partial_bytes = parts * tiles * tile_bytes;
}

void launch_tensor_any(const ProductChoice& choice, DType dtype,
                       const ProductParams<int32_t>& params, CUstream_st* stream) {
  switch (dtype) {
    case DType::kFloat32:
      return launch_tensor_product<float>(choice, params, stream);
    case DType::kFloat16:
      return launch_tensor_product<Half>(choice, params, stream);
    case DType::kBFloat16:
      return launch_tensor_product<BFloat16>(choice, params, stream);
    case DType::kFloat64:
      return;  // never chosen
  }
}

template <class Index>
void launch_direct_any(const ProductChoice& choice, DType dtype, const ProductParams<Index>& params,
                       CUstream_st* stream) {
  switch (dtype) {
    case DType::kFloat32:
      return launch_direct<float>(choice.terms, params, stream);
    case DType::kFloat64:
      return launch_direct<double>(choice.terms, params, stream);
    case DType::kFloat16:
      return launch_direct<Half>(choice.terms, params, stream);
    case DType::kBFloat16:
      return launch_direct<BFloat16>(choice.terms, params, stream);
  }
}

template <class Index>
void launch_any(const ProductChoice& choice, DType dtype, const ProductParams<Index>& params,
                CUstream_st* stream) {
  if (choice.direct) return launch_direct_any(choice, dtype, params, stream);
  if constexpr (sizeof(Index) == 4) {
    if (choice.tensor_cores) return launch_tensor_any(choice, dtype, params, stream);
  }
  switch (dtype) {
    case DType::kFloat32:
      return launch_product<float>(choice, params, stream);
    case DType::kFloat64:
      return launch_product<double>(choice, params, stream);
    case DType::kFloat16:
      return launch_product<Half>(choice, params, stream);
    case DType::kBFloat16:
      return launch_product<BFloat16>(choice, params, stream);
  }
}

Digits<int32_t> in_32_bits(const Digits<int64_t>& digits) {
  return {int32_t(digits.other),
          {int32_t(digits.axis[0]), int32_t(digits.axis[1]), int32_t(digits.axis[2])}};
}

}  // namespace

ProductParams<int64_t> product_of(Pass pass, const Problem& problem) {
  const Geometry& g = problem.geometry;
  Wide params = pass == Pass::kForward        ? forward_product(problem)
                : pass == Pass::kDataGradient ? data_gradient_product(problem)
                                              : weight_gradient_product(problem);
  params.groups = g.groups;
  const int64_t data = g.groups > 1 ? g.in_channels * problem.data.channel : 0;
  const int64_t out = g.groups > 1 ? g.out_channels * problem.out.channel : 0;
  const int64_t weight = g.groups > 1 ? g.in_channels * problem.weight.in_channel : 0;
  params.a_group = pass == Pass::kWeightGradient ? data : weight;
  params.b_group = pass == Pass::kForward ? data : out;
  params.c_group = pass == Pass::kForward ? out : pass == Pass::kDataGradient ? data : weight;
  params.bias_group = g.groups > 1 ? g.out_channels * problem.bias.stride : 0;
  Product<int64_t>& product = params.product;
  if (product.rows == 1) product.a_row = product.c_row = product.bias_row = 0;
  if (product.terms.other == 1) product.a_term.other = product.b_term = 0;
  if (product.columns.other == 1) product.b_column = product.c_column.other = 0;
  return params;
}

bool fits_32_bits(const ProductParams<int64_t>& params) {
  // Room for what a tile reaches beyond the last row, column and term.
  constexpr double kMost = double((int64_t(1) << 31) - (int64_t(1) << 16));
  const Product<int64_t>& p = params.product;
  Digits<int64_t> sizes, b_stride;
  for (int a = 0; a < kAxes; ++a) {
    sizes.axis[a] = p.axis[a].size;
    b_stride.axis[a] = p.b_axis[a];
  }
  // Columns of all groups: the direct kernels count them together.
  double most =
      std::max({double(params.groups) * double(p.columns.other) * double(p.columns.axis[0]) *
                    double(p.columns.axis[1]) * double(p.columns.axis[2]),
                double(p.terms.other) * double(p.terms.axis[0]) * double(p.terms.axis[1]) *
                    double(p.terms.axis[2])});
  // Offsets into A, B and C.
  most = std::max(most,
                  double(p.a_begin) + double(p.rows) * double(p.a_row) + reach(p.terms, p.a_term));
  most = std::max(most, double(p.columns.other) * double(p.b_column) +
                            double(p.terms.other) * double(p.b_term) + reach(sizes, b_stride));
  double c_most =
      double(p.rows) * double(std::max(p.c_row, p.bias_row)) + reach(p.columns, p.c_column);
  for (int a = 0; a < kAxes; ++a) {
    const ProductAxis<int64_t>& axis = p.axis[a];
    const PhaseAxis<int64_t>& phase = params.phase[a];
    const double kernel = double(phase.kernel) * double(phase.dilate);
    most = std::max(most, std::fabs(double(axis.origin)) + double(axis.size) +
                              double(p.columns.axis[a]) * double(axis.column_step) +
                              double(p.terms.axis[a]) * double(axis.term_step));
    most = std::max(most, double(phase.out) + double(phase.pad) + double(phase.stride) + kernel);
    most = std::max(most, double(phase.kernel) * double(phase.weight_stride));
    c_most += double(phase.stride) * double(phase.out_stride);
  }
  return std::max(most, c_most) < kMost;
}

ProductParams<int32_t> in_32_bits(const ProductParams<int64_t>& wide) {
  ProductParams<int32_t> params;
  const Product<int64_t>& from = wide.product;
  Product<int32_t>& to = params.product;
  to.rows = int32_t(from.rows);
  to.columns = in_32_bits(from.columns);
  to.terms = in_32_bits(from.terms);
  to.a = from.a;
  to.a_begin = int32_t(from.a_begin);
  to.a_row = int32_t(from.a_row);
  to.a_term = in_32_bits(from.a_term);
  to.b = from.b;
  to.b_column = int32_t(from.b_column);
  to.b_term = int32_t(from.b_term);
  to.c = from.c;
  to.c_begin = int32_t(from.c_begin);
  to.c_row = int32_t(from.c_row);
  to.c_column = in_32_bits(from.c_column);
  to.bias = from.bias;
  to.bias_row = int32_t(from.bias_row);
  for (int a = 0; a < kAxes; ++a) {
    const ProductAxis<int64_t>& axis = from.axis[a];
    to.axis[a] = {int32_t(axis.origin), int32_t(axis.column_step), int32_t(axis.term_step),
                  int32_t(axis.size)};
    to.b_axis[a] = int32_t(from.b_axis[a]);
    const PhaseAxis<int64_t>& phase = wide.phase[a];
    params.phase[a] = {int32_t(phase.out),        int32_t(phase.kernel),
                       int32_t(phase.stride),     int32_t(phase.dilate),
                       int32_t(phase.pad),        int32_t(phase.common),
                       int32_t(phase.tap_step),   int32_t(phase.inverse),
                       int32_t(phase.out_stride), int32_t(phase.weight_stride)};
    params.phases[a] = wide.phases[a];
  }
  params.phased = wide.phased;
  params.column_other_last = wide.column_other_last;
  params.groups_fastest = wide.groups_fastest;
  params.packets_a = wide.packets_a;
  params.packets_b = wide.packets_b;
  params.row_tiles = wide.row_tiles;
  params.column_tiles = wide.column_tiles;
  params.groups = wide.groups;
  params.splits = wide.splits;
  params.a_group = wide.a_group;
  params.b_group = wide.b_group;
  params.c_group = wide.c_group;
  params.bias_group = wide.bias_group;
  params.partial = wide.partial;
  params.only_if = wide.only_if;
  return params;
}

bool has_tensor_cores(DType dtype, const Device& device, bool allow_tf32) {
  if (dtype == DType::kFloat16) return device.capability >= 75;
  return device.capability >= 80 &&
         (dtype == DType::kBFloat16 || (dtype == DType::kFloat32 && allow_tf32));
}

void cut_into(TileShape shape, ProductPlan& plan) {
  const TileSize size = size_of(shape);
  plan.choice.shape = shape;
  plan.params.row_tiles = ceil_div(plan.params.product.rows, size.rows);
  plan.params.column_tiles = ceil_div(plan.params.product.column_count(), size.columns);
}

ProductPlan plan_product(Pass pass, const Problem& problem, const Device& device,
                         const Settings& settings) {
  ProductPlan plan;
  plan.params = product_of(pass, problem);
  plan.choice.terms = pass == Pass::kWeightGradient ? Other::kFirst : Other::kLast;
  choose_directions(plan.params, plan.choice, size_of(problem.dtype));
  plan.params.groups_fastest = problem.data.channel == 1 && problem.out.channel == 1;
  const Geometry& g = problem.geometry;
  if (g.groups > 1 && g.in_channels * g.out_channels <= kDirectProducts) {
    plan.choice.direct = true;
    return plan;
  }
  choose_tiles(plan, problem.dtype, device,
               has_tensor_cores(problem.dtype, device, settings.allow_tf32));
  split(plan, device, settings.workspace_bytes, problem.dtype == DType::kFloat64 ? 8 : 4);
  return plan;
}

void run_product(const ProductPlan& plan, DType dtype, void* partial, CUstream_st* stream,
                 bool wide) {
  ProductParams<int64_t> params = plan.params;
  params.partial = partial;
  if (!wide && fits_32_bits(params)) {
    launch_any(plan.choice, dtype, in_32_bits(params), stream);
  } else {
    launch_any(plan.choice, dtype, params, stream);
  }
}

}  // namespace mxd::cuda
