"""Arithmetic of two tensors, of a tensor and a number, and functions of one tensor.

MXNet's comparisons give numbers of the inputs' dtype, its integer division truncates, its
remainder has the divisor's sign and is 0 for a divisor of 0, and max and min hand the gradient of
equal values to one side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from mxdeconv.porting.attributes import DTYPES, Attributes
from mxdeconv.porting.operators.table import Function, Layer, Operation, operator

Number: TypeAlias = "Tensor | float"


def divide(a: Tensor, b: Tensor) -> Tensor:
    """a / b, truncated for integers."""
    if a.dtype.is_floating_point:
        return torch.div(a, b)
    return torch.div(a, b, rounding_mode="trunc")


def remainder(a: Tensor, b: Tensor) -> Tensor:
    """The remainder with the sign of b; 0 where b is 0."""
    zero = b == 0
    rest = torch.remainder(a, torch.where(zero, torch.ones_like(b), b))
    return torch.where(zero, a - a.detach(), rest)  # 0, with the gradient of a


def maximum(a: Tensor, b: Tensor) -> Tensor:
    """The larger one; where they are equal the gradient goes to a."""
    return torch.where((a >= b) | a.isnan(), a, b)


def minimum(a: Tensor, b: Tensor) -> Tensor:
    """The smaller one; where they are equal the gradient goes to a."""
    return torch.where((a <= b) | a.isnan(), a, b)


def equal(a: Tensor, b: Number) -> Tensor:
    return _numbers(a == _like(a, b), a)


def not_equal(a: Tensor, b: Number) -> Tensor:
    return _numbers(a != _like(a, b), a)


def greater(a: Tensor, b: Number) -> Tensor:
    return _numbers(a > _like(a, b), a)


def greater_equal(a: Tensor, b: Number) -> Tensor:
    return _numbers(a >= _like(a, b), a)


def lesser(a: Tensor, b: Number) -> Tensor:
    return _numbers(a < _like(a, b), a)


def lesser_equal(a: Tensor, b: Number) -> Tensor:
    return _numbers(a <= _like(a, b), a)


def logical_and(a: Tensor, b: Number) -> Tensor:
    return _numbers((a != 0) & (_like(a, b) != 0), a)


def logical_or(a: Tensor, b: Number) -> Tensor:
    return _numbers((a != 0) | (_like(a, b) != 0), a)


def logical_xor(a: Tensor, b: Number) -> Tensor:
    return _numbers((a != 0) ^ (_like(a, b) != 0), a)


def _numbers(truth: Any, like: Tensor) -> Tensor:
    """0 and 1, as MXNet has comparisons give them."""
    result: Tensor = truth.to(like.dtype)
    return result


def _like(data: Tensor, value: Any) -> Any:
    """A number as MXNet converts it to the dtype of the tensor first."""
    whole = not (isinstance(value, Tensor) or data.dtype.is_floating_point)
    return int(value) if whole else value


_BINARY: dict[str, Callable[..., Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": divide,
    "mod": remainder,
    "power": torch.pow,
    "maximum": maximum,
    "minimum": minimum,
    "hypot": torch.hypot,
    "equal": equal,
    "not_equal": not_equal,
    "greater": greater,
    "greater_equal": greater_equal,
    "lesser": lesser,
    "lesser_equal": lesser_equal,
    "logical_and": logical_and,
    "logical_or": logical_or,
    "logical_xor": logical_xor,
}
#: The names of each: with broadcasting, and of old.
_BINARY_NAMES: dict[str, tuple[str, ...]] = {
    "add": ("elemwise_add", "_plus", "_add", "_Plus", "broadcast_plus", "_grad_add"),
    "sub": ("elemwise_sub", "_minus", "_sub", "_Minus", "broadcast_minus"),
    "mul": ("elemwise_mul", "_mul", "_Mul"),
    "div": ("elemwise_div", "_div", "_Div"),
    "mod": ("_mod", "_Mod"),
    "power": ("_power", "_Power", "pow"),
    "maximum": ("_maximum", "_Maximum"),
    "minimum": ("_minimum", "_Minimum"),
    "hypot": ("_hypot",),
}


def _binary(function: Callable[..., Tensor]) -> Callable[[Attributes], Operation]:
    def read(attributes: Attributes) -> Operation:
        attributes.need_inputs(2)
        return Function(function)

    return read


for _name, _function in _BINARY.items():
    _old = _BINARY_NAMES.get(_name, (f"_{_name}", f"_{_name.title()}"))
    operator(f"broadcast_{_name}", *_old)(_binary(_function))


# With a number ----------------------------------------------------------------------------------


def add_scalar(data: Tensor, scalar: float) -> Tensor:
    return data + _like(data, scalar)


def subtract_scalar(data: Tensor, scalar: float) -> Tensor:
    return data - _like(data, scalar)


def subtract_from_scalar(data: Tensor, scalar: float) -> Tensor:
    return _like(data, scalar) - data


def multiply_scalar(data: Tensor, scalar: float) -> Tensor:
    return data * _like(data, scalar)


def divide_scalar(data: Tensor, scalar: float) -> Tensor:
    if data.dtype.is_floating_point:
        return data / scalar
    return torch.div(data, _like(data, scalar), rounding_mode="trunc")


def divide_into_scalar(data: Tensor, scalar: float) -> Tensor:
    return divide(_full_like(data, scalar), data)


def remainder_scalar(data: Tensor, scalar: float) -> Tensor:
    if scalar == 0:
        return data - data.detach()
    return torch.remainder(data, _like(data, scalar))


def remainder_of_scalar(data: Tensor, scalar: float) -> Tensor:
    return remainder(_full_like(data, scalar), data)


def power_scalar(data: Tensor, scalar: float) -> Tensor:
    return torch.pow(data, _like(data, scalar))


def scalar_power(data: Tensor, scalar: float) -> Tensor:
    return torch.pow(_full_like(data, scalar), data)


def maximum_scalar(data: Tensor, scalar: float) -> Tensor:
    return maximum(data, _full_like(data, scalar))


def minimum_scalar(data: Tensor, scalar: float) -> Tensor:
    return minimum(data, _full_like(data, scalar))


def hypot_scalar(data: Tensor, scalar: float) -> Tensor:
    return torch.hypot(data, _full_like(data, scalar))


def _full_like(data: Tensor, scalar: float) -> Tensor:
    return torch.full_like(data, _like(data, scalar))


_SCALAR: dict[str, tuple[Callable[..., Tensor], str]] = {
    "_plus_scalar": (add_scalar, "_PlusScalar"),
    "_minus_scalar": (subtract_scalar, "_MinusScalar"),
    "_rminus_scalar": (subtract_from_scalar, "_RMinusScalar"),
    "_mul_scalar": (multiply_scalar, "_MulScalar"),
    "_div_scalar": (divide_scalar, "_DivScalar"),
    "_rdiv_scalar": (divide_into_scalar, "_RDivScalar"),
    "_mod_scalar": (remainder_scalar, "_ModScalar"),
    "_rmod_scalar": (remainder_of_scalar, "_RModScalar"),
    "_power_scalar": (power_scalar, "_PowerScalar"),
    "_rpower_scalar": (scalar_power, "_RPowerScalar"),
    "_maximum_scalar": (maximum_scalar, "_MaximumScalar"),
    "_minimum_scalar": (minimum_scalar, "_MinimumScalar"),
    "_hypot_scalar": (hypot_scalar, "_HypotScalar"),
    "_equal_scalar": (equal, "_EqualScalar"),
    "_not_equal_scalar": (not_equal, "_NotEqualScalar"),
    "_greater_scalar": (greater, "_GreaterScalar"),
    "_greater_equal_scalar": (greater_equal, "_GreaterEqualScalar"),
    "_lesser_scalar": (lesser, "_LesserScalar"),
    "_lesser_equal_scalar": (lesser_equal, "_LesserEqualScalar"),
    "_logical_and_scalar": (logical_and, "_LogicalAndScalar"),
    "_logical_or_scalar": (logical_or, "_LogicalOrScalar"),
    "_logical_xor_scalar": (logical_xor, "_LogicalXorScalar"),
}


def _with_scalar(function: Callable[..., Tensor]) -> Callable[[Attributes], Operation]:
    key = "b" if function.__name__ in _BINARY else "scalar"

    def read(attributes: Attributes) -> Operation:
        attributes.need_inputs(1)
        attributes.ignore("is_int")
        return Function(function, {key: attributes.number("scalar", 1.0)})

    return read


for _name, (_function, _old_name) in _SCALAR.items():
    operator(_name, _old_name)(_with_scalar(_function))


# Of one tensor ----------------------------------------------------------------------------------


def round_half_away(data: Tensor) -> Tensor:
    """Halves away from zero, where torch.round takes the even neighbour."""
    return torch.trunc(data + torch.where(data < 0, -0.5, 0.5)) if _small(data) else data


def _small(data: Tensor) -> bool:
    return data.dtype.is_floating_point


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
    "_np_negative": torch.neg,
    "fix": torch.trunc,
    "round": round_half_away,
    "rint": round_half_down,
    "cbrt": cbrt,
    "rcbrt": rcbrt,
    "gamma": gamma,
    "gammaln": torch.lgamma,
    "digamma": torch.digamma,
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
    return Function(smooth_l1, {"scalar": attributes.number("scalar", 1.0)})


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


def add_n(tensors: list[Tensor]) -> Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total


@operator("add_n", "ElementWiseSum", "_sum")
def add_n_operator(attributes: Attributes) -> Operation:
    attributes.ignore("num_args")
    return Function(add_n, as_list=True)


def where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """x where condition is not 0; a vector chooses whole rows."""
    if condition.dim() == 1 and x.dim() > 1:
        condition = condition.reshape(-1, *[1] * (x.dim() - 1))
    return torch.where(condition != 0, x, y)


@operator("where")
def where_operator(attributes: Attributes) -> Operation:
    attributes.need_inputs(3)
    return Function(where)


# Without inputs ---------------------------------------------------------------------------------


class Constant(torch.nn.Module):
    """A tensor that the graph makes itself: arange, zeros, ones. It moves with the module."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value: Tensor
        self.register_buffer("value", value, persistent=False)

    def forward(self) -> Any:
        return self.value

    def extra_repr(self) -> str:
        return f"shape={tuple(self.value.shape)}, dtype={self.value.dtype}"


