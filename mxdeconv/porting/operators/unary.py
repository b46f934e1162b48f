"""Functions of one tensor, entry by entry."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from mxdeconv.porting.attributes import DTYPES, Attributes
from mxdeconv.porting.operators.table import Function, Operation, operator


def round_half_away(data: Tensor) -> Tensor:
    """Halves away from zero, where torch.round takes the even neighbour."""
    whole = torch.trunc(data)
    return torch.where((data - whole).abs() >= 0.5, whole + torch.sign(data), whole)


def round_half_down(data: Tensor) -> Tensor:
    """rint: halves to the smaller neighbour."""
    below, above = torch.floor(data), torch.ceil(data)
    return torch.where(data - below <= above - data, below, above)


def rsqrt(data: Tensor) -> Tensor:
    return torch.rsqrt(data)


def cbrt(data: Tensor) -> Tensor:
    return torch.sign(data) * data.abs() ** (1 / 3)


def rcbrt(data: Tensor) -> Tensor:
    return 1 / cbrt(data)


def gamma(data: Tensor) -> Tensor:
    """The gamma function; its sign alternates between the negative integers."""
    negative = (data < 0) & (torch.floor(data).remainder(2) != 0)
    return torch.where(negative, -1.0, 1.0) * torch.exp(torch.lgamma(data))


def logical_not(data: Tensor) -> Tensor:
    return (data == 0).to(data.dtype)


def softsign(data: Tensor) -> Tensor:
    return data / (1 + data.abs())


def identity(data: Tensor, *others: Tensor) -> Tensor:
    return data.view_as(data)


def block_grad(data: Tensor) -> Tensor:
    return data.detach()


_UNARY: dict[str, Callable[..., Tensor]] = {
    **{
        name: getattr(torch, name)
        for name in (
            *("abs", "sign", "ceil", "floor", "trunc", "square", "sqrt", "exp", "log", "log10"),
            *("log2", "log1p", "expm1", "sin", "cos", "tan", "sinh", "cosh", "tanh", "sigmoid"),
            *("erf", "erfinv", "reciprocal", "relu", "rsqrt"),
        )
    },
    **{
        f"arc{name}": getattr(torch, f"a{name}")
        for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")
    },
    "negative": torch.neg,
    "fix": torch.trunc,
    "round": round_half_away,
    "rint": round_half_down,
    "cbrt": cbrt,
    "rcbrt": rcbrt,
    "gamma": gamma,
    "gammaln": torch.lgamma,
    "degrees": torch.rad2deg,
    "radians": torch.deg2rad,
    "logical_not": logical_not,
    "softsign": softsign,
    "_copy": identity,
    "identity": identity,
    "BlockGrad": block_grad,
    "stop_gradient": block_grad,
    "_identity_with_attr_like_rhs": identity,
}


def _unary(function: Callable[..., Tensor], inputs: int) -> Callable[[Attributes], Operation]:
    def read(attributes: Attributes) -> Operation:
        attributes.need_inputs(inputs)
        attributes.ignore_all()
        return Function(function)

    return read


for _name, _function in _UNARY.items():
    operator(_name)(_unary(_function, 2 if _name == "_identity_with_attr_like_rhs" else 1))


@operator("clip")
def clip(attributes: Attributes) -> Operation:
    keywords = {"min": attributes.number("a_min"), "max": attributes.number("a_max")}
    return Function(torch.clamp, keywords)


def smooth_l1(data: Tensor, scalar: float) -> Tensor:
    """Quadratic within 1 / scalar**2 of zero, linear outside."""
    square = scalar * scalar
    size = data.abs()
    return torch.where(size < 1 / square, 0.5 * square * data * data, size - 0.5 / square)


@operator("smooth_l1")
def smooth_l1_operator(attributes: Attributes) -> Operation:
    scalar = attributes.number("scalar", 1.0)
    if scalar == 0:
        raise ValueError("scalar must not be 0")
    return Function(smooth_l1, {"scalar": scalar})


def hard_sigmoid(data: Tensor, alpha: float, beta: float) -> Tensor:
    return F.hardtanh(alpha * data + beta, 0.0, 1.0)  # flat on its bounds, unlike clamp


@operator("hard_sigmoid")
def hard_sigmoid_operator(attributes: Attributes) -> Operation:
    keywords = {"alpha": attributes.number("alpha", 0.2), "beta": attributes.number("beta", 0.5)}
    return Function(hard_sigmoid, keywords)


def cast(data: Tensor, dtype: torch.dtype) -> Tensor:
    return data.to(dtype)


@operator("Cast", "cast", "amp_cast")
def cast_operator(attributes: Attributes) -> Operation:
    return Function(cast, {"dtype": attributes.dtype("dtype", None) or _no_dtype()})


def _no_dtype() -> torch.dtype:
    raise ValueError(f"dtype must be one of {', '.join(DTYPES)}")
