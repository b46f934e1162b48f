"""The calls that are recorded from MXNet: problems, arguments, and which MXNet path is right.

Needs the standard library only: MXNet's environment has no torch, the tests have no MXNet.
``mxdeconv/testing`` is loaded from its files for the same reason.
"""

from __future__ import annotations

import importlib
import random
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

TESTING = Path(__file__).parents[2] / "mxdeconv" / "testing"


def _load_testing_module(name: str) -> ModuleType:
    """``mxdeconv.testing.<name>`` without importing ``mxdeconv``, which needs torch."""
    if "recorded_testing" not in sys.modules:
        package = ModuleType("recorded_testing")
        package.__path__ = [str(TESTING)]
        sys.modules["recorded_testing"] = package
    return importlib.import_module(f"recorded_testing.{name}")


random_problem = _load_testing_module("random_problems").random_problem

ONEDNN, NATIVE = "oneDNN", "native"


@dataclass(frozen=True)
class Case:
    """One recorded call.

    ``problem`` has the pad and adj that are really used (after target_shape), ``passed_pad`` is the
    one that is passed. ``arguments`` is what the operator is given: values, or strings as in a
    symbol.json. ``values`` is "integer" or "normal", drawn from ``seed``; ``amplitude`` is the
    largest integer.
    """

    problem: Any
    dtype: str
    has_bias: bool
    arguments: dict[str, Any]
    passed_pad: tuple[int, ...]
    values: str
    seed: int
    amplitude: int


def right_paths(case: Case) -> tuple[str | None, str | None]:
    """Which MXNet path computes (output, gradients) by the definition; None where neither does.

    MXNet 1.9.1 has two implementations on the CPU. oneDNN takes float32 and bfloat16; the native
    code takes float32 and float64 in one and two dimensions, float32 only if oneDNN is off.
    Their faults do not overlap much:

    - oneDNN crops by the pad that was passed, although target_shape has replaced it;
    - oneDNN fails in the data gradient of one filter a group where the channels of a group are a
      multiple of 8 (a reorder that it lacks), and in every gradient of an output of size 0;
    - the native output is wrong where one axis has kernel, stride, dilate and input size all
      greater than 1 (apache/mxnet issues 11203, 11629, 13876); its gradients are right.
    """
    problem = case.problem
    channels = problem.channels // problem.num_group
    filters = problem.num_filter // problem.num_group
    onednn_exists = case.dtype != "float64"
    native_exists = case.dtype != "bfloat16" and problem.rank < 3

    onednn_crops_right = case.passed_pad == problem.pad
    onednn_differentiates = min(problem.out_size) > 0 and not (filters == 1 and channels % 8 == 0)
    native_places_right = not any(
        kernel > 1 and stride > 1 and dilate > 1 and size > 1
        for kernel, stride, dilate, size in zip(
            problem.kernel, problem.stride, problem.dilate, problem.in_size, strict=True
        )
    )
    onednn_out = onednn_exists and onednn_crops_right
    onednn_gradients = onednn_out and onednn_differentiates
    native_out = native_exists and native_places_right
    return (
        ONEDNN if onednn_out else NATIVE if native_out else None,
        ONEDNN if onednn_gradients else NATIVE if native_exists else None,
    )


# ---- arguments -------------------------------------------------------------------------------


def _spell_tuple(rng: random.Random, values: tuple[int, ...]) -> str:
    """A tuple as it is found in symbol.json files, old and new, or written by hand."""
    body = ", ".join(map(str, values))
    spellings = [
        str(values),
        str(values),
        f"[{body}]",
        "(" + ",".join(map(str, values)) + ")",
        "(" + ", ".join(f"{value}L" for value in values) + ("," if len(values) == 1 else "") + ")",
        f" ( {body} , ) ",
    ]
    if len(values) == 1:
        spellings.append(str(values[0]))
    return rng.choice(spellings)


def _spell(rng: random.Random, value: Any) -> str:
    if isinstance(value, tuple):
        return _spell_tuple(rng, value) if value else "()"
    if isinstance(value, bool):
        return rng.choice([str(value), str(value), str(value).lower(), str(int(value))])
    if isinstance(value, int):
        return rng.choice([str(value), f" {value} "])
    return str(value)


