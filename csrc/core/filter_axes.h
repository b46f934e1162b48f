// What minimal filtering makes of an axis: correlations, and which problems it can do at all.
//
// A *correlation* is a phase seen from its results: result q of an axis meets source values
// src_begin + q + e for e = 0 .. taps-1, with step 1. Forward, every phase is one, and writes
// results of its own. In the data gradient every phase of the output is a source, and all of them
// add to the same results. Where dilation splits an axis, correlations are of its parts, in both
// passes with results of their own.
#pragma once

#include <vector>

#include "core/filter_kind.h"
#include "core/problem.h"

namespace mxd {

// Every step-th element of an axis: index i is element first + i * step, 0 <= i < size.
struct FilterGrid {
  int64_t first, step, size;
};

struct FilterAxis {
  FilterKind kind;
  int64_t src_begin;  // source index of result 0, e = 0
  FilterGrid src;
  int64_t tap_first, tap_step;  // of the kernel, for e = 0 and from one e to the next
  int64_t dst_first, dst_step;  // of the destination; results dst_begin .. dst_end-1
  int64_t dst_begin, dst_end;   // exist, those from 0 on belong to the tiles
};

// Why minimal filtering cannot do the problem, or null. Looks at no memory.
const char* why_not_filtered(Pass pass, const Problem& problem);

// Of the forward pass or the data gradient, where why_not_filtered has nothing against it.
std::vector<FilterAxis> correlations_of(Pass pass, const Axis& axis);

// Whether dilation splits the axis.
bool splits(Pass pass, const Axis& axis);

// Of tiles that cover so many results.
int64_t products_for(FilterKind kind, int64_t results);

// A bound on how much larger than the direct products the sums of a tile may become, per axis: on
// the maps' row sums, one after the other.
constexpr double growth_of(FilterKind kind) { return kind == FilterKind::kSingle ? 1 : 12; }

}  // namespace mxd
