"""What torch's ONNX exporter does not know of the operators that ports are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def translations() -> dict[Any, Callable[..., Any]]:
    """torch operator -> ONNX nodes, for `torch.onnx.export(custom_translation_table=...)`."""
    from onnxscript import opset18 as op

    def sort(data: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
        # TopK of everything; among equal values it too has the one with the lower index first
        size = op.Reshape(op.Gather(op.Shape(data), op.Constant(value_ints=[dim])), [1])
        return op.TopK(data, size, axis=dim, largest=int(descending), sorted=1)

    def hypot(a: Any, b: Any) -> Any:
        return op.Sqrt(op.Add(op.Mul(a, a), op.Mul(b, b)))

    return {torch.ops.aten.sort.stable: sort, torch.ops.aten.hypot.default: hypot}
