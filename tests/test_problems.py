"""The problem lists themselves: names, intents, the scalar reference and the exact data."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from math import gcd, prod

import pytest
import reference
import torch

from mxdeconv.testing import (
    LAYERS,
    SMALL,
    SMOKE,
    Problem,
    channels_first,
    find_layer,
    in_layout,
    integer_data,
    parse,
    random_data,
    random_problem,
)

RANDOM = [random_problem(random.Random(seed), layouts=("first", "last")) for seed in range(40)]
CONV_TRANSPOSE = {
    1: torch.nn.functional.conv_transpose1d,
    2: torch.nn.functional.conv_transpose2d,
    3: torch.nn.functional.conv_transpose3d,
}
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def torch_passes(
    problem: Problem, *operands: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Output and gradients of data, weight, bias by torch in float64, channels-first."""
    data, weight, bias, out_grad = (value.double() for value in operands)
    leaves = [value.clone().requires_grad_() for value in (data, weight, bias)]
    out = CONV_TRANSPOSE[problem.rank](
        *leaves,
        stride=problem.stride,
        padding=problem.pad,
        output_padding=problem.adj,
        groups=problem.num_group,
        dilation=problem.dilate,
    )
    grads = torch.autograd.grad(out, leaves, out_grad)
    return out.detach(), *grads


@pytest.mark.parametrize(
    "problem", [*SMALL, *RANDOM, *(layer.problem for layer in LAYERS)], ids=str
)
def test_name_round_trip(problem: Problem) -> None:
    assert parse(str(problem)) == problem
    assert str(parse(str(problem))) == str(problem)


