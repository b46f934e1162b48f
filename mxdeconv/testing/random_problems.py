"""Random problems from a seed: the same ones on every machine, with the standard library only."""

from __future__ import annotations

import random
from collections.abc import Sequence

from .problems import CHANNELS_FIRST, CHANNELS_LAST, Problem


def _draw_channels(rng: random.Random) -> tuple[int, int, int]:
    """(channels, num_filter, num_group): dense, depthwise or grouped; nothing divides nicely."""
    kind = rng.random()
    if kind < 0.55:
        return rng.randint(1, 9), rng.randint(1, 9), 1
    if kind < 0.7:
        groups = rng.randint(2, 7)
        return groups, groups * rng.randint(1, 3), groups
    if kind < 0.9:
        groups = rng.randint(2, 4)
        return groups * rng.randint(1, 3), groups * rng.randint(1, 3), groups
    return rng.randint(8, 32), rng.randint(8, 32), 1


def random_problem(
    rng: random.Random,
    *,
    ranks: Sequence[int] = (1, 2, 3),
    max_products: int = 20_000,
    max_values: int = 4_000,
    max_dilate: int = 3,
    layouts: Sequence[str] = ("first",),
) -> Problem:
    """One valid problem with at most ``max_products`` products in a pass.

    ``max_values`` bounds the elements of data, weight and output together. Covers pad beyond the
    kernel, adj up to stride - 1, output sizes down to 0, kernel < stride, gcd(stride, dilate) > 1,
    depthwise and groups. ``layouts`` is of "first" and "last".
    """
    while True:
        rank = rng.choice(ranks)
        channels, num_filter, num_group = _draw_channels(rng)
        longest = {1: 9, 2: 6, 3: 4}[rank]
        axes = range(rank)
        in_size = tuple(rng.randint(1, longest) for _ in axes)
        kernel = tuple(rng.choice((1, 2, 3, 3, 4, 5)[: longest + 1]) for _ in axes)
        stride = tuple(rng.choice((1, 1, 2, 2, 3, 4)) for _ in axes)
        dilate = tuple(rng.choice((1, 1, 2, 3, 4)[: max_dilate + 1]) for _ in axes)
        pad = tuple(
            rng.choice((0, 0, 1, rng.randint(0, d * (k - 1) + 2)))
            for k, d in zip(kernel, dilate, strict=True)
        )
        adj = tuple(rng.randint(0, s - 1) if rng.random() < 0.5 else 0 for s in stride)
        names = CHANNELS_LAST if rng.choice(layouts) == "last" else CHANNELS_FIRST
        try:
            problem = Problem(
                batch=rng.choice((1, 1, 2, 3)),
                channels=channels,
                num_filter=num_filter,
                num_group=num_group,
                in_size=in_size,
                kernel=kernel,
                stride=stride,
                pad=pad,
                dilate=dilate,
                adj=adj,
                layout=names[rank],
                intent="random",
            )
        except ValueError:  # the pad left a negative output size
            continue
        if problem.products <= max_products and problem.values <= max_values:
            return problem
