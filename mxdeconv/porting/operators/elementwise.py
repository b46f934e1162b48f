"""Arithmetic of two tensors, of a tensor and a number, and functions of one tensor.

MXNet's comparisons give numbers of the inputs' dtype, its integer division truncates, its
remainder has the divisor's sign and is 0 for a divisor of 0, and max and min hand the gradient of
equal values to one side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar, cast

import torch
from torch import Tensor

from mxdeconv.porting.attributes import Attributes
from mxdeconv.porting.operators.table import Function, Operation, operator

Number: TypeAlias = "Tensor | float"
_N = TypeVar("_N")


def divide(a: Tensor, b: Tensor) -> Tensor:
    """a / b, truncated for integers."""
    if a.dtype.is_floating_point:
        return torch.div(a, b)
    return torch.div(a, b, rounding_mode="trunc")


def remainder(a: Tensor, b: Tensor) -> Tensor:
    """The remainder with the sign of b; 0 where b is 0, whatever a is."""
    by_zero = b == 0
    rest = torch.remainder(a, torch.where(by_zero, torch.ones_like(b), b))
    return torch.where(by_zero, _zero(a), rest)


def _zero(data: Tensor) -> Tensor:
    """Zeros with the gradient of finite data. ONNX asks no integer whether it is finite."""
    if not data.dtype.is_floating_point:
        return torch.zeros_like(data)
    finite = torch.where(torch.isfinite(data), data, torch.zeros_like(data))
    return finite - finite.detach()


def maximum(a: Tensor, b: Tensor) -> Tensor:
    """The larger one; where they are equal the gradient goes to a."""
    return torch.where(_or_nan(a >= b, a), a, b)


def minimum(a: Tensor, b: Tensor) -> Tensor:
    """The smaller one; where they are equal the gradient goes to a."""
    return torch.where(_or_nan(a <= b, a), a, b)


def _or_nan(truth: Tensor, data: Tensor) -> Tensor:
    return truth | data.isnan() if data.dtype.is_floating_point else truth


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


def _like(data: Tensor, value: _N) -> _N:
    """A number as MXNet converts it to the dtype of the tensor first."""
    if isinstance(value, Tensor) or data.dtype.is_floating_point:
        return value
    return cast(_N, int(cast(float, value)))


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
    "power": ("_power", "_Power"),
    "maximum": ("_maximum", "_Maximum"),
    "minimum": ("_minimum", "_Minimum"),
    "hypot": ("_hypot",),
}


def _binary(function: Callable[..., Tensor]) -> Callable[[Attributes], Operation]:
    def read(attributes: Attributes) -> Operation:
        attributes.need_inputs(2)
        attributes.ignore_all()
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
    divisor = _like(data, scalar)
    return _zero(data) if divisor == 0 else torch.remainder(data, divisor)


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


_PLAIN: dict[Callable[..., Tensor], Callable[..., Tensor]] = {
    add_scalar: torch.add,
    subtract_scalar: torch.sub,
    multiply_scalar: torch.mul,
}


def _with_scalar(function: Callable[..., Tensor]) -> Callable[[Attributes], Operation]:
    key = "b" if function.__name__ in _BINARY else "scalar"

    def read(attributes: Attributes) -> Operation:
        attributes.need_inputs(1)
        attributes.ignore("is_int")
        scalar = attributes.number("scalar", 1.0)
        if function in _PLAIN and scalar.is_integer():  # of one meaning for every dtype
            return Function(_PLAIN[function], {"other": int(scalar)})
        return Function(function, {key: scalar})

    return read


for _name, (_function, _old_name) in _SCALAR.items():
    operator(_name, _old_name)(_with_scalar(_function))


# Of several ------------------------------------------------------------------------------------


def add_n(tensors: list[Tensor]) -> Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total


@operator("add_n", "ElementWiseSum")
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
    attributes.ignore_all()
    return Function(where)
