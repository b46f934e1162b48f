"""Whether two float computations of one quantity agree, by a measure taken from the quantity.

There is no fixed tolerance. `mxdeconv.porting.precision` computes the quantity in the port's own
precision, `ours`, in float64, `exact`, and in float64 with rounding imitated, `moved`. How far the
first and the last are from `exact` is what rounding does to this very computation. A value computed
elsewhere, `recorded`, agrees if its distance from `exact` is at most

    SLACK * (the larger of max |ours - exact| and max |moved - exact| + eps * |exact|)

at every element, with eps the spacing at 1 of the recorded type (2**-23 for float32). All these
distances are rounding errors of the same sums in another order, so that their largest values lie
within a small factor of each other; SLACK is that factor. An attribute read wrongly is hundreds of
times beyond it. `moved` is there for tensors of a few numbers, where `ours` can be exact by luck,
and counts up to MOVED_EPS. Where rounding is of the size of the values themselves (a sum that
cancels, the order of two nearly equal scores) any value would agree: such a tensor is marked as
noise.

Inf and NaN have to be where they are recorded; integers have to be equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mxdeconv.porting.source import show_shape

SLACK = 8.0
#: Where rounding and the distance are beyond this many eps of the largest number, it is noise.
NOISE_EPS = 2.0**12
#: Moving counts for at most this many eps of it: it may exchange scores that rounding does not.
MOVED_EPS = 2.0**4


class Agreement(NamedTuple):
    """How one recorded tensor and the port's relate.

    `max_abs` and `max_rel` are the largest |recorded - exact|, the latter in units of the largest
    |exact|; `share` is the largest distance in units of what rounding explains: up to 1 agrees.
    `reason` says why the two cannot be compared by numbers, or is empty. `noise` is set where the
    numbers say nothing.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    max_abs: float
    max_rel: float
    share: float
    reason: str = ""
    noise: bool = False

    @property
    def agrees(self) -> bool:
        return not self.reason and self.share <= 1


def agree(
    name: str,
    recorded: Tensor,
    ours: Tensor,
    references: Sequence[Tensor],
    op: str = "",
    slack: float = SLACK,
) -> Agreement:
    """Compare. `references` are exact and moved; without them one rounding of `ours` is allowed."""

    def outcome(max_abs: float, max_rel: float, share: float, reason: str = "") -> Agreement:
        return Agreement(name, op, tuple(recorded.shape), max_abs, max_rel, share, reason)

    def no_numbers(reason: str) -> Agreement:
        return outcome(math.nan, math.nan, math.inf, reason)

    if ours.shape != recorded.shape:
        return no_numbers(
            f"recorded of shape {show_shape(recorded.shape)}, got {show_shape(ours.shape)}"
        )
    target, rounded, *wide = [
        each.detach().to(torch.float64).reshape(-1) for each in (recorded, ours, *references)
    ]
    finite = target.isfinite()
    special, own_special = target[~finite], rounded[~finite]
    if bool((finite != rounded.isfinite()).any()) or not torch.equal(
        special.nan_to_num(2.0), own_special.nan_to_num(2.0)
    ):
        return no_numbers("Inf or NaN is not where it was recorded")
    if not bool(finite.any()):
        return outcome(0.0, 0.0, 0.0)
    target, rounded = target[finite], rounded[finite]
    exact, *moved = [
        torch.where(each[finite].isfinite(), each[finite], rounded) for each in wide
    ] or [rounded]
    distance = (target - exact).abs()
    max_abs = float(distance.max())
    largest = max(float(exact.abs().max()), float(target.abs().max()))
    allowed, noise = torch.zeros_like(distance), False
    if recorded.dtype.is_floating_point:
        eps = torch.finfo(recorded.dtype).eps
        rounding = float((rounded - exact).abs().max())
        for each in moved:
            by_moving = float((each - exact).abs().max())
            rounding = max(rounding, min(by_moving, MOVED_EPS * eps * largest))
        allowed = slack * (rounding + eps * exact.abs())
        noise = min(rounding, max_abs) > NOISE_EPS * eps * largest > 0
    shares = torch.where(distance == 0, 0.0, distance / allowed)
    max_rel = max_abs / largest if largest else 0.0
    return outcome(max_abs, max_rel, float(shares.max()))._replace(noise=noise)


def table(title: str, results: list[Agreement]) -> list[str]:
    """Lines of text, one for each result; those that depart end in a word that says so."""
    width = max([len(result.name) for result in results] + [len(title)])
    lines = [f"{title:<{width}}  {'shape':<20}{'max abs':>10}{'max rel':>10}{'of bound':>10}"]
    for result in results:
        figures = f"{result.max_abs:>10.1e}{result.max_rel:>10.1e}{result.share:>10.3g}"
        if result.reason:
            figures = f"  {result.reason}"
        mark = "" if result.agrees else "  DEPARTS"
        mark += "  (noise: rounding is of the size of the values)" if result.noise else ""
        lines.append(f"{result.name:<{width}}  {show_shape(result.shape):<20}{figures}{mark}")
    return lines
