"""The three passes through the raw operators, what they must give, and how far they may be off.

Everything is channels-first here, whatever the problem's layout says: the operators know no other
order. Results go by the names of `NAMES`.
"""

from __future__ import annotations

from collections.abc import Collection
from math import prod

import torch
from torch import Tensor

from mxdeconv import explain, ops
from mxdeconv.testing import Operands, Problem, channels_first

NAMES = ("out", "data_grad", "weight_grad")
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
CONV_TRANSPOSE = {
    1: torch.nn.functional.conv_transpose1d,
    2: torch.nn.functional.conv_transpose2d,
    3: torch.nn.functional.conv_transpose3d,
}
# The unit round-off of the format in which each dtype is accumulated, and of the dtype itself
# where that is another one.
ACCUMULATED = {
    torch.float64: (2.0**-53, 0.0),
    torch.float32: (2.0**-24, 0.0),
    torch.float16: (2.0**-24, 2.0**-11),
    torch.bfloat16: (2.0**-24, 2.0**-8),
}
# Half the distance of the subnormal numbers: what rounding to them may add.
SUBNORMAL = {
    torch.float64: 2.0**-1075,
    torch.float32: 2.0**-150,
    torch.float16: 2.0**-25,
    torch.bfloat16: 2.0**-134,
}


def arguments_of(problem: Problem, workspace: int = 512) -> ops.Arguments:
    return ops.Arguments(
        stride=problem.stride,
        dilate=problem.dilate,
        pad=problem.pad,
        adj=problem.adj,
        num_group=problem.num_group,
        workspace=workspace,
        cudnn_tune=None,
        cudnn_off=False,
    )


def in_order(operands: Operands, problem: Problem) -> Operands:
    """The operands as channels-first views."""
    return Operands(
        *(channels_first(value, problem) if value.dim() > 1 else value for value in operands)
    )


def run_passes(problem: Problem, operands: Operands, workspace: int = 512) -> dict[str, Tensor]:
    """What the raw operators return for channels-first operands."""
    data, weight, bias, out_grad = operands
    arguments = arguments_of(problem, workspace)
    return {
        "out": ops.deconvolution(data, weight, bias, arguments),
        "data_grad": ops.deconvolution_data(weight, out_grad, arguments),
        "weight_grad": ops.deconvolution_weight(data, out_grad, arguments),
    }


def torch_passes(problem: Problem, operands: Operands) -> dict[str, Tensor]:
    """The same in float64 by torch's conv_transpose."""
    data, weight, bias, out_grad = (value.double() for value in operands)
    if problem.batch == 0 or prod(problem.out_size) == 0:  # torch refuses some of these
        out = data.new_zeros(problem.batch, problem.num_filter, *problem.out_size)
        return {
            "out": out,
            "data_grad": torch.zeros_like(data),
            "weight_grad": torch.zeros_like(weight),
        }
    data.requires_grad_()
    weight.requires_grad_()
    out = CONV_TRANSPOSE[problem.rank](
        data,
        weight,
        bias,
        stride=problem.stride,
        padding=problem.pad,
        output_padding=problem.adj,
        groups=problem.num_group,
        dilation=problem.dilate,
    )
    data_grad, weight_grad = torch.autograd.grad(out, (data, weight), out_grad)
    return {"out": out.detach(), "data_grad": data_grad, "weight_grad": weight_grad}


def gamma(roundings: int, unit: float) -> float:
    """The largest relative error of ``roundings`` roundings one after the other (Higham, 3.1)."""
    return roundings * unit / (1 - roundings * unit)


def filtered_passes(problem: Problem, operands: Operands) -> set[str]:
    """The passes that minimal filtering computes, by the word of `explain`."""
    channels_last = operands.data.dim() > 2 and operands.data.stride(1) == 1
    plans = explain(
        problem.data_shape,
        dtype=operands.data.dtype,
        channels_last=channels_last,
        **problem.arguments,
    ).passes
    return {
        name
        for name, plan in zip(NAMES, plans.values(), strict=True)
        if plan.algorithm == "minimal_filter"
    }