def arange(
    start: float, stop: float | None, step: float, repeat: int, dtype: torch.dtype
) -> Tensor:
    """MXNet's arange: without a stop from 0 to start; each value `repeat` times."""
    if stop is None:
        start, stop = 0.0, start
    count = max(math.ceil((stop - start) / step), 0)
    values = start + step * torch.arange(count, dtype=torch.float64)
    return values.repeat_interleave(repeat).to(dtype)


@operator("_arange", "_npi_arange")
def arange_operator(attributes: Attributes) -> Operation:
    start, stop = attributes.number("start"), attributes.optional_number("stop")
    step, repeat = attributes.number("step", 1.0), attributes.integer("repeat", 1, minimum=1)
    dtype = attributes.dtype("dtype", "float32") or torch.float32
    attributes.ignore("ctx")
    if attributes.flag("infer_range", False):
        raise ValueError("infer_range must be False: the length depends on where it is used")
    if step == 0:
        raise ValueError("step must not be 0")
    return Layer(lambda shapes: Constant(arange(start, stop, step, repeat, dtype)))


def _filled(attributes: Attributes, value: float) -> Operation:
    shape = attributes.ints("shape", ())
    dtype = attributes.dtype("dtype", "float32")
    attributes.ignore("ctx")
    if not shape or min(shape) < 1:
        raise ValueError(f"shape must be known, with sizes of at least 1, got {shape}")
    return Layer(lambda shapes: Constant(torch.full(shape, value, dtype=dtype)))


@operator("_zeros")
def zeros(attributes: Attributes) -> Operation:
    return _filled(attributes, 0)


@operator("_ones")
def ones(attributes: Attributes) -> Operation:
    return _filled(attributes, 1)


@operator("_full")
def full(attributes: Attributes) -> Operation:
    return _filled(attributes, attributes.number("value"))


@operator("_eye")
def eye(attributes: Attributes) -> Operation:
    rows, columns = attributes.integer("N", minimum=1), attributes.integer("M", 0)
    offset = attributes.integer("k", 0)
    dtype = attributes.dtype("dtype", "float32")
    attributes.ignore("ctx")
    value = torch.ones(rows, columns or rows).triu(offset).tril(offset).to(dtype)
    return Layer(lambda shapes: Constant(value))
