"""Reductions. MXNet has no tensors without axes: a full reduction has the shape (1,)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mxdeconv.porting.attributes import Attributes
from mxdeconv.porting.operators.table import Function, Operation, operator


def _axes(data: Tensor, axis: tuple[int, ...] | None, exclude: bool) -> list[int]:
    if not axis:
        return [] if exclude and axis is not None else list(range(data.dim()))
    named = [each % data.dim() for each in axis]
    if exclude:
        return [each for each in range(data.dim()) if each not in named]
    return named


def reduce(
    data: Tensor,
    kind: str,
    axis: tuple[int, ...] | None = None,
    keepdims: bool = False,
    exclude: bool = False,
) -> Tensor:
    """sum, mean, prod, nansum, nanprod, max or min over `axis`, or over all others."""
    axes = _axes(data, axis, exclude)
    result = _KINDS[kind](data, axes) if axes else data
    if keepdims:
        return result
    kept = [n for at, n in enumerate(data.shape) if at not in axes]
    return result.reshape(kept or [1])


def _sum(data: Tensor, axes: list[int]) -> Tensor:
    return data.sum(axes, keepdim=True, dtype=data.dtype)


def _mean(data: Tensor, axes: list[int]) -> Tensor:
    if data.dtype.is_floating_point:
        return data.mean(axes, keepdim=True)
    total = _sum(data, axes)
    return torch.div(total, data.numel() // total.numel(), rounding_mode="trunc")


def _prod(data: Tensor, axes: list[int]) -> Tensor:
    for axis in axes:
        data = data.prod(axis, keepdim=True, dtype=data.dtype)
    return data


def _nansum(data: Tensor, axes: list[int]) -> Tensor:
    return data.nansum(axes, keepdim=True)


def _nanprod(data: Tensor, axes: list[int]) -> Tensor:
    return _prod(torch.where(data.isnan(), torch.ones_like(data), data), axes)


class _Extreme(torch.autograd.Function):
    """amax or amin; every entry that is the extreme has the whole gradient."""

    @staticmethod
    def forward(data: Tensor, function: Callable[..., Tensor], axes: list[int]) -> Tensor:
        return function(data, axes, keepdim=True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        data, result = ctx.saved_tensors
        return grads[0] * (data == result), None, None


def _extreme(function: Callable[..., Tensor]) -> Callable[[Tensor, list[int]], Tensor]:
    def reduced(data: Tensor, axes: list[int]) -> Tensor:
        if not (torch.is_grad_enabled() and data.requires_grad):
            return function(data, axes, keepdim=True)
        result: Tensor = _Extreme.apply(data, function, axes)  # type: ignore[no-untyped-call]
        return result

    return reduced


_KINDS: dict[str, Callable[[Tensor, list[int]], Tensor]] = {
    "sum": _sum,
    "mean": _mean,
    "prod": _prod,
    "nansum": _nansum,
    "nanprod": _nanprod,
    "max": _extreme(torch.amax),
    "min": _extreme(torch.amin),
}


def _reduction(kind: str) -> Callable[[Attributes], Operation]:
    def read(attributes: Attributes) -> Operation:
        keywords: dict[str, Any] = {"kind": kind, "axis": attributes.optional_ints("axis")}
        keywords["keepdims"] = attributes.flag("keepdims", False)
        keywords["exclude"] = attributes.flag("exclude", False)
        return Function(reduce, keywords)

    return read


for _kind in _KINDS:
    operator(_kind, *(f"{_kind}_axis",) * (_kind in ("sum", "max", "min")))(_reduction(_kind))


def norm(
    data: Tensor,
    ord: int,
    axis: tuple[int, ...] | None,
    keepdims: bool,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """The 1-norm or 2-norm of the entries along `axis`, never of a matrix."""
    axes = _axes(data, axis, False)
    if ord == 1:
        result = data.abs().sum(axes, keepdim=True)
    else:
        result = torch.linalg.vector_norm(data, 2, axes, keepdim=True)
    kept = [n for at, n in enumerate(data.shape) if at not in axes]
    result = result if keepdims else result.reshape(kept or [1])
    return result if out_dtype is None else result.to(out_dtype)


@operator("norm")
def norm_operator(attributes: Attributes) -> Operation:
    ord = attributes.integer("ord", 2)
    axis = attributes.optional_ints("axis")
    keepdims = attributes.flag("keepdims", False)
    if ord not in (1, 2):
        raise ValueError(f"ord must be 1 or 2, got {ord}")
    keywords: dict[str, Any] = {"ord": ord, "axis": axis, "keepdims": keepdims}
    out_dtype = attributes.dtype("out_dtype", None)
    return Function(norm, keywords if out_dtype is None else {**keywords, "out_dtype": out_dtype})


def arg_extreme(data: Tensor, kind: str, axis: int | None, keepdims: bool) -> Tensor:
    """The position of the first maximum or minimum, as float32."""
    if axis is None:
        flat = data.reshape(-1)
        position = _first(flat, kind, 0)
        return position.reshape([1] * data.dim() if keepdims else [1]).to(torch.float32)
    position = _first(data, kind, axis)
    if keepdims:
        position = position.unsqueeze(axis)
    return (position if position.dim() else position.reshape(1)).to(torch.float32)


def _first(data: Tensor, kind: str, axis: int) -> Tensor:
    return data.argmax(axis) if kind == "argmax" else data.argmin(axis)


def _arg(kind: str) -> Callable[[Attributes], Operation]:
    def read(attributes: Attributes) -> Operation:
        axis = attributes.optional_integer("axis")
        keepdims = attributes.flag("keepdims", False)
        return Function(arg_extreme, {"kind": kind, "axis": axis, "keepdims": keepdims})

    return read


operator("argmax")(_arg("argmax"))
operator("argmin")(_arg("argmin"))


@operator("argmax_channel")
def argmax_channel(attributes: Attributes) -> Operation:
    attributes.ignore_all()
    return Function(arg_extreme, {"kind": "argmax", "axis": 1, "keepdims": False})


def cumsum(data: Tensor, axis: int | None, dtype: torch.dtype | None) -> Tensor:
    if axis is None:
        return data.reshape(-1).cumsum(0, dtype=dtype or data.dtype)
    return data.cumsum(axis, dtype=dtype or data.dtype)


@operator("_np_cumsum", "cumsum")
def cumsum_operator(attributes: Attributes) -> Operation:
    axis, dtype = attributes.optional_integer("axis"), attributes.dtype("dtype", None)
    return Function(cumsum, {"axis": axis, "dtype": dtype})
