"""Deconvolution problems under names that can be parsed back, for tests, benchmarks and examples.

A problem is everything that decides the work of a call except dtype and values. Its name decodes
completely: ``n2g1c24k40-i7x9-w3x4-s2x3-p1x0-d1x2-a1x0-nchw`` is batch 2, 1 group, 24 channels,
40 filters, input 7x9, kernel (window) 3x4, stride 2x3, pad 1x0, dilate 1x2, adj 1x0, layout NCHW.

This module needs the standard library only, so that the MXNet recorder can use it without torch.
The sizes follow the operator's definition and deliberately share no code with the engine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from math import gcd, prod

CHANNELS_FIRST = {1: "NCW", 2: "NCHW", 3: "NCDHW"}
CHANNELS_LAST = {1: "NWC", 2: "NHWC", 3: "NDHWC"}

_SIZES = r"\d+(?:x\d+){0,2}"
_NAME = re.compile(
    r"n(?P<batch>\d+)g(?P<num_group>\d+)c(?P<channels>\d+)k(?P<num_filter>\d+)"
    rf"-i(?P<in_size>{_SIZES})-w(?P<kernel>{_SIZES})-s(?P<stride>{_SIZES})"
    rf"-p(?P<pad>{_SIZES})-d(?P<dilate>{_SIZES})-a(?P<adj>{_SIZES})-(?P<layout>n[cdhw]+)"
)


@dataclass(frozen=True)
class Problem:
    """One deconvolution: shapes and geometry. ``intent`` says what it is there to try.

    Two problems are equal when their names are; the intent is a remark, not part of the value.
    Raises ValueError where the sizes do not fit together.
    """

    batch: int
    channels: int
    num_filter: int
    num_group: int
    in_size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    dilate: tuple[int, ...]
    adj: tuple[int, ...]
    layout: str
    intent: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        per_axis = (self.kernel, self.stride, self.pad, self.dilate, self.adj)
        if any(len(values) != self.rank for values in per_axis):
            raise ValueError(f"every geometry must have {self.rank} values, got {per_axis}")
        if self.layout not in (CHANNELS_FIRST[self.rank], CHANNELS_LAST[self.rank]):
            raise ValueError(f"layout must fit {self.rank} spatial axes, got {self.layout!r}")
        if self.channels % self.num_group or self.num_filter % self.num_group:
            raise ValueError(
                f"num_group must divide channels {self.channels} and num_filter "
                f"{self.num_filter}, got {self.num_group}"
            )
        if min(self.out_size) < 0:
            raise ValueError(f"pad must leave an output size of at least 0, got {self.out_size}")

    def __str__(self) -> str:
        def cross(values: tuple[int, ...]) -> str:
            return "x".join(map(str, values))

        return (
            f"n{self.batch}g{self.num_group}c{self.channels}k{self.num_filter}"
            f"-i{cross(self.in_size)}-w{cross(self.kernel)}-s{cross(self.stride)}"
            f"-p{cross(self.pad)}-d{cross(self.dilate)}-a{cross(self.adj)}-{self.layout.lower()}"
        )

    @property
    def rank(self) -> int:
        """Number of spatial axes: 1, 2 or 3."""
        return len(self.in_size)

    @property
    def is_channels_last(self) -> bool:
        return self.layout == CHANNELS_LAST[self.rank]

    @property
    def full_size(self) -> tuple[int, ...]:
        """Output size before cropping: s*(n-1) + d*(k-1) + 1 on every axis."""
        return tuple(
            s * (n - 1) + d * (k - 1) + 1
            for n, k, s, d in zip(self.in_size, self.kernel, self.stride, self.dilate, strict=True)
        )

    @property
    def out_size(self) -> tuple[int, ...]:
        """Spatial size of the output: the full size less twice the pad plus adj."""
        return tuple(
            full - 2 * p + a for full, p, a in zip(self.full_size, self.pad, self.adj, strict=True)
        )

    def _in_layout(self, first: int, channels: int, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if self.is_channels_last:
            return (first, *sizes, channels)
        return (first, channels, *sizes)

    @property
    def data_shape(self) -> tuple[int, ...]:
        """Shape of data in the problem's layout."""
        return self._in_layout(self.batch, self.channels, self.in_size)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """(C, F/g, *kernel), or (C, *kernel, F/g) for a channels-last layout."""
        return self._in_layout(self.channels, self.num_filter // self.num_group, self.kernel)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of the output in the problem's layout."""
        return self._in_layout(self.batch, self.num_filter, self.out_size)

    @property
    def arguments(self) -> dict[str, object]:
        """The operator's attributes under MXNet's names (without no_bias)."""
        return {
            "kernel": self.kernel,
            "stride": self.stride,
            "dilate": self.dilate,
            "pad": self.pad,
            "adj": self.adj,
            "num_filter": self.num_filter,
            "num_group": self.num_group,
            "layout": self.layout,
        }

    @property
    def values(self) -> int:
        """Elements of data, weight and output together."""
        return prod(self.data_shape) + prod(self.weight_shape) + prod(self.out_shape)

    @property
    def products(self) -> int:
        """Multiplications of one pass before cropping; twice that is its nominal flop count."""
        per_pixel = self.channels * (self.num_filter // self.num_group) * prod(self.kernel)
        return self.batch * prod(self.in_size) * per_pixel

    @property
    def forward_terms(self) -> int:
        """The most products that meet in one output value (bias not counted).

        Per axis at most every stride/gcd(stride, dilate)-th tap reaches a given output, and no
        more taps than there are inputs.
        """
        taps = prod(
            min(n, -(-k // (s // gcd(s, d))))
            for n, k, s, d in zip(self.in_size, self.kernel, self.stride, self.dilate, strict=True)
        )
        return self.channels // self.num_group * taps

    @property
    def data_terms(self) -> int:
        """The most products that meet in one value of the data gradient."""
        return self.num_filter // self.num_group * prod(self.kernel)

    @property
    def weight_terms(self) -> int:
        """The most products that meet in one value of the weight gradient."""
        return self.batch * prod(self.in_size)

    @property
    def bias_terms(self) -> int:
        """The number of values added up in one value of the bias gradient."""
        return self.batch * prod(self.out_size)


def parse(name: str, intent: str = "") -> Problem:
    """The problem that ``name`` spells; ``str()`` of it is ``name`` again.

    Raises ValueError for text that is no such name.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(
            "problem name must look like n2g1c24k40-i7x9-w3x4-s2x3-p1x0-d1x2-a1x0-nchw, "
            f"got {name!r}"
        )

    def sizes(key: str) -> tuple[int, ...]:
        return tuple(map(int, match[key].split("x")))

    return Problem(
        batch=int(match["batch"]),
        channels=int(match["channels"]),
        num_filter=int(match["num_filter"]),
        num_group=int(match["num_group"]),
        in_size=sizes("in_size"),
        kernel=sizes("kernel"),
        stride=sizes("stride"),
        pad=sizes("pad"),
        dilate=sizes("dilate"),
        adj=sizes("adj"),
        layout=match["layout"].upper(),
        intent=intent,
    )


def _listed(lines: str) -> tuple[Problem, ...]:
    """One problem a line: its name, white space, its intent."""
    return tuple(parse(*line.split(maxsplit=1)) for line in lines.strip().splitlines())


SMOKE = _listed(
    """
n2g1c3k4-i5-w3-s2-p1-d1-a1-ncw                          1-D, odd kernel with adj
n1g1c3k2-i4x5-w4x4-s2x2-p1x1-d1x1-a0x0-nchw             2-D, the common upsampling by two
n2g2c4k6-i3x4-w3x2-s2x1-p1x0-d2x1-a1x0-nchw             2-D, groups, every geometry uneven
n1g1c2k3-i2x3x2-w2x3x2-s2x1x2-p0x1x0-d1x1x1-a0x0x1-ncdhw 3-D
n2g1c3k5-i4x3-w3x3-s2x2-p1x1-d1x1-a1x1-nhwc             channels last
n1g4c4k8-i4x4-w4x4-s2x2-p1x1-d1x1-a0x0-nchw             depthwise with multiplier 2
"""
)
"""A few seconds on every engine: one problem for each large branch."""


SMALL = SMOKE + _listed(
    """
n1g1c1k1-i1-w1-s1-p0-d1-a0-ncw                          the least: one product
n1g1c1k1-i1x1-w1x1-s1x1-p0x0-d1x1-a0x0-nchw             the least in 2-D
n1g1c1k1-i1x1x1-w1x1x1-s1x1x1-p0x0x0-d1x1x1-a0x0x0-ncdhw the least in 3-D
n1g1c3k5-i4x6-w1x1-s1x1-p0x0-d1x1-a0x0-nchw             unit kernel, unit stride: a plain product
n1g1c3k5-i4x6-w1x1-s3x2-p0x0-d1x1-a0x0-nchw             unit kernel, stride 3x2: empty phases
n1g1c3k5-i4x6-w1x1-s3x2-p1x1-d1x1-a2x1-nchw             unit kernel, cropped, adj at its maximum
n2g1c5k4-i9-w2-s5-p0-d1-a4-ncw                          kernel < stride: three empty phases, adj
n2g1c5k3-i3x4-w2x2-s3x4-p0x0-d1x1-a0x0-nchw             kernel < stride on both axes
n2g1c5k3-i5x4-w2x2-s2x2-p0x0-d1x1-a0x0-nchw             kernel == stride: no overlap
n1g1c4k6-i4x4-w3x3-s3x3-p1x1-d1x1-a0x0-nchw             kernel == stride, cropped
n1g1c4k6-i6x5-w3x3-s1x1-p1x1-d1x1-a0x0-nchw             stride 1: one phase
n1g1c4k6-i6x5-w3x3-s1x1-p2x2-d1x1-a0x0-nchw             stride 1, pad k-1: no overhang
n1g1c4k6-i6x7-w3x3-s1x1-p3x4-d1x1-a0x0-nchw             pad > kernel-1: inputs cropped away whole
n2g1c3k3-i5x6-w3x2-s2x3-p4x5-d1x1-a0x1-nchw             pad > kernel with stride
n1g1c3k4-i5x5-w3x3-s1x1-p2x2-d2x2-a0x0-nchw             dilation alone
n1g1c3k4-i5x4-w3x2-s1x1-p0x0-d3x5-a0x0-nchw             dilation longer than the image
n1g1c3k4-i4x5-w3x3-s2x2-p2x2-d2x2-a1x1-nchw             stride 2, dilate 2: gcd 2, phases 1 empty
n2g1c3k4-i4x3-w3x3-s4x6-p1x3-d2x4-a3x5-nchw             gcd(4,2)=2, gcd(6,4)=2: more empty phases
n1g1c3k4-i4x4-w4x3-s2x3-p1x2-d3x2-a1x2-nchw             stride and dilate coprime
n2g1c2k3-i7-w5-s6-p4-d9-a5-ncw                          1-D, gcd(6,9)=3
n2g1c2k3-i6-w7-s3-p2-d3-a2-ncw                          1-D, dilate == stride
n2g1c3k2-i4x4-w3x3-s3x2-p0x0-d1x1-a2x1-nchw             adj > pad: zero rows appended
n2g1c3k2-i1x1-w2x1-s4x5-p0x0-d1x1-a3x4-nchw             adj > pad: most of the output is bias
n2g1c3k2-i2x3-w2x2-s3x3-p1x1-d1x1-a2x2-nchw             adj > pad > 0
n3g1c16k8-i1x1-w4x4-s1x1-p0x0-d1x1-a0x0-nchw            1x1 input: a latent projection
n3g1c4k8-i1x1-w4x4-s2x2-p1x1-d1x1-a0x0-nchw             1x1 input, cropped to the middle
n5g1c4k3-i1-w5-s2-p2-d1-a0-ncw                          output of one value
n1g1c3k2-i2x2-w1x2-s2x1-p1x1-d1x1-a0x0-nchw             output 1x1
n2g1c3k2-i3x2-w2x2-s1x2-p2x1-d1x1-a0x0-nchw             output 0x2
n2g1c3k2-i2x2-w2x2-s2x2-p2x2-d1x1-a0x0-nchw             output 0x0
n2g1c3k2-i2-w2-s2-p2-d1-a0-ncw                          output 0, 1-D
n2g1c3k2-i2-w2-s2-p2-d1-a1-ncw                          output 1, from adj alone
n0g1c3k2-i4x3-w3x3-s2x2-p1x1-d1x1-a1x1-nchw             batch 0
n0g2c4k2-i4-w3-s2-p1-d1-a1-ncw                          batch 0, groups, 1-D
n7g1c2k3-i2x2-w2x2-s1x1-p0x0-d1x1-a0x0-nchw             more images than pixels
n1g1c17k9-i3x3-w2x2-s2x2-p0x0-d1x1-a0x0-nchw            channel remainder 1 over 16 and over 8
n1g1c15k31-i3x3-w2x2-s1x1-p0x0-d1x1-a0x0-nchw           channel remainder -1
n1g1c33k1-i4x5-w3x3-s2x2-p1x1-d1x1-a1x1-nchw            one filter
n1g1c1k33-i4x5-w3x3-s2x2-p1x1-d1x1-a1x1-nchw            one channel
n1g1c24k40-i3x3-w3x4-s2x3-p1x0-d1x1-a1x0-nchw           whole tiles of filters
n1g1c2k2-i1x37-w1x4-s1x2-p0x1-d1x1-a0x0-nchw            one row, columns 37: remainder in the tile
n1g1c2k3-i37x1-w4x1-s2x1-p1x0-d1x1-a0x0-nchw            one column
n1g1c2k3-i11x13-w4x4-s2x2-p1x1-d1x1-a0x0-nchw           odd image: remainder in both tile axes
n1g1c2k1-i9x8-w9x9-s3x3-p4x4-d1x1-a2x2-nchw             long kernel, one filter
n1g1c3k1-i6-w64-s16-p0-d1-a0-ncw                        very long kernel, 1-D
n2g1c18k2-i70-w11-s4-p3-d1-a2-ncw                       few filters, many channels: taps in a row
n1g1c17k1-i5x26-w4x9-s2x3-p1x4-d1x2-a0x1-nchw           the same in 2-D, dilated
n1g1c2k19-i4x21-w3x8-s1x3-p1x2-d1x1-a0x1-nchw           few channels under many filters
n1g1c1k16-i3x40-w2x5-s2x4-p1x3-d1x2-a0x0-nchw           the same, gcd(4,2)=2
n1g1c2k2-i3x3-w16x16-s8x8-p4x4-d1x1-a0x0-nchw           large stride
n1g3c3k3-i3x4-w16x16-s8x8-p4x4-d1x1-a0x0-nchw           depthwise bilinear by 8
n2g5c5k5-i5x6-w3x3-s2x2-p1x1-d1x1-a1x1-nchw             depthwise, odd channels
n2g3c3k9-i4x5-w3x4-s2x3-p1x0-d2x1-a1x2-nchw             depthwise with multiplier 3, dilated
n2g3c9k3-i4x5-w3x4-s2x3-p1x0-d2x1-a1x2-nchw             one filter a group, three channels
n2g3c9k15-i4x5-w3x3-s2x2-p1x1-d1x1-a1x1-nchw            groups with odd channels
n1g2c34k18-i3x2-w2x3-s1x2-p0x1-d1x1-a0x1-nchw           groups with channel remainder 1
n2g7c7k14-i9-w4-s2-p1-d1-a0-ncw                         groups in 1-D
n2g1c3k5-i9-w4-s2-p1-d1-a0-nwc                          channels last in 1-D
n1g1c17k9-i3x4-w2x3-s2x1-p1x1-d2x1-a0x0-nhwc            channels last, channel remainder
n2g3c9k6-i4x3-w3x3-s2x2-p1x1-d1x1-a1x1-nhwc             channels last, groups
n2g5c5k5-i4x3-w4x4-s2x2-p1x1-d1x1-a0x0-nhwc             channels last, depthwise
n1g1c3k4-i3x2x3-w3x2x2-s2x2x1-p1x0x1-d1x1x1-a1x1x0-ndhwc channels last in 3-D
n1g2c4k2-i2x3x2-w2x2x3-s3x1x2-p0x1x2-d1x2x1-a2x0x1-ncdhw 3-D, groups, every axis different
n2g3c3k3-i3x2x2-w2x3x2-s2x2x2-p1x1x0-d1x1x1-a0x1x1-ncdhw 3-D, depthwise
n1g1c2k3-i2x2x3-w3x3x2-s2x2x4-p2x2x1-d2x2x2-a1x1x3-ncdhw 3-D, gcd 2 on every axis
n1g1c2k2-i3x4x1-w2x1x1-s1x2x3-p2x0x0-d1x1x1-a0x0x0-ncdhw 3-D, output size 0 on one axis
n1g1c2k3-i1x5x4-w1x4x4-s1x2x2-p0x1x1-d1x1x1-a0x0x0-ncdhw 3-D with a unit axis: 2-D in disguise
"""
)
"""Small enough for scalar loops; each is there for what its intent says. Includes SMOKE."""
