"""compare: a port against what MXNet computed, node by node where that was recorded.

`record_mxnet.py` beside this file writes the recording and says what is in it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, fx

from mxdeconv.porting.agreement import SLACK, Agreement, agree, table
from mxdeconv.porting.params import load_params
from mxdeconv.porting.precision import Own, evaluate, outputs_of, predict
from mxdeconv.porting.source import Progress

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
        compared = ", ".join(
            f"{len(results)} {what if len(results) == 1 else plural}"
            for results, what, plural in (
                (self.outputs, "output", "outputs"),
                (self.nodes, "node", "nodes"),
                (self.gradients, "value of a training step", "values of a training step"),
            )
            if results
        )
        noise = sum(result.noise for result in self.all)
        if noise:
            compared += f" ({noise} of them noise, which says nothing)"
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
        recorded = load_recording(recorded)
    notes = notes_of(module)
    data = _section(recorded, "input")
    outputs = _section(recorded, "output")
    if not outputs:
        raise ValueError("recorded must have at least one output:N (see record_mxnet.py)")
    unknown = sorted(set(data) - set(notes["inputs"]))
    if unknown:
        raise ValueError(f"recorded has inputs that the module does not have: {', '.join(unknown)}")
    arguments = {notes["inputs"][name]: value for name, value in data.items()}

    forced = _section(recorded, "node")
    nodes = _compare_nodes(module, arguments, forced, slack) if forced else []
    try:
        results = _compare_outputs(module, arguments, outputs, slack)
        training = _section(recorded, "out_grad")
        gradients = _compare_training(module, arguments, recorded, slack) if training else []
    except RuntimeError as error:
        if all(result.agrees for result in nodes):
            raise
        # a node of the wrong shape, which is in the report, stops the rest
        reason = f"not computed: {str(error).splitlines()[0]}"
        return Comparison(nodes, [_without_numbers("outputs", reason)], [])
    return Comparison(nodes, results, gradients)


def _without_numbers(name: str, reason: str) -> Agreement:
    return Agreement(name, "", (), math.nan, math.nan, math.inf, reason)


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


def _compare_outputs(
    module: fx.GraphModule,
    arguments: Mapping[str, Tensor],
    recorded: Mapping[str, Tensor],
    slack: float,
) -> list[Agreement]:
    names = notes_of(module)["outputs"]
    if len(recorded) != len(names):
        raise ValueError(f"recorded must have {len(names)} outputs, got {len(recorded)}")
    listed = [recorded[str(number)] for number in range(len(names))]
    return agree_all(module, arguments, listed, slack)


def agree_all(
    module: fx.GraphModule,
    arguments: Mapping[str, Tensor],
    actual: Sequence[Tensor],
    slack: float = SLACK,
) -> list[Agreement]:
    """How outputs that were computed elsewhere relate to the module's."""
    ours, references = predict(module, arguments)
    names = notes_of(module)["outputs"]
    return [
        agree(name, value, ours[n], [each[n] for each in references], slack=slack)
        for n, (name, value) in enumerate(zip(names, actual, strict=True))
    ]


def _compare_nodes(
    module: fx.GraphModule,
    arguments: Mapping[str, Tensor],
    forced: Mapping[str, Tensor],
    slack: float,
) -> list[Agreement]:
    """Each node from its recorded inputs; one that was not recorded from computed ones."""

    def run(runner: Own) -> dict[str, Tensor]:
        runner.copy.eval()
        results = {}
        for node in runner.copy.graph.nodes:
            if node.op == "output":
                break
            if node.op == "placeholder":
                runner.env[node] = runner.take(arguments.get(str(node.target)))
                continue
            with torch.no_grad():
                value = runner.run_node(node)
            target = forced.get(outputs.get(node.name, ""))
            if target is not None and isinstance(value, Tensor):
                results[node.name] = value
                value = runner.take(target.to(value.dtype))
            runner.env[node] = value
        return results

    outputs = notes_of(module)["node_outputs"]
    ours, references = evaluate(module, run)
    kinds = {node.name: _kind(module, node) for node in module.graph.nodes}
    return [
        agree(
            outputs[name],
            forced[outputs[name]],
            value,
            [each[name] for each in references],
            kinds[name],
            slack,
        )
        for name, value in ours.items()
    ]


def _kind(module: fx.GraphModule, node: fx.Node) -> str:
    if node.op == "call_module":
        return type(module.get_submodule(str(node.target))).__name__
    return node.target if isinstance(node.target, str) else node.target.__name__


def _compare_training(
    module: fx.GraphModule,
    arguments: Mapping[str, Tensor],
    recorded: Mapping[str, Tensor],
    slack: float,
) -> list[Agreement]:
    """One step in training mode: outputs, gradients, auxiliary states afterwards."""
    notes, out_grads = notes_of(module), _section(recorded, "out_grad")

    def run(runner: Own) -> dict[str, Tensor]:
        runner.copy.train()
        leaves = {
            name: value.clone().requires_grad_(value.dtype.is_floating_point)
            for name, value in arguments.items()
        }
        outputs = outputs_of(runner, leaves)
        result = {f"train_output:{n}": output.detach() for n, output in enumerate(outputs)}
        grads = [out_grads[str(n)].to(output.dtype) for n, output in enumerate(outputs)]
        torch.autograd.backward(outputs, grads)
        tensors = {**dict(runner.copy.named_parameters(remove_duplicate=False)), **leaves}
        states = dict(runner.copy.named_buffers(remove_duplicate=False))
        for name, key in {**notes["parameters"], **notes["inputs"]}.items():
            if key in tensors:
                grad = tensors[key].grad
                result[f"grad:{name}"] = torch.zeros_like(tensors[key]) if grad is None else grad
            elif key in states:
                result[f"train_aux:{name}"] = states[key]
                result[f"grad:{name}"] = torch.zeros_like(states[key])  # a gamma under fix_gamma
        return result

    ours, references = evaluate(module, run)
    results = []
    for kind in ("train_output", "grad", "train_aux"):
        for name, target in _section(recorded, kind).items():
            key = f"{kind}:{name}"
            if key not in ours:
                raise ValueError(f"recorded has {key}, which the module does not have")
            both = [each[key] for each in references]
            results.append(agree(key, target, ours[key], both, slack=slack))
    return results


def load_recording(
    path: str | os.PathLike[str], progress: Progress | None = None
) -> Mapping[str, Tensor]:
    """The arrays of an .npz that `record_mxnet.py` wrote."""
    return load_params(path, memory_limit=_RECORDING_LIMIT_BYTES, progress=progress)


def recorded_shapes(
    recorded: Mapping[str, Tensor], path: str | os.PathLike[str]
) -> dict[str, tuple[int, ...]]:
    """The shapes of the inputs in the recording of that file, for `load_symbol`."""
    inputs = _section(recorded, "input")
    if not inputs:
        raise ValueError(f"{os.fspath(path)} is no recording: it has no input:NAME")
    return {name: tuple(value.shape) for name, value in inputs.items()}
