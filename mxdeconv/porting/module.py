"""PortedModule: the torch.fx.GraphModule that a symbol becomes, and its optimizer groups."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

_Row = tuple[str, str, Any, tuple[Any, ...], dict[str, Any], dict[str, Any]]


class PortedModule(torch.fx.GraphModule):
    """A GraphModule that knows MXNet's names, in `meta["mxnet"]`:

        inputs      name of a variable -> argument of forward
        shapes      name of a variable -> the shape that the symbol states of it, if it does
        dtypes      name of a variable -> the dtype of its data, as stated or as its weights have it
        outputs     names of the outputs, as `list_outputs` gives them
        nodes       fx node -> MXNet node
        node_outputs  fx node -> output, as `get_internals().list_outputs()` names it
        parameters  name in the .params file -> key in state_dict
        multipliers name of a parameter -> (lr_mult, wd_mult)

    torch pickles a GraphModule by its source and traces that again, under new names; this one
    keeps its graph.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        state = {key: value for key, value in self.__dict__.items() if key != "_graph"}
        return _rebuild, (state, _rows(self.graph))


class _Reference:
    """Stands for an fx node in what is pickled."""

    def __init__(self, name: str) -> None:
        self.name = name


def _rows(graph: torch.fx.Graph) -> list[_Row]:
    def name(node: torch.fx.Node) -> Any:
        return _Reference(node.name)

    return [
        (
            node.op,
            node.name,
            node.target if isinstance(node.target, str) else _qualified(node.target),
            _plain(torch.fx.map_arg(node.args, name)),
            _plain(torch.fx.map_arg(node.kwargs, name)),
            {key: value for key, value in node.meta.items() if key in ("mxnet", "is_wrapped")},
        )
        for node in graph.nodes
    ]


def _plain(value: Any) -> Any:
    """fx keeps immutable lists and dicts; pickle ordinary ones."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(map(_plain, value)) if type(value) is tuple else list(map(_plain, value))
    return value


def _qualified(function: Callable[..., Any]) -> tuple[str, str]:
    """Where a function is found again; torch's built-in ones do not all say it themselves."""
    qualified = torch.fx.node._get_qualified_name(function)
    module, _, name = qualified.rpartition(".")
    return module, name


def _rebuild(state: dict[str, Any], rows: list[_Row]) -> PortedModule:
    graph = torch.fx.Graph()
    nodes: dict[str, torch.fx.Node] = {}

    def find(value: Any) -> Any:
        if isinstance(value, _Reference):
            return nodes[value.name]
        if isinstance(value, dict):
            return {key: find(entry) for key, entry in value.items()}
        if isinstance(value, (tuple, list)):
            return type(value)(map(find, value))
        return value

    for op, name, target, args, kwargs, meta in rows:
        if not isinstance(target, str):
            target = getattr(importlib.import_module(target[0]), target[1])
        node = graph.create_node(op, target, find(args), find(kwargs), name)
        node.meta.update(meta)
        nodes[name] = node
    root = nn.Module()
    root.__dict__.update(state)
    module = PortedModule(root, graph, state.get("_graphmodule_cls_name", "PortedModule"))
    module.__dict__.update({key: value for key, value in state.items() if key != "_code"})
    return module


def parameter_groups(
    module: PortedModule, lr: float, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Groups for a torch optimizer with the multipliers that the symbol stores.

    The rates are lr * lr_mult and weight_decay * wd_mult. As in MXNet, a parameter without a
    wd_mult of its own decays only if its name ends in `_weight` or `_gamma`.
    """
    notes: Mapping[str, Any] = module.meta["mxnet"]
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    parameters = dict(module.named_parameters(remove_duplicate=False))
    for name, (lr_mult, wd_mult) in notes["multipliers"].items():
        parameter = parameters.get(notes["parameters"].get(name))
        if parameter is None:
            continue
        if wd_mult is None:
            wd_mult = 1.0 if name.endswith(("_weight", "_gamma")) else 0.0
        lr_mult = 1.0 if lr_mult is None else lr_mult
        group = groups.setdefault(
            (lr_mult, wd_mult),
            {
                "params": [],
                "lr": lr * lr_mult,
                "weight_decay": weight_decay * wd_mult,
                "lr_mult": lr_mult,
                "wd_mult": wd_mult,
            },
        )
        group["params"].append(parameter)
    return list(groups.values())
