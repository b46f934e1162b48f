"""Gluon's layers: signatures, broadcasting, initialisation, activations, checks at construction."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import mxdeconv
from mxdeconv import gluon, init

LAYERS = (gluon.Conv1DTranspose, gluon.Conv2DTranspose, gluon.Conv3DTranspose)
CONV_TRANSPOSE = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def integers(*shape: int) -> torch.Tensor:
    return torch.randint(-3, 4, shape).float()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_signature_is_gluons(rank: int) -> None:
    parameters = inspect.signature(LAYERS[rank - 1]).parameters
    one, zero = (1, 0) if rank == 1 else ((1,) * rank, (0,) * rank)
    assert {name: p.default for name, p in parameters.items()} == {
        "channels": inspect.Parameter.empty,
        "kernel_size": inspect.Parameter.empty,
        "strides": one,
        "padding": zero,
        "output_padding": zero,
        "dilation": one,
        "groups": 1,
        "layout": ("NCW", "NCHW", "NCDHW")[rank - 1],
        "activation": None,
        "use_bias": True,
        "weight_initializer": None,
        "bias_initializer": "zeros",
        "in_channels": 0,
        "kwargs": inspect.Parameter.empty,
    }


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("in_channels", [0, 4])
def test_ints_are_broadcast(rank: int, in_channels: int) -> None:
    layer = LAYERS[rank - 1](6, 3, 2, 1, 1, 2, 2, in_channels=in_channels)
    spelled = LAYERS[rank - 1](*(6, *((v,) * rank for v in (3, 2, 1, 1, 2)), 2))
    assert layer.attributes == spelled.attributes
    data = integers(2, 4, *(4, 5, 3)[:rank])
    layer(data)
    theirs = CONV_TRANSPOSE[rank - 1](4, 6, 3, 2, 1, 1, 2, True, 2)
    layer.weight.data = integers(*layer.weight.shape)
    layer.bias.data = integers(6)
    theirs.load_state_dict(layer.state_dict())
    assert torch.equal(layer(data), theirs(data))


@pytest.mark.parametrize(("layer", "layout"), [(1, "NHWC"), (2, "NDHWC")])
def test_channels_last(layer: int, layout: str) -> None:
    made = LAYERS[layer](3, 2, layout=layout, in_channels=4)
    assert made.weight.shape == (4, *(2,) * (layer + 1), 3)
    assert made(torch.ones(1, *(5,) * (layer + 1), 4)).shape == (1, *(6,) * (layer + 1), 3)


def test_deferred_channels_with_any_groups() -> None:
    for groups in (1, 2, 3, 6):
        layer = gluon.Conv2DTranspose(6, 3, groups=groups)
        assert layer.has_uninitialized_params()
        assert layer(torch.ones(1, 6, 4, 4)).shape == (1, 6, 6, 6)
        assert layer.in_channels == 6
        assert type(layer) is gluon.Conv2DTranspose


def test_default_initialisation_is_uniform_007_and_zeros() -> None:
    torch.manual_seed(4)
    layer = gluon.Conv2DTranspose(6, 3, in_channels=4)
    torch.manual_seed(4)
    assert torch.equal(layer.weight, torch.empty(4, 6, 3, 3).uniform_(-0.07, 0.07))
    assert torch.equal(layer.bias, torch.zeros(6))
    assert gluon.Conv2DTranspose(6, 3, in_channels=4, use_bias=False).bias is None


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        *[("zeros", init.Zero()), ("ones", init.One()), ("xavier", init.Xavier())],
        *[("normal", init.Normal()), ("uniform", init.Uniform()), ("msraprelu", init.MSRAPrelu())],
        *[("bilinear", init.Bilinear()), (init.Xavier("gaussian"), init.Xavier("gaussian"))],
        *[('["uniform", {"scale": 2}]', init.Uniform(2)), (nn.init.ones_, init.One())],
    ],
)
@pytest.mark.parametrize("in_channels", [0, 4])
def test_weight_initializers(weight: Any, expected: Any, in_channels: int) -> None:
    torch.manual_seed(6)
    layer = gluon.Conv2DTranspose(6, 4, weight_initializer=weight, in_channels=in_channels)
    layer(torch.ones(1, 4, 2, 2))
    torch.manual_seed(6)
    assert torch.equal(layer.weight, expected(torch.empty(4, 6, 4, 4)))


def test_bias_initializers() -> None:
    layer = gluon.Conv1DTranspose(3, 2, bias_initializer="ones", in_channels=1)
    assert torch.equal(layer.bias, torch.ones(3))
    torch.manual_seed(1)
    layer = gluon.Conv1DTranspose(
        3, 2, weight_initializer="zeros", bias_initializer=None, in_channels=1
    )
    torch.manual_seed(1)
    assert torch.equal(layer.bias, torch.empty(3).uniform_(-0.07, 0.07))  # as in Gluon


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("relu", torch.relu),
        ("sigmoid", torch.sigmoid),
        ("tanh", torch.tanh),
        ("softrelu", nn.functional.softplus),
        ("softsign", nn.functional.softsign),
    ],
)
def test_activation_after_the_bias(name: str, function: Any) -> None:
    layer = gluon.Conv2DTranspose(
        3, 2, activation=name, bias_initializer=lambda bias: bias.fill_(-1), in_channels=2
    )
    plain = mxdeconv.deconvolution(
        torch.ones(1, 2, 3, 3), layer.weight, layer.bias, kernel=(2, 2), num_filter=3, no_bias=False
    )
    assert torch.equal(layer(torch.ones(1, 2, 3, 3)), function(plain))
    assert list(layer.state_dict()) == ["weight", "bias"]


def test_copies() -> None:
    layer = gluon.Conv2DTranspose(3, 2, activation="relu", weight_initializer="xavier")
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.manual_seed(2)
        out = twin(torch.ones(1, 4, 3, 3))
        torch.manual_seed(2)
        assert torch.equal(copy.deepcopy(layer)(torch.ones(1, 4, 3, 3)), out)


def test_compiled() -> None:
    torch._dynamo.reset()
    layer = gluon.Conv2DTranspose(3, 4, 2, 1, activation="relu", in_channels=4)
    layer.weight.data = integers(4, 3, 4, 4)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=True)
    for size in ((5, 6), (7, 4)):
        data = integers(2, 4, *size)
        assert torch.equal(compiled(data), layer(data))


two = gluon.Conv2DTranspose
LISTED = (
    "channels, kernel_size, strides, padding, output_padding, dilation, groups, layout, "
    "activation, use_bias, weight_initializer, bias_initializer, in_channels, prefix, device, dtype"
)
BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda **k: gluon.Conv1DTranspose(3, 3, layout="NWC", **k), ValueError,
     "layout must be 'NCW', got 'NWC'"),
    (lambda **k: two(3, 3, layout="NCW", **k), ValueError,
     "layout must be 'NCHW' or 'NHWC', got 'NCW'"),
    (lambda **k: two(3, 3, layout=None, **k), ValueError,
     "layout must be 'NCHW' or 'NHWC', got None"),
    (lambda **k: gluon.Conv3DTranspose(3, 3, layout="NCHW", **k), ValueError,
     "layout must be 'NCDHW' or 'NDHWC', got 'NCHW'"),
    (lambda **k: two(3, (3,), **k), ValueError,
     "kernel_size must be an int or a tuple of 2 ints, got (3,)"),
    (lambda **k: two(3, None, **k), ValueError,
     "kernel_size must be an int or a tuple of 2 ints, got None"),
    (lambda **k: two(3, 3.0, **k), TypeError, "kernel_size must be a tuple of ints, got 3.0"),
    (lambda **k: two(3, True, **k), TypeError, "kernel_size must be a tuple of ints, got True"),
    (lambda **k: two(3, 0, **k), ValueError,
     "kernel_size must be at least 1 on every axis, got (0, 0)"),
    (lambda **k: two(3, 3, output_padding=(1,), **k), ValueError,
     "output_padding must be an int or a tuple of 2 ints, got (1,)"),
    (lambda **k: two(3, 3, strides=(2,), **k), ValueError,
     "strides must be an int or a tuple of 2 ints, got (2,)"),
    (lambda **k: two(3, 3, padding=(1, 1, 1), **k), ValueError,
     "padding must be an int or a tuple of 2 ints, got (1, 1, 1)"),
    (lambda **k: two(3, 3, strides=0, **k), ValueError,
     "strides must be at least 1 on every axis, got (0, 0)"),
    (lambda **k: two(3, 3, padding=-1, **k), ValueError,
     "padding must be at least 0 on every axis, got (-1, -1)"),
    (lambda **k: two(3, 3, dilation=0, **k), ValueError,
     "dilation must be at least 1 on every axis, got (0, 0)"),
    (lambda **k: two(3, 3, strides=2, output_padding=2, **k), ValueError,
     "output_padding must be smaller than strides on every axis, "
     "got output_padding (2, 2) with strides (2, 2)"),
    (lambda **k: two(3, 3, groups=2, in_channels=4, **k), ValueError,
     "groups must divide channels, 3, got 2"),
    (lambda **k: two(4, 3, groups=2, in_channels=3, **k), ValueError,
     "groups must divide in_channels, 3, got 2"),
    (lambda **k: two(4, 3, groups=0, **k), ValueError, "groups must be at least 1, got 0"),
    (lambda **k: two(0, 3, in_channels=6, **k), ValueError, "channels must be at least 1, got 0"),
    (lambda **k: two(4, 3, in_channels=-1, **k), ValueError,
     "in_channels must be at least 0, got -1"),
    (lambda **k: two(4, 3, foo=1, **k), TypeError, f"unknown argument 'foo'; valid are {LISTED}"),
    (lambda **k: two(4, 3, adj=1, **k), TypeError, f"unknown argument 'adj'; valid are {LISTED}"),
    (lambda **k: two(4, 3, params={}, **k), TypeError,
     "params must not be given: share parameters by assigning them, layer.weight = other.weight"),
    (lambda **k: two(4, 3, activation="bad", **k), ValueError,
     "activation must be None or one of 'relu', 'sigmoid', 'tanh', 'softrelu', 'softsign', "
     "got 'bad'"),
    (lambda **k: two(4, 3, activation=nn.ReLU(), **k), ValueError,
     "activation must be None or one of 'relu', 'sigmoid', 'tanh', 'softrelu', 'softsign', "
     "got ReLU()"),
    (lambda **k: two(4, 3, use_bias="yes", **k), ValueError,
     "use_bias must be True or False, got 'yes'"),
    (lambda **k: two(4, 3, weight_initializer=3, **k), TypeError,
     "weight_initializer must be a name, an initializer or a function of a tensor, got 3"),
    (lambda **k: two(4, 3, layout="NHWC", weight_initializer="bilinear", **k), ValueError,
     "weight_initializer must not be Bilinear() for layout 'NHWC', where MXNet's formula does "
     "not follow the axes of weight"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "error", "text"), BAD, ids=lambda v: v[:50] if type(v) is str else ""
)
def test_refused_at_construction(make: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        make()
    assert str(caught.value) == text
    with pytest.raises(error) as caught:
        make(prefix="up_")
    assert str(caught.value) == f"up_: {text}"


def test_three_dimensional_dilation_is_accepted() -> None:
    layer = gluon.Conv3DTranspose(4, 2, dilation=2, in_channels=6)
    assert layer(torch.ones(1, 6, 3, 3, 3)).shape == (1, 4, 5, 5, 5)


def test_to_torch_keeps_everything_or_refuses() -> None:
    layer = gluon.Conv2DTranspose(3, 2, in_channels=2)
    assert layer.to_torch().weight is layer.weight
    with pytest.raises(
        ValueError, match=r"^activation must be None for to_torch, .* got ReLU\(\)$"
    ):
        gluon.Conv2DTranspose(3, 2, in_channels=2, activation="relu").to_torch()
    for make in (gluon.Conv2DTranspose.from_torch, gluon.Conv2DTranspose.from_attrs):
        with pytest.raises(TypeError, match=r"use mxdeconv\.Deconvolution\.from_"):
            make(None)
