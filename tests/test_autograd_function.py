"""DeconvolutionFunction, and the vmap rules of the raw operators (mxdeconv/ops.py).

Values are integers in float64: what is compared is equal to the last bit.
"""

from __future__ import annotations

import gc
import itertools
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.func import grad, hessian, jacfwd, jacrev, vmap

import mxdeconv
from mxdeconv import DeconvolutionFunction

raw = torch.ops.mxdeconv
CHANNELS, PER_GROUP, KERNEL, SIZE = 4, 2, (3, 2), (4, 5)


def arguments(groups: int) -> tuple[Any, ...]:
    return ((2, 1), (1, 2), (1, 0), (1, 0), groups, 512, None, False)


def integers(*shape: int) -> torch.Tensor:
    return torch.randint(-3, 4, shape).double()


def operands(groups: int) -> list[torch.Tensor]:
    shapes = (2, CHANNELS, *SIZE), (CHANNELS, PER_GROUP, *KERNEL), (PER_GROUP * groups,)
    return [integers(*shape) for shape in shapes]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# vmap ---------------------------------------------------------------------------------------------


def batched(tensor: torch.Tensor, dim: int | None, size: int) -> torch.Tensor:
    """`size` tensors of this shape along `dim`, or the tensor where it has no batch."""
    return tensor if dim is None else integers(size, *tensor.shape).movedim(0, dim)


def one_by_one(
    call: Callable[..., torch.Tensor], dims: tuple[int | None, ...], size: int, *tensors: Any
) -> torch.Tensor:
    outs = []
    for i in range(size):
        picked = [t if d is None else t.select(d, i) for t, d in zip(tensors, dims, strict=True)]
        outs.append(call(*picked))
    return torch.stack(outs)


DIMS = (None, 0, 1, -1)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("entry", ["operator", "class"])
def test_vmap_of_the_forward(groups: int, size: int, entry: str) -> None:
    apply = raw.deconvolution if entry == "operator" else DeconvolutionFunction.apply

    def call(data: Any, weight: Any, bias: Any) -> torch.Tensor:
        return apply(data, weight, bias, *arguments(groups))

    def call_without_bias(data: Any, weight: Any) -> torch.Tensor:
        return apply(data, weight, None, *arguments(groups))

    for dims in itertools.product(DIMS, repeat=3):
        tensors = [batched(t, d, size) for t, d in zip(operands(groups), dims, strict=True)]
        if any(d is not None for d in dims):
            assert torch.equal(
                vmap(call, dims)(*tensors), one_by_one(call, dims, size, *tensors)
            ), dims
        if any(d is not None for d in dims[:2]):
            assert torch.equal(
                vmap(call_without_bias, dims[:2])(*tensors[:2]),
                one_by_one(call_without_bias, dims[:2], size, *tensors[:2]),
            ), dims


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("wanted", ["data", "weight"])
def test_vmap_of_the_gradients(groups: int, size: int, wanted: str) -> None:
    data, weight, _ = operands(groups)
    out = raw.deconvolution(data, weight, None, *arguments(groups))
    first, op = (
        (weight, raw.deconvolution_data) if wanted == "data" else (data, raw.deconvolution_weight)
    )

    def call(first: Any, out_grad: Any) -> torch.Tensor:
        return op(first, out_grad, *arguments(groups))

    for dims in itertools.product(DIMS, repeat=2):
        if dims == (None, None):
            continue
        tensors = batched(first, dims[0], size), batched(out, dims[1], size)
        assert torch.equal(vmap(call, dims)(*tensors), one_by_one(call, dims, size, *tensors)), dims


def test_vmap_within_vmap() -> None:
    data, weight = integers(2, 3, 1, 4, *SIZE), integers(3, 4, 2, *KERNEL)

    def call(data: Any, weight: Any) -> torch.Tensor:
        return raw.deconvolution(data, weight, None, *arguments(2))

    got = vmap(vmap(call), (0, None))(data, weight)
    expected = torch.stack(
        [torch.stack([call(data[i, j], weight[j]) for j in range(3)]) for i in range(2)]
    )
    assert torch.equal(got, expected)


