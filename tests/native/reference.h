// The three passes as scalar loops over the definition: output o, input i and tap t meet where
// o = i * stride - pad + t * dilate. Shares nothing with the engine but the names of the sizes.
#pragma once

#include "tensors.h"

namespace mxd::test {

// Calls visit(i, t, o) for all that meet; i, t and o count pixels and taps in order.
template <class Visit>
void for_each_meeting(const Geometry& g, const Visit& visit) {
  const Axis& a0 = g.axis[0];
  const Axis& a1 = g.axis[1];
  const Axis& a2 = g.axis[2];
  for (int64_t i0 = 0; i0 < a0.in; ++i0) {
    for (int64_t t0 = 0; t0 < a0.kernel; ++t0) {
      const int64_t o0 = i0 * a0.stride - a0.pad + t0 * a0.dilate;
      if (o0 < 0 || o0 >= a0.out) continue;
      for (int64_t i1 = 0; i1 < a1.in; ++i1) {
        for (int64_t t1 = 0; t1 < a1.kernel; ++t1) {
          const int64_t o1 = i1 * a1.stride - a1.pad + t1 * a1.dilate;
          if (o1 < 0 || o1 >= a1.out) continue;
          for (int64_t i2 = 0; i2 < a2.in; ++i2) {
            for (int64_t t2 = 0; t2 < a2.kernel; ++t2) {
              const int64_t o2 = i2 * a2.stride - a2.pad + t2 * a2.dilate;
              if (o2 < 0 || o2 >= a2.out) continue;
              visit((i0 * a1.in + i1) * a2.in + i2, (t0 * a1.kernel + t1) * a2.kernel + t2,
                    (o0 * a1.out + o1) * a2.out + o2);
            }
          }
        }
      }
    }
  }
}

// `bias` has one value per channel or none.
Integers reference_forward(const Geometry& geometry, const Integers& data, const Integers& weight,
                           const std::vector<int32_t>& bias);
Integers reference_data_gradient(const Geometry& geometry, const Integers& weight,
                                 const Integers& out_grad);
Integers reference_weight_gradient(const Geometry& geometry, const Integers& data,
                                   const Integers& out_grad);

}  // namespace mxd::test
