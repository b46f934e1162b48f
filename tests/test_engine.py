"""The CPU engine through the raw operators: exact values, memory, and what decides no bit."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from itertools import product
from math import prod
from pathlib import Path

import pytest
import torch
from passes import (
    CONV_TRANSPOSE,
    DTYPES,
    NAMES,
    PLACES,
    arguments_of,
    as_channels_last,
    as_contiguous,
    error_bounds,
    filtered_passes,
    in_order,
    run_passes,
    torch_passes,
)
from torch import Tensor

import mxdeconv
from mxdeconv import ops
from mxdeconv.testing import LAYERS, SMALL, Operands, Problem, integer_data, random_data


def with_few_groups(problem: Problem) -> Problem:
    """The same layer with at most four of its groups, all alike: torch is slow on hundreds."""
    groups = min(problem.num_group, 4)
    return replace(
        problem,
        num_group=groups,
        channels=problem.channels // problem.num_group * groups,
        num_filter=problem.num_filter // problem.num_group * groups,
    )


# Real layers that take well under a second: large enough for several chunks, tiles and workers.
REAL = [with_few_groups(layer.problem) for layer in LAYERS if layer.problem.products <= 2**26]


@cache
def exact(problem: Problem, dtype: torch.dtype) -> tuple[Operands, dict[str, Tensor]]:
    """Integer operands, and every pass exactly: torch's float64 integers, rounded once."""
    operands = in_order(integer_data(problem, dtype), problem)
    results = torch_passes(problem, operands)
    return operands, {name: value.to(dtype) for name, value in results.items()}


