"""Whole models that others wrote, against what MXNet 1.9.1 computed of them.

The recordings are in ``recorded/models``, made by ``recorded/make_models.py`` of the models in
``recorded/mxnet_models.py``. They are measured as single operators are: see
``test_operators_against_mxnet.py``.
"""

from __future__ import annotations

import copy
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mxdeconv.porting import module, symbol

RECORDED = Path(__file__).parent / "recorded"
sys.path.insert(0, str(RECORDED))
from model_values import draw_head_gradient, draw_input, draw_parameter  # noqa: E402

#: As for operators: MXNet's error may be this many times the port's own, and one ulp.
SLACK = 8.0
FILES = {path.stem: path for path in sorted((RECORDED / "models").glob("*.npz"))}


class Recorded:
    """A recording, and the port of its model with the same parameters and data."""

    def __init__(self, name: str) -> None:
        with np.load(FILES[name]) as archive:
            self.arrays = dict(archive)
        self.text = self.arrays["symbol"].tobytes().decode()
        self.about: dict[str, Any] = json.loads(self.arrays["about"].tobytes())

    def port(self, dtype: torch.dtype = torch.float32) -> module.PortedModule:
        parameters = {
            name: torch.from_numpy(draw_parameter(name, tuple(shape))).to(dtype)
            for name, shape in self.about["parameters"].items()
        }
        shapes = {name: tuple(shape) for name, shape in self.about["inputs"].items()}
        return symbol.load_symbol(self.text, parameters, inputs=shapes)

    def inputs(self, port: module.PortedModule, dtype: torch.dtype) -> dict[str, Tensor]:
        names = port.meta["mxnet"]["inputs"]
        return {
            names[name]: torch.from_numpy(draw_input(name, tuple(shape), self.about["labels"])).to(
                dtype
            )
            for name, shape in self.about["inputs"].items()
        }

    def results(self, kind: str) -> dict[str, np.ndarray]:
        return {name: a for name, a in self.arrays.items() if name.startswith(f"{kind}:")}


def _tuple(result: Any) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def _check(
    recorded: dict[str, np.ndarray], own: dict[str, Tensor], exact: dict[str, Tensor]
) -> None:
    assert recorded
    for name, theirs in recorded.items():
        mine, reference = own[name].double(), exact[name].double()
        assert mine.shape == theirs.shape, name
        largest = float(reference.abs().max())
        if name.endswith("moving_mean"):  # rounded as the numbers are that it is the mean of
            variance = exact[name.replace("moving_mean", "moving_var")]
            largest = max(largest, float(variance.max()) ** 0.5)
        unit = torch.finfo(torch.float32).eps * largest
        error = float((torch.from_numpy(theirs).double() - reference).abs().max())
        by_itself = float((mine - reference).abs().max())
        assert error <= SLACK * (by_itself + unit), f"{name}: off by {error}, by itself {by_itself}"


def _predict(recorded: Recorded, dtype: torch.dtype) -> dict[str, Tensor]:
    port = recorded.port(dtype).eval()
    with torch.no_grad():
        outputs = _tuple(port(**recorded.inputs(port, dtype)))
    return {f"output:{number}": output for number, output in enumerate(outputs)}


@pytest.mark.parametrize("name", FILES)
def test_prediction(name: str) -> None:
    recorded = Recorded(name)
    own, exact = (_predict(recorded, dtype) for dtype in (torch.float32, torch.float64))
    theirs = recorded.results("output")
    _check(theirs, own, exact)
    if name.startswith("center_net"):  # the classes that were found, in order
        assert np.array_equal(own["output:0"].numpy(), theirs["output:0"])


def _train(recorded: Recorded, dtype: torch.dtype) -> dict[str, Tensor]:
    port = recorded.port(dtype).train()
    inputs = recorded.inputs(port, dtype)
    for name, tensor in inputs.items():
        tensor.requires_grad_(not name.endswith("label"))
    outputs = _tuple(port(**inputs))
    results = {f"train_output:{number}": output for number, output in enumerate(outputs)}
    heads = [
        torch.from_numpy(draw_head_gradient(number, tuple(output.shape))).to(dtype)
        for number, output in enumerate(outputs)
    ]
    torch.autograd.backward(outputs, heads)
    notes = port.meta["mxnet"]
    state = dict(port.named_parameters(remove_duplicate=False)) | dict(port.named_buffers())
    for name, argument in notes["inputs"].items():
        results[f"grad:{name}"] = inputs[argument].grad
    for name, key in notes["parameters"].items():
        tensor = state[key]
        results[f"train_aux:{name}"] = tensor
        grad = tensor.grad
        results[f"grad:{name}"] = torch.zeros_like(tensor) if grad is None else grad
    return {name: tensor.detach() for name, tensor in results.items() if tensor is not None}


