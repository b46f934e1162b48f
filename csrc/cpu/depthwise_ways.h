// The ways of depthwise.h.
#pragma once

#include "cpu/tap_sum.h"

namespace mxd::cpu {

// Lanes along a row of results of one channel.
bool rows_fit(const Problem& problem, Pass pass);
void run_depthwise_rows(const TapSum& sum, const Resources& resources);
void run_depthwise_rows_weight(const Problem& problem, TapSum sum, const Resources& resources);

// Lanes along channels: contiguous in source and result, one channel each way in every group.
bool channels_fit(const Problem& problem);
void run_depthwise_channels(const TapSum& sum, const Resources& resources);
void run_depthwise_channels_weight(const Problem& problem, const TapSum& sum,
                                   const Resources& resources);

// Lanes along the channels of several groups: contiguous in source and result.
bool groups_fit(const Problem& problem);
void run_depthwise_groups(const TapSum& sum, const Resources& resources);
void run_depthwise_groups_weight(const Problem& problem, const TapSum& sum,
                                 const Resources& resources);

}  // namespace mxd::cpu
