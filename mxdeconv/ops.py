"""The raw operators torch.ops.mxdeconv.*, typed, with what torch lets Python register for them.

The three tensor operators are the partial derivatives of one trilinear form T(data, weight, out):

    deconvolution(data, weight, bias)      dT/dout, plus bias
    deconvolution_data(weight, out_grad)   dT/ddata
    deconvolution_weight(data, out_grad)   dT/dweight

data (N, C, *n), weight (C, F/g, *k), bias (F,), out and out_grad (N, F, *o); channels first,
one dtype of float32, float64, float16 and bfloat16. All share one list of further arguments,
`Arguments`. C++ registers their kernels and derivatives; this file their vmap rules and flops.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

Folded: TypeAlias = tuple[Tensor, int]


class Arguments(NamedTuple):
    """What follows the tensors in every raw operator, in its order."""

    stride: Sequence[int]
    dilate: Sequence[int]
    pad: Sequence[int]
    adj: Sequence[int]
    num_group: int
    workspace: int
    cudnn_tune: str | None
    cudnn_off: bool


_FORWARD = torch.ops.mxdeconv.deconvolution.default
_DATA = torch.ops.mxdeconv.deconvolution_data.default
_WEIGHT = torch.ops.mxdeconv.deconvolution_weight.default
_INTO = torch.ops.mxdeconv.deconvolution_into.default


def deconvolution(
    data: Tensor, weight: Tensor, bias: Tensor | None, arguments: Arguments
) -> Tensor:
    """out (N, F, *o) from data (N, C, *n), weight (C, F/g, *k) and bias (F,) or None."""
    out: Tensor = _FORWARD(data, weight, bias, *arguments)
    return out


def deconvolution_data(weight: Tensor, out_grad: Tensor, arguments: Arguments) -> Tensor:
    """Gradient of data (N, C, *n) from weight (C, F/g, *k) and out_grad (N, F, *o)."""
    grad: Tensor = _DATA(weight, out_grad, *arguments)
    return grad


def deconvolution_weight(data: Tensor, out_grad: Tensor, arguments: Arguments) -> Tensor:
    """Gradient of weight (C, F/g, *k) from data (N, C, *n) and out_grad (N, F, *o)."""
    grad: Tensor = _WEIGHT(data, out_grad, *arguments)
    return grad


def bias_gradient(out_grad: Tensor, arguments: Arguments) -> Tensor:
    """Gradient of bias (F,): out_grad (N, F, *o) summed over batch and space.

    The bias is the weight of a 1x1 deconvolution of a constant 1: its gradient is the weight
    gradient of that one, summed in an order that no thread count changes.
    """
    if out_grad.numel() == 0:
        return out_grad.new_zeros(out_grad.shape[1])
    ones = out_grad.new_ones(1).expand(out_grad.shape[0], 1, *out_grad.shape[2:])
    unit, none = [1] * len(arguments.stride), [0] * len(arguments.stride)
    geometry = arguments._replace(stride=unit, dilate=unit, pad=none, adj=none, num_group=1)
    return deconvolution_weight(ones, out_grad, geometry).reshape(-1)


def deconvolution_into(
    data: Tensor, weight: Tensor, bias: Tensor | None, arguments: Arguments, out: Tensor
) -> None:
    """`deconvolution`, written into out (N, F, *o). Not differentiable."""
    _INTO(data, weight, bias, *arguments, out)


# vmap ---------------------------------------------------------------------------------------
#
# The operators are linear in each tensor, so a batch B needs no loop. It goes where it costs
# nothing: into N where weight has no batch, and otherwise into the channels. There a batch of
# the two tensors that meet in the sum becomes groups (B*g groups, each of its own slice), and a
# batch of only one of them becomes more output channels of each group.


def _batch_first(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """The tensor with its batch in front, expanded (not copied) where it has none."""
    return tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


def _batch_into_n(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """(B, N, ...) as (B*N, ...)."""
    return _batch_first(tensor, dim, size).flatten(0, 1)


def _batch_into_groups(tensor: Tensor, dim: int | None, size: int, axis: int) -> Tensor:
    """Batch in front of the channel axis, which stands at `axis`: (..., B*channels, ...)."""
    return _batch_first(tensor, dim, size).movedim(0, axis).flatten(axis, axis + 1)


def _batch_within_groups(tensor: Tensor, dim: int, groups: int, axis: int) -> Tensor:
    """(..., g*c, ...) with a batch at `dim` as (..., g*B*c, ...), channels at `axis`."""
    split = torch.unflatten(tensor.movedim(dim, 0), axis + 1, (groups, -1))
    return split.movedim(0, axis + 1).flatten(axis, axis + 2)


def _batch_out_of_groups(tensor: Tensor, size: int, groups: int, axis: int) -> Tensor:
    """The inverse of `_batch_within_groups`, with the batch in front."""
    split = torch.unflatten(tensor, axis, (groups, size, -1))
    return split.movedim(axis + 1, 0).flatten(axis + 1, axis + 2)


def fold_deconvolution(
    call: Callable[..., Tensor], size: int, in_dims: tuple[Any, ...], *args: Any
) -> Folded:
    """Compute a batched deconvolution through one unbatched `call`; (out, its batch axis)."""
    (data, weight, bias), arguments = args[:3], Arguments(*args[3:])
    data_dim, weight_dim, bias_dim = in_dims[:3]
    groups = arguments.num_group
    if weight_dim is None and bias_dim is None:
        out = call(_batch_into_n(data, data_dim, size), weight, bias, *arguments)
        return torch.unflatten(out, 0, (size, -1)), 0
    if data_dim is None and weight_dim is not None:
        # weight (C, F/g): its filters of all batches side by side, in each group
        weight = weight.movedim(weight_dim, 1).flatten(1, 2)
        if bias is not None:
            bias = torch.unflatten(_batch_first(bias, bias_dim, size), 1, (groups, -1))
            bias = bias.movedim(0, 1).flatten()
        out = call(data, weight, bias, *arguments)
        return _batch_out_of_groups(out, size, groups, 1), 0
    data = _batch_into_groups(data, data_dim, size, 1)
    weight = _batch_into_groups(weight, weight_dim, size, 0)
    if bias is not None:
        bias = _batch_first(bias, bias_dim, size).flatten()
    out = call(data, weight, bias, *arguments._replace(num_group=size * groups))
    return torch.unflatten(out, 1, (size, -1)), 1


def _vmap_forward(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Folded:
    return fold_deconvolution(_FORWARD, info.batch_size, in_dims, *args)


def _vmap_data(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Folded:
    (weight, out_grad), arguments = args[:2], Arguments(*args[2:])
    (weight_dim, grad_dim), size, groups = in_dims[:2], info.batch_size, arguments.num_group
    if weight_dim is None:
        grad = deconvolution_data(weight, _batch_into_n(out_grad, grad_dim, size), arguments)
        return torch.unflatten(grad, 0, (size, -1)), 0
    if grad_dim is None:
        weight = _batch_within_groups(weight, weight_dim, groups, 0)
        grad = deconvolution_data(weight, out_grad, arguments)
        return _batch_out_of_groups(grad, size, groups, 1), 0
    weight = _batch_into_groups(weight, weight_dim, size, 0)
    out_grad = _batch_into_groups(out_grad, grad_dim, size, 1)
    grad = deconvolution_data(weight, out_grad, arguments._replace(num_group=size * groups))
    return torch.unflatten(grad, 1, (size, -1)), 1


def _vmap_weight(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Folded:
    (data, out_grad), arguments = args[:2], Arguments(*args[2:])
    (data_dim, grad_dim), size, groups = in_dims[:2], info.batch_size, arguments.num_group
    if grad_dim is None:
        data = _batch_within_groups(data, data_dim, groups, 1)
        grad = deconvolution_weight(data, out_grad, arguments)
        return _batch_out_of_groups(grad, size, groups, 0), 0
    if data_dim is None:
        out_grad = _batch_within_groups(out_grad, grad_dim, groups, 1)
        grad = deconvolution_weight(data, out_grad, arguments)
        return torch.unflatten(grad, 1, (size, -1)), 1
    data = _batch_into_groups(data, data_dim, size, 1)
    out_grad = _batch_into_groups(out_grad, grad_dim, size, 1)
    grad = deconvolution_weight(data, out_grad, arguments._replace(num_group=size * groups))
    return torch.unflatten(grad, 0, (size, -1)), 0


torch.library.register_vmap("mxdeconv::deconvolution", _vmap_forward)
torch.library.register_vmap("mxdeconv::deconvolution_data", _vmap_data)
torch.library.register_vmap("mxdeconv::deconvolution_weight", _vmap_weight)


# Flops --------------------------------------------------------------------------------------
#
# torch counts two flops for each multiply-add, none for bias, and does not subtract the taps
# that the crop discards: 2 * N * prod(n) * (all entries of weight), the same for all three.


def _flops(data_shape: Sequence[int], weight_shape: Sequence[int]) -> int:
    return 2 * data_shape[0] * math.prod(data_shape[2:]) * math.prod(weight_shape)


@register_flop_formula(torch.ops.mxdeconv.deconvolution)
def _forward_flops(data_shape: Any, weight_shape: Any, *_: Any, **__: Any) -> int:
    return _flops(data_shape, weight_shape)


@register_flop_formula(torch.ops.mxdeconv.deconvolution_into)
def _into_flops(data_shape: Any, weight_shape: Any, *_: Any, **__: Any) -> int:
    return _flops(data_shape, weight_shape)


@register_flop_formula(torch.ops.mxdeconv.deconvolution_data)
def _data_flops(weight_shape: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return _flops(out_shape, weight_shape)


@register_flop_formula(torch.ops.mxdeconv.deconvolution_weight)
def _weight_flops(data_shape: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return _flops(data_shape, out_shape)