@pytest.mark.parametrize("name", [name for name in FILES if Recorded(name).results("grad")])
def test_training_step(name: str) -> None:
    recorded = Recorded(name)
    own, exact = (_train(recorded, dtype) for dtype in (torch.float32, torch.float64))
    for kind in ("train_output", "grad"):
        _check(recorded.results(kind), own, exact)
    if recorded.results("train_aux"):
        _check(recorded.results("train_aux"), own, exact)


def test_every_node() -> None:
    """The fx nodes say which of MXNet's outputs they are."""
    recorded = Recorded("face_pyramid")

    def run(dtype: torch.dtype) -> dict[str, Tensor]:
        port = recorded.port(dtype).eval()
        seen: dict[str, Tensor] = {}

        class Watch(torch.fx.Interpreter):
            def run_node(self, n: torch.fx.Node) -> Any:
                result = super().run_node(n)
                if n.name in port.meta["mxnet"]["node_outputs"]:
                    seen["node:" + port.meta["mxnet"]["node_outputs"][n.name]] = result
                return result

        with torch.no_grad():
            Watch(port).run(*recorded.inputs(port, dtype).values())
        return seen

    _check(recorded.results("node"), run(torch.float32), run(torch.float64))


@pytest.mark.parametrize(
    "name", [name for name in FILES if not name.startswith(("simple_pose", "center_net_dla34"))]
)
def test_port_is_a_good_module(name: str) -> None:
    """Copied, pickled, with its state loaded elsewhere, exported: always the same numbers."""
    recorded = Recorded(name)
    port = recorded.port().eval()
    inputs = recorded.inputs(port, torch.float32)
    data = tuple(tensor for key, tensor in inputs.items() if not key.endswith("label"))
    with torch.no_grad():
        expected = _tuple(port(*data))
        other = recorded.port().eval()
        for buffer_or_parameter in other.state_dict().values():
            buffer_or_parameter.zero_()
        other.load_state_dict(port.state_dict())
        exported = torch.export.export(port, data).module()
        unpickled = pickle.loads(pickle.dumps(port))
        for twin in (copy.deepcopy(port), unpickled, other, exported):
            for mine, theirs in zip(expected, _tuple(twin(*data)), strict=True):
                assert torch.equal(mine, theirs)
    assert unpickled.meta["mxnet"] == port.meta["mxnet"]
    assert unpickled.code == port.code
    assert isinstance(unpickled, module.PortedModule)


@pytest.mark.parametrize("name", ["face_pyramid", "old_json"])
def test_compiles(name: str) -> None:
    recorded = Recorded(name)
    port = recorded.port().eval()
    inputs = recorded.inputs(port, torch.float32)
    data = [tensor for key, tensor in inputs.items() if not key.endswith("label")]
    compiled = torch.compile(port, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        for mine, theirs in zip(_tuple(port(*data)), _tuple(compiled(*data)), strict=True):
            torch.testing.assert_close(mine, theirs)


def test_multipliers_become_groups() -> None:
    """`__lr_mult__` of a variable, and the old `weight_lr_mult` of an operator."""
    groups = module.parameter_groups(Recorded("face_pyramid").port(), lr=0.1, weight_decay=0.01)
    fixed = [group for group in groups if group["lr"] == 0]
    assert [tuple(p.shape) for group in fixed for p in group["params"]] == [(8, 1, 4, 4)] * 2
    assert all(group["weight_decay"] == 0 for group in fixed)
    port = Recorded("old_json").port()
    rates = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in module.parameter_groups(port, lr=1.0, weight_decay=1.0)
        for parameter in group["params"]
    }
    assert rates[id(port.conv.weight)] == (0.5, 1.0)
    assert rates[id(port.conv.bias)] == (1.0, 0.0)
    assert rates[id(port.bn.weight)] == (1.0, 1.0)
