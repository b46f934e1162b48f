"""Pooling in MXNet's conventions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mxdeconv import spec
from mxdeconv.porting.attributes import Attributes
from mxdeconv.porting.operators.table import Layer, Operation, Shapes, operator

_MAX: tuple[Any, ...] = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_AVG: tuple[Any, ...] = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_GLOBAL_MAX: tuple[Any, ...] = (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)
_GLOBAL_AVG: tuple[Any, ...] = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)


@operator("Pooling")
def pooling(attributes: Attributes) -> Operation:
    kernel = attributes.ints("kernel", ())
    kind = attributes.choice("pool_type", ("max", "avg", "sum", "lp"), "max")
    everywhere = attributes.flag("global_pool", False)
    convention = attributes.choice("pooling_convention", ("valid", "full", "same"), "valid")
    stride = attributes.ints("stride", ()) or (1,) * len(kernel)
    pad = attributes.ints("pad", ()) or (0,) * len(kernel)
    p_value = attributes.optional_integer("p_value")
    include_pad = attributes.flag("count_include_pad", True)
    layout = spec.parse_choice("layout", attributes.choice("layout", LAYOUTS, "None"), LAYOUTS[1:])
    attributes.ignore("cudnn_off")
    channels_last = layout is not None and layout[-1] == "C"
    if kind == "lp" and p_value not in (1, 2, 3):
        raise ValueError(f"p_value must be 1, 2 or 3 for pool_type lp, got {p_value}")
    if everywhere:
        return Layer(lambda shapes: _global(shapes, kernel, kind, p_value, channels_last))
    rank = len(kernel)
    if convention == "same" and not any(pad):  # MXNet reads three values there
        pad = (0,) * rank
    if not 1 <= rank <= 3:
        raise ValueError(f"kernel must have 1, 2 or 3 values, got {kernel}")
    if len(stride) != rank or len(pad) != rank:
        raise ValueError(f"stride and pad must have {rank} values, got {stride} and {pad}")
    if min(kernel) < 1 or min(stride) < 1 or min(pad) < 0:
        raise ValueError(
            "kernel and stride must be at least 1 and pad at least 0, "
            f"got {kernel}, {stride}, {pad}"
        )
    if convention == "same" and (any(pad) or rank != 1):
        raise ValueError("pooling_convention 'same' must have one spatial axis and no pad")
    # torch's pooling: padding up to half the kernel; its ceil_mode drops windows that start
    # behind the data, which happens only where stride > kernel - pad
    plain = all(2 * p <= k for k, p in zip(kernel, pad, strict=True)) and not channels_last
    ceil = convention == "full"
    if ceil:
        plain &= all(s <= k - p for k, s, p in zip(kernel, stride, pad, strict=True))
    if plain and convention != "same" and kind == "max":
        return Layer(lambda shapes: _MAX[rank - 1](kernel, stride, pad, ceil_mode=ceil))
    if plain and convention != "same" and kind == "avg":
        return Layer(lambda shapes: _AVG[rank - 1](kernel, stride, pad, ceil, include_pad))
    return Layer(
        lambda shapes: Pooling(
            *(kind, kernel, stride, pad, convention, include_pad, p_value, channels_last)
        )
    )


LAYOUTS = ("None", "NCW", "NCHW", "NCDHW", "NWC", "NHWC", "NDHWC")


def _global(
    shapes: Shapes, kernel: tuple[int, ...], kind: str, p_value: int | None, channels_last: bool
) -> nn.Module:
    data = shapes[0]
    rank = len(kernel) if data is None else len(data) - 2
    if 1 <= rank <= 3 and not channels_last and kind in ("max", "avg"):
        kinds = _GLOBAL_MAX if kind == "max" else _GLOBAL_AVG
        return kinds[rank - 1](1)  # type: ignore[no-any-return]
    return GlobalPooling(kind, p_value, channels_last)


class GlobalPooling(nn.Module):
    """Pooling over all of the spatial axes, which keep size 1."""

    def __init__(self, kind: str, p_value: int | None = None, channels_last: bool = False) -> None:
        super().__init__()
        self.kind = kind
        self.p_value = p_value
        self.channels_last = channels_last

    def forward(self, data: Tensor) -> Tensor:
        if self.channels_last:
            data = data.movedim(-1, 1)
        flat = data.flatten(2)
        if self.kind == "max":
            result = flat.max(2).values  # of equal values only one has a gradient
        elif self.kind == "avg":
            result = flat.mean(2)
        else:
            result = _root(_power(flat, self.kind, self.p_value).sum(2), self.kind, self.p_value)
        result = result.reshape(*result.shape, *[1] * (data.dim() - 2))
        return result.movedim(1, -1) if self.channels_last else result

    def extra_repr(self) -> str:
        return f"kind='{self.kind}', channels_last={self.channels_last}"


class Pooling(nn.Module):
    """Pooling where torch's modules have no place for MXNet's rule.

    Windows start at i*stride - pad for i below the size that the convention gives: valid rounds
    (n + 2*pad - kernel) / stride + 1 down, full up, same is ceil(n / stride). An average divides
    by the part of its window within the padded data, or within the data.
    """

    def __init__(
        self,
        kind: str,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        pad: tuple[int, ...],
        convention: str,
        count_include_pad: bool,
        p_value: int | None,
        channels_last: bool,
    ) -> None:
        super().__init__()
        self.kind, self.kernel, self.stride, self.pad = kind, kernel, stride, pad
        self.convention, self.count_include_pad = convention, count_include_pad
        self.p_value, self.channels_last = p_value, channels_last

    def output_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        result = []
        for n, k, s, p in zip(size, self.kernel, self.stride, self.pad, strict=True):
            if self.convention == "same":
                result.append((n + s - 1) // s)
                continue
            if k > n + 2 * p:
                raise ValueError(f"kernel {self.kernel} must fit in data of spatial size {size}")
            room = n + 2 * p - k
            result.append(1 + (room if self.convention == "valid" else room + s - 1) // s)
        return tuple(result)

    def forward(self, data: Tensor) -> Tensor:
        if self.channels_last:
            data = data.movedim(-1, 1)
        size = tuple(data.shape[2:])
        out = self.output_size(size)
        margins: list[int] = []
        for n, k, s, p, o in zip(size, self.kernel, self.stride, self.pad, out, strict=True):
            margins = [p, (o - 1) * s + k - n - p, *margins]
        if self.kind == "max":
            least = torch.finfo(data.dtype).min if data.dtype.is_floating_point else -(2**31)
            padded = F.pad(data, margins, value=least)
            result = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(size) - 1](
                padded, self.kernel, self.stride
            )
        else:
            terms = data if self.kind == "avg" else _power(data, self.kind, self.p_value)
            result = _window_sums(F.pad(terms, margins), self.kernel, self.stride)
            if self.kind == "avg":
                result = result / self._counts(size, out).to(result)  # an empty window gives 0
            else:
                result = _root(result, self.kind, self.p_value)
        return result.movedim(1, -1) if self.channels_last else result

    def _counts(self, size: tuple[int, ...], out: tuple[int, ...]) -> Tensor:
        counts = torch.ones(())
        for n, k, s, p, o in zip(size, self.kernel, self.stride, self.pad, out, strict=True):
            first = torch.arange(o) * s - p
            last = (first + k).clamp(max=n + p)
            if not self.count_include_pad:
                first, last = first.clamp(min=0), last.clamp(max=n)
            counts = counts.unsqueeze(-1) * (last - first)
        return counts.clamp(min=1)

    def extra_repr(self) -> str:
        return (
            f"'{self.kind}', kernel={self.kernel}, stride={self.stride}, pad={self.pad}, "
            f"convention='{self.convention}', count_include_pad={self.count_include_pad}, "
            f"p_value={self.p_value}, channels_last={self.channels_last}"
        )


def _window_sums(data: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    if len(kernel) == 1:
        return _window_sums(data.unsqueeze(-2), (1, *kernel), (1, *stride)).squeeze(-2)
    if len(kernel) == 2:
        return F.avg_pool2d(data, kernel, stride, divisor_override=1)
    return F.avg_pool3d(data, kernel, stride, divisor_override=1)


def _power(data: Tensor, kind: str, p_value: int | None) -> Tensor:
    if kind == "sum" or p_value is None:
        return data
    return data if p_value == 1 else data**p_value  # without abs: so MXNet defines it


def _root(sums: Tensor, kind: str, p_value: int | None) -> Tensor:
    if kind == "sum" or p_value == 1:
        return sums
    return sums.sqrt() if p_value == 2 else sums.sign() * sums.abs() ** (1 / 3)


@operator("_contrib_AdaptiveAvgPooling2D")
def adaptive_pooling(attributes: Attributes) -> Operation:
    size = attributes.ints("output_size", ()) or (1,)
    if len(size) > 2 or min(size) < 1:
        raise ValueError(f"output_size must be 1 or 2 sizes of at least 1, got {size}")
    size = size * 2 if len(size) == 1 else size
    return Layer(lambda shapes: nn.AdaptiveAvgPool2d(size))
