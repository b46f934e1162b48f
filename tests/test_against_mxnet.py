"""Against MXNet 1.9.1: its recorded outputs and gradients (``tests/recorded``).

MXNet is not needed: ``recorded/record_mxnet.py`` says how the recordings were made, and which of
MXNet's two CPU paths is right for which call. That the recordings themselves are right is tested
here too, against torch.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import mxdeconv
from mxdeconv.testing import Problem, parse

RECORDED = Path(__file__).parent / "recorded"
CONV_TRANSPOSE = {
    1: torch.nn.functional.conv_transpose1d,
    2: torch.nn.functional.conv_transpose2d,
    3: torch.nn.functional.conv_transpose3d,
}


@dataclass(frozen=True)
class Recording:
    """One call of MXNet's Deconvolution: its arguments, operands and what MXNet answered."""

    number: int
    problem: Problem
    dtype: torch.dtype
    is_integer: bool
    arguments: dict[str, Any]
    operands: dict[str, Tensor]  # data, weight, bias if the call has one, out_grad
    results: dict[str, Tensor]  # of out, data_grad, weight_grad, bias_grad what MXNet gets right

    def __str__(self) -> str:
        spelling = "strings" if isinstance(self.arguments["num_filter"], str) else "values"
        return f"{self.number}-{self.problem}-{str(self.dtype)[6:]}-{spelling}"


def _from_stored(array: np.ndarray, kind: str, dtype: torch.dtype) -> Tensor:
    if kind == "bfloat16_bits":
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy()).to(dtype)


@cache
def recordings() -> list[Recording]:
    """All recordings, in the order of the JSON file; see ``_write_cases`` of the recorder."""
    loaded = []
    with np.load(RECORDED / "deconvolution.npz") as archive:
        streams = dict(archive)
    positions = Counter[str]()
    for number, entry in enumerate(json.loads((RECORDED / "deconvolution.json").read_text())):
        problem, dtype = parse(entry["problem"]), getattr(torch, entry["dtype"])
        is_integer = entry["values"] == "integer"
        if is_integer:
            kind = "int64" if dtype == torch.float64 else "int32"
        else:
            kind = "bfloat16_bits" if dtype == torch.bfloat16 else entry["dtype"]
        shapes = {
            "data": problem.data_shape,
            "weight": problem.weight_shape,
            "bias": (problem.num_filter,),
            "out": problem.out_shape,
        }

        def take(
            name: str,
            shapes: dict[str, tuple[int, ...]] = shapes,
            kind: str = kind,
            dtype: torch.dtype = dtype,
        ) -> Tensor:
            shape = shapes[name.removesuffix("_grad")]
            start = positions[kind]
            positions[kind] += prod(shape)
            values = streams[kind][start : positions[kind]].reshape(shape)
            return _from_stored(values, kind, dtype)

        names = ["data", "weight", *(["bias"] if entry["has_bias"] else []), "out_grad"]
        arguments = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in entry["arguments"].items()
        }
        operands = {name: take(name) for name in names}
        results = {name: take(name) for name in entry["recorded"]}
        loaded.append(Recording(number, problem, dtype, is_integer, arguments, operands, results))
    assert all(positions[kind] == len(stream) for kind, stream in streams.items())
    return loaded


def torch_results(
    problem: Problem, data: Tensor, weight: Tensor, bias: Tensor | None, out_grad: Tensor
) -> dict[str, Tensor]:
    """Output and gradients in float64 by torch's conv_transpose: the same sums, other code."""
    leaves = {"data": data, "weight": weight} | ({} if bias is None else {"bias": bias})
    leaves = {name: leaf.double().clone().requires_grad_() for name, leaf in leaves.items()}
    if prod(problem.out_size) == 0:  # torch refuses it; nothing reaches anything
        grads = [torch.zeros_like(leaf) for leaf in leaves.values()]
        out = torch.zeros(problem.out_shape, dtype=torch.float64)
    else:
        out = CONV_TRANSPOSE[problem.rank](
            leaves["data"],
            leaves["weight"],
            leaves.get("bias"),
            stride=problem.stride,
            padding=problem.pad,
            output_padding=problem.adj,
            groups=problem.num_group,
            dilation=problem.dilate,
        )
        grads = list(torch.autograd.grad(out, list(leaves.values()), out_grad.double()))
    named = zip((f"{name}_grad" for name in leaves), grads, strict=True)
    return {"out": out.detach(), **dict(named)}


