"""Products: FullyConnected, dot, batch_dot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mxdeconv.porting.attributes import Attributes
from mxdeconv.porting.operators.table import (
    Function,
    Layer,
    Operation,
    Shape,
    Shapes,
    count,
    known,
    operator,
)


class FullyConnected(nn.Linear):
    """nn.Linear of the data as a matrix: all axes but the first are flattened."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.flatten(1))


@operator("FullyConnected")
def fully_connected(attributes: Attributes) -> Operation:
    num_hidden = attributes.integer("num_hidden", minimum=1)
    no_bias = attributes.flag("no_bias", False)
    flatten = attributes.flag("flatten", True)
    attributes.need_inputs(2 if no_bias else 3)

    def make(shapes: Shapes) -> nn.Module:
        data, weight = shapes[0], known(shapes, 1)
        kind = FullyConnected if flatten and (data is None or len(data) != 2) else nn.Linear
        return kind(weight[1], num_hidden, not no_bias, device="meta")

    def infer(data: Shape) -> Mapping[int, Shape]:
        features = count(data[1:]) if flatten else data[-1]
        return {1: (num_hidden, features), 2: (num_hidden,)}

    parameters = {1: "weight"} if no_bias else {1: "weight", 2: "bias"}
    return Layer(make, parameters, infer)


def dot(lhs: Tensor, rhs: Tensor, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
    """The last axis of lhs with the first of rhs; transposing rotates that axis to the end."""
    if transpose_a:
        lhs = lhs.movedim(0, -1)
    if transpose_b:
        rhs = rhs.movedim(-1, 0)
    product: Tensor = torch.tensordot(lhs, rhs, dims=([lhs.dim() - 1], [0]))
    return product.reshape(1) if product.dim() == 0 else product


def batch_dot(
    lhs: Tensor, rhs: Tensor, transpose_a: bool = False, transpose_b: bool = False
) -> Tensor:
    """A matrix product for each entry of the leading axes."""
    lhs = lhs.mT if transpose_a else lhs
    return torch.matmul(lhs, rhs.mT if transpose_b else rhs)


def _transposes(attributes: Attributes) -> dict[str, bool]:
    attributes.need_inputs(2)
    attributes.choice("forward_stype", ("None", "default"), "None")
    return {
        "transpose_a": attributes.flag("transpose_a", False),
        "transpose_b": attributes.flag("transpose_b", False),
    }


@operator("dot")
def dot_operator(attributes: Attributes) -> Operation:
    return Function(dot, _transposes(attributes))


@operator("batch_dot")
def batch_dot_operator(attributes: Attributes) -> Operation:
    return Function(batch_dot, _transposes(attributes))


def gemm2(
    a: Tensor, b: Tensor, transpose_a: bool, transpose_b: bool, alpha: float, axis: int
) -> Tensor:
    """alpha * a @ b, with the rows along `axis` and the columns along the last axis."""
    product = batch_dot(a.movedim(axis, -2), b.movedim(axis, -2), transpose_a, transpose_b)
    return (product if alpha == 1.0 else product * alpha).movedim(-2, axis)


@operator("_linalg_gemm2")
def gemm2_operator(attributes: Attributes) -> Operation:
    keywords: dict[str, Any] = dict(_transposes(attributes))
    keywords |= {"alpha": attributes.number("alpha", 1.0), "axis": attributes.integer("axis", -2)}
    return Function(gemm2, keywords)
