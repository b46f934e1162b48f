"""Minimal filtering: exact on integers, within its bound, not where it may not be, switchable."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from math import inf, nan

import pytest
import reference
import torch
from passes import (
    DTYPES,
    NAMES,
    arguments_of,
    as_channels_last,
    as_contiguous,
    error_bounds,
    in_order,
    run_passes,
    torch_passes,
)
from torch import Tensor

import mxdeconv
from mxdeconv import ops
from mxdeconv.testing import (
    ALGORITHMS,
    LAYERS,
    SMALL,
    Operands,
    Problem,
    find_layer,
    force_algorithm,
    integer_data,
    parse,
    random_data,
    runs,
)

FILTERED = NAMES
LARGE = find_layer("ebgan-64").problem


def ran(call: Callable[[], object], algorithm: str = "minimal_filter") -> int:
    before = runs()[algorithm]
    call()
    return runs()[algorithm] - before


def can_filter(problem: Problem) -> bool:
    """Whether minimal filtering can do all passes of the problem."""
    with force_algorithm("minimal_filter"):
        passes = mxdeconv.explain(problem.data_shape, **problem.arguments).passes
    return all(plan.algorithm == "minimal_filter" for plan in passes.values())


FILTERABLE = [problem for problem in SMALL if can_filter(problem)]
# Small enough to put an intruder at each value in turn.
TINY = [
    parse(name, intent)
    for name, intent in [
        ("n1g1c2k1-i5-w4-s2-p1-d1-a0-ncw", "two taps a phase"),
        ("n1g1c1k2-i6-w3-s1-p1-d1-a0-ncw", "three taps"),
        ("n2g1c1k1-i4x3-w4x4-s2x2-p1x1-d1x1-a0x0-nchw", "two taps a phase on two axes"),
        ("n1g1c1k1-i4x4-w3x3-s1x1-p1x1-d1x1-a0x0-nchw", "three taps on two axes"),
        ("n1g2c2k2-i2x3x2-w2x4x1-s1x2x1-p1x1x0-d1x1x1-a0x0x0-ncdhw", "an axis of one tap"),
    ]
]


def test_there_are_enough_problems() -> None:
    assert len(FILTERABLE) >= 8
    assert {problem.rank for problem in FILTERABLE} == {1, 2, 3}
    assert all(map(can_filter, TINY))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("problem", SMALL, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.usefixtures("poison", "restored_threads")
def test_integers_are_exact_by_every_algorithm(
    dtype: torch.dtype, problem: Problem, algorithm: str
) -> None:
    operands = in_order(integer_data(problem, dtype), problem)
    expected = torch_passes(problem, operands)
    for threads, place in ((1, as_contiguous), (2, as_channels_last)):
        torch.set_num_threads(threads)
        with force_algorithm(algorithm):
            got = run_passes(problem, Operands(*map(place, operands)))
        for name in NAMES:
            assert torch.equal(got[name], expected[name].to(dtype)), (name, threads, place)


@pytest.mark.parametrize("problem", FILTERABLE, ids=str)
@pytest.mark.usefixtures("poison")
def test_integers_are_exact_on_every_isa(isa: str, problem: Problem) -> None:
    operands = in_order(integer_data(problem, torch.float32), problem)
    expected = torch_passes(problem, operands)
    with force_algorithm("minimal_filter"):
        got = run_passes(problem, operands)
    for name in NAMES:
        assert torch.equal(got[name].double(), expected[name]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("problem", [*FILTERABLE, *TINY], ids=str)
def test_random_values_within_the_bound(isa: str, dtype: torch.dtype, problem: Problem) -> None:
    operands = in_order(random_data(problem, dtype), problem)
    expected = torch_passes(problem, operands)
    bounds = error_bounds(problem, operands, FILTERED)
    with force_algorithm("minimal_filter"):
        for place in (as_contiguous, as_channels_last):
            got = run_passes(problem, Operands(*map(place, operands)))
            for name in NAMES:
                assert torch.all((got[name].double() - expected[name]).abs() <= bounds[name]), name


@pytest.mark.parametrize("name", ["unit-stride", "ebgan-64", "hifigan-3", "3dgan-4"])
def test_layers_within_the_bound(name: str) -> None:
    """Many channels: all the chunks and panels. Cut in size for torch's float64."""
    whole = find_layer(name).problem
    most = 24 if whole.rank == 2 else 9 if whole.rank == 3 else 500
    problem = replace(whole, batch=1, in_size=tuple(min(size, most) for size in whole.in_size))
    operands = in_order(random_data(problem, torch.float32), problem)
    expected = torch_passes(problem, operands)
    bounds = error_bounds(problem, operands, FILTERED)
    with force_algorithm("minimal_filter"):
        got = run_passes(problem, operands)
    for result in FILTERED:
        assert torch.all((got[result].double() - expected[result]).abs() <= bounds[result])