def _arguments(
    rng: random.Random, problem: Any, has_bias: bool, given: dict[str, Any]
) -> dict[str, Any]:
    """The operator's arguments for ``problem``; defaults are sometimes left to the operator."""
    defaults = {"stride": 1, "dilate": 1, "pad": 0, "adj": 0}
    arguments: dict[str, Any] = {"kernel": problem.kernel}
    for name, default in defaults.items():
        value = given.get(name, getattr(problem, name))
        if set(value) != {default} or rng.random() < 0.5:
            arguments[name] = value
        elif rng.random() < 0.2:
            arguments[name] = ()
    if "target_shape" in given:
        arguments["target_shape"] = given["target_shape"]
    elif rng.random() < 0.2:
        arguments["target_shape"] = rng.choice([(0,) * problem.rank, (), None])
    arguments["num_filter"] = problem.num_filter
    if problem.num_group != 1 or rng.random() < 0.5:
        arguments["num_group"] = problem.num_group
    if has_bias or rng.random() < 0.5:
        arguments["no_bias"] = not has_bias
    if rng.random() < 0.5:
        arguments["layout"] = rng.choice([problem.layout, problem.layout, None])
    if rng.random() < 0.3:
        arguments["workspace"] = rng.choice([0, 1, 256, 1024])
    if rng.random() < 0.2:
        arguments["cudnn_tune"] = rng.choice([None, "off", "limited_workspace", "fastest"])
    if rng.random() < 0.2:
        arguments["cudnn_off"] = rng.random() < 0.5
    return arguments


def _with_target_shape(rng: random.Random, problem: Any, dtype: str) -> tuple[Any, dict[str, Any]]:
    """``problem`` cropped to a random target_shape, and the target_shape, pad and adj to pass."""
    target = []
    for full, stride in zip(problem.full_size, problem.stride, strict=True):
        excess = rng.randint(0, max(0, min(full - 1, 2 * stride + 3)))
        if stride == 1:  # an odd excess needs adj = 1 < stride
            excess -= excess % 2
        target.append(full - excess)
    excess = [full - size for full, size in zip(problem.full_size, target, strict=True)]
    cropped = replace(
        problem,
        pad=tuple((e + 1) // 2 for e in excess),
        adj=tuple(e % 2 for e in excess),
    )
    given: dict[str, Any] = {"target_shape": tuple(target)}
    if problem.rank == 3 or dtype == "bfloat16" or rng.random() < 0.2:
        given["pad"] = cropped.pad  # so that oneDNN crops right
        given["adj"] = rng.choice([cropped.adj, (0,) * problem.rank])
    else:  # both are ignored, whatever they are
        given["pad"] = tuple(rng.choice([0, 0, 1, 99]) for _ in range(problem.rank))
        given["adj"] = tuple(rng.choice([0, 0, 101]) for _ in range(problem.rank))
    return cropped, given


# ---- the list --------------------------------------------------------------------------------


def _draw_case(rng: random.Random, dtype: str, values: str, seed: int, large: bool) -> Case:
    ranks = (1, 2) if dtype == "float64" else (1, 2, 2, 3)
    rank = rng.choice(ranks)
    while True:
        problem = random_problem(
            rng,
            ranks=(rank,),
            max_dilate=1 if rank == 3 else 3,
            max_products=20_000 if large else 8_000,
            max_values=1_600 if large else 600,
        )
        many = problem.channels >= 8 and problem.num_filter >= 8 and problem.num_group == 1
        if many == large:
            break
    given: dict[str, Any] = {}
    if rng.random() < 0.25:
        problem, given = _with_target_shape(rng, problem, dtype)
    has_bias = rng.random() < 0.6
    arguments = _arguments(rng, problem, has_bias, given)
    if rng.random() < 0.4:
        arguments = {name: _spell(rng, value) for name, value in arguments.items()}
    amplitude = 0
    if values == "integer":
        # bfloat16: sums beyond 2^8, so that the result must be rounded; float64: beyond 2^24
        amplitude = {"bfloat16": 25, "float64": rng.choice([3, 9, 2**13])}.get(
            dtype, rng.choice([1, 3, 9])
        )
    passed_pad = given.get("pad", problem.pad)
    return Case(problem, dtype, has_bias, arguments, passed_pad, values, seed, amplitude)


# (dtype, values, count, with many channels)
COUNTS = (
    ("float32", "integer", 200, False),
    ("float32", "integer", 24, True),
    ("float64", "integer", 64, False),
    ("float64", "integer", 4, True),
    ("bfloat16", "integer", 48, False),
    ("bfloat16", "integer", 6, True),
    ("float32", "normal", 36, False),
    ("float32", "normal", 4, True),
    ("float64", "normal", 14, False),
    ("bfloat16", "normal", 10, False),
)


def recorded_cases() -> list[Case]:
    """All cases, always the same: those of which MXNet gets at least the gradients right."""
    cases: list[Case] = []
    for dtype, values, count, large in COUNTS:
        rng = random.Random(f"{dtype} {values} {large}")
        wanted = len(cases) + count
        while len(cases) < wanted:
            case = _draw_case(rng, dtype, values, seed=len(cases), large=large)
            if right_paths(case)[1] is not None:
                cases.append(case)
    return cases
