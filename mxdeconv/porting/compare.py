"""compare: a port against what MXNet computed, node by node where that was recorded.

`record_mxnet.py` beside this file writes the recording and says what is in it.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, fx

from mxdeconv.porting.agreement import SLACK, Agreement, agree, table
from mxdeconv.porting.params import load_params

#: Recordings may be compressed; this is what they may take then.
_RECORDING_LIMIT_BYTES = 2**36


class Comparison(NamedTuple):
    """What `compare` found: `str` is a report, `agrees` the verdict, `first` the culprit.

    Every node is given its recorded inputs, so that `nodes` shows where an error arises and not
    where it travels; `outputs` are those of the whole model. `gradients` are there if they were
    recorded: outputs, gradients and auxiliary states of one step in training mode.
    """

    nodes: list[Agreement]
    outputs: list[Agreement]
    gradients: list[Agreement]

    @property
    def all(self) -> list[Agreement]:
        return [*self.nodes, *self.outputs, *self.gradients]

    @property
    def agrees(self) -> bool:
        return all(result.agrees for result in self.all)

    @property
    def first(self) -> Agreement | None:
        """The first node that departs; an output or gradient where no node does."""
        return next((result for result in self.all if not result.agrees), None)

    def __str__(self) -> str:
        lines = []
        for title, results in (
            ("node", [result for result in self.nodes if not result.agrees]),
            ("output", self.outputs),
            ("training step", self.gradients),
        ):
            if results:
                lines += [*table(title, results), ""]
        counts = [f"{len(self.outputs)} outputs", f"{len(self.nodes)} nodes"]
        counts += [f"{len(self.gradients)} values of a training step"]
        compared = ", ".join(count for count in counts if not count.startswith("0 "))
        if self.first is None:
            worst = max((result.share for result in self.all), default=0.0)
            lines.append(
                f"agrees with MXNet: {compared}; largest distance {worst:.3g} of what rounding "
                "explains"
            )
        else:
            op = f" ({self.first.op})" if self.first.op else ""
            lines.append(f"departs from MXNet, first at {self.first.name}{op}: compared {compared}")
        return "\n".join(lines)


def compare(
    module: fx.GraphModule,
    recorded: str | os.PathLike[str] | Mapping[str, Tensor],
    *,
    slack: float = SLACK,
) -> Comparison:
    """Run a port on recorded inputs and compare everything that was recorded.

    `recorded` is an .npz of `record_mxnet.py`, or a mapping with its names. The module is not
    changed. By what measure numbers agree is said in `mxdeconv.porting.agreement`.
    """
    if not isinstance(recorded, Mapping):
        recorded = load_params(recorded, memory_limit=_RECORDING_LIMIT_BYTES)
    notes = notes_of(module)
    data = _section(recorded, "input")
    outputs = _section(recorded, "output")
    if not outputs:
        raise ValueError("recorded must have at least one output:N (see record_mxnet.py)")
    unknown = sorted(set(data) - set(notes["inputs"]))
    if unknown:
        raise ValueError(f"recorded has inputs that the module does not have: {', '.join(unknown)}")
    arguments = {notes["inputs"][name]: value for name, value in data.items()}

    nodes = []
    forced = _section(recorded, "node")
    if forced:
        nodes = _compare_nodes(module, arguments, forced, slack)
    ours, exact = outputs_of(module, arguments), exact_outputs(module, arguments)
    results = _compare_listed(notes["outputs"], outputs, ours, exact, slack)
    gradients = _compare_training(module, arguments, recorded, slack)
    return Comparison(nodes, results, gradients)


def notes_of(module: fx.GraphModule) -> Mapping[str, Any]:
    notes = getattr(module, "meta", {}).get("mxnet")
    if notes is None:
        raise TypeError(f"module must come from load_symbol or load_checkpoint, got {type(module)}")
    return cast("Mapping[str, Any]", notes)


def _section(recorded: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    prefix = f"{kind}:"
    return {
        name.removeprefix(prefix): torch.as_tensor(value)
        for name, value in recorded.items()
        if name.startswith(prefix)
    }


def _listed(value: object) -> list[Tensor]:
    return list(value) if isinstance(value, (tuple, list)) else [cast(Tensor, value)]


# Two precisions -----------------------------------------------------------------------------


def outputs_of(module: fx.GraphModule, arguments: Mapping[str, Tensor]) -> list[Tensor]:
    with torch.no_grad():
        return _listed(copy.deepcopy(module).eval()(**arguments))


def _widen(value: Any) -> Any:
    """Floating point tensors in float64, in whatever structure; the rest as it is."""
    if isinstance(value, Tensor):
        return value.double() if value.dtype.is_floating_point else value
    if isinstance(value, (tuple, list)):
        return type(value)([_widen(entry) for entry in value])
    return value


class _Wide(fx.Interpreter):
    """Runs a module whose parameters are float64, also past nodes that name another type."""

    def run_node(self, n: fx.Node) -> Any:
        return _widen(super().run_node(n))


def _double(module: fx.GraphModule) -> fx.GraphModule:
    return copy.deepcopy(module).eval().double()


def exact_outputs(module: fx.GraphModule, arguments: Mapping[str, Tensor]) -> list[Tensor] | None:
    """The outputs in float64, None where the module has an operator without it."""
    wide = _double(module)
    values = [_widen(arguments.get(name)) for name in _placeholders(wide)]
    try:
        with torch.no_grad():
            return _listed(_Wide(wide).run(*values))
    except (RuntimeError, TypeError, ValueError):
        return None


def _placeholders(module: fx.GraphModule) -> list[str]:
    return [str(node.target) for node in module.graph.nodes if node.op == "placeholder"]


# Parts --------------------------------------------------------------------------------------


def _compare_listed(
    names: list[str],
    recorded: Mapping[str, Tensor],
    ours: list[Tensor],
    exact: list[Tensor] | None,
    slack: float,
) -> list[Agreement]:
    if len(recorded) != len(ours):
        raise ValueError(f"recorded must have {len(ours)} outputs, got {len(recorded)}")
    return [
        agree(
            names[number],
            recorded[str(number)],
            value,
            None if exact is None else exact[number],
            slack=slack,
        )
        for number, value in enumerate(ours)
    ]


def _compare_nodes(
    module: fx.GraphModule,
    arguments: Mapping[str, Tensor],
    forced: Mapping[str, Tensor],
    slack: float,
) -> list[Agreement]:
    """Each node from its recorded inputs; one that was not recorded from computed ones."""
    notes = notes_of(module)
    narrow, wide = copy.deepcopy(module).eval(), _double(module)
    runner, wide_runner = fx.Interpreter(narrow), fx.Interpreter(wide)
    results = []
    for node, wide_node in zip(narrow.graph.nodes, wide.graph.nodes, strict=True):
        if node.op == "output":
            break
        if node.op == "placeholder":
            value = arguments.get(str(node.target))
            runner.env[node], wide_runner.env[wide_node] = value, _widen(value)
            continue
        with torch.no_grad():
            runner.env[node] = runner.run_node(node)
            try:
                exact = _widen(wide_runner.run_node(wide_node))
            except (RuntimeError, TypeError, ValueError):
                exact = _widen(runner.env[node])
        wide_runner.env[wide_node] = exact
        target = forced.get(notes["node_outputs"].get(node.name, ""))
        ours = runner.env[node]
        if target is None or not isinstance(ours, Tensor):
            continue
        op = node.target if isinstance(node.target, str) else node.target.__name__
        if node.op == "call_module":
            op = type(narrow.get_submodule(op)).__name__
        results.append(agree(notes["node_outputs"][node.name], target, ours, exact, op, slack))
        if target.shape == ours.shape:
            runner.env[node] = target.to(ours.dtype)
            wide_runner.env[wide_node] = _widen(target)
    return results


def _compare_training(
    module: fx.GraphModule,
    arguments: Mapping[str, Tensor],
    recorded: Mapping[str, Tensor],
    slack: float,
) -> list[Agreement]:
    """One step in training mode: outputs, gradients, auxiliary states afterwards."""
    outputs, out_grads = _section(recorded, "train_output"), _section(recorded, "out_grad")
    if not outputs:
        return []
    ours = _train(copy.deepcopy(module), arguments, out_grads)
    exact: dict[str, Tensor] = {}  # stays empty where the module has an operator without float64
    try:
        wide = _double(module)
        exact = _train(wide, {k: _widen(v) for k, v in arguments.items()}, out_grads)
    except (RuntimeError, TypeError, ValueError):
        pass
    results = []
    for kind in ("train_output", "grad", "train_aux"):
        for name, target in _section(recorded, kind).items():
            key = f"{kind}:{name}"
            if key not in ours:
                raise ValueError(f"recorded has {key}, which the module does not have")
            results.append(agree(key, target, ours[key], exact.get(key), slack=slack))
    return results


def _train(
    module: fx.GraphModule, arguments: Mapping[str, Tensor], out_grads: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    notes = notes_of(module)
    module.train()
    leaves = {
        name: value.clone().requires_grad_(value.dtype.is_floating_point)
        for name, value in arguments.items()
    }
    outputs = _listed(module(**leaves))
    result = {f"train_output:{n}": output.detach() for n, output in enumerate(outputs)}
    torch.autograd.backward(
        outputs, [out_grads[str(n)].to(output.dtype) for n, output in enumerate(outputs)]
    )
    tensors = {**dict(module.named_parameters(remove_duplicate=False)), **leaves}
    states = dict(module.named_buffers(remove_duplicate=False))
    for name, key in {**notes["parameters"], **notes["inputs"]}.items():
        if key in tensors:
            grad = tensors[key].grad
            result[f"grad:{name}"] = torch.zeros_like(tensors[key]) if grad is None else grad
        elif key in states:
            result[f"train_aux:{name}"] = states[key]
    return result


def recorded_shapes(recorded: str | os.PathLike[str]) -> dict[str, tuple[int, ...]]:
    """The shapes of the inputs in a recording, for `load_symbol`."""
    arrays = load_params(recorded, memory_limit=_RECORDING_LIMIT_BYTES)
    inputs = _section(arrays, "input")
    if not inputs:
        raise ValueError(f"{os.fspath(recorded)} is no recording: it has no input:NAME")
    return {name: tuple(value.shape) for name, value in inputs.items()}