def filtering_terms(problem: Problem, operands: Operands) -> tuple[dict[str, int], Operands, int]:
    """What bounds the error of minimal filtering: see docs/numerics.md.

    The roundings of each pass, operands whose direct sums are those of the largest products that a
    tile may hold, and the growth of the transforms.
    """
    growth, phases = 1, 1
    data, out_grad = operands.data.double().abs(), operands.out_grad.double().abs()
    pool = getattr(torch.nn.functional, f"max_pool{problem.rank}d")
    reach, out_reach = [], []
    for kernel, stride in zip(problem.kernel, problem.stride, strict=True):
        taps = -(-kernel // stride)  # of the longest phase
        growth *= {1: 1, 2: 6}.get(taps, 8)
        phases *= stride
        # A tile holds up to four source values.
        reach.append(3 if taps > 1 else 0)
        out_reach.append(4 * stride if taps > 1 else 0)
    data = pool(data, [2 * r + 1 for r in reach], 1, reach)
    out_grad = pool(out_grad, [2 * r + 1 for r in out_reach], 1, out_reach)
    weight = operands.weight.double().abs()
    spatial = tuple(range(2, weight.dim()))
    weight = weight.amax(spatial, keepdim=True).expand_as(weight)
    per_axis = 5 * problem.rank  # one of the source values, two of the taps, two of the results
    roundings = {
        "out": problem.channels // problem.num_group + per_axis + 1,
        "data_grad": phases * (problem.num_filter // problem.num_group) + per_axis,
        # The sum over all tiles, in blocks that are added.
        "weight_grad": 2
        * problem.batch
        * prod(-(-o // s) for o, s in zip(problem.out_size, problem.stride, strict=True))
        + per_axis,
    }
    return roundings, Operands(data, weight, operands.bias.double().abs(), out_grad), growth


def error_bounds(
    problem: Problem, operands: Operands, filtered: Collection[str] = ()
) -> dict[str, Tensor]:
    """How far a result of the operands' dtype may lie from torch's float64 one, value by value.

    A sum of K products whose terms each pass at most K roundings lies within
    gamma_K * sum|products| of the exact one, whatever the order of summation; K counts the bias
    as one term more. float16 and bfloat16 accumulate in float32 and round the result once more.
    torch's own float64 result, and the sums of absolute products computed by it, carry gamma_K of
    float64. Products and results below the least normal number are off by half the distance of
    the subnormals for each rounding. The passes named in `filtered` are held to the bound of
    minimal filtering, which has larger products in the place of the direct sum's.
    """
    dtype = operands.data.dtype
    exact = torch_passes(problem, operands)
    absolute = torch_passes(problem, Operands(*(value.abs() for value in operands)))
    roundings = {
        "out": problem.forward_terms + 1,
        "data_grad": problem.data_terms,
        "weight_grad": problem.weight_terms,
    }
    used = dict(absolute)
    used_roundings = dict(roundings)
    if filtered:
        fewer, largest, growth = filtering_terms(problem, operands)
        sums = torch_passes(problem, largest)
        for name in filtered:
            used[name], used_roundings[name] = growth * sums[name], fewer[name]
        # At each end of an axis a tap may meet a tile of which it has no product of its own.
        used["weight_grad"] *= 3**problem.rank if "weight_grad" in filtered else 1
    unit, final_unit = ACCUMULATED[dtype]
    bounds = {}
    for name, sums in absolute.items():
        of_float64 = gamma(roundings[name], 2.0**-53) * sums
        from_sum = gamma(used_roundings[name], unit) * used[name] * (1 + 2.0**-40) + of_float64
        from_final = final_unit * (exact[name].abs() + of_float64 + from_sum)
        subnormal = (roundings[name] + used_roundings[name]) * SUBNORMAL[dtype]
        bounds[name] = of_float64 + from_sum + from_final + subnormal
    return bounds


# Where tensors lie ---------------------------------------------------------------------------


def as_contiguous(tensor: Tensor) -> Tensor:
    return tensor.contiguous()


def as_channels_last(tensor: Tensor) -> Tensor:
    """The same values in torch's channels_last memory format (for 1-D its analogue)."""
    channels = min(1, tensor.dim() - 1)  # a bias has one axis: it stays as it is
    return tensor.movedim(channels, -1).contiguous().movedim(-1, channels)


def as_slice(tensor: Tensor) -> Tensor:
    """The same values as every second element, on every axis, of a tensor full of NaN."""
    whole = tensor.new_full([2 * size + 1 for size in tensor.shape], float("nan"))
    view = whole[(slice(1, None, 2),) * tensor.dim()]
    return view.copy_(tensor)


def as_transposed(tensor: Tensor) -> Tensor:
    """The same values with the first axis fastest in memory and the last slowest."""
    backwards = tuple(reversed(range(tensor.dim())))
    return tensor.permute(backwards).contiguous().permute(backwards)


PLACES = {
    "contiguous": as_contiguous,
    "channels_last": as_channels_last,
    "slice": as_slice,
    "transposed": as_transposed,
}
