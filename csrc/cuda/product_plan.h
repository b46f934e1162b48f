// A pass as a product (product.h): the roles of its operands, and how the product is cut.
#pragma once

#include "cuda/engine.h"
#include "cuda/product_shapes.h"

namespace mxd::cuda {

// The pass as one product over whole tensors, uncut. 64 bits hold any of its numbers.
ProductParams<int64_t> product_of(Pass pass, const Problem& problem);

// Whether 32 bits hold every number that a kernel forms, too.
bool fits_32_bits(const ProductParams<int64_t>& params);
ProductParams<int32_t> in_32_bits(const ProductParams<int64_t>& params);

// Whether the device's matrix units take this type, rounded to TF32 where that is allowed.
bool has_tensor_cores(DType dtype, const Device& device, bool allow_tf32);

struct ProductPlan {
  ProductParams<int64_t> params;  // but for the partial sums' address
  ProductChoice choice;
  int64_t partial_bytes = 0;
};

// Cuts the pass into tiles for the device; its partial sums stay within the workspace.
ProductPlan plan_product(Pass pass, const Problem& problem, const Device& device,
                         const Settings& settings);

// Cuts it into tiles of this shape.
void cut_into(TileShape shape, ProductPlan& plan);

// Launches it. `partial` is as large as the plan says; `wide` asks for 64-bit indices without need.
void run_product(const ProductPlan& plan, DType dtype, void* partial, CUstream_st* stream,
                 bool wide = false);

}  // namespace mxd::cuda
