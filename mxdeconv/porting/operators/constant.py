"""Tensors that a graph makes itself, without inputs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mxdeconv.porting.attributes import Attributes
from mxdeconv.porting.operators.table import Layer, Operation, Shapes, operator


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


@operator("_arange")
def arange_operator(attributes: Attributes) -> Operation:
    start, stop = attributes.number("start"), attributes.optional_number("stop")
    step, repeat = attributes.number("step", 1.0), attributes.integer("repeat", 1, minimum=1)
    dtype = attributes.dtype("dtype", "float32") or torch.float32
    attributes.ignore("ctx")
    if attributes.flag("infer_range", False):
        raise ValueError("infer_range must be False: the length depends on where it is used")
    if step == 0:
        raise ValueError("step must not be 0")
    if not all(math.isfinite(number or 0.0) for number in (start, stop, step)):
        raise ValueError("start, stop and step must be finite")
    _check_size(count(start, stop, step) * repeat)
    return Layer(lambda shapes: Constant(arange(start, stop, step, repeat, dtype)))


def _filled(attributes: Attributes, value: float) -> Operation:
    shape = attributes.ints("shape", ())
    dtype = attributes.dtype("dtype", "float32")
    attributes.ignore("ctx")
    if not shape or min(shape) < 1:
        raise ValueError(f"shape must be known, with sizes of at least 1, got {shape}")
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
