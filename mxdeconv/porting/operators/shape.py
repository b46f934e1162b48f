"""Operators that move entries and give them another shape, and that look at shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mxdeconv.porting.attributes import Attributes
from mxdeconv.porting.operators.table import Function, Layer, Operation, operator


def reshaped(shape: Sequence[int], codes: Sequence[int], reverse: bool = False) -> list[int]:
    """The shape that MXNet's codes ask of `shape`, with at most one -1 left.

    0 copies a size, -1 is inferred, -2 copies all that remain, -3 merges two, -4 splits one into
    the next two codes. `reverse` reads both from the right.
    """
    sizes = list(shape)[::-1] if reverse else list(shape)
    wanted = list(codes)[::-1] if reverse else list(codes)
    result: list[int] = []
    source = position = 0
    while position < len(wanted):
        code = wanted[position]
        position += 1
        if code == 0:
            result.append(sizes[source])
            source += 1
        elif code == -2:
            result += sizes[source:]
            source = len(sizes)
        elif code == -3:
            result.append(sizes[source] * sizes[source + 1])
            source += 2
        elif code == -4:
            first, second = wanted[position : position + 2]
            size = sizes[source]
            if first == -1:
                first = size // second
            elif second == -1:
                second = size // first
            result += [first, second]
            source += 1
            position += 2
        else:
            result.append(code)
            source += 1
    return result[::-1] if reverse else result


def reshape(data: Tensor, shape: tuple[int, ...], reverse: bool = False) -> Tensor:
    """MXNet's Reshape, with its codes 0, -1, -2, -3 and -4."""
    return data.reshape(reshaped(data.shape, shape, reverse))


def reshape_legacy(data: Tensor, target_shape: tuple[int, ...], keep_highest: bool) -> Tensor:
    """The old target_shape: 0 is inferred; keep_highest keeps the first size."""
    shape = [-1 if size == 0 else size for size in target_shape]
    if keep_highest:
        shape[0] = data.shape[0]
    return data.reshape(shape)


@operator("Reshape", "reshape")
def reshape_operator(attributes: Attributes) -> Operation:
    shape = attributes.ints("shape", ())
    reverse = attributes.flag("reverse", False)
    target = attributes.ints("target_shape", ())
    keep_highest = attributes.flag("keep_highest", False)
    if not shape and target:
        return Function(reshape_legacy, {"target_shape": target, "keep_highest": keep_highest})
    if not shape:
        raise ValueError("shape must be given")
    if any(code < -4 for code in shape):
        raise ValueError(f"shape must have codes of at least -4, got {shape}")
    if all(code >= -1 for code in shape) and 0 not in shape:
        return Function(torch.reshape, {"shape": shape})
    return Function(reshape, {"shape": shape, "reverse": reverse} if reverse else {"shape": shape})


@operator("Flatten", "flatten")
def flatten(attributes: Attributes) -> Operation:
    attributes.ignore_all()
    return Layer(lambda shapes: nn.Flatten())


def transpose(data: Tensor, axes: tuple[int, ...] = ()) -> Tensor:
    return data.permute(axes or tuple(range(data.dim()))[::-1])


@operator("transpose")
def transpose_operator(attributes: Attributes) -> Operation:
    axes = attributes.ints("axes", ())
    return Function(torch.permute, {"dims": axes}) if axes else Function(transpose)


@operator("SwapAxis", "swapaxes")
def swap_axis(attributes: Attributes) -> Operation:
    first, second = attributes.integer("dim1", 0), attributes.integer("dim2", 0)
    return Function(torch.transpose, {"dim0": first, "dim1": second})


@operator("expand_dims")
def expand_dims(attributes: Attributes) -> Operation:
    return Function(torch.unsqueeze, {"dim": attributes.integer("axis")})


def squeeze(data: Tensor, axis: tuple[int, ...] | None = None) -> Tensor:
    """Without the axes of size 1 (or those named); at least one axis stays."""
    axes = range(data.dim()) if axis is None else [each % data.dim() for each in axis]
    if axis is not None and any(data.shape[each] != 1 for each in axes):
        raise ValueError(f"axis must name axes of size 1 of {tuple(data.shape)}, got {axis}")
    kept = [n for at, n in enumerate(data.shape) if at not in axes or n != 1]
    return data.reshape(kept or [1])


@operator("squeeze")
def squeeze_operator(attributes: Attributes) -> Operation:
    return Function(squeeze, {"axis": attributes.optional_ints("axis")})


@operator("tile")
def tile(attributes: Attributes) -> Operation:
    return Function(torch.tile, {"dims": attributes.ints("reps")})


def repeat(data: Tensor, repeats: int, axis: int | None = None) -> Tensor:
    return torch.repeat_interleave(data, repeats, axis)


@operator("repeat")
def repeat_operator(attributes: Attributes) -> Operation:
    repeats = attributes.integer("repeats", minimum=1)
    return Function(repeat, {"repeats": repeats, "axis": attributes.optional_integer("axis")})


@operator("reverse", "flip")
def reverse_operator(attributes: Attributes) -> Operation:
    return Function(torch.flip, {"dims": attributes.ints("axis")})


# Shapes of other tensors ------------------------------------------------------------------------


