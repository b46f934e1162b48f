"""Lookups and sorting. Indices come as numbers of any dtype, as MXNet's float32 ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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


class Embedding(nn.Embedding):
    """nn.Embedding for indices of any dtype; those out of range count as the nearest row."""

    def forward(self, input: Tensor) -> Tensor:
        rows = input.long().clamp(0, self.num_embeddings - 1)
        return F.embedding(rows, self.weight)


@operator("Embedding")
def embedding(attributes: Attributes) -> Operation:
    rows = attributes.integer("input_dim", minimum=1)
    columns = attributes.integer("output_dim", minimum=1)
    dtype = attributes.dtype("dtype", "float32")
    attributes.ignore("sparse_grad")  # a storage format of the gradient
    attributes.need_inputs(2)

    def make(shapes: Shapes) -> nn.Module:
        known(shapes, 1)
        return Embedding(rows, columns, device="meta", dtype=dtype)

    def infer(data: Shape) -> Mapping[int, Shape]:
        return {1: (rows, columns)}

    return Layer(make, {1: "weight"}, infer)


def take(data: Tensor, indices: Tensor, axis: int = 0, mode: str = "clip") -> Tensor:
    """Entries along `axis`; indices out of range are clipped, wrapped, or an error ("raise")."""
    size = data.shape[axis]
    positions = indices.long()
    if mode == "clip":
        positions = positions.clamp(0, size - 1)
    elif mode == "wrap":
        positions = positions.remainder(size)
    taken = data.index_select(axis, positions.reshape(-1))
    axis = axis % data.dim()
    return taken.reshape(*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :])


@operator("take")
def take_operator(attributes: Attributes) -> Operation:
    axis = attributes.integer("axis", 0)
    mode = attributes.choice("mode", ("clip", "wrap", "raise"), "clip")
    attributes.need_inputs(2)
    return Function(take, {"axis": axis, "mode": mode})


def pick(data: Tensor, index: Tensor, axis: int | None, keepdims: bool, mode: str) -> Tensor:
    """For each position the entry along `axis` that index names."""
    if axis is None:
        data, axis = data.reshape(-1), 0
    size = data.shape[axis]
    where = index.long()
    where = where.clamp(0, size - 1) if mode == "clip" else where.remainder(size)
    if where.dim() != data.dim():
        where = where.unsqueeze(axis)
    picked = data.gather(axis, where)
    return picked if keepdims else picked.squeeze(axis)


@operator("pick", "choose_element_0index")
def pick_operator(attributes: Attributes) -> Operation:
    axis = attributes.optional_integer("axis", -1)
    keepdims = attributes.flag("keepdims", False)
    mode = attributes.choice("mode", ("clip", "wrap"), "clip")
    return Function(pick, {"axis": axis, "keepdims": keepdims, "mode": mode})


def gather_nd(data: Tensor, indices: Tensor) -> Tensor:
    """data[indices[0], indices[1], ...]."""
    return data[tuple(indices.long().unbind(0))]


@operator("gather_nd")
def gather_nd_operator(attributes: Attributes) -> Operation:
    attributes.need_inputs(2)
    attributes.ignore_all()
    return Function(gather_nd)


def one_hot(
    indices: Tensor, depth: int, on_value: float, off_value: float, dtype: torch.dtype
) -> Tensor:
    """on_value at the index along a new last axis; nowhere for an index out of range."""
    hot = indices.long().unsqueeze(-1) == torch.arange(depth, device=indices.device)
    on = torch.full((), on_value, dtype=dtype, device=indices.device)
    return torch.where(hot, on, torch.full((), off_value, dtype=dtype, device=indices.device))


@operator("one_hot")
def one_hot_operator(attributes: Attributes) -> Operation:
    return Function(
        one_hot,
        {
            "depth": attributes.integer("depth", minimum=1),
            "on_value": attributes.number("on_value", 1.0),
            "off_value": attributes.number("off_value", 0.0),
            "dtype": attributes.dtype("dtype", "float32"),
        },
    )


# Sorting ----------------------------------------------------------------------------------------


def _sorted(data: Tensor, axis: int | None, k: int, is_ascend: bool) -> tuple[Any, Any, Tensor]:
    """Values and positions of the first k in order, and the data they are of."""
    if axis is None:
        data, axis = data.reshape(-1), 0
    values, positions = torch.sort(data, dim=axis, descending=not is_ascend, stable=True)
    if k > 0:
        values, positions = values.narrow(axis, 0, k), positions.narrow(axis, 0, k)
    return values, positions, data


def topk(
    data: Tensor, axis: int | None, k: int, ret_typ: str, is_ascend: bool, dtype: torch.dtype
) -> Any:
    """The k largest (or smallest) along `axis`, in order; all of them for k < 1."""
    values, positions, flat = _sorted(data, axis, k, is_ascend)
    if ret_typ == "value":
        return values
    if ret_typ == "indices":
        return positions.to(dtype)
    if ret_typ == "both":
        return values, positions.to(dtype)
    mask = torch.zeros_like(flat).scatter(0 if axis is None else axis, positions, 1)
    return mask.reshape(data.shape)


@operator("topk")
def topk_operator(attributes: Attributes) -> Operation:
    ret_typ = attributes.choice("ret_typ", ("value", "indices", "mask", "both"), "indices")
    keywords = {
        "axis": attributes.optional_integer("axis", -1),
        "k": attributes.integer("k", 1),
        "ret_typ": ret_typ,
        "is_ascend": attributes.flag("is_ascend", False),
        "dtype": attributes.dtype("dtype", "float32"),
    }
    outputs = ("output0", "output1") if ret_typ == "both" else ("output",)
    return Function(topk, keywords, outputs=outputs)


def sort(data: Tensor, axis: int | None, is_ascend: bool) -> Tensor:
    values: Tensor = _sorted(data, axis, 0, is_ascend)[0]
    return values


@operator("sort")
def sort_operator(attributes: Attributes) -> Operation:
    axis, is_ascend = attributes.optional_integer("axis", -1), attributes.flag("is_ascend", True)
    return Function(sort, {"axis": axis, "is_ascend": is_ascend})


def argsort(data: Tensor, axis: int | None, is_ascend: bool, dtype: torch.dtype) -> Tensor:
    positions: Tensor = _sorted(data, axis, 0, is_ascend)[1]
    return positions.to(dtype)


@operator("argsort")
def argsort_operator(attributes: Attributes) -> Operation:
    return Function(
        argsort,
        {
            "axis": attributes.optional_integer("axis", -1),
            "is_ascend": attributes.flag("is_ascend", True),
            "dtype": attributes.dtype("dtype", "float32"),
        },
    )
