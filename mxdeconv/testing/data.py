"""Values for problems: integers whose sums are exact, and normal random numbers."""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt
from typing import NamedTuple

import torch
from torch import Tensor

from .problems import Problem


class Operands(NamedTuple):
    """Everything a forward and a backward pass read, in the problem's layout."""

    data: Tensor
    weight: Tensor
    bias: Tensor
    out_grad: Tensor


# dtype: (bound on every sum of |products|, bound on every value).
# Sums of f32, f16 and bf16 are formed in f32, exact up to 2^24; two bits stay free for algorithms
# that combine inputs before multiplying. f16 results must stay below its largest number, 65504.
# Values must be numbers of the dtype (f16 has 11 bits, bf16 8); where room allows they are larger
# than the next narrower format holds, so that a silent detour through it shows.
_BOUNDS = {
    torch.float64: (2**50, 2**22),
    torch.float32: (2**22, 2**12),
    torch.float16: (2**15, 2**10),
    torch.bfloat16: (2**22, 2**7),
}


def _operands(problem: Problem, draw: Callable[[tuple[int, ...]], Tensor]) -> Operands:
    return Operands(
        data=draw(problem.data_shape),
        weight=draw(problem.weight_shape),
        bias=draw((problem.num_filter,)),
        out_grad=draw(problem.out_shape),
    )


def integer_data(problem: Problem, dtype: torch.dtype, seed: int = 0) -> Operands:
    """Integer-valued operands of ``dtype`` for which any order of summation is exact.

    Output and gradients of float32 and float64 are then exact integers, equal to the last bit for
    every correct engine. Those of float16 and bfloat16 are the exact integer rounded once to the
    dtype, because they accumulate in float32. Raises ValueError where the problem is too large for
    even +-1 to be exact, and for other dtypes.
    """
    if dtype not in _BOUNDS:
        raise ValueError(f"dtype must be one of {', '.join(map(str, _BOUNDS))}, got {dtype}")
    largest_sum, largest_value = _BOUNDS[dtype]
    terms = max(problem.forward_terms, problem.data_terms, problem.weight_terms, 1)
    # amplitude^2 * terms + amplitude (the bias) <= largest_sum, and the bias gradient's sum too
    amplitude = min(
        largest_value,
        isqrt(largest_sum // (terms + 1)),
        largest_sum // max(problem.bias_terms, 1),
    )
    if amplitude < 1:
        raise ValueError(f"problem must have exact sums in {dtype}, got {problem}")
    generator = torch.Generator().manual_seed(seed)

    def draw(shape: tuple[int, ...]) -> Tensor:
        values = torch.randint(-amplitude, amplitude + 1, shape, generator=generator)
        return values.to(dtype)

    return _operands(problem, draw)


def random_data(problem: Problem, dtype: torch.dtype, seed: int = 0) -> Operands:
    """Normally distributed operands of ``dtype``, drawn in float64 and rounded once."""
    generator = torch.Generator().manual_seed(seed)

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    return _operands(problem, draw)


def channels_first(tensor: Tensor, problem: Problem) -> Tensor:
    """Data, weight or output of ``problem`` as a channels-first view, (first, channels, *sizes)."""
    return tensor.movedim(-1, 1) if problem.is_channels_last else tensor


def in_layout(tensor: Tensor, problem: Problem) -> Tensor:
    """The inverse of :func:`channels_first`: a view in the problem's own layout."""
    return tensor.movedim(1, -1) if problem.is_channels_last else tensor
