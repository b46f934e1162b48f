"""Inf and NaN reach exactly the results that the direct sum over the taps gives them."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan

import pytest
import reference
import torch
from conftest import ISAS
from passes import arguments_of, as_channels_last, in_order
from torch import Tensor

import mxdeconv._C as _C
from mxdeconv import deconvolution, ops
from mxdeconv.testing import SMALL, Operands, Problem, integer_data

# Every kind of geometry, with few enough values to put the intruder at each of them in turn.
PROBLEMS = [p for p in SMALL if 0 < p.values <= 320 and p.products <= 1500]


Pass = Callable[[Operands], Tensor]


def passes(problem: Problem, which: str) -> list[tuple[str, Pass, Pass]]:
    """Name, engine and direct sum of each pass that reads the operand `which`."""
    arguments = arguments_of(problem)
    every: list[tuple[str, set[str], Pass, Pass]] = [
        (
            "out",
            {"data", "weight", "bias"},
            lambda o: ops.deconvolution(o.data, o.weight, o.bias, arguments),
            lambda o: reference.forward(problem, o.data, o.weight, o.bias),
        ),
        (
            "data_grad",
            {"weight", "out_grad"},
            lambda o: ops.deconvolution_data(o.weight, o.out_grad, arguments),
            lambda o: reference.data_gradient(problem, o.weight, o.out_grad),
        ),
        (
            "weight_grad",
            {"data", "out_grad"},
            lambda o: ops.deconvolution_weight(o.data, o.out_grad, arguments),
            lambda o: reference.weight_gradient(problem, o.data, o.out_grad),
        ),
    ]
    return [(name, engine, direct) for name, reads, engine, direct in every if which in reads]


def same(got: Tensor, expected: Tensor) -> bool:
    """Equal values, NaN in the same places; `expected` is float64, `got` anything."""
    return torch.allclose(got.double(), expected, rtol=0, atol=0, equal_nan=True)


def test_there_are_enough_problems() -> None:
    assert len(PROBLEMS) >= 20
    assert {problem.rank for problem in PROBLEMS} == {1, 2, 3}


@pytest.mark.parametrize("which", ["data", "weight", "bias", "out_grad"])
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_intruder_at_every_position(problem: Problem, which: str) -> None:
    """The operands are small integers, some of them 0 (Inf * 0 is NaN): all else stays exact."""
    before = _C.build_info()["cpu_isa"]
    clean = in_order(integer_data(problem, torch.float32), problem)
    clean = Operands(*(value.sign() * (value.abs() % 4) for value in clean))
    for position in range(getattr(clean, which).numel()):
        value = getattr(clean, which).clone(memory_format=torch.contiguous_format)
        value.view(-1)[position] = (inf, nan, -inf)[position % 3]
        operands = clean._replace(**{which: value})
        moved = Operands(*map(as_channels_last, operands))
        for name, engine, direct in passes(problem, which):
            expected = direct(operands)
            try:
                for isa in ISAS:
                    _C.set_cpu_isa(isa)
                    assert same(engine(operands), expected), (name, isa, position)
                    assert same(engine(moved), expected), (name, isa, position)
            finally:
                _C.set_cpu_isa(before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("intruder", [inf, -inf, nan], ids=str)
def test_intruder_in_every_dtype(isa: str, dtype: torch.dtype, intruder: float) -> None:
    for problem in PROBLEMS[:12]:
        clean = in_order(integer_data(problem, torch.float16), problem)
        operands = Operands(*(value.to(dtype) for value in clean))
        operands.data.select(-1, 0).fill_(intruder)
        for name, engine, direct in passes(problem, "data"):
            assert same(engine(operands), direct(operands).to(dtype).double()), name


def test_other_channels_do_not_depend_on_threads(restored_threads: None) -> None:
    """A weight that is not finite changes how its call is summed: for all of it, or the results of
    other channels would depend on how the threads share them."""
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(1, 24, 40, 40, generator=generator)
    weight = torch.randn(24, 150, 4, 4, generator=generator)
    weight[3, 7, 1, 2] = torch.inf
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(
            torch.ops.mxdeconv.deconvolution(
                *(data, weight, None, (2, 2), (1, 1), (1, 1), (0, 0), 1, 512, None, False)
            )
        )
    assert torch.isfinite(results[0][:, 8:]).all()
    for result in results[1:]:
        assert torch.equal(result.isnan(), results[0].isnan())
        assert torch.equal(result.nan_to_num(), results[0].nan_to_num())


def test_a_result_behind_the_last_tap() -> None:
    """adj adds a column that no tap reaches: no weight may show in it, however long the row."""
    weight = torch.ones(2, 20, 2)
    weight[0, :, 0] = inf
    for size in (3, 30, 300):
        out = deconvolution(
            torch.ones(1, 2, size), weight, kernel=(2,), stride=(2,), adj=(1,), num_filter=20
        )
        assert torch.equal(out[..., -1], torch.zeros(1, 20))
