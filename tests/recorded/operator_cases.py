"""All one-node symbols whose results are recorded from MXNet.

Needs NumPy only: MXNet's environment has no torch, the tests have no MXNet. A case is written down
as the node of a symbol.json, so that both sides read the very same text.
"""

from __future__ import annotations

import operator_arrays
import operator_layers
from operator_case import COLLECTED, Case, draw, draw_head_gradients

for _group in (
    *(operator_layers.layers, operator_layers.normalizations, operator_layers.activations),
    *(operator_layers.poolings, operator_arrays.shapes, operator_arrays.arithmetic),
    *(operator_arrays.reductions, operator_arrays.indexing, operator_layers.losses),
):
    _group()

CASES: tuple[Case, ...] = tuple({str(case): case for case in COLLECTED}.values())

__all__ = ["CASES", "Case", "draw", "draw_head_gradients"]
