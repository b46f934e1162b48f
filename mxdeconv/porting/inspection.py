"""inspect: what a checkpoint holds, as tables, without building the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mxdeconv import spec
from mxdeconv.porting.params import Params, load_params
from mxdeconv.porting.progress import show_bytes
from mxdeconv.porting.source import Progress, show_shape
from mxdeconv.porting.symbol import (
    INPUT_NAMES,
    VARIABLE,
    Node,
    Symbol,
    infer_shapes,
    read_symbol,
    stated_shape,
    unsupported,
)

Shape = tuple[int, ...]


class Inspection(NamedTuple):
    """What `inspect` found; `str` is the report. Tables are lists of rows, headings first."""

    summary: list[str]
    nodes: list[list[str]]
    parameters: list[list[str]]
    deconvolutions: list[list[str]]
    unsupported: list[tuple[str, str, str]]

    def __str__(self) -> str:
        parts = ["\n".join(self.summary), _layout(self.nodes)]
        if len(self.parameters) > 1:
            parts.append(_layout(self.parameters))
        if len(self.deconvolutions) > 1:
            parts.append("Deconvolutions, pad and adj as they are resolved:")
            parts.append(_layout(self.deconvolutions))
        if self.unsupported:
            parts.append(f"not supported: {len(self.unsupported)}")
            parts.append(_layout([["node", "operator", "reason"], *map(list, self.unsupported)]))
        else:
            parts.append("everything is supported")
        return "\n\n".join(parts)


def inspect(
    symbol_file: Path,
    params_file: Path | None,
    inputs: Mapping[str, Shape] | None = None,
    progress: Progress | None = None,
) -> Inspection:
    """Read a symbol and, if there is one, its file of parameters."""
    symbol = read_symbol(symbol_file)
    params = None if params_file is None else load_params(params_file, progress=progress)
    problems = unsupported(symbol)
    shapes, why_not = _shapes(symbol, params, inputs or {}, bool(problems))
    operators = [node for node in symbol.nodes if node.op != VARIABLE]
    kinds = len({node.op for node in operators})
    summary = [f"{symbol_file}: {len(operators)} nodes of {kinds} operators"]
    if params is not None:
        count = sum(tensor.numel() for tensor in params.values())
        size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in params.values())
        summary.append(
            f"{params_file}: {len(params)} arrays, {count:,} numbers, {show_bytes(size_bytes)}"
        )
        summary += _mismatches(symbol, params)
    if why_not:
        summary.append(why_not)
    return Inspection(
        summary,
        _node_rows(symbol, params, shapes),
        _parameter_rows(symbol, params),
        _deconvolution_rows(symbol, shapes),
        problems,
    )


def _shapes(
    symbol: Symbol, params: Params | None, inputs: Mapping[str, Shape], broken: bool
) -> tuple[dict[str, tuple[Shape, ...]], str]:
    """Output shapes by node, as far as they can be known, and why they are not."""
    known: dict[str, tuple[Shape, ...]] = {
        name: (tuple(tensor.shape),) for name, tensor in (params or {}).items()
    }
    parameters = _parameter_names(symbol) | set(known)
    variables = [node for node in symbol.nodes if node.op == VARIABLE]
    stated = {v.name: stated_shape(v) for v in variables if v.name not in parameters}
    inputs = {**{name: shape for name, shape in stated.items() if shape}, **inputs}
    if not inputs:
        return known, "shapes of outputs are not known: --shape NAME=SIZES gives those of the data"
    if broken:
        return known, "shapes of outputs are not known: not everything is supported"
    return {**known, **infer_shapes(symbol, inputs)}, ""


def _mismatches(symbol: Symbol, params: Params) -> list[str]:
    variables = {*symbol.arguments, *symbol.auxiliary}
    extra = [name for name in params if name not in variables]
    missing = [name for name in _parameter_names(symbol) if name not in params]
    lines = [f"not in the symbol: {', '.join(extra)}"] if extra else []
    if missing:
        lines.append(f"not in the file: {', '.join(sorted(missing))}")
    if params.without_data:
        lines.append(f"without data: {', '.join(params.without_data)}")
    return lines


def _node_rows(
    symbol: Symbol, params: Params | None, shapes: Mapping[str, tuple[Shape, ...]]
) -> list[list[str]]:
    """Operators, and variables that are data; parameters have a table of their own."""
    parameters = _parameter_names(symbol) | set(params or {})
    rows = [["node", "operator", "output", "from"]]
    for node in symbol.nodes:
        if node.op == VARIABLE and node.name in parameters:
            continue
        output = " ".join(map(show_shape, shapes.get(node.name, ()))) or "?"
        sources = [symbol.nodes[source] for source, _ in node.inputs]
        names = [
            each.name for each in sources if each.op != VARIABLE or each.name not in parameters
        ]
        op = "input" if node.op == VARIABLE else node.op
        rows.append([node.name, op, output, ", ".join(names)])
    return rows


def _parameter_names(symbol: Symbol) -> set[str]:
    """Variables that are weights and the like, as far as a symbol alone tells."""
    return {
        symbol.nodes[source].name
        for node in symbol.nodes
        for argument, (source, _) in zip(INPUT_NAMES.get(node.op, ()), node.inputs, strict=False)
        if argument not in ("data", "label")
    }


def _parameter_rows(symbol: Symbol, params: Params | None) -> list[list[str]]:
    rows = [["parameter", "shape", "type", "kind"]]
    for name, tensor in (params or {}).items():
        kind = "auxiliary" if name in symbol.auxiliary else "trained"
        dtype = str(tensor.dtype).removeprefix("torch.")
        rows.append([name, show_shape(tensor.shape), dtype, kind])
    return rows


def _deconvolution_rows(symbol: Symbol, shapes: Mapping[str, tuple[Shape, ...]]) -> list[list[str]]:
    heads = ("node", "data", "weight", "kernel", "stride", "dilate", "pad", "adj", "group", "bias")
    rows = [[*heads, "output", "note"]]
    rows += [
        _deconvolution_row(symbol, node, shapes)
        for node in symbol.nodes
        if node.op == "Deconvolution"
    ]
    return rows


def _deconvolution_row(
    symbol: Symbol, node: Node, shapes: Mapping[str, tuple[Shape, ...]]
) -> list[str]:
    given: dict[str, Any] = {
        key: value for key, value in node.attrs.items() if key in spec.ATTRIBUTES
    }
    try:
        attributes = spec.parse(**given)
        source, output = node.inputs[0]
        outputs = shapes.get(symbol.nodes[source].name, ())
        data = outputs[output] if output < len(outputs) else None
        note = f"target_shape {attributes.target_shape}" if attributes.target_shape else ""
        pad = adj = "?" if attributes.target_shape else ""
        weight, out = "?", "?"
        if data is not None or not attributes.target_shape:
            size = attributes.spatial_size(data) if data is not None else ()
            pads, adjs = attributes.crop(size, attributes.target_shape)
            pad, adj = str(pads), str(adjs)
            if data is not None:
                weight = show_shape(attributes.weight_shape(attributes.channels(data)))
                out = show_shape(attributes.output_shape(data, pads, adjs))
    except (TypeError, ValueError) as error:
        return [node.name, *[""] * 10, str(error)]
    return [
        node.name,
        "?" if data is None else show_shape(data),
        weight,
        *(str(entry) for entry in (attributes.kernel, attributes.stride, attributes.dilate)),
        pad,
        adj,
        str(attributes.num_group),
        "no" if attributes.no_bias else "yes",
        out,
        note if attributes.layout[1] == "C" else f"{attributes.layout} {note}".rstrip(),
    ]


def _layout(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