def test_the_known_example_is_within_its_bound() -> None:
    """The error is relative to the largest product nearby: this one is lost, and may be."""
    problem = parse("n1g1c1k1-i3-w2-s1-p0-d1-a0-ncw", "one tile")
    data = torch.tensor([[[1e-3, 1e8, 0.0]]])
    weight = torch.tensor([[[0.3, 0.0]]])
    operands = Operands(data, weight, torch.zeros(1), torch.ones(1, 1, 4))
    with force_algorithm("minimal_filter"):
        got = run_passes(problem, operands)["out"]
    bounds = error_bounds(problem, operands, FILTERED)["out"]
    assert torch.all((got.double() - torch_passes(problem, operands)["out"]).abs() <= bounds)


# What must not be filtered --------------------------------------------------------------------


def same(got: Tensor, expected: Tensor) -> bool:
    return torch.allclose(got.double(), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("which", ["data", "weight", "out_grad"])
@pytest.mark.parametrize("problem", TINY, ids=str)
def test_intruder_at_every_position(isa: str, problem: Problem, which: str) -> None:
    """Inf and NaN reach what the direct sum lets them reach; all else stays exact."""
    clean = in_order(integer_data(problem, torch.float32), problem)
    clean = Operands(*(value.sign() * (value.abs() % 4) for value in clean))
    arguments = arguments_of(problem)
    for position in range(getattr(clean, which).numel()):
        value = getattr(clean, which).clone(memory_format=torch.contiguous_format)
        value.view(-1)[position] = (inf, nan, -inf)[position % 3]
        o = clean._replace(**{which: value})
        with force_algorithm("minimal_filter"):
            out = ops.deconvolution(o.data, o.weight, o.bias, arguments)
            data_grad = ops.deconvolution_data(o.weight, o.out_grad, arguments)
            weight_grad = ops.deconvolution_weight(o.data, o.out_grad, arguments)
        assert same(out, reference.forward(problem, o.data, o.weight, o.bias)), position
        assert same(data_grad, reference.data_gradient(problem, o.weight, o.out_grad)), position
        assert same(weight_grad, reference.weight_gradient(problem, o.data, o.out_grad)), position


@pytest.mark.parametrize("problem", TINY, ids=str)
def test_a_tile_that_could_overflow_goes_the_direct_way(isa: str, problem: Problem) -> None:
    """Neighbours of opposite sign whose difference is no number: the direct sum has no trouble."""
    operands = in_order(integer_data(problem, torch.float32), problem)
    largest = torch.finfo(torch.float32).max
    signs = torch.ones_like(operands.data)
    signs.view(-1)[1::2] = -1
    data = signs * largest
    weight = operands.weight.sign() * 2.0**-20
    with force_algorithm("minimal_filter"):
        filtered = ops.deconvolution(data, weight, None, arguments_of(problem))
        huge = ops.deconvolution(
            data * 2.0**-20, weight.sign() * largest, None, arguments_of(problem)
        )
    with force_algorithm("tap_sum"):
        direct = ops.deconvolution(data, weight, None, arguments_of(problem))
        direct_huge = ops.deconvolution(
            data * 2.0**-20, weight.sign() * largest, None, arguments_of(problem)
        )
    assert torch.isfinite(direct).all()
    assert torch.equal(filtered, direct)
    assert same(huge, direct_huge.double())


def test_subnormal_taps_lose_nothing() -> None:
    """Halving would round a subnormal tap: the halves stand behind the products."""
    problem = parse("n1g1c1k1-i4-w3-s1-p1-d1-a0-ncw", "one tile of three taps")
    least = 2.0**-149
    data = torch.full((1, 1, 4), 2.0**100)
    weight = torch.full((1, 1, 3), least)
    with force_algorithm("minimal_filter"):
        out = ops.deconvolution(data, weight, None, arguments_of(problem))
    expected = reference.forward(problem, data, weight)
    assert torch.equal(out.double(), expected)


def test_never_in_float64() -> None:
    for problem in FILTERABLE:
        operands = in_order(random_data(problem, torch.float64), problem)
        with force_algorithm("minimal_filter"):
            assert ran(lambda p=problem, o=operands: run_passes(p, o)) == 0


# What decides no bit, and what does -----------------------------------------------------------


@pytest.mark.parametrize("problem", FILTERABLE, ids=str)
@pytest.mark.usefixtures("restored_threads")
def test_threads_change_no_bit(problem: Problem) -> None:
    operands = in_order(random_data(problem, torch.float32), problem)
    with force_algorithm("minimal_filter"):
        torch.set_num_threads(1)
        expected = run_passes(problem, operands)
        for threads in (2, 3, 5):
            torch.set_num_threads(threads)
            got = run_passes(problem, operands)
            for name in NAMES:
                assert torch.equal(got[name], expected[name]), (name, threads)


def test_a_small_workspace_leaves_it_to_the_direct_sum() -> None:
    plans = [
        mxdeconv.explain(LARGE.data_shape, workspace=workspace, **LARGE.arguments).passes["forward"]
        for workspace in (512, 1)
    ]
    assert [plan.algorithm for plan in plans] == ["minimal_filter", "tap_sum"]
    assert plans[0].unfiltered == ""
    assert "workspace" in plans[1].unfiltered


# The switch -----------------------------------------------------------------------------------


def algorithm_of(problem: Problem) -> str:
    return mxdeconv.explain(problem.data_shape, **problem.arguments).passes["forward"].algorithm


def test_the_switch() -> None:
    assert mxdeconv.minimal_filtering_enabled()
    assert algorithm_of(LARGE) == "minimal_filter"
    with mxdeconv.set_minimal_filtering(False):
        assert not mxdeconv.minimal_filtering_enabled()
        assert algorithm_of(LARGE) == "tap_sum"
        plan = mxdeconv.explain(LARGE.data_shape, **LARGE.arguments).passes["forward"]
        assert "switched off" in plan.unfiltered
        assert "switched off" in str(mxdeconv.explain(LARGE.data_shape, **LARGE.arguments))
        with mxdeconv.set_minimal_filtering(True):
            assert algorithm_of(LARGE) == "minimal_filter"
        assert algorithm_of(LARGE) == "tap_sum"
    assert mxdeconv.minimal_filtering_enabled()
    mxdeconv.set_minimal_filtering(False)
    assert not mxdeconv.minimal_filtering_enabled()
    mxdeconv.set_minimal_filtering(True)
    with pytest.raises(TypeError, match="enabled must be a bool, got 1"):
        mxdeconv.set_minimal_filtering(1)  # type: ignore[arg-type]


@pytest.mark.parametrize(("value", "expected"), [("0", "False"), ("1", "True"), (None, "True")])
def test_the_environment_variable(value: str | None, expected: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "MXDECONV_MINIMAL_FILTERING"}
    if value is not None:
        environment["MXDECONV_MINIMAL_FILTERING"] = value
    code = "import mxdeconv; print(mxdeconv.minimal_filtering_enabled())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected


def test_force_refuses_what_is_no_algorithm() -> None:
    with pytest.raises(ValueError, match="got 'fast'"), force_algorithm("fast"):
        pass


def test_every_layer_says_why_not() -> None:
    for layer in LAYERS:
        for plan in mxdeconv.explain(
            layer.problem.data_shape, **layer.problem.arguments
        ).passes.values():
            assert (plan.algorithm == "minimal_filter") == (plan.unfiltered == "")
