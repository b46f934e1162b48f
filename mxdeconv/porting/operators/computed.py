"""Computed: a layer whose parameters are results of other nodes, not variables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Computed(nn.Module):
    """Calls `layer` with its data and, after them, values for the parameters `names`.

    For weights that a graph computes (normalised, tied to a transposed one) or is given as data.
    """

    def __init__(self, layer: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        for name in names:  # a placeholder that is no parameter: it never trains nor is saved
            layer._parameters.pop(name, None)
            layer._buffers.pop(name, None)
            layer._parameters[name] = None
        self.layer = layer
        self.names = tuple(names)

    def forward(self, *inputs: Tensor) -> Any:
        split = len(inputs) - len(self.names)
        values = dict(zip(self.names, inputs[split:], strict=True))
        return torch.func.functional_call(self.layer, values, inputs[:split])

    def extra_repr(self) -> str:
        return f"computed={', '.join(self.names)}"
