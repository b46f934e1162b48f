"""explain() names what runs: the engine's own counters say so."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import prod
from typing import Any

import pytest
import torch
from conftest import ISAS

import mxdeconv
import mxdeconv._C as _C
from mxdeconv.testing import LAYERS, SMALL, Problem, integer_data, random_data

REAL = [layer.problem for layer in LAYERS if layer.problem.products <= 2**26]
PASSES = ("forward", "data_gradient", "weight_gradient")


def counted(call: Any) -> tuple[Any, Counter[str]]:
    """The result of call(), and the algorithms that ran in it."""
    before = Counter(_C.runs())
    result = call()
    after = Counter(_C.runs())
    after.subtract(before)
    return result, +after


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("problem", [*SMALL, *REAL], ids=str)
def test_explained_is_what_runs(problem: Problem, dtype: torch.dtype) -> None:
    data, weight, _, out_grad = random_data(problem, dtype)
    plans = mxdeconv.explain(data, **problem.arguments).passes
    assert tuple(plans) == PASSES
    out, ran = counted(lambda: mxdeconv.deconvolution(data, weight, **problem.arguments))
    # what has no element takes no engine
    expected = Counter({plans["forward"].algorithm: 1} if out.numel() else {})
    assert ran == expected
    for name, leaf in (("data_gradient", data), ("weight_gradient", weight)):
        leaf.requires_grad_()
        out = mxdeconv.deconvolution(data, weight, **problem.arguments)
        _, ran = counted(lambda out=out, leaf=leaf: torch.autograd.grad(out, leaf, out_grad))
        assert ran == Counter({plans[name].algorithm: 1} if leaf.numel() else {})
        leaf.requires_grad_(False)


def test_the_counters_count() -> None:
    data, weight = torch.ones(1, 1, 3), torch.ones(1, 1, 2)

    def call() -> None:
        for _ in range(3):
            mxdeconv.deconvolution(data, weight, kernel=(2,), num_filter=1)

    assert counted(call)[1].total() == 3


@pytest.mark.parametrize("problem", SMALL, ids=str)
def test_explained_geometry(problem: Problem) -> None:
    operands = integer_data(problem, torch.float32)
    found = mxdeconv.explain(problem.data_shape, **problem.arguments)
    out = mxdeconv.deconvolution(operands.data, operands.weight, **problem.arguments)
    assert found.data_shape == problem.data_shape
    assert found.weight_shape == problem.weight_shape
    assert found.out_shape == tuple(out.shape) == problem.out_shape
    assert (found.pad, found.adj) == (problem.pad, problem.adj)
    assert found.dtype == torch.float32
    assert found.multiply_adds == problem.products


@pytest.mark.parametrize("problem", SMALL, ids=str)
def test_explained_taps(problem: Problem) -> None:
    """Of an output that nothing is cropped from, each residue's taps; the empty are left out."""
    none = (0,) * problem.rank
    whole = replace(problem, batch=1, pad=none, adj=none)
    found = mxdeconv.explain(whole.data_shape, **whole.arguments)
    for taps, kernel, stride, dilate in zip(
        found.taps_per_phase, problem.kernel, problem.stride, problem.dilate, strict=True
    ):
        residues = Counter(tap * dilate % stride for tap in range(kernel))
        assert sorted(taps) == sorted(residues.values())


def test_target_shape_is_resolved() -> None:
    found = mxdeconv.explain(
        (2, 3, 5, 7), kernel=(4, 3), stride=(2, 2), target_shape=(9, 14), num_filter=6
    )
    # full 12x15: crops of 3 and 1, the odd row in front
    assert found.out_shape == (2, 6, 9, 14)
    assert (found.pad, found.adj) == ((2, 1), (1, 1))
    assert prod(found.out_shape) == 2 * 6 * 9 * 14


def test_isa_and_dtype_are_named(isa: str) -> None:
    assert mxdeconv.build_info()["cpu_isa"] == isa
    arguments: dict[str, Any] = {"kernel": (3,), "num_filter": 32}
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        found = mxdeconv.explain(torch.ones(1, 2, 64, dtype=dtype), **arguments)
        assert found.dtype == dtype
        assert {plan.isa for plan in found.passes.values()} == {isa}
    assert mxdeconv.explain((1, 2, 64), dtype=torch.float16, **arguments).dtype == torch.float16


def test_text_says_everything() -> None:
    found = mxdeconv.explain((1, 4, 8, 8), kernel=(4, 4), stride=(2, 2), pad=(1, 1), num_filter=6)
    text = str(found)
    for plan in found.passes.values():
        assert plan.algorithm in text
        assert plan.reason in text
        assert f"{plan.tile[0]}x{plan.tile[1]}" in text
    for shown in (found.data_shape, found.weight_shape, found.out_shape, "float32", "NCHW"):
        assert str(shown) in text


@pytest.mark.parametrize(
    ("data", "given", "error", "text"),
    [
        ((1, 2, 4), {}, TypeError, "kernel must be given"),
        ((1, 2, 4), {"kernel": (3,), "foo": 1}, TypeError, "unknown argument 'foo'; valid are "),
        ((1, 2, 4), {"kernel": (3, 3), "num_filter": 1}, ValueError, "data must have 4 dimensions"),
        (
            (1, 2, 4),
            {"kernel": (3,), "num_filter": 1, "pad": (5,)},
            ValueError,
            r"pad must leave an output size of at least 0 on every axis, got an output size of "
            r"\(-4,\) from pad \(5,\)",
        ),
        (
            (1, 3, 4),
            {"kernel": (3,), "num_filter": 2, "num_group": 2},
            ValueError,
            "num_group must divide the channels of data, 3, got 2",
        ),
        (
            (1, 0, 4),
            {"kernel": (3,), "num_filter": 2},
            ValueError,
            "data must have at least 1 channel",
        ),
    ],
)
def test_errors_are_those_of_the_call(
    data: tuple[int, ...], given: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=f"^{text}"):
        mxdeconv.explain(data, **given)


def test_wrong_dtype() -> None:
    with pytest.raises(TypeError, match=r"^data must be a dense tensor of dtype .*, got int64$"):
        mxdeconv.explain(torch.ones(1, 2, 4, dtype=torch.int64), kernel=(3,), num_filter=2)


def test_build_info() -> None:
    info = mxdeconv.build_info()
    assert info["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert info["cpu_isas"] == ISAS
    assert info["cpu_isas"][0] == "baseline"
    assert info["cpu_isa"] in ISAS
    info["cpu_isas"].append("none")  # a copy: nobody else sees this
    assert mxdeconv.build_info()["cpu_isas"] == ISAS


def test_unknown_isa_is_refused() -> None:
    before = mxdeconv.build_info()["cpu_isa"]
    with pytest.raises(ValueError, match=r"^name must be one of 'baseline'.*, got 'sse9'$"):
        _C.set_cpu_isa("sse9")
    assert mxdeconv.build_info()["cpu_isa"] == before
