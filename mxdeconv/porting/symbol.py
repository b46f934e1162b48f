"""MXNet's symbol.json: the graph as data, in every spelling that MXNet 0.8 to 1.9 wrote.

`parse_symbol` reads it, `unsupported` says what of it cannot be ported, `load_symbol` makes the
torch.fx.GraphModule, `infer_shapes` gives the shape of every output.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from mxdeconv import spec
from mxdeconv.porting.inference import with_shapes_from_use
from mxdeconv.porting.params import load_params

if TYPE_CHECKING:
    from mxdeconv.porting.module import PortedModule

VARIABLE = "null"

#: Inputs by name of the operators that have parameters, as MXNet names the variables it makes.
INPUT_NAMES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("Convolution", "Convolution_v1", "Deconvolution", "FullyConnected"),
        ("data", "weight", "bias"),
    ),
    **dict.fromkeys(
        ("BatchNorm", "BatchNorm_v1", "CuDNNBatchNorm", "_contrib_SyncBatchNorm"),
        ("data", "gamma", "beta", "moving_mean", "moving_var"),
    ),
    **dict.fromkeys(("InstanceNorm", "LayerNorm", "GroupNorm"), ("data", "gamma", "beta")),
    **dict.fromkeys(
        (
            *("SoftmaxOutput", "Softmax", "LinearRegressionOutput", "SVMOutput"),
            *("LogisticRegressionOutput", "MAERegressionOutput"),
        ),
        ("data", "label"),
    ),
    "LeakyReLU": ("data", "gamma"),
    "Embedding": ("data", "weight"),
}
#: Inputs that are auxiliary states: changed by training, but not by an optimizer.
AUXILIARY: dict[str, tuple[int, ...]] = dict.fromkeys(
    ("BatchNorm", "BatchNorm_v1", "CuDNNBatchNorm", "_contrib_SyncBatchNorm"), (3, 4)
)


class PortingError(ValueError):
    """A model that cannot be ported; `problems` lists every node with the reason."""

    def __init__(self, problems: list[tuple[str, str, str]]) -> None:
        self.problems = problems
        lines = [f"  {name} ({op}): {reason}" for name, op, reason in problems]
        nodes = "1 node" if len(problems) == 1 else f"{len(problems)} nodes"
        super().__init__("\n".join([f"{nodes} cannot be ported:", *lines]))


class Node(NamedTuple):
    """One node: an operator, or a variable (op "null"). `inputs` are (node, output) pairs."""

    op: str
    name: str
    attrs: dict[str, str]
    inputs: list[tuple[int, int]]


def stated_shape(node: Node) -> tuple[int, ...] | None:
    """The shape that the symbol states of a variable (`__shape__`), if all of it is known."""
    if "__shape__" not in node.attrs:
        return None
    shape = spec.parse_tuple(f"__shape__ of {node.name}", node.attrs["__shape__"])
    return shape if shape and min(shape) > 0 else None


@dataclass(frozen=True)
class Symbol:
    """A graph in topological order; `heads` are the (node, output) pairs that it returns."""

    nodes: list[Node]
    heads: list[tuple[int, int]]
    arguments: list[str]
    auxiliary: list[str]


def read_symbol(source: str | os.PathLike[str]) -> Symbol:
    """`parse_symbol` of a text, or of a file, which errors then name."""
    if isinstance(source, str) and source.lstrip()[:1] == "{":
        return parse_symbol(source)
    try:
        return parse_symbol(Path(source).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{os.fspath(source)}: {error}") from None


def parse_symbol(text: str) -> Symbol:
    """Read the text of a symbol.json. Raises ValueError naming the node that is malformed."""
    try:
        data = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"symbol must be JSON: {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get("nodes"), list):
        raise ValueError("symbol must be a JSON object with a list 'nodes'")
    nodes = [_parse_node(number, node) for number, node in enumerate(data["nodes"])]
    heads = [_parse_entry("heads", head, len(nodes)) for head in _list(data, "heads")]
    if not heads:
        raise ValueError("symbol must have at least one head")
    nodes, heads = _without_unused(*_with_missing_variables(nodes, heads))
    nodes, heads = with_shapes_from_use(nodes, heads)
    nodes = _with_moved_notes(nodes)
    auxiliary = {
        source
        for node in nodes
        for position in AUXILIARY.get(node.op, ())
        if position < len(node.inputs)
        for source in (node.inputs[position][0],)
        if nodes[source].op == VARIABLE
    }
    variables = [number for number, node in enumerate(nodes) if node.op == VARIABLE]
    return Symbol(
        nodes,
        heads,
        [nodes[number].name for number in variables if number not in auxiliary],
        [nodes[number].name for number in variables if number in auxiliary],
    )


def _list(data: dict[str, Any], key: str) -> list[Any]:
    value = data.get(key, [])
    if not isinstance(value, list):
        raise ValueError(f"symbol: '{key}' must be a list, got {spec.show(value)}")
    return value


def _parse_node(number: int, data: Any) -> Node:
    if not isinstance(data, dict):
        raise ValueError(f"node {number} must be a JSON object, got {spec.show(data)}")
    op, name = data.get("op"), data.get("name")
    if not isinstance(op, str) or not isinstance(name, str):
        raise ValueError(f"node {number} must have an op and a name, got {spec.show(data)}")
    attrs: dict[str, str] = {}
    # 'param' and 'attr' are MXNet 0.8's operator attributes and the user's; 1.0 made them 'attrs'
    for key in ("param", "attr", "attrs"):
        given = data.get(key) or {}
        if not isinstance(given, dict) or not all(type(value) is str for value in given.values()):
            raise ValueError(f"node {number} ({name}): '{key}' must map names to texts")
        attrs.update(given)
    if data.get("subgraphs"):
        attrs["subgraphs"] = "given"  # no operator of the table reads it, so that it is reported
    inputs = [_parse_entry(f"node {number} ({name})", e, number) for e in _list(data, "inputs")]
    return Node(op, name, attrs, inputs)


def _parse_entry(owner: str, entry: Any, count: int) -> tuple[int, int]:
    numbers = isinstance(entry, list) and all(type(value) is int for value in entry)
    if not numbers or not 2 <= len(entry) <= 3 or not 0 <= entry[0] < count or entry[1] < 0:
        raise ValueError(
            f"{owner}: an input must be [node, output] of an earlier node, got {spec.show(entry)}"
        )
    return entry[0], entry[1]


def _with_missing_variables(
    nodes: list[Node], heads: list[tuple[int, int]]
) -> tuple[list[Node], list[tuple[int, int]]]:
    """Files older than MXNet 0.9 do not list auxiliary states; add them as MXNet does."""
    result: list[Node] = []
    moved: list[int] = []
    for node in nodes:
        inputs = [(moved[source], output) for source, output in node.inputs]
        if node.op in AUXILIARY and len(inputs) == AUXILIARY[node.op][0]:
            for name in INPUT_NAMES[node.op][len(inputs) :]:
                inputs.append((len(result), 0))
                result.append(Node(VARIABLE, f"{node.name}_{name}", {}, []))
        moved.append(len(result))
        result.append(node._replace(inputs=inputs))
    return result, [(moved[source], output) for source, output in heads]


def _without_unused(
    nodes: list[Node], heads: list[tuple[int, int]]
) -> tuple[list[Node], list[tuple[int, int]]]:
    """Only what the heads depend on, as MXNet keeps it."""
    used = {source for source, _ in heads}
    for number in reversed(range(len(nodes))):
        if number in used:
            used.update(source for source, _ in nodes[number].inputs)
    kept = sorted(used)
    moved = {old: new for new, old in enumerate(kept)}
    result = [
        nodes[old]._replace(
            inputs=[(moved[source], output) for source, output in nodes[old].inputs]
        )
        for old in kept
    ]
    return result, [(moved[source], output) for source, output in heads]


_NOTES = ("lr_mult", "wd_mult")


def _with_moved_notes(nodes: list[Node]) -> list[Node]:
    """Old files write `weight_lr_mult` at the operator for `__lr_mult__` at its weight."""
    result = [node._replace(attrs=dict(node.attrs)) for node in nodes]
    for node in result:
        for note in _NOTES:
            if note in node.attrs and node.op == VARIABLE:
                node.attrs.setdefault(f"__{note}__", node.attrs[note])
            for position, argument in enumerate(INPUT_NAMES.get(node.op, ())):
                key = f"{argument}_{note}"
                if key in node.attrs and position < len(node.inputs):
                    target = result[node.inputs[position][0]]
                    if target.op == VARIABLE:
                        target.attrs.setdefault(f"__{note}__", node.attrs.pop(key))
    return result


# What is made of a symbol ----------------------------------------------------------------------


def unsupported(symbol: Symbol) -> list[tuple[str, str, str]]:
    """(node, operator, reason) of every node that cannot be ported."""
    from mxdeconv.porting.reading import read_operations

    return read_operations(symbol)[1]


def load_symbol(
    json: str | os.PathLike[str],
    params: Mapping[str, Tensor] | str | os.PathLike[str] | None = None,
    *,
    inputs: Mapping[str, tuple[int, ...]] | None = None,
    allow_extra: bool = False,
) -> PortedModule:
    """The torch.fx.GraphModule that computes what the symbol computes.

    `json` is a file or its text. `params` maps MXNet's names, with or without `arg:` and `aux:`,
    to tensors, which become parameters and buffers without a copy, or is the file of them. `inputs`
    gives shapes of the data, which lets every shape be checked; without `params` it is needed, and
    parameters are initialized as MXNet would. Parameters that the symbol does not have are an error
    unless `allow_extra`.

    The module is called with its data in the order of the symbol's arguments, or by name; labels
    come last and may be left out at inference. It is in training mode, as a new torch module is.

    Raises PortingError, a ValueError, that lists every node which cannot be ported.
    """
    from mxdeconv.porting.graph import build

    if isinstance(params, (str, os.PathLike)):
        params = load_params(params)
    return build(read_symbol(json), params, inputs, allow_extra=allow_extra)


def infer_shapes(
    symbol: Symbol, inputs: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[tuple[int, ...], ...]]:
    """The shapes of the outputs of every node, by name, for these shapes of the data."""
    from mxdeconv.porting.graph import Builder

    builder = Builder(symbol, None, inputs)
    builder.run()
    return {
        node.name: tuple(
            tuple(example.shape) for example in examples if isinstance(example, torch.Tensor)
        )
        for node, examples in zip(symbol.nodes, builder.examples, strict=True)
        if examples is not None
    }
