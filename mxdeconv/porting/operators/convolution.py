"""Convolution, Deconvolution, and what enlarges: UpSampling, a Deconvolution if it is bilinear."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mxdeconv import spec
from mxdeconv.nn import Deconvolution
from mxdeconv.porting.attributes import Attributes
from mxdeconv.porting.operators.table import (
    Function,
    Layer,
    Operation,
    Shape,
    Shapes,
    known,
    operator,
)

_CONVOLUTIONS: tuple[Any, ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_META = torch.device("meta")


@operator("Convolution", "Convolution_v1")
def convolution(attributes: Attributes) -> Operation:
    parsed = _parse(attributes, no_bias=False)
    rank = len(parsed.kernel)

    def make(shapes: Shapes) -> nn.Module:
        weight = known(shapes, 1)
        per_group = weight[-1] if parsed.channels_last else weight[1]
        kinds = ChannelsLastConvolution if parsed.channels_last else _CONVOLUTIONS[rank - 1]
        return kinds(
            *(per_group * parsed.num_group, parsed.num_filter, parsed.kernel, parsed.stride),
            *(parsed.pad, parsed.dilate, parsed.num_group, not parsed.no_bias),
            device=_META,
        )

    def infer(data: Shape) -> Mapping[int, Shape]:
        per_group = parsed.channels(data) // parsed.num_group
        if parsed.channels_last:
            weight = (parsed.num_filter, *parsed.kernel, per_group)
        else:
            weight = (parsed.num_filter, per_group, *parsed.kernel)
        return {1: weight, 2: (parsed.num_filter,)}

    return Layer(make, _weight_and_bias(attributes, parsed.no_bias), infer)


@operator("Deconvolution")
def deconvolution(attributes: Attributes) -> Operation:
    given = {key: attributes.given[key] for key in spec.ATTRIBUTES if key in attributes.given}
    parsed = _parse(attributes, no_bias=True)

    def make(shapes: Shapes) -> nn.Module:
        channels = known(shapes, 1)[0]
        return Deconvolution.from_attrs(given, in_channels=channels, device=_META)

    def infer(data: Shape) -> Mapping[int, Shape]:
        return {1: parsed.weight_shape(parsed.channels(data)), 2: (parsed.num_filter,)}

    return Layer(make, _weight_and_bias(attributes, parsed.no_bias), infer)


def _parse(attributes: Attributes, *, no_bias: bool) -> spec.Attributes:
    given: dict[str, Any] = {"no_bias": no_bias}
    names: tuple[str, ...] = spec.ATTRIBUTES
    if not no_bias:  # Convolution, which has not all of them
        names = tuple([name for name in names if name not in ("adj", "target_shape")])
    for name in names:
        if attributes.has(name):
            given[name] = attributes.given[name]
    attributes.ignore(*names)
    return spec.parse(**given)


def _weight_and_bias(attributes: Attributes, no_bias: bool) -> dict[int, str]:
    attributes.need_inputs(2 if no_bias else 3)
    return {1: "weight"} if no_bias else {1: "weight", 2: "bias"}


class ChannelsLastConvolution(nn.Module):
    """Convolution of (N, *n, C) data; weight (out_channels, *kernel_size, C / groups)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, ...],
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        dilation: tuple[int, ...],
        groups: int,
        bias: bool,
        device: Any = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.dilation, self.groups = dilation, groups
        shape = (out_channels, *kernel_size, in_channels // groups)
        self.weight = nn.Parameter(torch.empty(shape, device=device))
        values = torch.zeros(out_channels, device=device)
        self.register_parameter("bias", nn.Parameter(values) if bias else None)

    def forward(self, data: Tensor) -> Tensor:
        arguments: tuple[Any, ...] = (
            *(data.movedim(-1, 1), self.weight.movedim(-1, 1), self.bias, self.stride),
            *(self.padding, self.dilation, False, [0] * len(self.stride), self.groups),
        )
        return torch.convolution(*arguments).movedim(1, -1)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"groups={self.groups}, bias={self.bias is not None}"
        )


# UpSampling -----------------------------------------------------------------------------------


@operator("UpSampling")
def upsampling(attributes: Attributes) -> Operation:
    scale = attributes.integer("scale", minimum=1)
    kind = attributes.choice("sample_type", ("nearest", "bilinear"))
    mode = attributes.choice("multi_input_mode", ("concat", "sum"), "concat")
    num_filter = attributes.integer("num_filter", 0)
    attributes.ignore("num_args", "workspace")
    if kind == "nearest":
        return Layer(lambda shapes: NearestUpSampling(scale, mode))
    attributes.need_inputs(2)
    kernel = 2 * scale - scale % 2
    pad = math.ceil((scale - 1) / 2)

    def make(shapes: Shapes) -> nn.Module:
        channels = known(shapes, 1)[0]
        if num_filter not in (0, channels):
            raise ValueError(f"num_filter must be the {channels} channels, got {num_filter}")
        return Deconvolution(
            num_filter=channels,
            kernel=(kernel, kernel),
            stride=(scale, scale),
            pad=(pad, pad),
            num_group=channels,
            in_channels=channels,
            device=_META,
        )

    return Layer(make, {1: "weight"}, lambda data: {1: (data[1], 1, kernel, kernel)})


class NearestUpSampling(nn.Module):
    """Repeats rows and columns `scale` times; further inputs are enlarged to the same size."""

    def __init__(self, scale: int, mode: str = "concat") -> None:
        super().__init__()
        self.scale = scale
        self.mode = mode

    def forward(self, *inputs: Tensor) -> Tensor:
        height = inputs[0].shape[2] * self.scale
        enlarged = [_repeat(data, height // data.shape[2]) for data in inputs]
        if len(enlarged) == 1:
            return enlarged[0]
        if self.mode == "concat":
            return torch.cat(enlarged, 1)
        total = enlarged[0]
        for each in enlarged[1:]:
            total = total + each
        return total

    def extra_repr(self) -> str:
        return f"scale={self.scale}" + ("" if self.mode == "concat" else f", mode='{self.mode}'")


def _repeat(data: Tensor, scale: int) -> Tensor:
    batch, channels, height, width = data.shape
    tall = data[:, :, :, None, :, None].expand(-1, -1, -1, scale, -1, scale)
    return tall.reshape(batch, channels, height * scale, width * scale)


def resize(
    data: Tensor,
    like: Tensor | None = None,
    size: tuple[int, int] = (0, 0),
    scale: tuple[float | None, float | None] = (None, None),
    align_corners: bool = True,
) -> Tensor:
    """Bilinear interpolation to a size, by a scale, or to the size of `like`."""
    wanted = list(size if like is None else like.shape[2:])
    for axis, factor in enumerate(scale):
        if factor is not None:
            wanted[axis] = int(data.shape[axis + 2] * factor)
    return F.interpolate(data, wanted, mode="bilinear", align_corners=align_corners)


@operator("_contrib_BilinearResize2D")
def resize_operator(attributes: Attributes) -> Operation:
    mode = attributes.choice("mode", ("size", "like"), "size")
    size = attributes.integer("height", 1), attributes.integer("width", 1)
    scale = attributes.optional_number("scale_height"), attributes.optional_number("scale_width")
    align_corners = attributes.flag("align_corners", True)
    attributes.need_inputs(1 if mode == "size" else 2)
    keywords: dict[str, Any] = {"align_corners": align_corners}
    if mode == "size":
        keywords |= {"size": size, "scale": scale}
    return Function(resize, keywords)
