"""compare: a right port agrees with what MXNet recorded, of a wrong one it says where."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mxdeconv.porting import Comparison, compare, load_checkpoint, load_params, load_symbol
from mxdeconv.porting.agreement import SLACK, agree
from mxdeconv.porting.source import Source

PREFIX = Path(__file__).parents[1] / "examples" / "data" / "port_model"
SYMBOL = PREFIX.with_name("port_model-symbol.json").read_text()
PARAMS = load_params(PREFIX.with_name("port_model-0000.params"))
RECORDED = dict(load_params(PREFIX.with_name("port_model.npz")))


def edited(edit: Callable[[dict[str, dict[str, str]]], None]) -> Comparison:
    """The comparison of a port whose nodes' attributes, by name, were edited."""
    graph = json.loads(SYMBOL)
    edit({node["name"]: node.setdefault("attrs", {}) for node in graph["nodes"]})
    return compare(load_symbol(json.dumps(graph), PARAMS), RECORDED)


def test_a_right_port_agrees() -> None:
    module = load_checkpoint(PREFIX)
    comparison = compare(module, PREFIX.with_name("port_model.npz"))
    assert comparison.agrees
    assert comparison.first is None
    operators = [node for node in json.loads(SYMBOL)["nodes"] if node["op"] != "null"]
    assert [result.name for result in comparison.nodes] == [
        f"{n['name']}_output" for n in operators
    ]
    assert {result.name for result in comparison.gradients} == {
        name for name in RECORDED if re.match("train_output|grad|train_aux", name)
    }
    assert not any(result.noise for result in comparison.all)
    assert "agrees with MXNet: 1 output, 13 nodes, 21 values" in str(comparison)


@pytest.mark.parametrize(
    ("node", "attribute", "value", "first"),
    [
        ("high_bn", "eps", "2e-3", "high_bn_output"),
        ("low_relu", "act_type", "softrelu", "low_relu_output"),
        ("disc", "act_type", "tanh", "disc_output"),
        ("high_bn", "use_global_stats", "True", "train_output:0"),
        ("low_bn", "momentum", "0.8", "train_aux:low_bn_moving_mean"),
    ],
)
def test_a_wrong_attribute_is_found_at_its_node(
    node: str, attribute: str, value: str, first: str
) -> None:
    comparison = edited(lambda nodes: nodes[node].update({attribute: value}))
    assert not comparison.agrees
    assert comparison.first is not None
    assert comparison.first.name == first
    assert comparison.first.share > 10
    assert f"departs from MXNet, first at {first}" in str(comparison)
    assert "DEPARTS" in str(comparison)


def test_a_wrong_crop_is_found_at_the_deconvolution() -> None:
    """Also where the size is another one, so that nothing behind it can be computed."""

    def crop(nodes: dict[str, dict[str, str]]) -> None:
        del nodes["up"]["target_shape"]
        nodes["up"].update(pad="(2, 2)", adj="(1, 1)")

    assert edited(crop).agrees

    def shift(nodes: dict[str, dict[str, str]]) -> None:
        del nodes["up"]["target_shape"]
        nodes["up"].update(kernel="(4, 4)", pad="(1, 1)", adj="(1, 1)", dilate="(1, 1)")

    comparison = edited(shift)
    assert comparison.first is not None
    assert comparison.first.name == "up_output"
    assert comparison.first.reason == "recorded of shape (1, 4, 27, 33), got (1, 4, 29, 35)"
    assert "not computed: Sizes of tensors must match" in str(comparison)
    module = load_checkpoint(PREFIX)
    with torch.no_grad():
        module.up.weight.copy_(module.up.weight.flip(-1))
    comparison = compare(module, RECORDED)
    assert comparison.first is not None
    assert (comparison.first.name, comparison.first.op) == ("up_output", "Deconvolution")


def test_outputs_alone() -> None:
    only = {n: v for n, v in RECORDED.items() if n.startswith(("input:", "output:"))}
    comparison = compare(load_checkpoint(PREFIX), only)
    assert comparison.agrees
    assert (len(comparison.outputs), comparison.nodes, comparison.gradients) == (1, [], [])


