"""Arrays that a graph makes in the shape of their use.

MXNet infers shapes backwards: `_arange` with infer_range, and `_zeros`, `_ones` and `_full` of
unknown sizes, have the shape of what they are added to, or otherwise combined with entry by entry.
Here such a node gets that other operand as an input, whose shape it takes when it is computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mxdeconv import spec

if TYPE_CHECKING:
    from mxdeconv.porting.symbol import Node

Entry = tuple[int, int]

_FILLED = ("_zeros", "_ones", "_full")
_BINARY = ("add", "sub", "mul", "div", "mod", "power", "maximum", "minimum", "hypot")
_OF_ONE_SHAPE = frozenset(
    (
        *(f"elemwise_{name}" for name in ("add", "sub", "mul", "div")),
        *(f"_{name}" for name in (*_BINARY, "plus", "minus")),
        *(f"_{name.title()}" for name in (*_BINARY, "plus", "minus")),
        *("add_n", "ElementWiseSum", "_grad_add"),
    )
)


def takes_shape_from_use(node: Node) -> bool:
    """Whether it says too little about its shape itself."""
    if node.op == "_arange":
        infers = node.attrs.get("infer_range") in ("True", "true", "1")
        return infers and node.attrs.get("stop", "None") == "None"
    if node.op not in _FILLED:
        return False
    try:
        shape = spec.parse_tuple("shape", node.attrs.get("shape"))
    except ValueError:  # for the operator to report
        return False
    return not shape or min(shape) < 1


def with_shapes_from_use(nodes: list[Node], heads: list[Entry]) -> tuple[list[Node], list[Entry]]:
    """The graph with such nodes moved behind the operand that they take their shape from.

    Those that have none stay without input.
    """
    makers = {number for number, node in enumerate(nodes) if takes_shape_from_use(node)}
    makers = {number for number in makers if not nodes[number].inputs}
    if not makers:
        return nodes, heads
    before: dict[int, list[tuple[int, Entry]]] = {}  # reader -> (maker, operand)
    waiting = set(makers)
    for number, node in enumerate(nodes):
        read = sorted({source for source, _ in node.inputs} & waiting)
        waiting.difference_update(read)  # the first reader decides: the others come later
        operands = [entry for entry in node.inputs if entry[0] not in makers]
        if node.op in _OF_ONE_SHAPE and operands:
            before[number] = [(maker, operands[0]) for maker in read]
    moved = {maker for entries in before.values() for maker, _ in entries}
    places: dict[int, int] = {}
    result: list[Node] = []

    def put(number: int, inputs: list[Entry]) -> None:
        inputs = [(places[source], output) for source, output in inputs]
        places[number] = len(result)
        result.append(nodes[number]._replace(inputs=inputs))

    for number, node in enumerate(nodes):
        for maker, operand in before.get(number, []):
            put(maker, [operand])
        if number not in moved:
            put(number, node.inputs)
    return result, [(places[source], output) for source, output in heads]