def test_the_data_is_not_copied_for_each_weight_of_a_batch(monkeypatch: Any) -> None:
    """Weights of a batch become filters side by side: one call on the data as it lies."""
    seen: list[tuple[tuple[int, ...], int]] = []
    original = mxdeconv.ops._FORWARD

    def spy(data: Any, weight: Any, bias: Any, *rest: Any) -> torch.Tensor:
        seen.append((tuple(data.shape), data.data_ptr()))
        return original(data, weight, bias, *rest)

    monkeypatch.setattr(mxdeconv.ops, "_FORWARD", spy)
    data, weight, _ = operands(1)
    vmap(lambda w: raw.deconvolution(data, w, None, *arguments(1)))(torch.stack([weight] * 5))
    assert seen == [(tuple(data.shape), data.data_ptr())]


# The class ----------------------------------------------------------------------------------------


def function(groups: int) -> Callable[..., torch.Tensor]:
    return lambda *tensors: DeconvolutionFunction.apply(*tensors, *arguments(groups))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
def test_gradients_of_both_orders(groups: int, bias: bool) -> None:
    tensors: list[Any] = [
        integers(1, 4, 2, 3),
        integers(4, 1, *KERNEL),
        integers(groups) if bias else None,
    ]
    tensors = [t if t is None else t.requires_grad_() for t in tensors]
    assert torch.autograd.gradcheck(
        function(groups), tensors, check_forward_ad=True, check_batched_grad=True
    )
    assert torch.autograd.gradgradcheck(function(groups), tensors, check_batched_grad=True)


@pytest.mark.parametrize("transform", [jacrev, jacfwd, hessian])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_the_same_derivatives_as_the_operator(transform: Any, which: int) -> None:
    tensors = integers(1, 4, 2, 3), integers(4, 1, *KERNEL), integers(2)

    def derivative(apply: Any) -> torch.Tensor:
        return transform(lambda *t: apply(*t, *arguments(2)).pow(3).sum((2, 3)), which)(*tensors)

    assert torch.equal(derivative(DeconvolutionFunction.apply), derivative(raw.deconvolution))


def test_per_sample_gradients() -> None:
    data, weight, bias = integers(5, 4, *SIZE), integers(4, 2, *KERNEL), integers(4)

    def loss(weight: Any, sample: Any) -> torch.Tensor:
        return function(2)(sample[None], weight, bias).square().sum()

    got = vmap(grad(loss), (None, 0))(weight, data)
    assert torch.equal(got, torch.stack([grad(loss)(weight, sample) for sample in data]))


@pytest.mark.parametrize("wanted", list(itertools.product([False, True], repeat=3)), ids=str)
def test_only_requested_gradients_are_computed(wanted: tuple[bool, ...]) -> None:
    tensors = [t.requires_grad_(w) for t, w in zip(operands(2), wanted, strict=True)]
    out = function(2)(*tensors)
    assert out.requires_grad is any(wanted)
    if not any(wanted):
        return
    with torch.profiler.profile() as profile:
        out.sum().backward()
    calls = Counter({event.key: event.count for event in profile.key_averages()})
    assert calls["mxdeconv::deconvolution_data"] == wanted[0]
    # the bias is the weight of a 1x1 deconvolution of a constant: its gradient is one more call
    assert calls["mxdeconv::deconvolution_weight"] == wanted[1] + wanted[2]
    assert [t.grad is not None for t in tensors] == list(wanted)


@pytest.mark.parametrize("wanted", ["data", "weight", "bias"])
def test_only_what_a_requested_gradient_needs_is_kept(wanted: str) -> None:
    data, weight, bias = operands(2)
    {"data": data, "weight": weight, "bias": bias}[wanted].requires_grad_()
    out = function(2)(data, weight, bias)
    alive = weakref.ref(data), weakref.ref(weight)
    del data, weight
    gc.collect()
    kept = [ref() is not None for ref in alive]
    # a tensor whose own gradient is asked for lives on as the graph's leaf
    assert kept == {"data": [True, True], "weight": [True, True], "bias": [False, False]}[wanted]
    out.sum().backward()


def test_errors_are_those_of_the_operator() -> None:
    data, weight, bias = operands(2)
    with pytest.raises(
        ValueError, match=r"^stride must be at least 1 on every axis, got \(0, 1\)$"
    ):
        DeconvolutionFunction.apply(data, weight, bias, (0, 1), *arguments(2)[1:])
