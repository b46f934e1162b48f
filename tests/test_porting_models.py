"""What users do with a port, done with every recorded model and operator: compare and convert.

The recordings are those of test_models_against_mxnet.py and test_operators_against_mxnet.py, which
check the numbers; here they check what is made of a port.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mxdeconv.porting import compare, convert, load_symbol
from mxdeconv.porting.folder import module_source

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "recorded")]
from model_values import draw_head_gradient  # noqa: E402
from test_models_against_mxnet import FILES, Recorded  # noqa: E402
from test_operators_against_mxnet import CASES, draw  # noqa: E402

#: Converted to .pt2 and .onnx by default; the others with --slow, which takes minutes.
QUICK = ("vaegan", "vnet")


def recording(recorded: Recorded) -> dict[str, Tensor]:
    """The names of record_mxnet.py, with the data and gradients that are drawn anew."""
    port = recorded.port()
    arrays = {n: torch.from_numpy(a) for n, a in recorded.arrays.items() if ":" in n}
    arguments = recorded.inputs(port, torch.float32)
    for name, argument in port.meta["mxnet"]["inputs"].items():
        arrays[f"input:{name}"] = arguments[argument]
    for name in [name for name in arrays if name.startswith("train_output:")]:
        number = int(name.partition(":")[2])
        gradient = draw_head_gradient(number, tuple(arrays[name].shape))
        arrays[f"out_grad:{number}"] = torch.from_numpy(gradient)
    return arrays


def wrong(recorded: Recorded, name: str) -> bool:
    """Gradients that MXNet itself computes wrongly, as the recording says."""
    ending = recorded.about.get("wrong_gradients")
    return bool(ending) and name.startswith("grad:") and name.endswith(ending)


@pytest.mark.parametrize("name", FILES)
def test_compare(name: str) -> None:
    recorded = Recorded(name)
    arrays = {n: a for n, a in recording(recorded).items() if not wrong(recorded, n)}
    comparison = compare(recorded.port(), arrays)
    assert comparison.agrees, str(comparison)
    if name.startswith("center_net"):
        assert not any(result.noise for result in comparison.outputs)


def data_of(recorded: Recorded, port: Any) -> dict[str, Tensor]:
    arguments = recorded.inputs(port, torch.float32)
    names = port.meta["mxnet"]["inputs"].items()
    return {name: arguments[own] for name, own in names if not name.endswith("label")}


def from_source(port: Any) -> torch.nn.Module:
    """The model that model.py would give, without files."""
    source, tensors = module_source(port)
    namespace: dict[str, Any] = {"__file__": "model.py"}
    exec(compile(source, "model.py", "exec"), namespace)
    model: torch.nn.Module = namespace["Model"]()
    with torch.no_grad():
        for name, value in tensors.items():
            owner, _, own = name.rpartition(".")
            getattr(model.get_submodule(owner), own).copy_(value)
    return model.eval()


def listed(result: Any) -> list[Tensor]:
    return list(result) if isinstance(result, tuple) else [result]


@pytest.mark.parametrize("name", FILES)
def test_source(name: str) -> None:
    recorded = Recorded(name)
    port = recorded.port().eval()
    data = data_of(recorded, port)
    model = from_source(port)
    with torch.no_grad():
        for mine, theirs in zip(
            listed(model(*data.values())), listed(port(*data.values())), strict=True
        ):
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in FILES]
)
def test_standard_file(name: str, suffix: str, tmp_path: Path) -> None:
    if suffix == ".onnx":
        for package in ("onnx", "onnxruntime", "onnxscript"):
            pytest.importorskip(package)
    recorded = Recorded(name)
    port = recorded.port().eval()
    outcome = convert(port, tmp_path / f"model{suffix}", data_of(recorded, port))
    assert all(result.agrees for result in outcome.outputs)
    assert len(outcome.outputs) == len(port.meta["mxnet"]["outputs"])


def test_every_operator_can_be_written_as_source() -> None:
    """One case of each operator with each set of attribute names."""
    kinds = {(case.op, tuple(case.attrs), tuple(case.inputs)): case for case in CASES}
    assert len(kinds) > 200
    written = set()
    for case in kinds.values():
        arrays = {name: torch.from_numpy(array) for name, array in draw(case).items()}
        names = list(arrays)
        data = {name: arrays[name] for name in names[:1]}
        shapes = {name: tuple(value.shape) for name, value in data.items()}
        try:
            port = load_symbol(
                case.symbol(), {name: arrays[name] for name in names[1:]}, inputs=shapes or None
            ).eval()
        except ValueError:  # some take their second input as data only
            continue
        model = from_source(port)
        for mine, theirs in zip(
            listed(model(*data.values())), listed(port(*data.values())), strict=True
        ):
            assert torch.equal(mine.nan_to_num(), theirs.nan_to_num()), str(case)
        written.add(case.op)
    assert len(written) > 0.9 * len({case.op for case in CASES})
