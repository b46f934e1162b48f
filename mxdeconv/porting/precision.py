"""A port run three times: in its own precision, in float64, and in float64 with numbers moved.

The first two differ by the rounding of this very computation. So do the last two, where every
input, weight and result of a node is moved by half a unit in the last place of the port's type, up
or down at random: what rounding would have done there. Two samples, because a small tensor can be
right by luck in one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, fx

Result = TypeVar("Result")


class Own(fx.Interpreter):
    """Runs a copy of a module as it is."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.copy = copy.deepcopy(module)
        super().__init__(self.copy)

    def take(self, value: Any) -> Any:
        """An input, or the result of a node, as this run sees it."""
        return value

    def run_node(self, n: fx.Node) -> Any:
        return self.take(super().run_node(n))


class Exact(Own):
    """Runs a copy in float64, also past nodes that name another type."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.copy.double()

    def take(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.move(value.double()) if value.dtype.is_floating_point else value
        if isinstance(value, (tuple, list)):
            return type(value)([self.take(entry) for entry in value])
        return value

    def move(self, value: Tensor) -> Tensor:
        return value


class Moved(Exact):
    """As Exact, with every number moved by half a unit of `eps`."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        types = [p.dtype for p in module.parameters() if p.dtype.is_floating_point]
        self.unit = torch.finfo(types[0] if types else torch.float32).eps / 2
        self.random = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for value in (*self.copy.parameters(), *self.copy.buffers()):
                if value.dtype.is_floating_point:
                    value.copy_(self.move(value))

    def move(self, value: Tensor) -> Tensor:
        signs = torch.randint(0, 2, value.shape, generator=self.random) * 2 - 1
        return value * (1 + self.unit * signs)


def evaluate(module: fx.GraphModule, run: Callable[[Own], Result]) -> tuple[Result, list[Result]]:
    """What `run` gives in the port's precision, and in float64: exact and moved.

    The second is empty where the module has an operator that float64 does not have.
    """
    ours = run(Own(module))
    try:
        return ours, [run(Exact(module)), run(Moved(module))]
    except (RuntimeError, TypeError, ValueError):
        return ours, []


def outputs_of(runner: Own, arguments: Mapping[str, Tensor]) -> list[Tensor]:
    """The outputs of the whole graph."""
    inputs = [node for node in runner.copy.graph.nodes if node.op == "placeholder"]
    values = [runner.take(arguments.get(str(node.target))) for node in inputs]
    result = runner.run(*values)
    return list(result) if isinstance(result, (tuple, list)) else [cast(Tensor, result)]


def predict(
    module: fx.GraphModule, arguments: Mapping[str, Tensor]
) -> tuple[list[Tensor], list[list[Tensor]]]:
    """`evaluate` of the outputs in evaluation mode."""

    def run(runner: Own) -> list[Tensor]:
        runner.copy.eval()
        with torch.no_grad():
            return outputs_of(runner, arguments)

    return evaluate(module, run)