def _gamma(roundings: int, unit: float) -> float:
    """The largest relative error of ``roundings`` roundings one after the other (Higham, 3.1)."""
    return roundings * unit / (1 - roundings * unit)


def difference_bounds(recording: Recording) -> dict[str, Tensor]:
    """How far two correct engines can be apart, for every value of every result.

    A result is a sum of K products. Each term passes through one rounding as a product and at most
    K - 1 as part of a partial sum, whatever the order of summation, so a computed result lies
    within gamma_K * sum|products| of the exact one, with gamma_K = K u / (1 - K u) and u the unit
    round-off of the format in which it is accumulated (float32 for bfloat16). A bias is one term
    and one rounding more; the bias gradient is K values without products, K - 1 additions. A
    bfloat16 result is then rounded once more, by at most 2^-8 of itself. Two engines within this
    distance of the exact result are within twice that distance of each other.

    The sums of absolute products are torch's float64 conv_transpose and gradients of |x|, |w|, |g|;
    they and the exact results carry gamma_K of float64 themselves, which is added.
    """
    problem, operands = recording.problem, recording.operands
    bias = operands.get("bias")
    exact = torch_results(problem, operands["data"], operands["weight"], bias, operands["out_grad"])
    absolute = torch_results(
        problem,
        operands["data"].abs(),
        operands["weight"].abs(),
        None if bias is None else bias.abs(),
        operands["out_grad"].abs(),
    )
    roundings = {
        "out": problem.forward_terms + (bias is not None),
        "data_grad": problem.data_terms,
        "weight_grad": problem.weight_terms,
        "bias_grad": max(problem.bias_terms - 1, 0),
    }
    unit = 2.0**-53 if recording.dtype == torch.float64 else 2.0**-24
    final_unit = 2.0**-8 if recording.dtype == torch.bfloat16 else 0.0
    bounds = {}
    for name, sums in absolute.items():
        of_float64 = _gamma(roundings[name], 2.0**-53) * sums
        from_sum = _gamma(roundings[name], unit) * (sums + of_float64)
        from_final = final_unit * (exact[name].abs() + of_float64 + from_sum)
        bounds[name] = 2 * (from_sum + from_final)
    return bounds


def assert_agrees(got: dict[str, Tensor], recording: Recording) -> None:
    """Equality to the last bit on integers, the derived bound on other values."""
    assert got.keys() >= recording.results.keys()
    bounds = {} if recording.is_integer else difference_bounds(recording)
    for name, expected in recording.results.items():
        assert got[name].dtype == expected.dtype
        assert got[name].shape == expected.shape
        if recording.is_integer:
            assert torch.equal(got[name], expected), name
        else:
            distance = (got[name].double() - expected.double()).abs()
            assert torch.all(distance <= bounds[name]), name


def test_recordings_cover_the_features() -> None:
    calls = recordings()
    assert len(calls) >= 400
    exact = [call for call in calls if call.is_integer]
    assert len(exact) >= 340
    assert len(calls) - len(exact) >= 60
    counts = Counter(
        feature
        for call in calls
        for feature, is_there in {
            **{f"rank {call.problem.rank}": True, str(call.dtype): True},
            "bias": "bias" in call.operands,
            "no bias": "bias" not in call.operands,
            "strings": isinstance(call.arguments["num_filter"], str),
            "groups": 1 < call.problem.num_group < call.problem.channels,
            "depthwise": 1 < call.problem.num_group == call.problem.channels,
            "batch": call.problem.batch > 1,
            "many channels": min(call.problem.channels, call.problem.num_filter) >= 8,
            "target_shape": any(c in "123456789" for c in str(call.arguments.get("target_shape"))),
            "output 0": min(call.problem.out_size) == 0,
            "output 1": prod(call.problem.out_size) == 1,
            **_geometry_features(call.problem),
        }.items()
        if is_there
    )
    rare = {name: count for name, count in counts.items() if count < 5}
    assert not rare
    assert len(counts) == 25
    with_out = sum("out" in call.results for call in calls)
    assert with_out >= 0.9 * len(calls)


