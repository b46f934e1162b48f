"""Tensors that a graph makes itself, without inputs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mxdeconv.porting.attributes import Attributes
from mxdeconv.porting.operators.table import Function, Layer, Operation, Shapes, operator


class Constant(nn.Module):
    """A tensor that the graph makes itself: arange, zeros, ones. It moves with the module."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value: Tensor
        self.register_buffer("value", value, persistent=False)

    def forward(self) -> Tensor:
        return self.value

    def extra_repr(self) -> str:
        return f"shape={tuple(self.value.shape)}, dtype={self.value.dtype}"


#: Of all constants of a model, so that a few letters in a file cannot take all memory.
MOST_ENTRIES = 2**26


def _check_size(count: int) -> None:
    if count > MOST_ENTRIES:
        raise ValueError(f"constants must have at most {MOST_ENTRIES} entries, got {count}")


def arange(
    start: float, stop: float | None, step: float, repeat: int, dtype: torch.dtype
) -> Tensor:
    """MXNet's arange: without a stop from 0 to start; each value `repeat` times."""
    first = 0.0 if stop is None else start
    values = first + step * torch.arange(count(start, stop, step), dtype=torch.float64)
    return values.repeat_interleave(repeat).to(dtype)


def count(start: float, stop: float | None, step: float) -> int:
    """How many different values it has."""
    length = start if stop is None else stop - start
    return max(math.ceil(length / step), 0)


def arange_as(like: Tensor, start: float, step: float, repeat: int, dtype: torch.dtype) -> Tensor:
    """start, start + step, ... in the shape of `like`; each value `repeat` times."""
    numbers = torch.arange(like.numel(), device=like.device) // repeat
    return (start + step * numbers.double()).to(dtype).reshape(like.shape)


#: See `mxdeconv.porting.inference`.
_USE = "an array of known shape that it is added to, or combined with entry by entry"


@operator("_arange")
def arange_operator(attributes: Attributes) -> Operation:
    start, stop = attributes.number("start"), attributes.optional_number("stop")
    step, repeat = attributes.number("step", 1.0), attributes.integer("repeat", 1, minimum=1)
    dtype = attributes.dtype("dtype", "float32") or torch.float32
    attributes.ignore("ctx")
    infers = attributes.flag("infer_range", False) and stop is None
    if step == 0:
        raise ValueError("step must not be 0")
    if not all(math.isfinite(number or 0.0) for number in (start, stop, step)):
        raise ValueError("start, stop and step must be finite")
    if infers:
        if attributes.count != 1:
            raise ValueError(f"infer_range needs {_USE}")
        keywords = {"start": start, "step": step, "repeat": repeat, "dtype": dtype}
        return Function(arange_as, keywords)
    _check_size(count(start, stop, step) * repeat)
    return Layer(lambda shapes: Constant(arange(start, stop, step, repeat, dtype)))


def full_as(like: Tensor, shape: tuple[int, ...], value: float, dtype: torch.dtype) -> Tensor:
    """`value` in the shape of `like`, which has to fit the known sizes of `shape`."""
    fits = not shape or len(shape) == like.dim()
    if not fits or any(n > 0 and n != m for n, m in zip(shape, like.shape, strict=False)):
        raise ValueError(f"{tuple(like.shape)} must be of shape {shape}, 0 for any size")
    return torch.full(like.shape, value, dtype=dtype, device=like.device)


def _filled(attributes: Attributes, value: float) -> Operation:
    shape = attributes.ints("shape", ())
    dtype = attributes.dtype("dtype", "float32")
    attributes.ignore("ctx")
    if not shape or min(shape) < 1:
        if attributes.count != 1:
            raise ValueError(f"shape {shape} must be known, or needs {_USE}")
        return Function(full_as, {"shape": shape, "value": value, "dtype": dtype})
    _check_size(math.prod(shape))
    return Layer(lambda shapes: Constant(torch.full(shape, value, dtype=dtype)))


@operator("_zeros")
def zeros(attributes: Attributes) -> Operation:
    return _filled(attributes, 0)


@operator("_ones")
def ones(attributes: Attributes) -> Operation:
    return _filled(attributes, 1)


@operator("_full")
def full(attributes: Attributes) -> Operation:
    return _filled(attributes, attributes.number("value"))


@operator("_eye")
def eye(attributes: Attributes) -> Operation:
    rows, columns = attributes.integer("N", minimum=1), attributes.integer("M", 0)
    offset = attributes.integer("k", 0)
    dtype = attributes.dtype("dtype", "float32")
    attributes.ignore("ctx")
    _check_size(rows * (columns or rows))

    def make(shapes: Shapes) -> nn.Module:
        return Constant(torch.ones(rows, columns or rows).triu(offset).tril(offset).to(dtype))

    return Layer(make)
