"""convert: folders, .pt2 and .onnx compute what the port computes, with standard operators only."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import mxdeconv
from mxdeconv import porting
from mxdeconv.porting import ConversionError, convert, load_checkpoint, load_params, load_symbol
from mxdeconv.porting.comparison import agree_all
from mxdeconv.porting.conversion import example_arguments
from mxdeconv.porting.folder import module_source, save_safetensors
from mxdeconv.porting.standard import standard

PREFIX = Path(__file__).parents[1] / "examples" / "data" / "port_model"
SHAPES = {"data": (1, 1, 27, 33)}


def symbol(*nodes: dict[str, Any], heads: list[int]) -> str:
    """A symbol.json of nodes {op, name, inputs=[...], attrs...}."""
    listed = []
    for node in nodes:
        attrs = {k: str(v) for k, v in node.items() if k not in ("op", "name", "inputs")}
        inputs = [[source, 0, 0] for source in node.get("inputs", [])]
        listed.append({"op": node["op"], "name": node["name"], "inputs": inputs, "attrs": attrs})
    return json.dumps({"nodes": listed, "heads": [[head, 0, 0] for head in heads]})


def variable(name: str) -> dict[str, str]:
    return {"op": "null", "name": name}


def integers(*shape: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(sum(shape))
    return torch.randint(-3, 4, shape, generator=random).float()


def run_folder(path: Path) -> torch.nn.Module:
    spec = importlib.util.spec_from_file_location("ported_model", path / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    loaded: torch.nn.Module = module.load()
    return loaded


def test_folder(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    module = load_checkpoint(PREFIX).eval()
    outcome = convert(module, tmp_path / "ported", SHAPES)
    assert "read back and run" in str(outcome)
    assert sorted(path.name for path in (tmp_path / "ported").iterdir()) == [
        "model.py",
        "model.safetensors",
    ]
    source = (tmp_path / "ported" / "model.py").read_text()
    assert "self.up = mxdeconv.Deconvolution(num_filter=4, kernel=(4, 4)" in source
    assert "        skip = torch.cat([high_relu, up], dim=1)\n" in source
    state = safetensors.load_file(tmp_path / "ported" / "model.safetensors")
    assert state.keys() == module.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in module.state_dict().items())
    data = integers(2, 1, 27, 33)
    assert torch.equal(run_folder(tmp_path / "ported")(data), module(data))


def test_folder_without_shapes_compares_weights(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    outcome = convert(load_checkpoint(PREFIX), tmp_path)
    assert outcome.outputs == []
    assert "not run: no shapes were given" in str(outcome)


def test_folder_with_other_weights_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("safetensors")

    def wrong(path: Path, tensors: dict[str, torch.Tensor], progress: Any) -> None:
        save_safetensors(path, {**tensors, "up.bias": torch.ones(4)}, progress)

    monkeypatch.setattr("mxdeconv.porting.folder.save_safetensors", wrong)
    with pytest.raises(ConversionError, match="other values than the port"):
        convert(load_checkpoint(PREFIX), tmp_path / "ported")
    assert not (tmp_path / "ported").exists()


def test_folder_in_place_of_an_older_one(tmp_path: Path) -> None:
    """The two files are replaced, by what passed its check; whatever else is there stays."""
    pytest.importorskip("safetensors")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "model.py").write_text("the one before")
    convert(load_checkpoint(PREFIX), tmp_path, SHAPES)
    names = ["model.py", "model.safetensors", "notes.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert "class Model" in (tmp_path / "model.py").read_text()
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("shapes", [SHAPES, None])
def test_folder_that_fails_its_check_is_not_left(
    there: bool, shapes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any) -> tuple[str, dict[str, torch.Tensor]]:
        return "raise RuntimeError('no such luck')", {}

    monkeypatch.setattr("mxdeconv.porting.folder.module_source", broken)
    path = tmp_path / "ported"
    if there:
        path.mkdir()
        (path / "model.py").write_text("the one before")
    with pytest.raises(ConversionError, match="no such luck") as caught:
        convert(load_checkpoint(PREFIX), path, shapes)
    assert str(caught.value).startswith(f"{path} was written but does not run")
    assert path.exists() == there
    if there:
        assert [file.read_text() for file in path.iterdir()] == ["the one before"]
    assert len(list(tmp_path.iterdir())) == there


def test_the_shape_that_the_symbol_states_is_taken(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    text = Path(f"{PREFIX}-symbol.json").read_text()
    stated = '"name": "data", "attrs": {"__shape__": "(1, 1, 27, 33)"}'
    module = load_symbol(text.replace('"name": "data"', stated), f"{PREFIX}-0000.params")
    assert module.meta["mxnet"]["shapes"] == SHAPES
    assert convert(module, tmp_path / "ported").outputs[0].shape == (1, 1, 27, 33)
    other = convert(module, tmp_path / "ported", {"data": (2, 1, 27, 33)})
    assert other.outputs[0].shape[0] == 2


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors", "model.py"])
def test_names_that_are_no_folder_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a folder, FILE\.pt2 or FILE\.onnx, got"):
        convert(load_checkpoint(PREFIX), tmp_path / name)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file is a file"):
        convert(load_checkpoint(PREFIX), tmp_path / "file")
    (tmp_path / "m.pt2").mkdir()
    with pytest.raises(ValueError, match=r"m\.pt2 is a folder"):
        convert(load_checkpoint(PREFIX), tmp_path / "m.pt2", SHAPES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "m.pt2"]


def test_source_with_shared_and_nameless_things(tmp_path: Path) -> None:
    """One weight of two layers is saved once; a node may be called torch; made arrays."""
    up = {"op": "Deconvolution", "kernel": "(2,)", "num_filter": 2}
    text = symbol(
        variable("data"),
        variable("w"),
        {**up, "name": "torch", "inputs": [0, 1]},
        {**up, "name": "b", "inputs": [2, 1], "stride": "(2,)"},
        {"op": "_arange", "name": "counted", "start": 0, "stop": 3, "dtype": "float32"},
        variable("scale"),
        {"op": "broadcast_add", "name": "sum", "inputs": [2, 5]},
        heads=[3, 6, 4],
    )
    params = {"w": integers(2, 2, 2), "scale": integers(1, 2, 1)}
    module = load_symbol(text, params).eval()
    source, tensors = module_source(module)
    assert "torch.Deconvolution" not in source
    assert sum(value.data_ptr() == params["w"].data_ptr() for value in tensors.values()) == 1
    save_safetensors(tmp_path / "model.safetensors", tensors, None)
    (tmp_path / "model.py").write_text(source)
    pytest.importorskip("safetensors")
    data = integers(1, 2, 4)
    loaded = run_folder(tmp_path)
    for mine, theirs in zip(loaded(data), module(data), strict=True):
        assert torch.equal(mine, theirs)
    assert loaded.get_parameter(module.meta["mxnet"]["parameters"]["w"]) is loaded.b.weight


def test_safetensors_are_what_the_package_writes(tmp_path: Path) -> None:
    package = pytest.importorskip("safetensors.torch")
    tensors = {
        "a": torch.arange(6.0).reshape(2, 3),
        "b": torch.tensor([1, 2], dtype=torch.uint8),
        "none": torch.empty(0, 3, dtype=torch.bfloat16),
        "number": torch.tensor(1.5, dtype=torch.float64),
    }
    save_safetensors(tmp_path / "f.safetensors", tensors, None)
    loaded = package.load_file(tmp_path / "f.safetensors")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor)
        assert loaded[name].dtype == tensor.dtype


# Standard operators -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attrs", "data", "weight"),
    [
        ({"kernel": "(3,)", "stride": "(2,)", "pad": "(1,)", "adj": "(1,)"}, (2, 4, 5), (4, 6, 3)),
        ({"kernel": "(3, 2)", "dilate": "(2, 3)", "stride": "(2, 1)"}, (1, 4, 5, 4), (4, 6, 3, 2)),
        (
            {"kernel": "(4, 4)", "stride": "(2, 2)", "target_shape": "(9, 7)"},
            (2, 4, 4, 3),
            (4, 6, 4, 4),
        ),
        ({"kernel": "(3, 3)", "num_group": "2", "layout": "NHWC"}, (2, 3, 5, 4), (4, 3, 3, 3)),
        ({"kernel": "(2, 2, 2)", "stride": "(2, 2, 2)"}, (1, 4, 2, 3, 2), (4, 6, 2, 2, 2)),
        ({"kernel": "(1, 1)", "pad": "(1, 1)"}, (1, 4, 5, 4), (4, 6, 1, 1)),
    ],
)
@pytest.mark.parametrize("no_bias", [True, False])
def test_conv_transpose_is_exactly_equal(
    attrs: dict[str, str], data: tuple[int, ...], weight: tuple[int, ...], no_bias: bool
) -> None:
    names = ["data", "up_weight", *([] if no_bias else ["up_bias"])]
    node = {"op": "Deconvolution", "name": "up", "inputs": range(len(names)), "num_filter": 6}
    text = symbol(*map(variable, names), {**node, "no_bias": no_bias, **attrs}, heads=[len(names)])
    params = {"up_weight": integers(*weight)}
    if not no_bias:
        params["up_bias"] = integers(6)
    module = load_symbol(text, params).eval()
    example = {"data": integers(*data)}
    plain = standard(module, example)
    assert not any(isinstance(m, mxdeconv.Deconvolution) for m in plain.modules())
    assert any(isinstance(m, mxdeconv.Deconvolution) for m in module.modules())
    assert torch.equal(plain(**example), module(**example))


def test_one_layer_at_two_sizes_gets_two_crops() -> None:
    """Shared weights and a target_shape: the pad differs, so the module cannot be shared."""
    up = {"op": "Deconvolution", "kernel": "(4,)", "stride": "(2,)", "num_filter": 2}
    text = symbol(
        variable("data"),
        variable("w"),
        {**up, "name": "a", "inputs": [0, 1], "target_shape": "(9,)"},
        {**up, "name": "b", "inputs": [2, 1], "target_shape": "(9,)"},
        heads=[2, 3],
    )
    module = load_symbol(text, {"w": integers(2, 2, 4)}).eval()
    data = integers(1, 2, 5)
    plain = standard(module, {"data": data})
    for mine, theirs in zip(plain(data), module(data), strict=True):
        assert torch.equal(mine, theirs)
    weights = {id(parameter) for parameter in plain.parameters()}
    assert weights == {id(parameter) for parameter in module.parameters()}


def test_a_computed_weight(tmp_path: Path) -> None:
    """A Deconvolution whose weight is a result of the graph."""
    text = symbol(
        variable("data"),
        variable("raw"),
        {"op": "_mul_scalar", "name": "w", "inputs": [1], "scalar": 2},
        {"op": "Deconvolution", "name": "up", "inputs": [0, 2], "kernel": "(2,)", "num_filter": 3},
        heads=[3],
    )
    module = load_symbol(text, {"raw": integers(2, 3, 2)}, inputs={"data": (1, 2, 4)}).eval()
    data = integers(1, 2, 4)
    assert torch.equal(standard(module, {"data": data})(data), module(data))
    assert convert(module, tmp_path / "m.pt2", {"data": data}).outputs[0].agrees


@pytest.mark.parametrize("dynamic", [False, True])
def test_pt2(dynamic: bool, tmp_path: Path) -> None:
    module = load_checkpoint(PREFIX).eval()
    outcome = convert(module, tmp_path / "m.pt2", SHAPES, dynamic_batch=dynamic)
    assert "without mxdeconv" in str(outcome)
    program = torch.export.load(tmp_path / "m.pt2")
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert "aten.conv_transpose2d.input" in targets
    assert not any("mxdeconv" in target for target in targets)
    if dynamic:
        data = torch.randn(5, 1, 27, 33)
        with torch.no_grad():
            result = program.module()(data)
        assert agree_all(module, {"data": data}, [result])[0].agrees


def test_data_of_the_type_of_the_weights(tmp_path: Path) -> None:
    """A float16 model, whose symbol does not say that its data is."""
    text = symbol(
        variable("data"),
        variable("w"),
        {"op": "Deconvolution", "name": "up", "inputs": [0, 1], "kernel": "(2,)", "num_filter": 2},
        {"op": "Activation", "name": "act", "inputs": [2], "act_type": "relu"},
        heads=[3],
    )
    weights = {"w": integers(3, 2, 2).half()}
    assert load_symbol(text, weights, inputs={"data": (1, 3, 4)}).up.weight.dtype == torch.half
    module = load_symbol(text, weights)
    outcome = convert(module, tmp_path / "m.pt2", {"data": (1, 3, 4)})
    assert outcome.outputs[0].agrees
    (output,) = [torch.export.load(tmp_path / "m.pt2").module()(integers(1, 3, 4).half())]
    assert torch.equal(output, module.eval()(integers(1, 3, 4).half()))


def test_a_module_in_training_mode_stays_as_it_is(tmp_path: Path) -> None:
    """Its moving averages above all: the file is for prediction, with those of the checkpoint."""
    module = load_checkpoint(PREFIX).train()
    module.get_submodule("high_bn").eval()
    modes = [child.training for child in module.modules()]
    state = {name: value.clone() for name, value in module.state_dict().items()}
    convert(module, tmp_path / "m.pt2", SHAPES)
    assert [child.training for child in module.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    recorded = load_params(f"{PREFIX}.npz")
    program = torch.export.load(tmp_path / "m.pt2").module()
    result = program(recorded["input:data"])
    arguments = {"data": recorded["input:data"]}
    assert agree_all(module, arguments, [result])[0].agrees
    assert agree_all(module, arguments, [recorded["output:0"]])[0].agrees


def test_onnx(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    for package in ("onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    outcome = convert(load_checkpoint(PREFIX), tmp_path / "m.onnx", SHAPES)
    assert "run in onnxruntime" in str(outcome)
    assert outcome.outputs[0].agrees
    operators = {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}
    assert "ConvTranspose" in operators


def one_node(op: str, *inputs: str, **attrs: Any) -> porting.PortedModule:
    node = {"op": op, "name": "node", "inputs": range(len(inputs)), **attrs}
    return load_symbol(symbol(*map(variable, inputs), node, heads=[len(inputs)]), {})


def test_onnx_of_operators_that_torch_does_not_translate(tmp_path: Path) -> None:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    module = one_node("_hypot", "a", "b")
    assert convert(module, tmp_path / "m.onnx", {"a": (2, 3), "b": (2, 3)}).outputs[0].agrees
    whole = {"data": torch.tensor([-3, 2, 5])}
    assert convert(one_node("_maximum_scalar", "data", scalar=2), tmp_path / "m.onnx", whole)
    wholes = {"a": torch.tensor([-3, 2, 5]), "b": torch.tensor([2, 3, 2])}
    assert convert(one_node("broadcast_mod", "a", "b"), tmp_path / "m.onnx", wholes)
    with pytest.raises(ConversionError, match=r"m\.onnx cannot be written: .*erf_inv") as caught:
        convert(one_node("erfinv", "data"), tmp_path / "e.m.onnx", {"data": (3,)})
    assert len(str(caught.value).splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"pip install 'mxdeconv\[onnx\]'"):
        convert(load_checkpoint(PREFIX), tmp_path / "m.onnx", SHAPES)
    assert not list(tmp_path.iterdir())


def test_a_result_that_differs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(*arguments: Any) -> list[torch.Tensor]:
        return [torch.zeros(1, 1, 27, 33)]

    monkeypatch.setattr("mxdeconv.porting.conversion.run_elsewhere", other)
    (tmp_path / "m.pt2").write_text("the one before")
    with pytest.raises(ConversionError, match=r"computes something else[\s\S]*DEPARTS") as caught:
        convert(load_checkpoint(PREFIX), tmp_path / "m.pt2", SHAPES)
    assert str(caught.value).startswith(str(tmp_path / "m.pt2"))
    assert (tmp_path / "m.pt2").read_text() == "the one before"
    assert len(list(tmp_path.iterdir())) == 1


def test_inputs_are_checked() -> None:
    module = load_checkpoint(PREFIX)
    with pytest.raises(ValueError, match="inputs must be among data, got 'dat'"):
        example_arguments(module, {"dat": (1, 2)})
    with pytest.raises(ValueError, match="inputs must give data or a shape for data"):
        example_arguments(module, {})
