"""The three passes as scalar loops in Python floats (IEEE double): the definition, nothing else.

With o = i*stride - pad + t*dilate on every axis (o output index, i input index, t tap),

    T(x, w, g) = sum over n, c, f, i, t of  x[n,c,i] * w[c,f,t] * g[n,f,o]

where f runs over the filters of c's group and o must lie inside the output. The output is dT/dg,
the data gradient dT/dx, the weight gradient dT/dw. Nothing here is shared with the engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod

import torch
from torch import Tensor

from mxdeconv.testing import Problem


def _flat(index: tuple[int, ...], size: tuple[int, ...]) -> int:
    position = 0
    for i, n in zip(index, size, strict=True):
        position = position * n + i
    return position


def _spatial_terms(problem: Problem) -> list[tuple[int, int, int]]:
    """All (i, t, o) that meet, each flattened over the axes."""
    terms = []
    for i in product(*map(range, problem.in_size)):
        for t in product(*map(range, problem.kernel)):
            o = tuple(
                ii * s - p + tt * d
                for ii, tt, s, p, d in zip(
                    i, t, problem.stride, problem.pad, problem.dilate, strict=True
                )
            )
            if all(0 <= oo < n for oo, n in zip(o, problem.out_size, strict=True)):
                flat_in, flat_tap = _flat(i, problem.in_size), _flat(t, problem.kernel)
                terms.append((flat_in, flat_tap, _flat(o, problem.out_size)))
    return terms


def _terms(problem: Problem) -> Iterator[tuple[int, int, int]]:
    """Positions in flattened channels-first x, w and g of every product of T."""
    spatial = _spatial_terms(problem)
    pixels, taps, outputs = prod(problem.in_size), prod(problem.kernel), prod(problem.out_size)
    filters = problem.num_filter // problem.num_group
    channels = problem.channels // problem.num_group
    for n, c, f in product(range(problem.batch), range(problem.channels), range(filters)):
        filter_ = c // channels * filters + f
        x_start = (n * problem.channels + c) * pixels
        w_start = (c * filters + f) * taps
        g_start = (n * problem.num_filter + filter_) * outputs
        for i, t, o in spatial:
            yield x_start + i, w_start + t, g_start + o


def _values(tensor: Tensor) -> list[float]:
    return tensor.to(torch.float64).flatten().tolist()  # type: ignore[no-any-return]


def _tensor(values: list[float], *shape: int) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(shape)


def forward(problem: Problem, data: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Output (N, F, *out_size) in float64; tensors are channels-first, of any float dtype."""
    x, w = _values(data), _values(weight)
    outputs = prod(problem.out_size)
    start = [0.0] * problem.num_filter if bias is None else _values(bias)
    out = [b for _ in range(problem.batch) for b in start for _ in range(outputs)]
    for xi, wi, gi in _terms(problem):
        out[gi] += x[xi] * w[wi]
    return _tensor(out, problem.batch, problem.num_filter, *problem.out_size)


def data_gradient(problem: Problem, weight: Tensor, out_grad: Tensor) -> Tensor:
    """Gradient of data, (N, C, *in_size) in float64."""
    w, g = _values(weight), _values(out_grad)
    grad = [0.0] * (problem.batch * problem.channels * prod(problem.in_size))
    for xi, wi, gi in _terms(problem):
        grad[xi] += w[wi] * g[gi]
    return _tensor(grad, problem.batch, problem.channels, *problem.in_size)


def weight_gradient(problem: Problem, data: Tensor, out_grad: Tensor) -> Tensor:
    """Gradient of weight, (C, F/g, *kernel) in float64."""
    x, g = _values(data), _values(out_grad)
    filters = problem.num_filter // problem.num_group
    grad = [0.0] * (problem.channels * filters * prod(problem.kernel))
    for xi, wi, gi in _terms(problem):
        grad[wi] += x[xi] * g[gi]
    return _tensor(grad, problem.channels, filters, *problem.kernel)


def bias_gradient(problem: Problem, out_grad: Tensor) -> Tensor:
    """Gradient of bias, (F,) in float64: the sum of the output gradient over the rest."""
    g = _values(out_grad)
    outputs = prod(problem.out_size)
    grad = [0.0] * problem.num_filter
    for n, f in product(range(problem.batch), range(problem.num_filter)):
        start = (n * problem.num_filter + f) * outputs
        for value in g[start : start + outputs]:
            grad[f] += value
    return _tensor(grad, problem.num_filter)