def broadcast_to(data: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Sizes of 0 stay."""
    sizes = [n if wanted == 0 else wanted for n, wanted in zip(data.shape, shape, strict=True)]
    return data.expand(sizes)


@operator("broadcast_to")
def broadcast_to_operator(attributes: Attributes) -> Operation:
    return Function(broadcast_to, {"shape": attributes.ints("shape")})


def broadcast_axis(data: Tensor, axis: tuple[int, ...], size: tuple[int, ...]) -> Tensor:
    sizes = list(data.shape)
    for at, wanted in zip(axis, size, strict=True):
        sizes[at] = wanted
    return data.expand(sizes)


@operator("broadcast_axis", "broadcast_axes")
def broadcast_axis_operator(attributes: Attributes) -> Operation:
    keywords = {"axis": attributes.ints("axis", ()), "size": attributes.ints("size", ())}
    return Function(broadcast_axis, keywords)


def broadcast_like(
    data: Tensor,
    like: Tensor,
    lhs_axes: tuple[int, ...] | None = None,
    rhs_axes: tuple[int, ...] | None = None,
) -> Tensor:
    """Data in the shape of `like`; with axes only along lhs_axes, sized as rhs_axes of `like`."""
    if lhs_axes is None or rhs_axes is None:
        return data.expand_as(like)
    sizes = list(data.shape)
    for to, source in zip(lhs_axes, rhs_axes, strict=True):
        sizes[to] = like.shape[source]
    return data.expand(sizes)


@operator("broadcast_like")
def broadcast_like_operator(attributes: Attributes) -> Operation:
    lhs, rhs = attributes.optional_ints("lhs_axes"), attributes.optional_ints("rhs_axes")
    if (lhs is None) != (rhs is None) or len(lhs or ()) != len(rhs or ()):
        raise ValueError(f"lhs_axes and rhs_axes must be equally long, got {lhs} and {rhs}")
    return Function(broadcast_like, {} if lhs is None else {"lhs_axes": lhs, "rhs_axes": rhs})


def reshape_like(
    data: Tensor,
    like: Tensor,
    lhs: tuple[int, int | None] = (0, None),
    rhs: tuple[int, int | None] = (0, None),
) -> Tensor:
    """The axes from lhs[0] to lhs[1] in the sizes of those of `like` from rhs[0] to rhs[1]."""
    (first, last), rank = lhs, data.dim()
    first = first + rank if first < 0 else first
    last = rank if last is None else last + rank if last < 0 else last
    sizes = like.shape[slice(*rhs)]
    return data.reshape([*data.shape[:first], *sizes, *data.shape[last:]])


@operator("reshape_like")
def reshape_like_operator(attributes: Attributes) -> Operation:
    ranges: dict[str, tuple[int, int | None]] = {}
    for side in ("lhs", "rhs"):
        first = attributes.optional_integer(f"{side}_begin") or 0
        ranges[side] = first, attributes.optional_integer(f"{side}_end")
    return Function(reshape_like, {key: r for key, r in ranges.items() if r != (0, None)})


@operator("zeros_like")
def zeros_like(attributes: Attributes) -> Operation:
    attributes.ignore_all()  # Gluon hands a dtype on, which MXNet does not read
    return Function(torch.zeros_like)


@operator("ones_like")
def ones_like(attributes: Attributes) -> Operation:
    attributes.ignore_all()  # Gluon hands a dtype on, which MXNet does not read
    return Function(torch.ones_like)


def shape_array(data: Tensor) -> Tensor:
    return torch.tensor(data.shape, dtype=torch.int64, device=data.device)


@operator("shape_array")
def shape_array_operator(attributes: Attributes) -> Operation:
    attributes.ignore_all()
    return Function(shape_array)


def size_array(data: Tensor) -> Tensor:
    return torch.tensor([data.numel()], dtype=torch.int64, device=data.device)


@operator("size_array")
def size_array_operator(attributes: Attributes) -> Operation:
    attributes.ignore_all()
    return Function(size_array)


def arange_like(data: Tensor, start: float, step: float, repeat: int, axis: int | None) -> Tensor:
    """start, start + step, ... in the shape of data, or along one of its axes."""
    count = data.numel() if axis is None else data.shape[axis]
    numbers = torch.arange(count, device=data.device) // repeat
    values = (start + step * numbers).to(data.dtype)
    return values.reshape(data.shape) if axis is None else values


@operator("_contrib_arange_like")
def arange_like_operator(attributes: Attributes) -> Operation:
    attributes.ignore("ctx")
    return Function(
        arange_like,
        {
            "start": attributes.number("start", 0.0),
            "step": attributes.number("step", 1.0),
            "repeat": attributes.integer("repeat", 1, minimum=1),
            "axis": attributes.optional_integer("axis"),
        },
    )


def depth_to_space(data: Tensor, block: int) -> Tensor:
    """Channels in groups (block, block, C) become blocks of rows and columns."""
    n, c, h, w = data.shape
    split_up = data.reshape(n, block, block, c // block**2, h, w)
    return split_up.permute(0, 3, 4, 1, 5, 2).reshape(n, c // block**2, h * block, w * block)


@operator("depth_to_space")
def depth_to_space_operator(attributes: Attributes) -> Operation:
    return Function(depth_to_space, {"block": attributes.integer("block_size", minimum=1)})


def space_to_depth(data: Tensor, block: int) -> Tensor:
    n, c, h, w = data.shape
    blocks = data.reshape(n, c, h // block, block, w // block, block)
    return blocks.permute(0, 3, 5, 1, 2, 4).reshape(n, c * block**2, h // block, w // block)


@operator("space_to_depth")
def space_to_depth_operator(attributes: Attributes) -> Operation:
    return Function(space_to_depth, {"block": attributes.integer("block_size", minimum=1)})


def divide_by_root(data: Tensor) -> Tensor:
    """Over the square root of the size of the last axis, as attention scales its scores."""
    return data / math.sqrt(data.shape[-1])


@operator("_contrib_div_sqrt_dim")
def divide_by_root_operator(attributes: Attributes) -> Operation:
    attributes.ignore_all()
    return Function(divide_by_root)
