"""What each of MXNet's operators becomes: see `table` for how to add one."""

from mxdeconv.porting.operators import (
    activation,
    convolution,
    elementwise,
    indexing,
    linear,
    loss,
    normalization,
    pooling,
    reduction,
    shape,
)
from mxdeconv.porting.operators.table import OPERATORS

__all__ = [
    "OPERATORS",
    "activation",
    "convolution",
    "elementwise",
    "indexing",
    "linear",
    "loss",
    "normalization",
    "pooling",
    "reduction",
    "shape",
]
