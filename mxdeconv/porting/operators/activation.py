"""Activations, the softmax family, and Dropout."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mxdeconv.porting.attributes import Attributes
from mxdeconv.porting.operators.table import (
    Function,
    Layer,
    Operation,
    Shape,
    Shapes,
    known,
    operator,
)

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    # beyond the threshold log(1 + exp(x)) is x, in float64 too
    "softrelu": lambda: nn.Softplus(threshold=40.0),
    "softsign": nn.Softsign,
    "log_sigmoid": nn.LogSigmoid,
    "mish": nn.Mish,
}


@operator("Activation")
def activation(attributes: Attributes) -> Operation:
    kind = attributes.choice("act_type", tuple(_ACTIVATIONS))
    return Layer(lambda shapes: _ACTIVATIONS[kind]())


@operator("LeakyReLU")
def leaky_relu(attributes: Attributes) -> Operation:
    kinds = ("leaky", "elu", "prelu", "rrelu", "selu", "gelu")
    kind = attributes.choice("act_type", kinds, "leaky")
    slope = attributes.number("slope", 0.25)
    lower = attributes.number("lower_bound", 0.125)
    upper = attributes.number("upper_bound", 0.334)
    if kind == "prelu":
        return _prelu(attributes)
    attributes.need_inputs(1)
    modules: dict[str, Callable[[], nn.Module]] = {
        "leaky": lambda: nn.LeakyReLU(slope),
        "elu": lambda: nn.ELU(slope),
        "rrelu": lambda: nn.RReLU(lower, upper),
        "selu": nn.SELU,
        "gelu": nn.GELU,
    }
    return Layer(lambda shapes: modules[kind]())


def _prelu(attributes: Attributes) -> Operation:
    attributes.need_inputs(2)

    def make(shapes: Shapes) -> nn.Module:
        return nn.PReLU(known(shapes, 1)[0], device="meta")

    def infer(data: Shape) -> Mapping[int, Shape]:
        return {1: (data[1] if len(data) > 1 else 1,)}

    return Layer(make, {1: "weight"}, infer)


# Softmax --------------------------------------------------------------------------------------


def _softmax_attributes(attributes: Attributes) -> dict[str, object]:
    use_length = attributes.flag("use_length", False)
    attributes.need_inputs(2 if use_length else 1)
    return {
        "axis": attributes.integer("axis", -1),
        "temperature": attributes.optional_number("temperature"),
        "dtype": attributes.dtype("dtype", None),
    }


def softmax(
    data: Tensor,
    length: Tensor | None = None,
    *,
    axis: int = -1,
    temperature: float | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Softmax along `axis` of data / temperature; with `length`, of the first entries only."""
    if temperature is not None and temperature != 1.0:
        data = data / temperature
    if dtype is not None:
        data = data.to(dtype)
    if length is None:
        return torch.softmax(data, axis)
    inside = _inside(data, length, axis)
    result = torch.softmax(data.masked_fill(~inside, -torch.inf), axis)
    return torch.where(inside, result, torch.zeros_like(result))


def _inside(data: Tensor, length: Tensor, axis: int) -> Tensor:
    positions = torch.arange(data.shape[axis], device=data.device)
    shape = [1] * data.dim()
    shape[axis] = -1
    return positions.reshape(shape) < length.unsqueeze(axis)


def log_softmax(
    data: Tensor,
    *,
    axis: int = -1,
    temperature: float | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    if temperature is not None and temperature != 1.0:
        data = data / temperature
    return torch.log_softmax(data if dtype is None else data.to(dtype), axis)


def softmin(
    data: Tensor,
    *,
    axis: int = -1,
    temperature: float | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    return softmax(-data, axis=axis, temperature=temperature, dtype=dtype)


@operator("softmax")
def softmax_operator(attributes: Attributes) -> Operation:
    return Function(softmax, _softmax_attributes(attributes))


@operator("log_softmax")
def log_softmax_operator(attributes: Attributes) -> Operation:
    keywords = _softmax_attributes(attributes)
    attributes.need_inputs(1)
    return Function(log_softmax, keywords)


@operator("softmin")
def softmin_operator(attributes: Attributes) -> Operation:
    keywords = _softmax_attributes(attributes)
    attributes.need_inputs(1)
    return Function(softmin, keywords)


def softmax_activation(data: Tensor, mode: str) -> Tensor:
    """Softmax over the channels ("channel") or the last axis ("instance")."""
    if mode == "channel":
        return torch.softmax(data, 1)
    return torch.softmax(data, -1)


@operator("SoftmaxActivation")
def softmax_activation_operator(attributes: Attributes) -> Operation:
    mode = attributes.choice("mode", ("instance", "channel"), "instance")
    return Function(softmax_activation, {"mode": mode})


# Dropout --------------------------------------------------------------------------------------


class Dropout(nn.Dropout):
    """nn.Dropout with MXNet's mode and axes: along `axes` one draw serves all positions."""

    def __init__(self, p: float, always: bool, axes: tuple[int, ...]) -> None:
        super().__init__(p)
        self.always = always
        self.axes = axes

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training or self.always):
            return input
        shape = [1 if axis in self.axes else size for axis, size in enumerate(input.shape)]
        return input * F.dropout(input.new_ones(shape), self.p, True)

    def extra_repr(self) -> str:
        return f"p={self.p}, always={self.always}, axes={self.axes}"


@operator("Dropout")
def dropout(attributes: Attributes) -> Operation:
    p = attributes.number("p", 0.5)
    mode = attributes.choice("mode", ("training", "always"), "training")
    axes = attributes.ints("axes", ())
    attributes.ignore("cudnn_off")
    if mode == "training" and not axes:
        return Layer(lambda shapes: nn.Dropout(p))
    return Layer(lambda shapes: Dropout(p, mode == "always", axes))
