"""Operators that cut, join and pad: concat, split, slice, crop, pad."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mxdeconv.porting.attributes import Attributes
from mxdeconv.porting.operators.table import Function, Layer, Operation, operator

# Joining and splitting --------------------------------------------------------------------------


@operator("Concat", "concat")
def concat(attributes: Attributes) -> Operation:
    attributes.ignore("num_args")
    return Function(torch.cat, {"dim": attributes.integer("dim", 1)}, as_list=True)


@operator("stack")
def stack(attributes: Attributes) -> Operation:
    attributes.ignore("num_args")
    return Function(torch.stack, {"dim": attributes.integer("axis", 0)}, as_list=True)


def split(data: Tensor, count: int, axis: int, squeeze_axis: bool) -> tuple[Tensor, ...]:
    """`count` equal parts; `squeeze_axis` drops the axis, then of size 1."""
    if data.shape[axis] % count:
        raise ValueError(f"num_outputs must divide {data.shape[axis]}, got {count}")
    parts = torch.chunk(data, count, axis)
    return tuple(part.squeeze(axis) for part in parts) if squeeze_axis else parts


def split_one(data: Tensor, axis: int, squeeze_axis: bool) -> Tensor:
    return data.squeeze(axis) if squeeze_axis else data.view_as(data)


def _few(count: int) -> int:
    if count > 2**12:
        raise ValueError(f"it must have at most {2**12} outputs, got {count}")
    return count


@operator("SliceChannel", "split")
def slice_channel(attributes: Attributes) -> Operation:
    count = _few(attributes.integer("num_outputs", minimum=1))
    axis = attributes.integer("axis", 1)
    squeeze_axis = attributes.flag("squeeze_axis", False)
    keywords = {"axis": axis, "squeeze_axis": squeeze_axis}
    if count == 1:
        return Function(split_one, keywords)
    outputs = tuple(f"output{number}" for number in range(count))
    return Function(split, {"count": count, **keywords}, outputs=outputs)


def split_at(
    data: Tensor, indices: tuple[int, ...], axis: int, squeeze_axis: bool
) -> tuple[Tensor, ...]:
    """Parts that begin at `indices`, of which the first is 0."""
    ends = (*indices[1:], data.shape[axis])
    parts = [
        data.narrow(axis, first, last - first) for first, last in zip(indices, ends, strict=True)
    ]
    return tuple(part.squeeze(axis) if squeeze_axis else part for part in parts)


@operator("_split_v2")
def split_v2(attributes: Attributes) -> Operation:
    indices = attributes.ints("indices", ())
    axis = attributes.integer("axis", 1)
    squeeze_axis = attributes.flag("squeeze_axis", False)
    sections = attributes.integer("sections", 0)
    count = _few(sections or len(indices))
    outputs = tuple(f"output{number}" for number in range(count))
    if count < 2:
        raise ValueError("it must have at least 2 outputs")
    keywords = {"axis": axis, "squeeze_axis": squeeze_axis}
    if sections:
        return Function(split, {"count": sections, **keywords}, outputs=outputs)
    return Function(split_at, {"indices": indices, **keywords}, outputs=outputs)


# Cutting ----------------------------------------------------------------------------------------


def slice_axes(
    data: Tensor,
    begin: tuple[int | None, ...],
    end: tuple[int | None, ...],
    step: tuple[int | None, ...] = (),
) -> Tensor:
    """data[begin:end:step] on the first axes, as Python slices; steps may be negative."""
    for axis, (first, last) in enumerate(zip(begin, end, strict=True)):
        stride = step[axis] if axis < len(step) else None
        if stride is None or stride > 0:
            index = [slice(None)] * axis + [slice(first, last, stride)]
            data = data[tuple(index)]
        else:
            chosen = range(data.shape[axis])[slice(first, last, stride)]
            positions = torch.tensor(list(chosen), dtype=torch.int64, device=data.device)
            data = data.index_select(axis, positions)
    return data


@operator("slice", "crop")
def slice_operator(attributes: Attributes) -> Operation:
    begin, end = attributes.ints_with_gaps("begin"), attributes.ints_with_gaps("end")
    step = attributes.ints_with_gaps("step")
    if len(begin) != len(end) or len(step) not in (0, len(begin)):
        raise ValueError(f"begin, end and step must be equally long, got {begin}, {end}, {step}")
    if 0 in step:
        raise ValueError(f"step must not be 0, got {step}")
    return Function(slice_axes, {"begin": begin, "end": end, **({"step": step} if step else {})})


def slice_axis(data: Tensor, axis: int, begin: int, end: int | None) -> Tensor:
    size = data.shape[axis]
    first = begin + size if begin < 0 else begin
    last = size if end is None else end + size if end < 0 else end
    return data.narrow(axis, first, last - first)


@operator("slice_axis")
def slice_axis_operator(attributes: Attributes) -> Operation:
    return Function(
        slice_axis,
        {
            "axis": attributes.integer("axis"),
            "begin": attributes.integer("begin"),
            "end": attributes.optional_integer("end"),
        },
    )


def slice_like(data: Tensor, like: Tensor, axes: tuple[int, ...] = ()) -> Tensor:
    """The first entries along `axes` (all, if empty), as many as `like` has."""
    for axis in axes or range(data.dim()):
        if like.shape[axis] > data.shape[axis]:
            raise ValueError(f"{tuple(like.shape)} must fit in {tuple(data.shape)} along {axis}")
        data = data.narrow(axis, 0, like.shape[axis])
    return data


@operator("slice_like")
def slice_like_operator(attributes: Attributes) -> Operation:
    attributes.need_inputs(2)
    return Function(slice_like, {"axes": attributes.ints("axes", ())})


class Crop(nn.Module):
    """Rows and columns from `offset` on, or of the middle: as many as a second input, or h_w."""

    def __init__(self, offset: tuple[int, ...], h_w: tuple[int, ...], center: bool) -> None:
        super().__init__()
        self.offset = offset
        self.h_w = h_w
        self.center = center

    def forward(self, data: Tensor, like: Tensor | None = None) -> Tensor:
        size = self.h_w if like is None else like.shape[2:]
        for axis, wanted, offset in zip((2, 3), size, self.offset, strict=True):
            room = data.shape[axis] - wanted
            first = room // 2 if self.center else offset
            if not 0 <= first <= room:
                raise ValueError(
                    f"a crop of {tuple(size)} at {self.offset} must fit in {tuple(data.shape)}"
                )
            data = data.narrow(axis, first, wanted)
        return data

    def extra_repr(self) -> str:
        return f"offset={self.offset}, h_w={self.h_w}, center={self.center}"


@operator("Crop")
def crop_operator(attributes: Attributes) -> Operation:
    offset = attributes.ints("offset", (0, 0))
    h_w = attributes.ints("h_w", (0, 0))
    center = attributes.flag("center_crop", False)
    attributes.ignore("num_args")
    attributes.need_inputs(1, 2)
    if len(offset) != 2 or len(h_w) != 2 or (attributes.count == 1 and min(h_w) < 1):
        raise ValueError(f"offset and h_w must be (y, x) and (h, w), got {offset} and {h_w}")
    return Layer(lambda shapes: Crop(offset, h_w, center))


@operator("Pad", "pad")
def pad(attributes: Attributes) -> Operation:
    mode = attributes.choice("mode", ("constant", "edge", "reflect"))
    widths = attributes.ints("pad_width")
    value = attributes.number("constant_value", 0.0)
    if len(widths) % 2 or any(width < 0 for width in widths):
        raise ValueError(f"pad_width must be pairs of sizes of at least 0, got {widths}")
    pairs = [widths[at : at + 2] for at in range(0, len(widths), 2)]
    reverse = [width for pair in pairs[::-1] for width in pair]
    if mode == "constant":
        return Function(F.pad, {"pad": tuple(reverse), "value": value})
    if any(widths[:4]) or len(pairs) not in (3, 4, 5):
        raise ValueError(f"pad_width of mode {mode} must be of spatial axes, got {widths}")
    kind = {"edge": "replicate", "reflect": "reflect"}[mode]
    return Function(F.pad, {"pad": tuple(reverse[:-4]), "mode": kind})
