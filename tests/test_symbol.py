"""Reading symbol.json, and what is made of it beyond the numbers."""

from __future__ import annotations

import copy
import json
import pickle
import random
from typing import Any

import pytest
import torch
from torch import nn

import mxdeconv
from mxdeconv.porting import module, names, symbol
from mxdeconv.porting.symbol import PortingError


class Graph:
    """Writes a symbol.json node by node."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []

    def variable(self, name: str, **attrs: str) -> list[int]:
        return self.node("null", name, **attrs)

    def node(self, op: str, name: str, *inputs: list[int], **attrs: str) -> list[int]:
        entry: dict[str, Any] = {"op": op, "name": name, "inputs": list(inputs)}
        if attrs:
            entry["attrs"] = attrs
        self.nodes.append(entry)
        return [len(self.nodes) - 1, 0, 0]

    def text(self, *heads: list[int]) -> str:
        return json.dumps({"nodes": self.nodes, "heads": list(heads)})


def convolution(
    graph: Graph, name: str, data: list[int], weight: list[int] | None = None
) -> list[int]:
    weight = weight or graph.variable(f"{name}_weight")
    attrs = {"kernel": "(3, 3)", "pad": "(1, 1)", "num_filter": "4", "no_bias": "True"}
    return graph.node("Convolution", name, data, weight, **attrs)


def simple() -> str:
    graph = Graph()
    return graph.text(convolution(graph, "conv", graph.variable("data")))


# ---- reading ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be JSON"),
        ("[]", "object with a list 'nodes'"),
        ('{"nodes": 3}', "object with a list 'nodes'"),
        ('{"nodes": [3], "heads": [[0, 0]]}', "node 0 must be a JSON object"),
        ('{"nodes": [{"op": "null"}], "heads": [[0, 0]]}', "node 0 must have an op and a name"),
        ('{"nodes": [{"op": "null", "name": "x"}], "heads": []}', "at least one head"),
        ('{"nodes": [{"op": "null", "name": "x"}], "heads": [[1, 0]]}', "of an earlier node"),
        ('{"nodes": [{"op": "a", "name": "x", "inputs": [[0, 0]]}], "heads": [[0, 0]]}', "earlier"),
        ('{"nodes": [{"op": "a", "name": "x", "attrs": {"k": 1}}], "heads": [[0, 0]]}', "texts"),
        ('{"nodes": [{"op": "a", "name": "x", "inputs": 5}], "heads": [[0, 0]]}', "must be a list"),
        ("{" * 100000, "must be JSON"),
        ('{"nodes":' + "[" * 100000, "must be JSON"),
    ],
)
def test_malformed_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        symbol.parse_symbol(text)


def test_mutilated_text_is_refused_or_read() -> None:
    """Any change to a good file: a ValueError or a Symbol, nothing else."""
    good = simple()
    draw = random.Random(0)
    for _ in range(2000):
        characters = list(good)
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(characters))
            characters[at] = draw.choice('[]{}",:0123456789-axK\\ \x00é')
        try:
            parsed = symbol.parse_symbol("".join(characters))
            symbol.unsupported(parsed)
        except ValueError:
            pass


@pytest.mark.parametrize("key", ["attr", "param", "attrs"])
def test_every_key_of_attributes_is_read(key: str) -> None:
    text = simple().replace('"attrs"', f'"{key}"').replace("(3, 3)", "(3L, 3L)")
    parsed = symbol.parse_symbol(text)
    assert parsed.arguments == ["data", "conv_weight"]
    shapes = symbol.infer_shapes(parsed, {"data": (2, 3, 5, 6)})
    assert shapes["conv"] == ((2, 4, 5, 6),)


def test_nodes_that_no_head_needs_are_dropped() -> None:
    graph = Graph()
    data = graph.variable("data")
    head = convolution(graph, "conv", data)
    graph.node("SomethingUnknown", "loss", head)
    parsed = symbol.parse_symbol(graph.text(head))
    assert [node.name for node in parsed.nodes] == ["data", "conv_weight", "conv"]


def test_auxiliary_states_of_old_files_are_added() -> None:
    graph = Graph()
    data = graph.variable("data")
    head = graph.node("BatchNorm", "bn", data, graph.variable("g"), graph.variable("b"))
    parsed = symbol.parse_symbol(graph.text(head))
    assert parsed.arguments == ["data", "g", "b"]
    assert parsed.auxiliary == ["bn_moving_mean", "bn_moving_var"]


# ---- what cannot be ported ---------------------------------------------------------------------


def test_all_problems_are_listed_at_once() -> None:
    graph = Graph()
    data = graph.variable("data")
    a = graph.node("RNN", "rnn", data, state_size="3")
    b = graph.node("Activation", "act", a, act_type="swish")
    c = graph.node("Pooling", "pool", b, kernel="(2, 2)", ceil="True")
    d = convolution(graph, "conv", c)
    e = graph.node("FullyConnected", "fc", d, graph.variable("w"), num_hidden="ten")
    f = graph.node("_arange", "range", infer_range="True", start="0")
    text = graph.text(e, f)
    expected = {
        "rnn": "the operator is not supported",
        "act": "act_type must be one of",
        "pool": "unknown attributes: ceil",
        "fc": "num_hidden must be an int",
        "range": "infer_range needs an array of known shape",
    }
    problems = symbol.unsupported(symbol.parse_symbol(text))
    assert [name for name, _, _ in problems] == list(expected)
    for name, _, reason in problems:
        assert expected[name] in reason
    with pytest.raises(PortingError, match="5 nodes cannot be ported") as caught:
        symbol.load_symbol(text, {})
    assert caught.value.problems == problems
    assert all(name in str(caught.value) for name in expected)


def test_outputs_that_a_port_does_not_have() -> None:
    graph = Graph()
    drop = graph.node("Dropout", "drop", graph.variable("data"))
    text = graph.text(graph.node("relu", "r", [drop[0], 1, 0]))
    problems = symbol.unsupported(symbol.parse_symbol(text))
    assert problems == [("drop", "Dropout", "output 1 is not supported")]


def test_operators_without_attributes_may_carry_any() -> None:
    """As in MXNet: Gluon writes a dtype to zeros_like, which has none."""
    graph = Graph()
    data = graph.variable("data")
    nodes = [graph.node(op, op, data, dtype="int64") for op in ("zeros_like", "relu", "Flatten")]
    assert symbol.unsupported(symbol.parse_symbol(graph.text(*nodes))) == []


def test_placement_and_hidden_attributes_are_no_problem() -> None:
    graph = Graph()
    attrs = {"act_type": "relu", "__layout__": "NCHW", "ctx_group": "dev1", "force_mirroring": "1"}
    head = graph.node("Activation", "act", graph.variable("data"), **attrs)
    assert symbol.unsupported(symbol.parse_symbol(graph.text(head))) == []


@pytest.mark.parametrize(
    ("params", "inputs", "message"),
    [
        ({}, None, "params must have a value for conv_weight"),
        ({}, {"data": (1, 3, 4, 4)}, "params must have a value for conv_weight"),
        ({"0.weight": (1,)}, None, r"for conv_weight; they have 0\.weight, unknown to the symbol"),
        ({"conv_weight": (4, 3, 3, 3)}, {"date": (1, 3, 4, 4)}, "inputs must name variables"),
        ({"conv_weight": (5, 3, 3, 3)}, None, r"conv_weight must have shape \(4, 3, 3, 3\)"),
        ({"conv_weight": (4, 3, 3, 3)}, {"data": (1, 2, 4, 4)}, r"conv \(Convolution\): "),
        ({"conv_weight": (4, 3, 3, 3), "more": (1,)}, None, "got also more"),
        (None, None, "conv_weight cannot be inferred"),
        ({"arg:conv_weight": (1,), "conv_weight": (1,)}, None, "each parameter once"),
    ],
)
def test_bad_parameters_are_named(params: Any, inputs: Any, message: str) -> None:
    tensors = params and {name: torch.zeros(shape) for name, shape in params.items()}
    with pytest.raises(ValueError, match=message):
        symbol.load_symbol(simple(), tensors if params is not None else None, inputs=inputs)


def test_extra_parameters_can_be_allowed() -> None:
    given = {"arg:conv_weight": torch.ones(4, 3, 3, 3), "aux:more": torch.ones(1)}
    port = symbol.load_symbol(simple(), given, allow_extra=True)
    assert isinstance(port.conv, nn.Conv2d)


# ---- the module ----------------------------------------------------------------------------------


def test_parameters_are_taken_without_a_copy() -> None:
    weight = torch.randn(4, 3, 3, 3)
    port = symbol.load_symbol(simple(), {"conv_weight": weight})
    assert port.conv.weight.data_ptr() == weight.data_ptr()
    assert port.conv.weight.requires_grad
    assert port.meta["mxnet"]["parameters"] == {"conv_weight": "conv.weight"}
    assert port.meta["mxnet"]["outputs"] == ["conv_output"]


def test_shared_weights_stay_shared() -> None:
    """The same layer with the same variables twice is one module, called twice."""
    graph = Graph()
    data, weight = graph.variable("data"), graph.variable("w")
    twice = convolution(graph, "b", convolution(graph, "a", data, weight), weight)
    port = symbol.load_symbol(graph.text(twice), {"w": torch.randn(4, 4, 3, 3)})
    assert port(torch.ones(1, 4, 5, 5)).shape == (1, 4, 5, 5)
    assert len(list(port.parameters())) == 1
    for twin in (copy.deepcopy(port), pickle.loads(pickle.dumps(port))):
        assert len(list(twin.parameters())) == 1


def test_one_parameter_in_two_kinds_of_layers() -> None:
    graph = Graph()
    data, weight = graph.variable("data"), graph.variable("w")
    attrs = {"kernel": "(1, 1)", "num_filter": "3", "no_bias": "True"}
    down = graph.node("Convolution", "encode", data, weight, **attrs)
    up = graph.node("Deconvolution", "decode", down, weight, **attrs)
    port = symbol.load_symbol(graph.text(up), {"w": torch.randn(3, 3, 1, 1)})
    assert isinstance(port.decode, mxdeconv.Deconvolution)
    assert port.encode.weight is port.decode.weight
    port(torch.ones(1, 3, 2, 2)).sum().backward()
    twin = copy.deepcopy(port)
    assert twin.encode.weight is twin.decode.weight


def test_a_computed_weight() -> None:
    graph = Graph()
    data, weight = graph.variable("data"), graph.variable("w")
    doubled = graph.node("_mul_scalar", "twice", weight, scalar="2")
    port = symbol.load_symbol(
        graph.text(convolution(graph, "conv", data, doubled)), {"w": torch.randn(4, 3, 3, 3)}
    ).eval()
    x = torch.randn(1, 3, 6, 5)
    expected = torch.conv2d(x, 2 * port.w, padding=1)
    assert torch.equal(port(x), expected)
    port(x).sum().backward()
    assert port.w.grad is not None
    assert torch.equal(torch.export.export(port, (x,)).module()(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(port))(x), expected)
    assert list(port.state_dict()) == ["w"]


def test_a_weight_that_is_an_input() -> None:
    port = symbol.load_symbol(
        simple(), {}, inputs={"data": (1, 3, 4, 4), "conv_weight": (4, 3, 3, 3)}
    )
    x, w = torch.randn(1, 3, 4, 4), torch.randn(4, 3, 3, 3)
    assert torch.equal(port(x, w), torch.conv2d(x, w, padding=1))
    assert torch.equal(port(data=x, conv_weight=w), torch.conv2d(x, w, padding=1))


def test_initial_values_without_parameters() -> None:
    graph = Graph()
    data = graph.variable("data")
    weight = graph.variable("up_weight", __init__='["bilinear", {}]')
    up = graph.node(
        "UpSampling", "up", data, weight, scale="2", sample_type="bilinear", num_filter="3"
    )
    states = [
        graph.variable(f"bn_{name}") for name in ("gamma", "beta", "moving_mean", "moving_var")
    ]
    head = graph.node("BatchNorm", "bn", up, *states)
    port = symbol.load_symbol(graph.text(head), inputs={"data": (1, 3, 4, 4)})
    assert torch.equal(port.up.weight[0, 0, 0], torch.tensor([1.0, 3.0, 3.0, 1.0]) / 16)
    assert torch.equal(port.bn.running_var, torch.ones(3))
    assert torch.equal(port.bn.bias, torch.zeros(3))


def test_fixed_gamma_is_a_buffer_of_ones() -> None:
    graph = Graph()
    states = [graph.variable(name) for name in ("gamma", "beta", "mean", "var")]
    text = graph.text(graph.node("BatchNorm", "bn", graph.variable("data"), *states))
    ones = torch.full((3,), 7.0)
    port = symbol.load_symbol(text, {"gamma": ones, "beta": ones, "mean": ones, "var": ones})
    assert torch.equal(port.bn.weight, torch.ones(3))
    assert dict(port.named_parameters()).keys() == {"bn.bias"}
    assert set(port.state_dict()) == {
        "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"
    }  # fmt: skip


def test_labels_come_last_and_may_be_left_out_at_inference() -> None:
    graph = Graph()
    label = graph.variable("softmax_label")
    data = graph.variable("data")
    port = symbol.load_symbol(graph.text(graph.node("SoftmaxOutput", "softmax", data, label)), {})
    x = torch.randn(4, 5)
    assert torch.equal(port.eval()(x), torch.softmax(x, 1))
    with pytest.raises(ValueError, match="label must be given in training"):
        port.train()(x)
    x.requires_grad_()
    labels = torch.tensor([0.0, 3.0, 1.0, 4.0])
    port(x, labels).sum().backward()
    assert x.grad is not None
    expected = torch.softmax(x.detach(), 1) - nn.functional.one_hot(labels.long(), 5)
    torch.testing.assert_close(x.grad, expected)


def test_dropout_that_is_always_on() -> None:
    graph = Graph()
    attrs = {"p": "0.25", "mode": "always", "axes": "(2,)"}
    head = graph.node("Dropout", "drop", graph.variable("data"), **attrs)
    port = symbol.load_symbol(graph.text(head), {}).eval()
    torch.manual_seed(0)
    result = port(torch.ones(100, 100, 3))
    assert set(result.unique().tolist()) == {0.0, float(torch.tensor(1.0) / 0.75)}
    assert torch.equal(result, result[:, :, :1].expand(-1, -1, 3))
    assert 2300 < int((result[:, :, 0] == 0).sum()) < 2700


def test_constants_move_with_the_module_but_are_not_saved() -> None:
    graph = Graph()
    numbers = graph.node("_arange", "numbers", start="4")
    text = graph.text(graph.node("broadcast_add", "sum", graph.variable("data"), numbers))
    port = symbol.load_symbol(text, {})
    assert port.state_dict() == {}
    assert torch.equal(port(torch.ones(2, 4)), torch.tensor([1.0, 2.0, 3.0, 4.0]).expand(2, 4))
    assert port.to("meta")(torch.ones(2, 4, device="meta")).device.type == "meta"


def test_export_with_any_batch() -> None:
    graph = Graph()
    head = convolution(graph, "conv", graph.variable("data"))
    head = graph.node("Reshape", "rows", head, shape="(0, -3, 0)")
    head = graph.node("slice_axis", "part", head, axis="1", begin="2", end="-1")
    port = symbol.load_symbol(graph.text(head), {"conv_weight": torch.randn(4, 3, 3, 3)}).eval()
    batch = torch.export.Dim("batch", min=2)
    exported = torch.export.export(
        port, (torch.randn(3, 3, 6, 5),), dynamic_shapes={"data": {0: batch}}
    )
    x = torch.randn(7, 3, 6, 5)
    assert torch.equal(exported.module()(x), port(x))


def test_several_outputs_and_their_names() -> None:
    graph = Graph()
    parts = graph.node("SliceChannel", "parts", graph.variable("data"), num_outputs="2")
    other = graph.node("relu", "r", [parts[0], 1, 0])
    port = symbol.load_symbol(graph.text(parts, other, [0, 0, 0]), {})
    assert port.meta["mxnet"]["outputs"] == ["parts_output0", "r_output", "data"]
    assert [tuple(out.shape) for out in port(torch.ones(2, 4))] == [(2, 2), (2, 2), (2, 4)]


def test_the_same_name_twice() -> None:
    graph = Graph()
    head = graph.variable("data")
    for _ in range(3):
        head = graph.node("Activation", "fwd", head, act_type="tanh")
    port = symbol.load_symbol(graph.text(head), {})
    x = torch.randn(4)
    assert torch.equal(port(x), x.tanh().tanh().tanh())
    assert list(port.meta["mxnet"]["nodes"].values()) == ["data", "fwd", "fwd", "fwd"]


def test_printed_code_is_readable() -> None:
    graph = Graph()
    head = convolution(graph, "stage1.conv-a", graph.variable("data"))
    head = graph.node("_mul_scalar", "scaled", head, scalar="2.0")
    port = symbol.load_symbol(graph.text(head), {"stage1.conv-a_weight": torch.zeros(4, 3, 3, 3)})
    assert "self.stage1_u2e_conv_u2d_a(data)" in port.code
    assert "torch.mul(stage1_u2e_conv_u2d_a, other = 2)" in port.code
    assert names.from_identifier("stage1_u2e_conv_u2d_a") == "stage1.conv-a"


@pytest.mark.parametrize(
    "name",
    [
        *("conv0", "stage1.conv", "a-b c", "0", "9lives", "class", "train", "forward", "", "_"),
        *("_u2e_", "_u2e", "x_u2e_y", "_u", "__u2_", "_u2e.", ".u2e_", "ü", "conv/weight:0", "_u_"),
    ],
)
def test_names_become_identifiers_and_come_back(name: str) -> None:
    identifier = names.to_identifier(name, {"train", "forward"})
    assert identifier.isidentifier()
    assert identifier not in ("train", "forward", "class")
    assert names.from_identifier(identifier) == name


def test_groups_without_multipliers() -> None:
    graph = Graph()
    data, weight = graph.variable("data"), graph.variable("fc_weight", __wd_mult__="0.5")
    bias = graph.variable("fc_bias", __lr_mult__="2")
    text = graph.text(graph.node("FullyConnected", "fc", data, weight, bias, num_hidden="2"))
    port = symbol.load_symbol(text, {"fc_weight": torch.ones(2, 3), "fc_bias": torch.ones(2)})
    groups = module.parameter_groups(port, lr=0.1, weight_decay=0.01)
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.1, 0.005), (0.2, 0.0)]
    torch.optim.SGD(groups, lr=0.1).step()


@pytest.mark.parametrize(("bias", "groups"), [(True, 1), (False, 2)])
def test_channels_last_convolution(bias: bool, groups: int) -> None:
    """MXNet has it on GPUs only: the channels-first one on permuted tensors."""
    graph = Graph()
    data, weight = graph.variable("data"), graph.variable("w")
    more = [graph.variable("b")] if bias else []
    attrs = {"kernel": "(3, 2)", "stride": "(2, 1)", "pad": "(1, 0)", "dilate": "(1, 2)"}
    attrs |= {"num_filter": "6", "num_group": str(groups), "layout": "NHWC"}
    node = graph.node("Convolution", "c", data, weight, *more, no_bias=str(not bias), **attrs)
    x, w = torch.randn(2, 7, 6, 4), torch.randn(6, 3, 2, 4 // groups)
    b = torch.randn(6) if bias else None
    given = {"w": w} if b is None else {"w": w, "b": b}
    port = symbol.load_symbol(graph.text(node), given, inputs={"data": (2, 7, 6, 4)})
    plain = nn.functional.conv2d(
        x.movedim(-1, 1), w.movedim(-1, 1), b, (2, 1), (1, 0), (1, 2), groups
    )
    torch.testing.assert_close(port(x), plain.movedim(1, -1))
    shapes = symbol.infer_shapes(symbol.parse_symbol(graph.text(node)), {"data": (2, 7, 6, 4)})
    assert shapes["c"] == (tuple(port(x).shape),)


def test_channels_last_pooling() -> None:
    graph = Graph()
    data = graph.variable("data")
    attrs = {"kernel": "(2, 2)", "stride": "(2, 2)", "layout": "NHWC"}
    pooled = graph.node("Pooling", "p", data, pool_type="avg", **attrs)
    total = graph.node("Pooling", "g", data, global_pool="True", **attrs)
    port = symbol.load_symbol(graph.text(pooled, total), {})
    x = torch.randn(1, 4, 6, 3)
    first = x.movedim(-1, 1)
    torch.testing.assert_close(port(x)[0], nn.functional.avg_pool2d(first, 2).movedim(1, -1))
    torch.testing.assert_close(port(x)[1], first.amax((2, 3), keepdim=True).movedim(1, -1))


@pytest.mark.parametrize(
    ("op", "attrs"),
    [
        ("_zeros", {"shape": "(100000, 100000, 100000)"}),
        ("_arange", {"start": "1e18"}),
        ("_arange", {"start": "inf"}),
        ("_eye", {"N": "1000000000"}),
        ("SliceChannel", {"num_outputs": "1000000000"}),
    ],
)
def test_a_few_letters_cannot_take_all_memory(op: str, attrs: dict[str, str]) -> None:
    graph = Graph()
    inputs = [graph.variable("data")] if op == "SliceChannel" else []
    text = graph.text(graph.node(op, "big", *inputs, **attrs))
    assert [name for name, _, _ in symbol.unsupported(symbol.parse_symbol(text))] == ["big"]


@pytest.mark.parametrize(
    ("shape", "repeat", "expected"),
    [  # what MXNet 1.9.1 computes
        ((4,), "1", [2.0, 5.0, 8.0, 11.0]),
        ((2, 3), "1", [[2.0, 5.0, 8.0], [11.0, 14.0, 17.0]]),
        ((5,), "2", [2.0, 2.0, 5.0, 5.0, 8.0]),
    ],
)
def test_a_range_as_long_as_what_it_is_added_to(
    shape: tuple[int, ...], repeat: str, expected: Any
) -> None:
    graph = Graph()
    numbers = graph.node(
        "_arange", "n", start="2", step="3", repeat=repeat, stop="None", infer_range="True"
    )
    head = graph.node("elemwise_add", "sum", graph.variable("data"), numbers)
    again = graph.node("_mul_scalar", "double", numbers, scalar="2")
    port = symbol.load_symbol(graph.text(again, head), {})
    double, total = port(torch.zeros(shape))
    assert total.tolist() == expected
    assert torch.equal(double, 2 * total)


def test_arrays_of_unknown_sizes_take_them_from_their_use() -> None:
    for op, shape, value in (("_zeros", "(0, 3)", 0.0), ("_ones", "()", 1.0), ("_ones", "(0,)", 1)):
        graph = Graph()
        array = graph.node(op, "made", shape=shape)
        head = graph.node("_Plus", "sum", array, graph.variable("data"))
        port = symbol.load_symbol(graph.text(head), {})
        size = (5,) if shape == "(0,)" else (2, 3)
        assert torch.equal(port(torch.ones(size)), torch.full(size, 1.0 + value))
    with pytest.raises(ValueError, match=r"\(2, 4\) must be of shape \(0, 3\)"):
        symbol.load_symbol(graph.text(head).replace("(0,)", "(0, 3)"), {}, inputs={"data": (2, 4)})


@pytest.mark.parametrize("other", ["broadcast_add", "Concat", "dot"])
def test_sizes_that_no_use_tells_are_reported(other: str) -> None:
    for op, attrs in (("_arange", {"start": "0", "infer_range": "1"}), ("_zeros", {"shape": "0"})):
        graph = Graph()
        array = graph.node(op, "made", **attrs)
        text = graph.text(graph.node(other, "s", graph.variable("data"), array))
        problems = symbol.unsupported(symbol.parse_symbol(text))
        assert [(name, kind) for name, kind, _ in problems] == [("made", op)]


def test_many_constants_cannot_take_all_memory() -> None:
    graph = Graph()
    big = [graph.node("_ones", f"big{n}", shape="(4096, 4096)") for n in range(5)]
    with pytest.raises(ValueError, match=r"big4.*constants must have at most"):
        symbol.load_symbol(graph.text(*big), {})


def test_only_outputs_that_are_read_are_taken_apart() -> None:
    graph = Graph()
    parts = graph.node("SliceChannel", "parts", graph.variable("data"), num_outputs="4096")
    port = symbol.load_symbol(graph.text([parts[0], 7, 0]), {})
    assert len(port.graph.nodes) == 4
    assert port(torch.arange(8192.0).reshape(1, 8192)).tolist() == [[14.0, 15.0]]


def test_a_long_chain_of_nodes() -> None:
    graph = Graph()
    head = graph.variable("data")
    for _ in range(3000):
        head = graph.node("_plus_scalar", "same", head, scalar="1")
    port = symbol.load_symbol(graph.text(head), {})
    assert port(torch.zeros(2)).tolist() == [3000.0, 3000.0]


def test_extremes_keep_infinities() -> None:
    graph = Graph()
    head = graph.node("max", "top", graph.variable("data"), axis="1")
    port = symbol.load_symbol(graph.text(head), {})
    x = torch.tensor([[1.0, torch.inf], [-torch.inf, -torch.inf]], requires_grad=True)
    out = port(x)
    assert out.tolist() == [torch.inf, -torch.inf]
    out.backward(torch.ones(2))
    assert x.grad is not None
    assert x.grad.tolist() == [[0.0, 1.0], [1.0, 1.0]]
