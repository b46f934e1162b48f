"""A tensor of more than 2^31 elements: every offset needs 64 bits. 9 GB of memory."""

from __future__ import annotations

import os

import pytest
import torch

COUNT = 2**31 + 2**17
SHAPE = (1, 1, 2**15 + 2, 2**16)
AVAILABLE = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(AVAILABLE < 10 << 30, reason="needs 10 GB of free memory"),
]
UNIT = (1, 1), (1, 1), (0, 0), (0, 0), 1, 512, None, False
# both ends, both sides of 2^31, and something in between
POSITIONS = (0, 1, 2**20 + 7, 2**31 - 1, 2**31, 2**31 + 1, COUNT - 1)


def test_more_elements_than_32_bits_count() -> None:
    """1x1 kernel of value 3 in bfloat16: forward, data gradient and weight gradient."""
    assert torch.Size(SHAPE).numel() == COUNT
    data = torch.zeros(SHAPE, dtype=torch.bfloat16)
    flat = data.view(-1)
    for number, position in enumerate(POSITIONS):
        flat[position] = number + 1
    weight = torch.full((1, 1, 1, 1), 3, dtype=torch.bfloat16)
    total = sum((number + 1) ** 2 for number in range(len(POSITIONS)))
    grad = torch.ops.mxdeconv.deconvolution_weight(data, data, *UNIT)
    assert grad.item() == total  # 140: exact in bfloat16
    for op in (
        lambda: torch.ops.mxdeconv.deconvolution(data, weight, None, *UNIT),
        lambda: torch.ops.mxdeconv.deconvolution_data(weight, data, *UNIT),
    ):
        out = op().view(-1)
        assert [out[position].item() for position in POSITIONS] == [
            3 * (number + 1) for number in range(len(POSITIONS))
        ]
        assert int(out.count_nonzero()) == len(POSITIONS)
        del out


def test_an_output_far_larger_than_the_input() -> None:
    """Stride 2^30 in 1-D, float16: outputs 2^30 apart, everything between is the bias."""
    data = torch.tensor([[[1.0, 2.0, 3.0]]], dtype=torch.float16)
    weight = torch.tensor([[[1.0, 10.0]]], dtype=torch.float16)
    bias = torch.tensor([0.5], dtype=torch.float16)
    arguments = (2**30,), (1,), (0,), (0,), 1, 512, None, False
    out = torch.ops.mxdeconv.deconvolution(data, weight, bias, *arguments).flatten()
    assert out.numel() == 2**31 + 2
    for number in range(3):
        assert out[number * 2**30].item() == number + 1 + 0.5
        assert out[number * 2**30 + 1].item() == 10 * (number + 1) + 0.5
    assert int((out != 0.5).sum()) == 6
