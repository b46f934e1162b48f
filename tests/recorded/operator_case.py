"""A one-node symbol whose results are recorded from MXNet, and the values of its inputs.

Needs NumPy only: MXNet's environment has no torch, the tests have no MXNet. A case is written down
as the node of a symbol.json, so that both sides read the very same text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: name -> (shape, kind of values), see `draw`
Inputs = dict[str, tuple[tuple[int, ...], str]]


@dataclass(frozen=True)
class Case:
    """One node. `exact`: no rounding, so that the results must be equal bit for bit.

    `aux` names the inputs that are auxiliary states, `frozen` those that have no gradient.
    """

    op: str
    attrs: dict[str, str]
    inputs: Inputs
    exact: bool = False
    aux: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    outputs: int = 1
    train: bool = True
    note: str = field(default="", compare=False)

    def __str__(self) -> str:
        attrs = ",".join(f"{key}={value}" for key, value in self.attrs.items())
        shapes = ";".join("x".join(map(str, shape)) for shape, _ in self.inputs.values())
        return f"{self.op}({attrs})[{shapes}]".replace(" ", "")

    def symbol(self) -> str:
        """The text of its symbol.json."""
        nodes: list[dict[str, Any]] = [
            {"op": "null", "name": name, "inputs": []} for name in self.inputs
        ]
        entries = [[number, 0, 0] for number in range(len(self.inputs))]
        nodes.append({"op": self.op, "name": "node", "attrs": self.attrs, "inputs": entries})
        heads = [[len(self.inputs), output, 0] for output in range(self.outputs)]
        graph = {
            "nodes": nodes,
            "arg_nodes": list(range(len(self.inputs))),
            "heads": heads,
            "attrs": {"mxnet_version": ["int", 10901]},
        }
        return json.dumps(graph)


SPECIAL = (np.inf, -np.inf, np.nan, 0.0, -0.0, 1.5, -1.5, 3.0, -3.0, 1e-40, 5e30)


def draw(case: Case) -> dict[str, np.ndarray]:
    """The inputs of a case, the same under every NumPy: RandomState's streams are frozen.

    Kinds: "normal"; "integer", small whole numbers, with ties; "distinct", no two equal;
    "positive"; "large", above 1; "unit", in (-1, 1); "halves", multiples of 1/2; "below n",
    whole numbers from 0; "special", Inf, NaN, zeros and a few others; each may be followed by a
    dtype.
    """
    rng = np.random.RandomState(len(str(case)) * 7919 + sum(map(ord, str(case))))
    arrays = {}
    for name, (shape, kind) in case.inputs.items():
        words = kind.split()
        size = int(np.prod(shape))
        if words[0] == "normal":
            values = rng.standard_normal(size)
        elif words[0] == "integer":
            values = rng.randint(-4, 5, size)
        elif words[0] == "distinct":
            values = (rng.permutation(size) - size // 3) / 8
        elif words[0] == "positive":
            values = rng.uniform(0.25, 3.0, size)
        elif words[0] == "large":
            values = rng.uniform(1.25, 4.0, size)
        elif words[0] == "unit":
            values = rng.uniform(-0.9, 0.9, size)
        elif words[0] == "halves":
            values = rng.randint(-9, 10, size) / 2
        elif words[0] == "below":
            values = rng.randint(0, int(words.pop(1)), size)
        elif words[0] == "special":
            values = np.resize(SPECIAL, size)
        else:
            raise ValueError(kind)
        dtype = words[1] if len(words) > 1 else "float32"
        arrays[name] = np.asarray(values).reshape(shape).astype(dtype)
    return arrays


def draw_head_gradients(case: Case, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """Gradients of the outputs: small whole numbers."""
    rng = np.random.RandomState(len(str(case)) + 1)
    return [rng.randint(-3, 4, shape).astype(np.float32) for shape in shapes]


# ---- writing them down ---------------------------------------------------------------------------

COLLECTED: list[Case] = []


def add(op: str, inputs: Inputs, *attrs: dict[str, Any], **options: Any) -> None:
    for each in attrs or ({},):
        texts = {key: str(value) for key, value in each.items()}
        COLLECTED.append(Case(op, texts, dict(inputs), **options))


def data(*shape: int, kind: str = "normal") -> Inputs:
    return {"data": (shape, kind)}
