"""Gluon's layers and MXNet's initialisers, against what MXNet 1.9.1 recorded of its own.

The recordings are in ``recorded/front_ends.json``, made by ``recorded/mxnet_front_ends.py``.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import mxdeconv

RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parent / "recorded" / "front_ends.json").read_text()
)
LAYERS: list[dict[str, Any]] = RECORDED["gluon"]["layers"]
INITIALISERS: list[dict[str, Any]] = RECORDED["initialisers"]
BILINEAR: list[dict[str, Any]] = RECORDED["bilinear"]


def _values(arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in arguments.items()
    }


@pytest.mark.parametrize("name", list(RECORDED["gluon"]["signatures"]))
def test_signature(name: str) -> None:
    """Names, order and defaults of the arguments."""
    parameters = inspect.signature(getattr(mxdeconv.gluon, name)).parameters.values()
    ours = {
        parameter.name: None if parameter.default is parameter.empty else repr(parameter.default)
        for parameter in parameters
    }
    assert list(ours.items()) == list(RECORDED["gluon"]["signatures"][name].items())


@pytest.mark.parametrize("recorded", LAYERS, ids=lambda recorded: str(recorded["repr"]))
def test_layer(recorded: dict[str, Any]) -> None:
    """Parameter shapes, also deferred ones, and the attributes handed to the operator."""
    layer = getattr(mxdeconv.gluon, recorded["layer"])(**_values(recorded["arguments"]))
    attributes = layer.attributes._asdict()
    for name, value in _values(recorded["attributes"]).items():
        assert attributes[name] == value, name
    weight_shape = recorded["weight_shape"]
    if weight_shape[0] == 0:  # deferred to the first call, here with 6 channels
        rank = len(layer.attributes.kernel)
        sizes = (4,) * rank
        layer(torch.zeros((1, *sizes, 6) if layer.attributes.channels_last else (1, 6, *sizes)))
        weight_shape = [6, *weight_shape[1:]]
    assert list(layer.weight.shape) == weight_shape
    bias_shape = None if layer.bias is None else list(layer.bias.shape)
    assert bias_shape == recorded["bias_shape"]


@pytest.mark.parametrize(
    "recorded", INITIALISERS, ids=lambda r: f"{r['initialiser']}-{r['arguments']}-{r['shape']}"
)
def test_random_initialiser(recorded: dict[str, Any]) -> None:
    """The same distribution with the same parameters, drawn from torch's generator."""
    initialiser = getattr(mxdeconv.init, recorded["initialiser"])(**recorded["arguments"])
    got = initialiser(torch.empty(recorded["shape"]), torch.Generator().manual_seed(1))
    expected = torch.empty(recorded["shape"])
    draw = {"uniform": expected.uniform_, "normal": expected.normal_}[recorded["distribution"]]
    draw(*recorded["parameters"], generator=torch.Generator().manual_seed(1))
    assert torch.equal(got, expected)


@pytest.mark.parametrize("recorded", BILINEAR, ids=lambda recorded: str(recorded["shape"]))
def test_bilinear(recorded: dict[str, Any]) -> None:
    """The same float32 numbers, to the last bit."""
    shape = recorded["shape"]
    initialiser = mxdeconv.init.Bilinear()
    if len(shape) == 5 and len(set(shape[2:])) > 1:  # MXNet indexes it out of step with its shape
        with pytest.raises(ValueError, match="weight must have shape"):
            initialiser(torch.empty(shape))
        return
    expected = torch.tensor(recorded["values"], dtype=torch.float64).reshape(shape)
    assert torch.equal(initialiser(torch.empty(shape)).double(), expected)
