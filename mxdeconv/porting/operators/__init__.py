"""What each of MXNet's operators becomes: see `table` for how to add one."""

from mxdeconv.porting.operators import (
    activation,
    constant,
    convolution,
    cutting,
    elementwise,
    indexing,
    linear,
    loss,
    normalization,
    pooling,
    reduction,
    shape,
    unary,
)
from mxdeconv.porting.operators.table import OPERATORS

__all__ = [
    "OPERATORS",
    "activation",
    "constant",
    "convolution",
    "cutting",
    "elementwise",
    "indexing",
    "linear",
    "loss",
    "normalization",
    "pooling",
    "reduction",
    "shape",
    "unary",
]
