// Minimal filtering F(m, r) forms m neighbouring results of a filter of r taps from p = m + r - 1
// products instead of m * r (docs/numerics.md has the formulas).
#pragma once

#include <cstdint>

namespace mxd {

// F(results, taps); kSingle is F(1, 1), the identity.
enum class FilterKind { kSingle, kF22, kF32, kF23 };

constexpr int64_t results_of(FilterKind kind) {
  return kind == FilterKind::kSingle ? 1 : kind == FilterKind::kF32 ? 3 : 2;
}
constexpr int64_t taps_of(FilterKind kind) {
  return kind == FilterKind::kSingle ? 1 : kind == FilterKind::kF23 ? 3 : 2;
}
constexpr int64_t products_of(FilterKind kind) { return results_of(kind) + taps_of(kind) - 1; }

}  // namespace mxd
