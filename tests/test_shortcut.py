"""The shortcut of eager calls: taken where nothing is unusual, and nothing can tell it is there."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mxdeconv
from mxdeconv import _C, functional, spec

DATA = torch.randn(2, 6, 5, 4, generator=torch.Generator().manual_seed(0))
GIVEN: dict[str, Any] = {
    **{"kernel": (3, 2), "stride": (2, 1), "dilate": (1, 2), "pad": (1, 0), "adj": (1, 0)},
    **{"num_filter": 4, "num_group": 2, "no_bias": False, "workspace": 7},
    **{"cudnn_tune": "fastest", "cudnn_off": True},
}
WEIGHT, BIAS = torch.randn(6, 2, 3, 2), torch.randn(4)


def eager_call(**more: Any) -> _C.EagerCall:
    call = functional.shortcut(spec.parse(**{**GIVEN, **more}))
    assert call is not None
    return call


def long_way(data: Tensor, weight: Tensor, bias: Tensor | None, **more: Any) -> Tensor:
    call = functional.prepare(spec.parse(**{**GIVEN, **more}))
    return functional.apply(call, data, weight, bias, ())


@pytest.mark.parametrize("requires_grad", [False, True])
def test_it_computes_what_the_long_way_does(requires_grad: bool) -> None:
    leaves = [value.clone().requires_grad_(requires_grad) for value in (DATA, WEIGHT, BIAS)]
    out = _C.call_eagerly(eager_call(), *leaves, None)
    assert out is not None
    expected = long_way(*leaves)
    assert torch.equal(out, expected)
    assert out.requires_grad is requires_grad
    if requires_grad:
        grads = [torch.autograd.grad(value.square().sum(), leaves) for value in (out, expected)]
        assert all(map(torch.equal, *grads))


class Sub(Tensor):
    """A subclass: __torch_function__ must see its calls."""


class Watch(torch.overrides.TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("data", "weight", "bias"),
    [
        pytest.param(DATA.as_subclass(Sub), WEIGHT, BIAS, id="subclass"),
        pytest.param(DATA.to("meta"), WEIGHT, BIAS, id="meta"),
        pytest.param(DATA.to_sparse(), WEIGHT, BIAS, id="sparse"),
        pytest.param(torch._neg_view(DATA), WEIGHT, BIAS, id="lazily-negated"),
        pytest.param(DATA.int(), WEIGHT.int(), BIAS.int(), id="integers"),
        pytest.param(DATA, WEIGHT.double(), BIAS, id="dtypes"),
        pytest.param(DATA, WEIGHT, BIAS.double(), id="dtype-of-bias"),
        pytest.param(DATA, WEIGHT, None, id="no-bias"),
        pytest.param(DATA, WEIGHT, BIAS[:3], id="short-bias"),
        pytest.param(DATA[..., 0], WEIGHT, BIAS, id="rank"),
        pytest.param(DATA[:, :4], WEIGHT, BIAS, id="channels"),
        pytest.param(DATA, WEIGHT[..., :1], BIAS, id="kernel"),
        pytest.param(DATA, WEIGHT[:, :1], BIAS, id="filters"),
        pytest.param("data", WEIGHT, BIAS, id="text"),
        pytest.param(DATA, None, BIAS, id="no-weight"),
        pytest.param(DATA, nn.parameter.UninitializedParameter(), BIAS, id="uninitialized"),
    ],
)
def test_it_leaves_the_unusual_to_the_long_way(data: Any, weight: Any, bias: Any) -> None:
    assert _C.call_eagerly(eager_call(), data, weight, bias, None) is None


def test_it_leaves_modes_to_the_long_way() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert _C.call_eagerly(eager_call(), DATA, WEIGHT, BIAS, None) is None
    with Watch():
        assert _C.call_eagerly(eager_call(), DATA, WEIGHT, BIAS, None) is None

    def inside(data: Tensor) -> Tensor:
        assert _C.call_eagerly(eager_call(), data, WEIGHT, BIAS, None) is None
        return data.sum()

    torch.func.grad(inside)(DATA)


@pytest.mark.parametrize("more", [{"layout": "NHWC"}, {"target_shape": (9, 5)}], ids=str)
def test_there_is_none_where_shapes_decide(more: dict[str, Any]) -> None:
    assert functional.shortcut(spec.parse(**{**GIVEN, **more})) is None


def test_its_errors_are_the_operator_s() -> None:
    for call in (
        lambda: _C.call_eagerly(eager_call(pad=(50, 0)), DATA, WEIGHT, BIAS, None),
        lambda: long_way(DATA, WEIGHT, BIAS, pad=(50, 0)),
    ):
        with pytest.raises(ValueError, match="pad must leave an output size of at least 0"):
            call()


def test_it_is_copied_and_pickled() -> None:
    call = eager_call()
    expected = _C.call_eagerly(call, DATA, WEIGHT, BIAS, None)
    assert expected is not None
    for other in (copy.deepcopy(call), pickle.loads(pickle.dumps(call))):
        result = _C.call_eagerly(other, DATA, WEIGHT, BIAS, None)
        assert result is not None
        assert torch.equal(result, expected)


def test_a_module_uses_the_parameters_that_it_holds_now() -> None:
    module = mxdeconv.Deconvolution(**GIVEN, in_channels=6)
    with torch.no_grad():
        first = module(DATA)
        module.weight = nn.Parameter(module.weight * 2)
        module.bias = nn.Parameter(module.bias * 2)  # type: ignore[operator]
        assert torch.equal(module(DATA), first * 2)
        state = {"weight": WEIGHT, "bias": BIAS}
        swapped = torch.func.functional_call(module, state, (DATA,))
        assert torch.equal(swapped, long_way(DATA, WEIGHT, BIAS))


def test_plain_values_are_tuples_of_ints() -> None:
    assert _C.are_plain((1, 2), (), (3,))
    for value in [[1, 2], (1.0,), (True,), "(1,)", None, 1, torch.Size((1, 2))]:
        assert not _C.are_plain((1,), value)
