"""Geometry that nobody thought of: the engine equals torch, and sizes equal their definition."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from passes import NAMES, PLACES, in_order, run_passes, torch_passes
from torch import Tensor

import mxdeconv
from mxdeconv import spec
from mxdeconv.testing import Operands, Problem, integer_data
from mxdeconv.testing.problems import CHANNELS_FIRST, CHANNELS_LAST

EXAMPLES = settings(
    max_examples=300,
    deadline=None,  # no timing in tests
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@st.composite
def problems(draw: st.DrawFn, max_values: int = 20_000) -> Problem:
    rank = draw(st.integers(1, 3))

    def axes(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    groups = draw(st.integers(1, 4))
    longest = {1: 40, 2: 9, 3: 5}[rank]
    in_size, kernel = axes(1, longest), axes(1, {1: 20, 2: 6, 3: 4}[rank])
    stride, dilate = axes(1, 6), axes(1, 6)
    full = [
        s * (n - 1) + d * (k - 1) + 1
        for n, k, s, d in zip(in_size, kernel, stride, dilate, strict=True)
    ]
    adj = tuple(draw(st.integers(0, s - 1)) for s in stride)
    pad = tuple(draw(st.integers(0, (f + a) // 2)) for f, a in zip(full, adj, strict=True))
    problem = Problem(
        batch=draw(st.integers(0, 3)),
        channels=groups * draw(st.integers(1, 9)),
        num_filter=groups * draw(st.integers(1, 9)),
        num_group=groups,
        in_size=in_size,
        kernel=kernel,
        stride=stride,
        pad=pad,
        dilate=dilate,
        adj=adj,
        layout=draw(st.sampled_from((CHANNELS_FIRST, CHANNELS_LAST)))[rank],
    )
    assume(problem.values <= max_values)
    return problem


@EXAMPLES
@given(problems(), st.sampled_from(sorted(PLACES)), st.sampled_from((0, 1, 512)))
@pytest.mark.usefixtures("poison")
def test_engine_equals_torch(problem: Problem, place: str, workspace: int) -> None:
    operands = in_order(integer_data(problem, torch.float32), problem)
    expected = torch_passes(problem, operands)
    got = run_passes(problem, Operands(*map(PLACES[place], operands)), workspace)
    for name in NAMES:
        assert torch.equal(got[name].double(), expected[name]), name


@EXAMPLES
@given(problems(max_values=4000), st.data())
def test_target_shape_is_a_crop_of_everything(problem: Problem, data: st.DataObject) -> None:
    """The result for a target_shape lies in the uncropped one, pad rows from its start."""
    whole = replace(
        problem,
        pad=(0,) * problem.rank,
        adj=(0,) * problem.rank,
        layout=CHANNELS_FIRST[problem.rank],
    )
    assume(whole.values <= 20_000)
    target = tuple(
        data.draw(
            st.integers(1, full).filter(lambda t, s=s, full=full: s > 1 or (full - t) % 2 == 0)
        )
        for full, s in zip(whole.full_size, whole.stride, strict=True)
    )
    operands = integer_data(whole, torch.float32)
    arguments = {**whole.arguments, "pad": problem.pad, "adj": problem.adj}
    uncropped = mxdeconv.deconvolution(operands.data, operands.weight, **whole.arguments)
    got = mxdeconv.deconvolution(operands.data, operands.weight, target_shape=target, **arguments)
    starts = [(full - t + 1) // 2 for full, t in zip(whole.full_size, target, strict=True)]
    for axis, (start, size) in enumerate(zip(starts, target, strict=True)):
        # an even total crop takes as much from both ends; an odd one, one more in front
        uncropped = uncropped.narrow(2 + axis, start, size)
    assert torch.equal(got, uncropped)


@EXAMPLES
@given(problems())
def test_shapes_on_meta_and_by_spec(problem: Problem) -> None:
    """The fake kernel and the attributes agree with the definition, without any memory."""
    meta: list[Tensor] = [
        torch.empty(shape, device="meta") for shape in (problem.data_shape, problem.weight_shape)
    ]
    for leaf in meta:
        leaf.requires_grad_()
    out = mxdeconv.deconvolution(*meta, **problem.arguments)
    assert tuple(out.shape) == problem.out_shape
    grads = torch.autograd.grad(out, meta, torch.empty(problem.out_shape, device="meta"))
    assert [tuple(grad.shape) for grad in grads] == [problem.data_shape, problem.weight_shape]
    attributes = spec.parse(**{key: str(value) for key, value in problem.arguments.items()})
    assert attributes.weight_shape(problem.channels) == problem.weight_shape
    shape = attributes.output_shape(problem.data_shape, attributes.pad, attributes.adj)
    assert tuple(shape) == problem.out_shape