@pytest.mark.parametrize("problem", SMALL, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.usefixtures("poison", "restored_threads")
def test_integers_are_exact(isa: str, dtype: torch.dtype, problem: Problem) -> None:
    """On every instruction set, for one thread and two, wherever the tensors lie."""
    operands, expected = exact(problem, dtype)
    for threads, place in product((1, 2), PLACES):
        torch.set_num_threads(threads)
        got = run_passes(problem, Operands(*map(PLACES[place], operands)))
        for name in NAMES:
            assert got[name].dtype == dtype
            assert torch.equal(got[name], expected[name]), (name, threads, place)


@pytest.mark.usefixtures("poison")
def test_poison_is_there() -> None:
    """The memory that the tests of this file read from is full of NaN until it is written."""
    assert torch.empty(100).isnan().all()


@pytest.mark.parametrize("problem", SMALL, ids=str)
@pytest.mark.usefixtures("poison")
def test_operands_in_different_places(problem: Problem) -> None:
    """Data, weight and gradient need not lie alike."""
    operands, expected = exact(problem, torch.float32)
    for one, other in product(PLACES.values(), repeat=2):
        got = run_passes(
            problem,
            Operands(one(operands.data), other(operands.weight), operands.bias, other(operands[3])),
        )
        for name in NAMES:
            assert torch.equal(got[name], expected[name]), name


@pytest.mark.parametrize("problem", SMALL, ids=str)
@pytest.mark.usefixtures("poison")
def test_expanded_operands(isa: str, problem: Problem) -> None:
    """Tensors whose axes have stride 0: a gradient of sum(), one kernel for all channels, ..."""
    operands, _ = exact(problem, torch.float32)
    for axes in [(0,), (1,), (-1,), (0, 1), tuple(range(operands.data.dim()))]:

        def expand(tensor: Tensor, axes: tuple[int, ...] = axes) -> Tensor:
            if tensor.numel() == 0:
                return tensor
            kept = tensor
            for axis in axes:
                kept = kept.narrow(axis, 0, 1)
            return kept.expand(tensor.shape)

        data, weight, bias, out_grad = operands
        expanded = Operands(
            expand(data), expand(weight), bias[:1].expand(bias.shape), expand(out_grad)
        )
        expected = torch_passes(problem, expanded)
        got = run_passes(problem, expanded)
        for name in NAMES:
            assert torch.equal(got[name].double(), expected[name]), (name, axes)


@pytest.mark.parametrize("problem", SMALL, ids=str)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.usefixtures("poison")
def test_into_a_given_tensor(isa: str, place: str, problem: Problem) -> None:
    """Exact, wherever the given tensor lies, and nothing beside it is written."""
    (data, weight, bias, _), expected = exact(problem, torch.float32)
    out = PLACES[place](torch.full_like(expected["out"], 7.0))
    ops.deconvolution_into(data, weight, bias, arguments_of(problem), out)
    assert torch.equal(out, expected["out"])
    if place == "slice" and out.numel():
        whole = torch.as_strided(out, (out.storage_offset() + 1,), (1,), 0)
        assert whole[: out.storage_offset()].isnan().all()
        count = out.untyped_storage().nbytes() // out.element_size()
        every = torch.as_strided(out, (count,), (1,), 0)
        assert int(every.isnan().sum()) == count - out.numel()


@cache
def rounded(
    problem: Problem, dtype: torch.dtype
) -> tuple[Operands, dict[str, Tensor], dict[str, Tensor]]:
    """Random operands, the float64 results and how far from them a result may lie."""
    operands = in_order(random_data(problem, dtype), problem)
    return (
        operands,
        torch_passes(problem, operands),
        error_bounds(problem, operands, filtered_passes(problem, operands)),
    )


@pytest.mark.parametrize("problem", SMALL, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_random_values_within_the_bound(isa: str, dtype: torch.dtype, problem: Problem) -> None:
    """Channels first and channels last: the order of summation may differ, the bound not."""
    operands, expected, bounds = rounded(problem, dtype)
    for place in (as_contiguous, as_channels_last):
        got = run_passes(problem, Operands(*map(place, operands)))
        for name in NAMES:
            assert torch.all((got[name].double() - expected[name]).abs() <= bounds[name]), name


@pytest.mark.parametrize("problem", REAL, ids=str)
def test_layers_within_the_bound(isa: str, problem: Problem) -> None:
    operands, expected, bounds = rounded(problem, torch.float32)
    got = run_passes(problem, operands)
    for name in NAMES:
        assert torch.all((got[name].double() - expected[name]).abs() <= bounds[name]), name


@pytest.mark.parametrize("problem", [*SMALL, *REAL], ids=str)
@pytest.mark.usefixtures("restored_threads")
def test_threads_and_workspace_change_no_bit(problem: Problem) -> None:
    operands = in_order(random_data(problem, torch.float32), problem)
    torch.set_num_threads(1)
    expected = run_passes(problem, operands)
    # Without room for its weights minimal filtering gives way to the direct sum.
    filtered = filtered_passes(problem, operands)
    for threads, workspace in [(1, 0), (1, 1), (2, 512), (2, 0), (3, 1), (5, 512)]:
        torch.set_num_threads(threads)
        got = run_passes(problem, operands, workspace)
        for name in NAMES if workspace == 512 else set(NAMES) - filtered:
            assert torch.equal(got[name], expected[name]), (name, threads, workspace)


# Formats -------------------------------------------------------------------------------------


def unit_call(data: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A deconvolution of kernel 1 over the vectors data and weight: products, plus a bias."""
    problem = (1,), (1,), (0,), (0,), 1, 512, None, False
    return torch.ops.mxdeconv.deconvolution(
        data.reshape(1, -1, 1), weight.reshape(-1, 1, 1), bias, *problem
    ).flatten()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_subnormal_numbers_are_kept(isa: str, dtype: torch.dtype) -> None:
    info = torch.finfo(dtype)
    least = torch.tensor([info.smallest_normal * info.eps], dtype=dtype)
    assert least > 0
    one = torch.ones(1, dtype=dtype)
    assert torch.equal(unit_call(least, one), least)
    assert torch.equal(unit_call(one, least), least)
    assert torch.equal(unit_call(one, 0 * one, least), least)
    factor = torch.tensor([2.0**-3], dtype=dtype)
    assert torch.equal(unit_call(8 * least, factor), least)


def test_subnormal_numbers_in_pairs(isa: str) -> None:
    """Products of pairs take subnormal bfloat16 numbers for zero; no other product does."""
    channels, size = 32, (4, 16)
    least = torch.finfo(torch.bfloat16).smallest_normal / 2**7
    data = torch.full((1, channels, *size), least, dtype=torch.bfloat16)
    ones = torch.ones(channels, channels, 1, 1, dtype=torch.bfloat16)
    problem = (1, 1), (1, 1), (0, 0), (0, 0), 1, 512, None, False
    expected = torch.full_like(data, 0 if isa == "avx512_bf16" else channels * least)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = data.contiguous(memory_format=memory_format)
        ops = torch.ops.mxdeconv
        assert torch.equal(ops.deconvolution(x, ones, None, *problem), expected)
        assert torch.equal(ops.deconvolution_data(ones, x, *problem), expected)
        grad = ops.deconvolution_weight(x, torch.ones_like(x), *problem)
        sums = 0 if isa == "avx512_bf16" else size[0] * size[1] * least
        assert torch.equal(grad, torch.full_like(ones, sums))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_overflow_and_ties(isa: str, dtype: torch.dtype) -> None:
    """The largest number stays, twice it is infinite, a tie goes to even."""
    info = torch.finfo(dtype)

    def of(*values: float) -> Tensor:
        return torch.tensor(values, dtype=dtype)

    assert torch.equal(unit_call(of(info.max), of(1)), of(info.max))
    assert torch.equal(unit_call(of(info.max), of(2)), of(float("inf")))
    assert torch.equal(unit_call(of(-info.max, -info.max), of(1, 1)), of(float("-inf")))
    half, step = info.eps / 2, info.eps
    assert torch.equal(unit_call(of(1, half), of(1, 1)), of(1))
    assert torch.equal(unit_call(of(1 + step, half), of(1, 1)), of(1 + 2 * step))
    if dtype in (torch.float16, torch.bfloat16):
        # one float32 step above the tie: rounding in two steps would lose it
        above = of(1, half, half * 2**-8)
        assert torch.equal(unit_call(above, of(1, 1, 1)), of(1 + step))


# The result's memory format ------------------------------------------------------------------


def is_channels_last(tensor: Tensor) -> bool:
    """Whether torch takes the tensor for channels-last; it asks 1-D with a unit axis inserted."""
    whole = tensor.unsqueeze(2) if tensor.dim() == 3 else tensor
    last = {4: torch.channels_last, 5: torch.channels_last_3d}[whole.dim()]
    return whole.is_contiguous(memory_format=last) and not whole.is_contiguous()


# torch refuses some of the problems without a result.
PLANAR = [p for p in SMALL if p.rank == 2 and p.batch and prod(p.out_size)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("problem", PLANAR, ids=str)
def test_memory_format_is_torch_s(dtype: torch.dtype, problem: Problem) -> None:
    """The strides that torch's conv_transpose2d gives for the same tensors."""
    (data, weight, _, _), _ = exact(problem, dtype)
    for one, other in product(PLACES.values(), repeat=2):
        theirs = CONV_TRANSPOSE[2](
            one(data),
            other(weight),
            stride=problem.stride,
            padding=problem.pad,
            output_padding=problem.adj,
            groups=problem.num_group,
            dilation=problem.dilate,
        )
        ours = ops.deconvolution(one(data), other(weight), None, arguments_of(problem))
        assert ours.stride() == theirs.stride()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_memory_format_is_channels_last_if_an_operand_is(rank: int, dtype: torch.dtype) -> None:
    """One rule for every rank, dtype and pass; torch keeps its own in 2-D only."""
    args = (2,) * rank, (1,) * rank, (1,) * rank, (1,) * rank, 1, 512, None, False
    data = torch.ones(2, 3, *(4,) * rank, dtype=dtype)
    weight = torch.ones(3, 5, *(3,) * rank, dtype=dtype)
    out_grad = torch.ones(2, 5, *(8,) * rank, dtype=dtype)
    places = (as_contiguous, as_channels_last)
    for one, other in product(places, repeat=2):
        expected = as_channels_last in (one, other)
        for result in (
            torch.ops.mxdeconv.deconvolution(one(data), other(weight), None, *args),
            torch.ops.mxdeconv.deconvolution_data(one(weight), other(out_grad), *args),
            torch.ops.mxdeconv.deconvolution_weight(one(data), other(out_grad), *args),
        ):
            assert is_channels_last(result) == expected
            assert result.is_contiguous() != expected


# Memory of results ----------------------------------------------------------------------------

SMAPS = Path("/proc/self/smaps")
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage")


def flags_of_memory(address: int) -> list[str]:
    """What the kernel notes of the mapping that holds the address."""
    inside = False
    for line in SMAPS.read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            start, end = (int(bound, 16) for bound in line.split()[0].split("-"))
            inside = start <= address < end
        elif inside and line.startswith("VmFlags:"):
            return line.split()[1:]
    raise AssertionError(f"no mapping holds {address:#x}")


@pytest.mark.skipif(
    not (SMAPS.exists() and HUGE_PAGES.exists()), reason="the system has no huge pages to ask for"
)
def test_large_results_ask_for_huge_pages() -> None:
    """Where two huge pages fit, one lies within whole: its kind is asked for, of no more memory."""
    data, weight = torch.ones(1, 1, 1024, 1024), torch.ones(1, 1, 1, 1)
    out = mxdeconv.deconvolution(data, weight, kernel=(1, 1), num_filter=1)
    page = 2 << 20
    first = -(-out.data_ptr() // page) * page
    assert "hg" in flags_of_memory(first)
    assert torch.equal(out, data)
