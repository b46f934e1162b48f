"""Every ported operator against what MXNet 1.9.1 computed: outputs, gradients, auxiliary states.

The recordings are in ``recorded/operators.*``, made by ``recorded/make_operators.py``. What
involves no rounding must be equal bit for bit. Everything else is measured by one rule: the port in
float64 gives the exact result, and MXNet's float32 one must lie as near to it as the port's own
does, within ``SLACK`` times that distance plus one ulp of the largest value of the tensor.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mxdeconv.porting import symbol

RECORDED = Path(__file__).parent / "recorded"
sys.path.insert(0, str(RECORDED))
from operator_cases import CASES, Case, draw, draw_head_gradients  # noqa: E402

#: Orders of summation and the last bit of exp, tanh, ... differ between libraries.
SLACK = 8.0

ENTRIES: list[dict[str, Any]] = json.loads((RECORDED / "operators.json").read_text())
BY_NAME = {str(case): case for case in CASES}


def _read() -> dict[str, dict[str, np.ndarray]]:
    """case -> result -> array"""
    with np.load(RECORDED / "operators.npz") as archive:
        streams = dict(archive)
    used = dict.fromkeys(streams, 0)
    recorded: dict[str, dict[str, np.ndarray]] = {}
    for entry in ENTRIES:
        results = recorded.setdefault(entry["case"], {})
        for name, dtype, shape in entry["results"]:
            first = used[dtype]
            used[dtype] = first + math.prod(shape)
            results[name] = streams[dtype][first : used[dtype]].reshape(shape)
    return recorded


RESULTS = _read()


def _run(case: Case, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """What the port computes, under the recording's names; floats in `dtype`."""

    def convert(array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    arrays = {name: convert(array) for name, array in draw(case).items()}
    parsed = symbol.parse_symbol(case.symbol())
    parameters = [name for name in arrays if name in PARAMETERS or name in parsed.auxiliary]
    data = {name: array for name, array in arrays.items() if name not in parameters}
    module = symbol.load_symbol(
        case.symbol(),
        {name: arrays[name].clone() for name in parameters},
        inputs={name: tuple(array.shape) for name, array in data.items()},
    )
    names = module.meta["mxnet"]["inputs"]
    arguments = {names[name]: array.clone() for name, array in data.items()}
    results = {}

    def outputs() -> tuple[torch.Tensor, ...]:
        result = module(**arguments)
        return result if isinstance(result, tuple) else (result,)

    module.eval()
    with torch.no_grad():
        for number, output in enumerate(outputs()):
            results[f"eval {number}"] = output.clone()
    if not case.train:
        return results
    module.train()
    for name, array in data.items():
        if name not in case.frozen:
            arguments[names[name]].requires_grad_(array.is_floating_point())
    trained = outputs()
    for number, output in enumerate(trained):
        results[f"train {number}"] = output.detach().clone()
    heads = draw_head_gradients(case, [tuple(output.shape) for output in trained])
    pairs = [
        (output, torch.from_numpy(head).to(output.dtype))
        for output, head in zip(trained, heads, strict=True)
        if output.requires_grad
    ]
    if pairs:
        torch.autograd.backward([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    state = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers())
    for name, array in arrays.items():
        tensor = arguments[names[name]] if name in data else state[_key(module, name)]
        if name in parsed.auxiliary:
            results[f"aux {name}"] = tensor
        elif name not in case.frozen:
            grad = tensor.grad
            results[f"grad {name}"] = torch.zeros_like(array) if grad is None else grad
    return results


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal, NaN where the other is NaN."""
    floats = a.is_floating_point()
    return torch.equal(a, b) or (floats and torch.allclose(a, b, 0.0, 0.0, equal_nan=True))


#: Inputs that the cases hand over as parameters of a layer.
PARAMETERS = ("weight", "bias", "gamma", "beta")


def _key(module: Any, name: str) -> str:
    return str(module.meta["mxnet"]["parameters"][name])


@pytest.mark.parametrize("name", RESULTS)
def test_operator(name: str) -> None:
    case = BY_NAME[name]
    ours = _run(case, torch.float32)
    exact: dict[str, torch.Tensor] = {}
    for key, theirs in RESULTS[name].items():
        mine, expected = ours[key], torch.from_numpy(theirs)
        assert mine.shape == expected.shape, key
        assert mine.dtype == expected.dtype, key
        if _same(mine, expected):
            continue
        assert not case.exact, f"{key} differs"
        assert mine.is_floating_point(), f"{key} differs"
        exact = exact or _run(case, torch.float64)
        reference = exact[key].double()
        unit = torch.finfo(torch.float32).eps * float(reference.abs().max())
        by_itself = float((mine.double() - reference).abs().max())
        error = float((expected.double() - reference).abs().max())
        assert error <= SLACK * (by_itself + unit), f"{key}: off by {error}, by itself {by_itself}"


def test_every_case_is_recorded_or_refused_by_mxnet() -> None:
    refused = [name for name in BY_NAME if name not in RESULTS]
    assert refused == json.loads((RECORDED / "operators_refused.json").read_text())


HOSTILE = (
    *("", "None", "0", "-1", "1e9", "nan", "inf", "()", "(0, 0)", "(-1,)", "(2, 2, 2, 2)", "abc"),
    *("True", "9223372036854775807", "(1000000000, 1000000000)", "(1L, 2L)", "(((", "float16"),
)


def test_hostile_attributes_are_refused_or_read() -> None:
    """Whatever an attribute holds: a ValueError or a module, nothing else."""
    cases = {(case.op, tuple(case.attrs)): case for case in CASES}
    random = np.random.RandomState(0)
    loaded = refused = 0
    for case in cases.values():
        arrays = {name: torch.from_numpy(array) for name, array in draw(case).items()}
        data = {name: tuple(array.shape) for name, array in list(arrays.items())[:1]}
        params = {name: array for name, array in arrays.items() if name not in data}
        for attribute in case.attrs:
            value = HOSTILE[random.randint(len(HOSTILE))]
            hostile = dataclasses.replace(case, attrs={**case.attrs, attribute: value})
            try:
                symbol.load_symbol(hostile.symbol(), params, inputs=data or None)
                loaded += 1
            except ValueError:
                refused += 1
    assert loaded > 50
    assert refused > 200
