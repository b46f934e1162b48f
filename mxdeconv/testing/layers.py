"""Transposed convolutions that people run: one list for tests, benchmarks and examples.

The sizes are those of published networks (generators, image translation, segmentation, pose,
detection, super resolution, vocoders, volumes), with a batch that fits a small machine.
"""

from __future__ import annotations

from dataclasses import dataclass

from .problems import Problem, parse


@dataclass(frozen=True)
class Layer:
    """A named problem; ``problem.intent`` is the reason why it is in the list."""

    name: str
    family: str
    problem: Problem

    def __str__(self) -> str:
        return self.name


def _listed(text: str) -> tuple[Layer, ...]:
    """``# family`` lines, then pairs of lines: name and problem, reason."""
    layers: list[Layer] = []
    family = ""
    lines = iter(text.strip().splitlines())
    for line in lines:
        if line.startswith("# "):
            family = line[2:]
            continue
        name, problem = line.split()
        layers.append(Layer(name, family, parse(problem, intent=next(lines).strip())))
    return tuple(layers)


LAYERS = _listed(
    """
# GAN
dcgan-project n64g1c100k512-i1x1-w4x4-s1x1-p0x0-d1x1-a0x0-nchw
    latent vector to 4x4: the image is one pixel, the work is a product over the batch
dcgan-2 n16g1c1024k512-i4x4-w4x4-s2x2-p1x1-d1x1-a0x0-nchw
    a thousand channels on a 4x4 image: weights outweigh the data
dcgan-3 n16g1c512k256-i8x8-w4x4-s2x2-p1x1-d1x1-a0x0-nchw
    half the channels, twice the image: the balanced middle of a generator
dcgan-4 n16g1c256k128-i16x16-w4x4-s2x2-p1x1-d1x1-a0x0-nchw
    16x16: the first size where tiles of pixels fill
dcgan-rgb n16g1c128k3-i32x32-w4x4-s2x2-p1x1-d1x1-a0x0-nchw
    last layer of a generator: three filters leave most of a register tile idle
ebgan-64 n1g1c64k64-i128x128-w4x4-s2x2-p1x1-d1x1-a0x0-nchw
    128x128 image: writing the interleaved result costs as much as the sums
# image translation
pix2pix-64 n1g1c256k64-i64x64-w4x4-s2x2-p1x1-d1x1-a0x0-nchw
    decoder layer after a skip: many channels in, few out
pix2pix-rgb n1g1c128k3-i128x128-w4x4-s2x2-p1x1-d1x1-a0x0-nchw
    three filters over a large image
cyclegan-128 n1g1c256k128-i64x64-w3x3-s2x2-p1x1-d1x1-a1x1-nchw
    3x3 with stride 2 and adj: the phases have 1, 2, 2 and 4 taps
# segmentation
unet-up4 n1g1c1024k512-i28x28-w2x2-s2x2-p0x0-d1x1-a0x0-nchw
    kernel equals stride: no output is touched twice, a plain product and a scatter
unet-up1 n1g1c128k64-i112x112-w2x2-s2x2-p0x0-d1x1-a0x0-nchw
    the same on a large image: bound by memory
fcn32s n1g1c21k21-i16x16-w64x64-s32x32-p0x0-d1x1-a0x0-nchw
    64x64 kernel with stride 32: each phase has 2x2 taps, and there are 1024 phases
fcn8s n1g1c21k21-i70x70-w16x16-s8x8-p0x0-d1x1-a0x0-nchw
    16x16 kernel with stride 8 over a larger image, few channels
fcn32s-bilinear n1g21c21k21-i16x16-w64x64-s32x32-p16x16-d1x1-a0x0-nchw
    one kernel a channel, enlarging by 32: nothing but stores
# feature pyramid
bilinear-x2 n2g256c256k256-i64x64-w4x4-s2x2-p1x1-d1x1-a0x0-nchw
    one kernel a channel, enlarging by 2: the usual pyramid step
# segmentation
bilinear-x8 n1g21c21k21-i64x64-w16x16-s8x8-p4x4-d1x1-a0x0-nchw
    one kernel a channel, enlarging by 8: 64 phases
# pose
pose-1 n4g1c2048k256-i8x6-w4x4-s2x2-p1x1-d1x1-a0x0-nchw
    2048 channels on an 8x6 image: neither size is a multiple of a tile
pose-3 n4g1c256k256-i32x24-w4x4-s2x2-p1x1-d1x1-a0x0-nchw
    the same head after two enlargements
# detection
centernet-dla n2g64c64k64-i32x32-w4x4-s2x2-p1x1-d1x1-a0x0-nchw
    depthwise enlargement of a detector, channels few
# super resolution
fsrcnn-x3 n1g1c56k1-i85x85-w9x9-s3x3-p4x4-d1x1-a2x2-nchw
    one filter, 9x9 kernel, stride 3 with adj: the super-resolution output
# grouped
grouped-32 n4g32c256k256-i32x32-w4x4-s2x2-p1x1-d1x1-a0x0-nchw
    32 groups of 8 channels: tiles must not assume many channels
# dense
unit-stride n4g1c64k64-i56x56-w3x3-s1x1-p1x1-d1x1-a0x0-nchw
    stride 1: an ordinary convolution seen from its output
dilated n4g1c64k64-i56x56-w3x3-s1x1-p2x2-d2x2-a0x0-nchw
    stride 1 with dilation: one phase, sparse taps
strided-dilated n2g1c64k64-i28x28-w3x3-s2x2-p2x2-d2x2-a1x1-nchw
    stride 2 with dilation 2: three of the four phases are empty
pointwise n1g1c256k128-i28x28-w1x1-s1x1-p0x0-d1x1-a0x0-nchw
    one tap: the cost of everything around the product
# audio 1-D
hifigan-1 n4g1c512k256-i64-w16-s8-p4-d1-a0-ncw
    1-D, 16 taps with stride 8: two taps a phase
hifigan-3 n4g1c128k64-i4096-w4-s2-p1-d1-a0-ncw
    1-D, long signal, short kernel
wavegan-1 n8g1c1024k512-i16-w25-s4-p11-d1-a1-ncw
    1-D, 25 taps with stride 4: phases of six and seven taps
wavegan-wave n4g1c64k1-i4096-w25-s4-p11-d1-a1-ncw
    1-D, one filter: the waveform itself
istft n1g1c1026k1-i200-w1024-s256-p0-d1-a0-ncw
    1-D, 1024 taps, one filter: an inverse Fourier transform by overlap-add
# volume 3-D
vnet-up n1g1c128k64-i16x16x16-w2x2x2-s2x2x2-p0x0x0-d1x1x1-a0x0x0-ncdhw
    3-D, kernel equals stride
3dgan-2 n4g1c512k256-i4x4x4-w4x4x4-s2x2x2-p1x1x1-d1x1x1-a0x0x0-ncdhw
    3-D, 64 taps, many channels on a 4x4x4 volume
3dgan-4 n1g1c128k64-i16x16x16-w4x4x4-s2x2x2-p1x1x1-d1x1x1-a0x0x0-ncdhw
    3-D, 64 taps on a 16x16x16 volume
3dgan-voxel n4g1c64k1-i32x32x32-w4x4x4-s2x2x2-p1x1x1-d1x1x1-a0x0x0-ncdhw
    3-D, one filter: the occupancy grid
"""
)


def find_layer(name: str) -> Layer:
    """The layer called ``name``. Raises ValueError naming those that exist."""
    for layer in LAYERS:
        if layer.name == name:
            return layer
    raise ValueError(f"layer must be one of {', '.join(map(str, LAYERS))}, got {name!r}")