def _geometry_features(problem: Problem) -> dict[str, bool]:
    axes = list(
        zip(
            problem.kernel,
            problem.stride,
            problem.pad,
            problem.dilate,
            problem.adj,
            strict=True,
        )
    )
    return {
        "stride": any(s > 1 for k, s, p, d, a in axes),
        "dilate": any(d > 1 for k, s, p, d, a in axes),
        "stride and dilate": any(s > 1 and d > 1 and k > 1 for k, s, p, d, a in axes),
        "gcd": any(np.gcd(s, d) > 1 for k, s, p, d, a in axes),
        "pad": any(p > 0 for k, s, p, d, a in axes),
        "pad > k - 1": any(p > d * (k - 1) for k, s, p, d, a in axes),
        "adj": any(a > 0 for k, s, p, d, a in axes),
        "adj > pad": any(a > p for k, s, p, d, a in axes),
        "kernel < stride": any(k < s for k, s, p, d, a in axes),
    }


@pytest.mark.parametrize("recording", recordings(), ids=str)
def test_recording_agrees_with_torch(recording: Recording) -> None:
    """The recorded data is right: torch's float64 results, rounded once, agree with it."""
    operands = recording.operands
    results = torch_results(
        recording.problem,
        operands["data"],
        operands["weight"],
        operands.get("bias"),
        operands["out_grad"],
    )
    got = {name: value.to(recording.dtype) for name, value in results.items()}
    assert_agrees(got, recording)


@pytest.mark.parametrize("recording", recordings(), ids=str)
def test_deconvolution(recording: Recording) -> None:
    operands = {name: value.clone() for name, value in recording.operands.items()}
    out_grad = operands.pop("out_grad")
    for leaf in operands.values():
        leaf.requires_grad_()
    out = mxdeconv.deconvolution(**operands, **recording.arguments)
    out.backward(out_grad)
    got: dict[str, Tensor] = {"out": out.detach()}
    for name, leaf in operands.items():
        assert leaf.grad is not None
        got[f"{name}_grad"] = leaf.grad
    assert_agrees(got, recording)


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 5, 8])
def test_bilinear_upsampling_is_a_deconvolution(scale: int) -> None:
    """UpSampling(sample_type="bilinear"), which MXNet calls a Deconvolution, on integers."""
    with np.load(RECORDED / "upsampling.npz") as archive:
        recorded = {
            name.removeprefix(f"{scale} "): torch.from_numpy(archive[name]).float()
            for name in archive.files
            if name.startswith(f"{scale} ")
        }
    data = recorded["data"].requires_grad_()
    weight = recorded["weight"].requires_grad_()
    kernel, pad = 2 * scale - scale % 2, scale // 2
    out = mxdeconv.deconvolution(
        data,
        weight,
        kernel=(kernel, kernel),
        stride=(scale, scale),
        pad=(pad, pad),
        num_filter=3,
        num_group=3,
    )
    out.backward(recorded["out_grad"])
    assert torch.equal(out, recorded["out"])
    for leaf, name in ((data, "data_grad"), (weight, "weight_grad")):
        assert leaf.grad is not None
        assert torch.equal(leaf.grad, recorded[name]), name


def inferences() -> list[dict[str, Any]]:
    recorded: list[dict[str, Any]] = json.loads((RECORDED / "front_ends.json").read_text())[
        "inference"
    ]
    return recorded


@pytest.mark.parametrize(
    "recorded", inferences(), ids=lambda recorded: f"{recorded['arguments']['layout']}"
)
def test_shapes_by_layout(recorded: dict[str, Any]) -> None:
    """MXNet infers shapes for channels-last layouts too, although its CPU code cannot run them."""
    arguments = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in recorded["arguments"].items()
    }
    out = mxdeconv.deconvolution(
        torch.zeros(recorded["data_shape"]),
        torch.zeros(recorded["weight_shape"]),
        torch.zeros(recorded["bias_shape"]),
        **arguments,
    )
    assert list(out.shape) == recorded["out_shape"]