@pytest.mark.parametrize(
    "name", ["", "n1", "n1g1c1k1-i1-w1-s1-p0-d1-a0-ncw ", "n1g1c1k1-i1-w1-s1-p0-d1-a0-NCW"]
)
def test_parse_refuses_what_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"got {name!r}")):
        parse(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("n1g1c1k1-i1x1-w1-s1-p0-d1-a0-nchw", "every geometry must have 2 values"),
        ("n1g1c1k1-i1-w1-s1-p0-d1-a0-nchw", "layout must fit 1 spatial axes"),
        ("n1g2c3k2-i1-w1-s1-p0-d1-a0-ncw", "num_group must divide"),
        ("n1g1c1k1-i1-w1-s1-p1-d1-a0-ncw", "output size of at least 0"),
    ],
)
def test_problem_refuses_sizes_that_do_not_fit(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(name)


def test_lists_have_distinct_problems_with_intents() -> None:
    assert len({str(problem) for problem in SMALL}) == len(SMALL) >= 60
    assert len({problem.intent for problem in SMALL}) == len(SMALL)
    assert all(problem.intent for problem in SMALL)
    assert set(SMOKE) < set(SMALL)
    assert len({layer.name for layer in LAYERS}) == len(LAYERS) == 34
    assert all(layer.problem.intent and layer.family for layer in LAYERS)


def test_find_layer() -> None:
    assert find_layer("unet-up1").problem.kernel == (2, 2)
    with pytest.raises(ValueError, match=r"layer must be one of dcgan-project, .*, got 'unet'"):
        find_layer("unet")


def test_small_list_covers_what_it_claims() -> None:
    """The intents are text; these are the facts behind them."""

    def some_axis(fact: Callable[[int, int, int, int, int, int], bool]) -> bool:
        return any(
            fact(*axis)
            for problem in SMALL
            for axis in zip(
                problem.in_size,
                problem.kernel,
                problem.stride,
                problem.pad,
                problem.dilate,
                problem.adj,
                strict=True,
            )
        )

    assert some_axis(lambda n, k, s, p, d, a: k < s)
    assert some_axis(lambda n, k, s, p, d, a: k == s > 1)
    assert some_axis(lambda n, k, s, p, d, a: gcd(s, d) > 1)
    assert some_axis(lambda n, k, s, p, d, a: p > k)
    assert some_axis(lambda n, k, s, p, d, a: a > p)
    assert some_axis(lambda n, k, s, p, d, a: d * (k - 1) > s * n)
    assert {problem.rank for problem in SMALL} == {1, 2, 3}
    assert {problem.layout for problem in SMALL} == {"NCW", "NCHW", "NCDHW", "NWC", "NHWC", "NDHWC"}
    assert {0, 1} <= {size for problem in SMALL for size in problem.out_size}
    assert any(problem.batch == 0 for problem in SMALL)
    assert any(prod(problem.in_size) == 1 for problem in SMALL)
    assert any(problem.num_group == problem.channels > 1 for problem in SMALL)
    assert any(1 < problem.num_group < problem.channels for problem in SMALL)
    assert all(problem.products <= 110_000 for problem in SMALL)


@pytest.mark.parametrize("problem", [*SMALL, *RANDOM], ids=str)
def test_reference_equals_torch_on_integers(problem: Problem) -> None:
    operands = integer_data(problem, torch.float64, seed=1)
    data, weight, out_grad = (
        channels_first(value, problem)
        for value in (operands.data, operands.weight, operands.out_grad)
    )
    got = (
        reference.forward(problem, data, weight, operands.bias),
        reference.data_gradient(problem, weight, out_grad),
        reference.weight_gradient(problem, data, out_grad),
        reference.bias_gradient(problem, out_grad),
    )
    if problem.batch == 0 or prod(problem.out_size) == 0:  # torch refuses some of these
        assert got[0].numel() == 0
        assert not any(grad.any() for grad in got[1:])
        return
    for ours, theirs in zip(
        got, torch_passes(problem, data, weight, operands.bias, out_grad), strict=True
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("problem", SMALL, ids=str)
def test_terms_are_the_longest_sums(problem: Problem) -> None:
    """Sums of ones count the products that meet: the claimed bounds hold."""
    data = channels_first(torch.ones(problem.data_shape), problem)
    weight = channels_first(torch.ones(problem.weight_shape), problem)
    out_grad = torch.ones(problem.batch, problem.num_filter, *problem.out_size)
    out = reference.forward(problem, data, weight)
    assert out.numel() == 0 or out.max().item() <= problem.forward_terms
    grad = reference.data_gradient(problem, weight, out_grad)
    assert grad.numel() == 0 or grad.max().item() <= problem.data_terms
    assert reference.weight_gradient(problem, data, out_grad).max() <= problem.weight_terms
    assert torch.all(reference.bias_gradient(problem, out_grad) == problem.bias_terms)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_integer_data_is_exact(dtype: torch.dtype) -> None:
    """The sums of absolute products stay within the numbers that accumulate without rounding."""
    exact = {torch.float64: 2.0**53, torch.float16: 65504.0}.get(dtype, 2.0**24)
    for problem in SMALL:
        operands = integer_data(problem, dtype, seed=2)
        for value in operands:
            assert value.dtype == dtype
            assert torch.equal(value, value.round())
        data, weight, out_grad = (
            channels_first(value.abs(), problem)
            for value in (operands.data, operands.weight, operands.out_grad)
        )
        for sums in (
            reference.forward(problem, data, weight, operands.bias.abs()),
            reference.data_gradient(problem, weight, out_grad),
            reference.weight_gradient(problem, data, out_grad),
            reference.bias_gradient(problem, out_grad),
        ):
            assert sums.numel() == 0 or sums.max().item() <= exact


def test_integer_data_is_seeded_and_refuses() -> None:
    problem = SMOKE[0]
    first, again, other = (integer_data(problem, torch.float32, seed) for seed in (3, 3, 4))
    assert torch.equal(first.data, again.data)
    assert not torch.equal(first.data, other.data)
    with pytest.raises(ValueError, match="dtype must be one of"):
        integer_data(problem, torch.int32)
    with pytest.raises(ValueError, match=r"exact sums in torch\.float16"):
        integer_data(find_layer("ebgan-64").problem, torch.float16)


def test_random_data_and_layouts() -> None:
    problem = parse("n2g1c3k5-i4x3-w3x2-s2x2-p1x1-d1x1-a1x1-nhwc")
    operands = random_data(problem, torch.bfloat16, seed=5)
    assert operands.data.shape == (2, 4, 3, 3)
    assert operands.weight.shape == (3, 3, 2, 5)
    assert operands.out_grad.shape == (2, *problem.out_size, 5)
    assert channels_first(operands.weight, problem).shape == (3, 5, 3, 2)
    back = in_layout(channels_first(operands.data, problem), problem)
    assert back.data_ptr() == operands.data.data_ptr()
    assert torch.equal(back, operands.data)


def test_random_problem_is_seeded_and_bounded() -> None:
    rng, again = random.Random(7), random.Random(7)
    problems = [random_problem(rng, max_products=5_000, max_values=900) for _ in range(200)]
    assert problems == [
        random_problem(again, max_products=5_000, max_values=900) for _ in range(200)
    ]
    assert all(problem.products <= 5_000 and problem.values <= 900 for problem in problems)
    assert {problem.rank for problem in problems} == {1, 2, 3}
    assert any(min(problem.out_size) == 0 for problem in problems)
    assert any(problem.num_group > 1 for problem in problems)
    assert all(p.layout == "NDHWC" for p in (random_problem(rng, ranks=(3,), layouts=("last",)),))
