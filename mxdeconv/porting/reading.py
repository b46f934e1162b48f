"""What each node of a symbol is: an operation of the table, a parameter, data or a label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from mxdeconv.porting import operators
from mxdeconv.porting.attributes import Attributes
from mxdeconv.porting.operators.table import Layer, Operation
from mxdeconv.porting.symbol import VARIABLE, Node, Symbol

Shape: TypeAlias = tuple[int, ...]
#: By MXNet's numbers, as they stand in a variable's `__dtype__`.
_DTYPE_NUMBERS = (
    *(torch.float32, torch.float64, torch.float16, torch.uint8),
    *(torch.int32, torch.int8, torch.int64, torch.bool),
)
#: Of each node; None for a variable.
Operations: TypeAlias = Sequence["Operation | None"]


def read_operations(
    symbol: Symbol,
) -> tuple[list[Operation | None], list[tuple[str, str, str]]]:
    """What each node becomes (None for a variable), and what cannot be ported."""
    operations: list[Operation | None] = []
    problems = []
    for node in symbol.nodes:
        operation: Operation | None = None
        if node.op != VARIABLE:
            try:
                operation = _read_operation(node)
            except (TypeError, ValueError, ArithmeticError) as error:
                problems.append((node.name, node.op, str(error)))
        operations.append(operation)
    for number, node in enumerate(symbol.nodes):
        entries = [*node.inputs, *(head for head in symbol.heads if head[0] == number)]
        for source, output in entries:
            operation = operations[source]
            if output >= (1 if operation is None else len(operation.outputs)):
                owner = symbol.nodes[source]
                if owner.op == VARIABLE or operation is not None:  # else it is listed already
                    problems.append((owner.name, owner.op, f"output {output} is not supported"))
    return operations, problems


def _read_operation(node: Node) -> Operation:
    find = operators.OPERATORS.get(node.op)
    if find is None:
        raise ValueError("the operator is not supported")
    attributes = Attributes(node.attrs, len(node.inputs))
    operation = find(attributes)
    if attributes.unread():
        raise ValueError(f"unknown attributes: {', '.join(attributes.unread())}")
    return operation


def find_parameters(
    symbol: Symbol,
    operations: Operations,
    params: Mapping[str, Tensor] | None,
    inputs: Mapping[str, Shape] | None,
) -> tuple[set[int], set[int]]:
    """The variables that hold parameters, and those that are labels; the others are data."""
    slots, labels = _slots(symbol, operations), _labels(symbol, operations)
    variables = [number for number, node in enumerate(symbol.nodes) if node.op == VARIABLE]
    given = inputs or {}
    unknown = sorted(set(given) - {symbol.nodes[number].name for number in variables})
    if unknown:
        data = [symbol.nodes[n].name for n in variables if n not in slots | labels]
        data = [name for name in data if name not in (params or {})]
        raise ValueError(
            f"inputs must name variables of the symbol ({', '.join(data)}), "
            f"got {', '.join(unknown)}"
        )
    chosen, missing = set(), []
    for number in variables:
        name = symbol.nodes[number].name
        if params is not None and name in params:
            chosen.add(number)
        elif name in given or number in labels:
            continue
        elif params is None and (inputs is not None or number in slots):
            chosen.add(number)
        elif inputs is not None or number in slots:
            missing.append(name)
    if missing:
        names = {node.name for node in symbol.nodes}
        others = [name for name in params or {} if name not in names]
        text = f"; they have {_few(others)}, unknown to the symbol" if others else ""
        raise ValueError(f"params must have a value for {_few(missing)}{text}")
    return chosen, labels


def _few(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def _slots(symbol: Symbol, operations: Operations) -> set[int]:
    """Variables that a layer takes as parameters."""
    return {
        node.inputs[position][0]
        for node, operation in zip(symbol.nodes, operations, strict=True)
        if isinstance(operation, Layer)
        for position in operation.parameters
        if symbol.nodes[node.inputs[position][0]].op == VARIABLE
    }


def _labels(symbol: Symbol, operations: Operations) -> set[int]:
    """Variables that only losses read, as labels."""
    readers: dict[int, list[bool]] = {}
    for node, operation in zip(symbol.nodes, operations, strict=True):
        labels = () if operation is None else operation.labels
        for position, (source, _) in enumerate(node.inputs):
            readers.setdefault(source, []).append(position in labels)
    heads = {source for source, _ in symbol.heads}
    return {
        source
        for source, as_label in readers.items()
        if all(as_label) and source not in heads and symbol.nodes[source].op == VARIABLE
    }


def stated_dtype(node: Node) -> torch.dtype | None:
    code = node.attrs.get("__dtype__", "")
    known = code.isdigit() and int(code) < len(_DTYPE_NUMBERS)
    return _DTYPE_NUMBERS[int(code)] if known else None


def data_dtype(
    symbol: Symbol, operations: Operations, params: Mapping[str, Tensor] | None, number: int
) -> torch.dtype:
    """The type of a variable's data: as the symbol states it, or that of the weights it meets."""
    stated = stated_dtype(symbol.nodes[number])
    if stated is not None:
        return stated
    for node, operation in zip(symbol.nodes, operations, strict=True):
        if not isinstance(operation, Layer) or node.inputs[:1] != [(number, 0)]:
            continue
        owned = [node.inputs[p][0] for p in operation.parameters if p < len(node.inputs)]
        names = [symbol.nodes[source].name for source in owned]
        dtypes = {params[name].dtype for name in names if params and name in params}
        if node.op != "Embedding" and len(dtypes) == 1:
            (dtype,) = dtypes
            if dtype.is_floating_point:
                return dtype
    return torch.float32
