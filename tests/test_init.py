"""mxdeconv.init: MXNet's formulas, and what they must say where MXNet has none."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
import torch
from torch.nn.parameter import UninitializedParameter

import mxdeconv
from mxdeconv import init


def filled(initializer: Any, shape: tuple[int, ...], **more: Any) -> torch.Tensor:
    tensor = torch.full(shape, torch.nan, **more)
    assert initializer(tensor) is tensor
    assert not tensor.isnan().any()
    return tensor


def mxnet_bilinear(shape: tuple[int, ...]) -> torch.Tensor:
    """The loop of MXNet's Bilinear, entry by entry in memory order."""
    weight = torch.zeros(math.prod(shape), dtype=torch.float32)
    f = math.ceil(shape[3] / 2.0)
    c = (2 * f - 1 - f % 2) / (2.0 * f)
    for i in range(weight.numel()):
        x, y = i % shape[3], (i // shape[3]) % shape[2]
        weight[i] = (1 - abs(x / f - c)) * (1 - abs(y / f - c))
    return weight.reshape(shape)


@pytest.mark.parametrize(
    "shape",
    [
        *[(2, 2, 4, 4), (3, 1, 4, 4), (2, 3, 3, 3), (1, 1, 1, 1), (1, 1, 5, 5), (1, 1, 6, 6)],
        *[(1, 2, 4, 2), (2, 1, 2, 4), (1, 1, 64, 64), (1, 1, 3, 3, 3), (2, 1, 4, 4, 4)],
    ],
)
def test_bilinear_is_mxnets_to_the_bit(shape: tuple[int, ...]) -> None:
    assert torch.equal(filled(init.Bilinear(), shape), mxnet_bilinear(shape))
    doubled = filled(init.Bilinear(), shape, dtype=torch.float64)
    assert torch.equal(doubled, mxnet_bilinear(shape).double())  # rounded to float32 first


def test_bilinear_of_the_usual_kernel() -> None:
    row = torch.tensor([0.25, 0.75, 0.75, 0.25])
    weight = filled(init.Bilinear(), (2, 3, 4, 4))
    assert torch.equal(weight, torch.outer(row, row).expand(2, 3, 4, 4))


@pytest.mark.parametrize("shape", [(1, 1, 4), (4, 4), (4,), (1, 1, 4, 4, 2), (1, 4, 4, 3, 4)])
def test_bilinear_refuses_what_mxnet_gets_wrong(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^weight must have shape .* for Bilinear, got ") as error:
        init.Bilinear()(torch.empty(shape))
    assert str(error.value).endswith(str(shape))


@pytest.mark.parametrize("scale", [2, 4])  # the weights are dyadic: equality is exact
@pytest.mark.parametrize("groups", ["depthwise", "dense"])
def test_bilinear_upsampling_is_interpolation(scale: int, groups: str) -> None:
    channels, kernel = 3, 2 * scale - scale % 2
    num_group = channels if groups == "depthwise" else 1
    weight = filled(init.BilinearUpsampling(), (channels, channels // num_group, kernel, kernel))
    data = torch.randint(-8, 9, (2, channels, 7, 9)).float()
    out = mxdeconv.deconvolution(
        data,
        weight,
        kernel=(kernel, kernel),
        stride=(scale, scale),
        pad=((scale - 1 + 1) // 2,) * 2,
        num_filter=channels,
        num_group=num_group,
    )
    expected = torch.nn.functional.interpolate(data, scale_factor=scale, mode="bilinear")
    inner = (..., slice(scale, -scale), slice(scale, -scale))  # the border is padded differently
    assert out.shape == expected.shape
    assert torch.equal(out[inner], expected[inner])


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 6, 7, 8])
def test_bilinear_upsampling_is_symmetric(rank: int, kernel: int) -> None:
    weight = filled(init.BilinearUpsampling(), (2, 2, *(kernel,) * rank), dtype=torch.float64)
    assert torch.equal(weight, weight.flip(list(range(2, rank + 2))))
    assert torch.equal(weight[0, 1], torch.zeros_like(weight[0, 1]))
    assert torch.equal(weight[0, 0], weight[1, 1])
    assert weight.min() >= 0


def test_bilinear_upsampling_with_groups() -> None:
    weight = filled(init.BilinearUpsampling(num_group=2), (4, 2, 4, 4))
    dense = filled(init.BilinearUpsampling(), (2, 2, 4, 4))
    assert torch.equal(weight, torch.cat([dense, dense]))


@pytest.mark.parametrize("shape", [(4, 2, 4, 4), (2, 4, 4, 4), (3, 3), (1, 1, 2, 2, 2, 2)])
def test_bilinear_upsampling_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^weight must have "):
        init.BilinearUpsampling()(torch.empty(shape))


# (C, F/g, *kernel), and one channels-last shape, whose fans MXNet reads off the same axes.
SHAPES = [(6, 4, 3, 5), (8, 1, 4), (2, 3, 2, 2, 2), (5, 7), (6, 3, 5, 4)]


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    area = math.prod(shape[2:])
    return shape[1] * area, shape[0] * area


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("factor_type", ["avg", "in", "out"])
@pytest.mark.parametrize("magnitude", [3, 2.34])
def test_xavier(shape: tuple[int, ...], factor_type: str, magnitude: float) -> None:
    fan_in, fan_out = fans(shape)
    factor = {"avg": (fan_in + fan_out) / 2, "in": fan_in, "out": fan_out}[factor_type]
    scale = math.sqrt(magnitude / factor)
    torch.manual_seed(3)
    uniform = filled(init.Xavier("uniform", factor_type, magnitude), shape)
    gaussian = filled(init.Xavier("gaussian", factor_type, magnitude), shape)
    torch.manual_seed(3)
    assert torch.equal(uniform, torch.empty(shape).uniform_(-scale, scale))
    assert torch.equal(gaussian, torch.empty(shape).normal_(0, scale))


@pytest.mark.parametrize("slope", [0, 0.25, -1.5])
def test_msraprelu_is_gaussian_xavier(slope: float) -> None:
    torch.manual_seed(4)
    weight = filled(init.MSRAPrelu("in", slope), (6, 4, 3, 5))
    torch.manual_seed(4)
    assert torch.equal(
        weight, filled(init.Xavier("gaussian", "in", 2 / (1 + slope**2)), (6, 4, 3, 5))
    )


def test_defaults_are_mxnets() -> None:
    assert init.Uniform() == init.Uniform(0.07)
    assert init.Normal() == init.Normal(0.01)
    assert init.Xavier() == init.Xavier("uniform", "avg", 3)
    assert init.MSRAPrelu() == init.MSRAPrelu("avg", 0.25)
    assert init.Uniform(0.07) != init.Uniform(0.08)
    assert init.Uniform(0.07) != init.Normal(0.07)


@pytest.mark.parametrize(
    "initializer", [init.Uniform(2), init.Normal(2), init.Xavier(), init.MSRAPrelu()]
)
def test_a_generator_is_used_and_the_global_one_left_alone(initializer: Any) -> None:
    state = torch.get_rng_state()
    first, second = (
        initializer(torch.empty(4, 5), torch.Generator().manual_seed(7)) for _ in range(2)
    )
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first, initializer(torch.empty(4, 5)))


def test_autograd_does_not_see_it() -> None:
    weight = torch.nn.Parameter(torch.empty(2, 2, 4, 4))
    assert init.Bilinear()(weight) is weight
    assert weight.is_leaf
    assert weight.requires_grad


def test_strided_tensors_are_filled_where_they_lie() -> None:
    whole = torch.full((4, 4, 2, 2), -1.0)
    init.Bilinear()(whole.permute(2, 3, 0, 1))
    assert torch.equal(whole.permute(2, 3, 0, 1), mxnet_bilinear((2, 2, 4, 4)))


def test_zero_one_constant() -> None:
    assert torch.equal(filled(init.Zero(), (3,)), torch.zeros(3))
    assert torch.equal(filled(init.One(), (3,)), torch.ones(3))
    assert torch.equal(filled(init.Constant(-2), (3,)), torch.full((3,), -2.0))


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: init.Xavier("normal"), ValueError, "rnd_type must be one of 'uniform', 'gaussia"),
        (lambda: init.Xavier(factor_type="both"), ValueError, "factor_type must be one of 'avg'"),
        (lambda: init.Xavier(magnitude=-1), ValueError, "magnitude must be at least 0"),
        (lambda: init.Xavier(magnitude="3"), TypeError, "magnitude must be a number, got '3'"),
        (lambda: init.Uniform(float("nan")), ValueError, "scale must be at least 0 and finite"),
        (lambda: init.Normal(-1), ValueError, "sigma must be at least 0 and finite, got -1"),
        (lambda: init.Xavier()(torch.empty(3)), ValueError, "weight must have at least 2 dim"),
        (lambda: init.Zero()([1.0]), TypeError, "tensor must be an initialized floating point"),
        (lambda: init.Zero()(torch.ones(2).int()), TypeError, "tensor must be an initialized flo"),
        (lambda: init.Zero()(UninitializedParameter()), TypeError, "tensor must be an initialize"),
        (lambda: init.create("w", "xavierr"), ValueError, "w must be one of 'bilinear', "),
        (lambda: init.create("w", '["uniform"'), ValueError, "w must be one of 'bilinear', "),
        (lambda: init.create("w", "[1, 2]"), ValueError, "w must be one of 'bilinear', "),
        (lambda: init.create("w", 3), TypeError, "w must be a name, an initializer or a functi"),
        (lambda: init.create("w", init.Zero), TypeError, "w must be a name, an initializer or "),
        (
            lambda: init.create("w", '["uniform", {"a": 1}]'),
            TypeError,
            "w must name every option of",
        ),
        (lambda: init.create("w", "constant"), TypeError, "w must name every option of"),
    ],
)
def test_errors_name_the_argument(make: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        make()
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *[("zeros", init.Zero()), ("zero", init.Zero()), ("ones", init.One()), ("One", init.One())],
        *[("Xavier", init.Xavier()), ("MSRAPrelu", init.MSRAPrelu()), ("normal", init.Normal())],
        *[("uniform", init.Uniform()), ("bilinear", init.Bilinear())],
        ('["uniform", {"scale": 0.5}]', init.Uniform(0.5)),
        ('["bilinear", {}]', init.Bilinear()),
        ('["xavier", {"rnd_type": "gaussian", "magnitude": 2.34, "factor_type": "in"}]',
         init.Xavier("gaussian", "in", 2.34)),
    ],
)  # fmt: skip
def test_by_name(text: str, expected: init.Initializer) -> None:
    assert init.create("w", text) == expected
    assert hash(init.create("w", text)) == hash(expected)


def test_objects_are_themselves_and_can_be_pickled() -> None:
    for value in (init.Xavier("gaussian"), init.Bilinear(), init.MSRAPrelu(slope=0.1)):
        assert init.create("w", value) is value
        assert pickle.loads(pickle.dumps(value)) == value
    assert repr(init.Uniform(0.5)) == "Uniform(scale=0.5)"
