"""Whether two float computations of one quantity agree, by a measure taken from the quantity.

There is no fixed tolerance. The port computes the quantity in its own precision, `ours`, and in
float64, `exact`; how far the two are apart is what rounding does to this very computation. A third
value is MXNet's, `recorded`. It agrees if its distance from `exact` is at most

    SLACK * (largest |ours - exact| of the tensor + eps * |exact|)

at every element, with eps the spacing at 1 of the recorded type (2**-23 for float32). Both
distances are rounding errors of the same sums in another order, so their largest values lie within
a small factor of each other; SLACK is that factor. An attribute read wrongly is many thousand times
beyond it. Inf and NaN have to be where they are recorded; integers have to be equal.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mxdeconv.porting.source import show_shape

SLACK = 8.0


class Agreement(NamedTuple):
    """How one recorded tensor and the port's relate.

    `max_abs` and `max_rel` are the largest |recorded - exact|, the latter in units of the largest
    |exact|; `share` is the largest distance in units of what rounding explains: up to 1 agrees.
    `reason` says why the two cannot be compared by numbers, or is empty.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    max_abs: float
    max_rel: float
    share: float
    reason: str = ""

    @property
    def agrees(self) -> bool:
        return not self.reason and self.share <= 1


def agree(
    name: str,
    recorded: Tensor,
    ours: Tensor,
    exact: Tensor | None,
    op: str = "",
    slack: float = SLACK,
) -> Agreement:
    """Compare; without `exact`, `ours` takes its place and one rounding is all that is allowed."""

    def outcome(max_abs: float, max_rel: float, share: float, reason: str = "") -> Agreement:
        return Agreement(name, op, tuple(recorded.shape), max_abs, max_rel, share, reason)

    def no_numbers(reason: str) -> Agreement:
        return outcome(float("nan"), float("nan"), float("inf"), reason)

    if ours.shape != recorded.shape:
        shapes = f"{show_shape(recorded.shape)}, got {show_shape(ours.shape)}"
        return no_numbers(f"recorded of shape {shapes}")
    if not recorded.numel():
        return outcome(0.0, 0.0, 0.0)
    reference = (ours if exact is None else exact).to(torch.float64)
    target, rounded = recorded.to(torch.float64), ours.to(torch.float64)
    finite = target.isfinite()
    if not torch.equal(target[~finite].nan_to_num(2.0), rounded[~finite].nan_to_num(2.0)) or bool(
        (finite != rounded.isfinite()).any()
    ):
        return no_numbers("Inf or NaN is not where it was recorded")
    if not bool(finite.any()):
        return outcome(0.0, 0.0, 0.0)
    target, rounded, reference = target[finite], rounded[finite], reference[finite]
    reference = torch.where(reference.isfinite(), reference, rounded)
    distance = (target - reference).abs()
    max_abs = float(distance.max())
    largest = max(float(reference.abs().max()), float(target.abs().max()))
    if recorded.dtype.is_floating_point:
        own = float((rounded - reference).abs().max())
        allowed = slack * (own + torch.finfo(recorded.dtype).eps * reference.abs())
    else:
        allowed = torch.zeros_like(distance)
    shares = torch.where(distance == 0, 0.0, distance / allowed)
    return outcome(max_abs, max_abs / largest if largest else max_abs, float(shares.max()))


def table(title: str, results: list[Agreement]) -> list[str]:
    """Lines of text, one for each result; those that depart end in a word that says so."""
    width = max([len(result.name) for result in results] + [len(title)])
    lines = [f"{title:<{width}}  {'shape':<20}{'max abs':>10}{'max rel':>10}{'of bound':>10}"]
    for result in results:
        figures = f"{result.max_abs:>10.1e}{result.max_rel:>10.1e}{result.share:>10.3g}"
        if result.reason:
            figures = f"  {result.reason}"
        mark = "" if result.agrees else "  DEPARTS"
        lines.append(f"{result.name:<{width}}  {show_shape(result.shape):<20}{figures}{mark}")
    return lines