def test_the_module_is_left_as_it_was() -> None:
    module = load_checkpoint(PREFIX)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    compare(module, RECORDED)
    assert module.training
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_bad_recordings_are_named() -> None:
    module = load_checkpoint(PREFIX)
    with pytest.raises(ValueError, match="at least one output:N"):
        compare(module, {})
    with pytest.raises(ValueError, match="inputs that the module does not have: other"):
        compare(module, {**RECORDED, "input:other": torch.zeros(1)})
    with pytest.raises(ValueError, match="must have 1 outputs, got 2"):
        compare(module, {**RECORDED, "output:1": torch.zeros(1)})
    with pytest.raises(ValueError, match="grad:other, which the module does not have"):
        compare(module, {**RECORDED, "grad:other": torch.zeros(1)})
    plain = torch.fx.symbolic_trace(torch.nn.ReLU())
    with pytest.raises(TypeError, match="must come from load_symbol"):
        compare(plain, RECORDED)


# The measure --------------------------------------------------------------------------------

EXACT = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
OURS = (EXACT + 1e-7).float()


def share(recorded: torch.Tensor, ours: torch.Tensor = OURS) -> float:
    return agree("x", recorded, ours, [EXACT, EXACT]).share


def test_the_bound_is_what_agreement_says() -> None:
    rounding = float((OURS.double() - EXACT).abs().max())
    bound = SLACK * (rounding + 2.0**-23 * EXACT)
    inside, outside = EXACT.clone(), EXACT.clone()
    inside[1] += bound[1] * 0.9
    outside[1] += bound[1] * 1.2
    assert share(inside.float()) <= 1
    assert share(outside.float()) > 1
    assert share(EXACT.float()) < 0.1


def test_what_is_not_a_number_has_to_be_where_it_was() -> None:
    inf, nan = float("inf"), float("nan")
    both = torch.tensor([1.0, inf, nan])
    exact = both.double()
    assert agree("x", both, both, [exact, exact]).agrees
    for other in ([1.0, -inf, nan], [1.0, nan, inf], [1.0, 2.0, nan], [inf, inf, nan]):
        result = agree("x", torch.tensor(other), both, [exact, exact])
        assert result.reason == "Inf or NaN is not where it was recorded"
    shapes = agree("x", torch.zeros(2, 1), torch.zeros(2), [])
    assert shapes.reason == "recorded of shape (2, 1), got (2,)"
    assert agree("x", torch.zeros(0, 2), torch.zeros(0, 2), []).agrees


def test_integers_have_to_be_equal() -> None:
    one = torch.tensor([1, 2])
    assert agree("x", one, one, [one, one]).agrees
    assert not agree("x", one, torch.tensor([1, 3]), []).agrees


def test_noise_is_marked() -> None:
    """A sum that cancels: every evaluation gives another small number."""
    exact = torch.zeros(4, dtype=torch.float64)
    result = agree("x", torch.full((4,), 1e-7), torch.full((4,), -2e-7), [exact, exact])
    assert result.agrees
    assert result.noise
    assert "1 output (1 of them noise, which says nothing)" in str(Comparison([], [result], []))


def test_a_recording_is_read_without_copies() -> None:
    source = Source(PREFIX.with_name("port_model.npz"), True, 0, None)
    assert bytes(source.buffer[:2]) == b"PK"
    assert load_params(PREFIX.with_name("port_model.npz"), memory_limit=0)["output:0"].numel()


def test_symbol_and_parameters_from_files() -> None:
    """load_symbol with two files is what load_checkpoint does."""
    symbol, params = (PREFIX.with_name(f"port_model-{n}") for n in ("symbol.json", "0000.params"))
    assert compare(load_symbol(symbol, params), RECORDED).agrees


def test_missing_epochs_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="epochs with a file: 0"):
        load_checkpoint(PREFIX, 3)
    with pytest.raises(FileNotFoundError, match=r"there is no .*none-symbol\.json"):
        load_checkpoint(tmp_path / "none")
