"""From a Symbol to a PortedModule.

All operators of the symbol are read first, so that everything which cannot be ported is reported
at once. Then the nodes are visited in order. Modules are made on the meta device, in the shapes of
their parameters, and run there where the shapes of the data are known; at the end the parameters
take the place of the meta ones.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from mxdeconv.porting.initialize import initial_value
from mxdeconv.porting.module import PortedModule
from mxdeconv.porting.names import to_identifier
from mxdeconv.porting.operators.computed import Computed
from mxdeconv.porting.operators.constant import MOST_ENTRIES, Constant
from mxdeconv.porting.operators.table import Function, Layer, Operation
from mxdeconv.porting.reading import (
    Shape,
    data_dtype,
    find_parameters,
    read_operations,
    stated_dtype,
)
from mxdeconv.porting.source import show_shape
from mxdeconv.porting.symbol import VARIABLE, Node, PortingError, Symbol, stated_shape

#: Names that an attribute of the module may not have.
_RESERVED = frozenset(dir(torch.fx.GraphModule)) | frozenset(
    ("graph", "code", "meta", "training", "self", "torch", "device", "inf", "nan")
)


def strip_prefix(name: str) -> str:
    """The name of a parameter without the `arg:` or `aux:` of a checkpoint."""
    return name[4:] if name[:4] in ("arg:", "aux:") else name


class Builder:
    """Builds the graph of one symbol; `examples` are the outputs of each node on meta."""

    def __init__(
        self,
        symbol: Symbol,
        params: Mapping[str, Tensor] | None,
        inputs: Mapping[str, Shape] | None,
    ) -> None:
        self.operations, problems = read_operations(symbol)
        if problems:
            raise PortingError(problems)
        self.symbol = symbol
        self.params = None if params is None else {strip_prefix(k): v for k, v in params.items()}
        if params is not None and len(params) != len(self.params or {}):
            raise ValueError("params must name each parameter once, with arg: and aux: or without")
        self.inputs = None if inputs is None else {k: tuple(v) for k, v in inputs.items()}
        self.graph = torch.fx.Graph()
        self.root = nn.Module()
        self.values: list[dict[int, torch.fx.Node]] = [{} for _ in symbol.nodes]
        self._read = {*symbol.heads, *(entry for node in symbol.nodes for entry in node.inputs)}
        self.examples: list[list[Tensor | None] | None] = [None] * len(symbol.nodes)
        #: every place of a parameter: (module, attribute, key in state_dict)
        self.places: dict[int, list[tuple[nn.Module, str, str]]] = {}
        self.constants: list[tuple[nn.Module, str, float]] = []
        self._constant_entries = 0
        self._taken: set[str] = set()
        self._modules: dict[Any, tuple[str, nn.Module]] = {}
        self.meta: dict[str, Any] = {
            "inputs": {},
            "shapes": {},
            "dtypes": {},
            "outputs": [],
            "nodes": {},
            "node_outputs": {},
            "parameters": {},
            "multipliers": {},
        }
        self.parameters, self.labels = find_parameters(
            *(symbol, self.operations, self.params, self.inputs)
        )

    # Variables ----------------------------------------------------------------------------

    def extra_parameters(self) -> list[str]:
        names = {self.symbol.nodes[number].name for number in self.parameters}
        return sorted(set(self.params or {}) - names)

    def _parameter_shape(self, number: int, inferred: Shape | None = None) -> Shape | None:
        node = self.symbol.nodes[number]
        if self.params is not None:
            return tuple(self.params[node.name].shape)
        if number in self.places:
            module, attribute, _ = self.places[number][0]
            return tuple(getattr(module, attribute).shape)
        return stated_shape(node) if inferred is None else inferred

    # Nodes --------------------------------------------------------------------------------

    def run(self) -> None:
        """Visit all nodes."""
        nodes = self.symbol.nodes
        arguments = [
            number
            for number, node in enumerate(nodes)
            if node.op == VARIABLE and number not in self.parameters
        ]
        for number in sorted(arguments, key=lambda number: number in self.labels):
            try:
                self._add_argument(number)
            except RuntimeError as error:  # no tensor can have that shape
                reason = str(error).split("\n")[0]
                raise ValueError(f"{nodes[number].name}: {reason}") from error
        for number, (node, operation) in enumerate(zip(nodes, self.operations, strict=True)):
            if operation is None:
                continue
            try:
                if isinstance(operation, Function):
                    self._add_function(number, node, operation)
                else:
                    self._add_layer(number, node, operation)
            except Exception as error:  # whatever an operator makes of attributes or shapes
                reason = str(error).split("\n")[0]
                raise ValueError(f"{node.name} ({node.op}): {reason}{self._of(node)}") from error
        self._add_output()

    def _of(self, node: Node) -> str:
        """The shapes of a node's data, for an error, as far as they are known."""
        data = [entry for entry in node.inputs if entry[0] not in self.parameters]
        examples = [self._example(entry) for entry in data]
        shapes = ["?" if each is None else show_shape(each.shape) for each in examples]
        return f"; its data: {', '.join(shapes)}" if any(s != "?" for s in shapes) else ""

    def _add_argument(self, number: int) -> None:
        node = self.symbol.nodes[number]
        default = {"default_value": None} if number in self.labels else {}
        name = self._unique(node.name)
        value = self.graph.placeholder(name, **default)
        self.meta["inputs"][node.name] = name
        self._note(value, node.name, node.name)
        self.values[number] = {0: value}
        stated = stated_shape(node)
        if stated is not None and number not in self.labels:
            self.meta["shapes"][node.name] = stated
        shape = (self.inputs or {}).get(node.name, stated)
        self.meta["dtypes"][node.name] = data_dtype(
            *(self.symbol, self.operations, self.params, number)
        )
        if shape is not None:
            dtype = stated_dtype(node) or torch.float32  # layers on meta are made in float32
            self.examples[number] = [torch.empty(shape, device="meta", dtype=dtype)]
        elif number in self.labels:
            self.examples[number] = [None]

    def _note(self, value: torch.fx.Node, name: str, output: str) -> None:
        self.meta["nodes"][value.name] = name
        self.meta["node_outputs"][value.name] = output
        value.meta["mxnet"] = output

    def _unique(self, name: str) -> str:
        """An attribute of the module that is free."""
        identifier = to_identifier(name, _RESERVED)
        candidate, number = identifier, 1
        while candidate in self._taken or hasattr(self.root, candidate):
            number += 1
            candidate = f"{identifier}_{number}"
        self._taken.add(candidate)
        return candidate

    def _value(self, entry: tuple[int, int]) -> torch.fx.Node:
        source, output = entry
        if not self.values[source]:
            self._add_root_parameter(source)
        return self.values[source][output]

    def _example(self, entry: tuple[int, int]) -> Tensor | None:
        examples = self.examples[entry[0]]
        return None if examples is None else examples[entry[1]]

    def _known(self, node: Node, entries: list[tuple[int, int]]) -> bool:
        return all(self.examples[source] is not None for source, _ in entries)

    def _add_root_parameter(self, number: int) -> None:
        """A parameter that no layer owns becomes one of the whole module."""
        node = self.symbol.nodes[number]
        shape = self._parameter_shape(number)
        if shape is None:
            raise ValueError(f"the shape of {node.name} cannot be inferred: pass params")
        name = self._unique(node.name)
        value = torch.empty(shape, device="meta", dtype=self._dtype(number))
        if node.name in self.symbol.auxiliary or not value.dtype.is_floating_point:
            self.root.register_buffer(name, value)
        else:
            self.root.register_parameter(name, nn.Parameter(value))
        self._hold(number, self.root, name, name)
        reference = self.graph.create_node("get_attr", name, name=name)
        self._note(reference, node.name, node.name)
        self.values[number] = {0: reference}
        self.examples[number] = [value]

    def _dtype(self, number: int) -> torch.dtype:
        if self.params is None:
            return torch.float32
        return self.params[self.symbol.nodes[number].name].dtype

    def _hold(self, number: int, module: nn.Module, attribute: str, key: str) -> None:
        node = self.symbol.nodes[number]
        self.places.setdefault(number, []).append((module, attribute, key))
        self.meta["parameters"].setdefault(node.name, key)
        if node.name not in self.symbol.auxiliary:
            self.meta["multipliers"][node.name] = tuple(
                float(node.attrs[note]) if note in node.attrs else None
                for note in ("__lr_mult__", "__wd_mult__")
            )

    def _add_function(self, number: int, node: Node, operation: Function) -> None:
        arguments = tuple(self._value(entry) for entry in node.inputs)
        args: Any = (list(arguments),) if operation.as_list else arguments
        name = self._unique(node.name)
        value = self.graph.create_node(
            "call_function", operation.function, args, dict(operation.keywords), name
        )
        # fx may then not look into the function when it traces the module again
        value.meta["is_wrapped"] = operation.function.__module__.startswith("mxdeconv.")
        self._finish(number, node, operation, value, list(node.inputs))

    def _add_layer(self, number: int, node: Node, operation: Layer) -> None:
        own = {
            position: attribute
            for position, attribute in operation.parameters.items()
            if position < len(node.inputs)
        }
        computed = [p for p in own if node.inputs[p][0] not in self.parameters]
        key = (
            node.op,
            tuple(sorted(node.attrs.items())),
            tuple(node.inputs[position] for position in own),
        )
        shared = bool(own) and not computed
        if shared and key in self._modules:  # the same parameters again: the same module
            name, module = self._modules[key]
        else:
            module = operation.make(self._layer_shapes(node, operation, own))
            if isinstance(module, Constant):
                self._constant_entries += module.value.numel()
                if self._constant_entries > MOST_ENTRIES:
                    raise ValueError(f"constants must have at most {MOST_ENTRIES} entries together")
            name = self._unique(node.name)
            for position, attribute in own.items():
                if position not in computed:
                    self._match(node, position, getattr(module, attribute))
                    key_in_state = f"{name}.{attribute}"
                    if computed:
                        key_in_state = f"{name}.layer.{attribute}"
                    self._hold(node.inputs[position][0], module, attribute, key_in_state)
                    if position in operation.constants:
                        constant = operation.constants[position]
                        self.constants.append((module, attribute, constant))
            if computed:
                module = Computed(module, [own[position] for position in computed])
            self.root.add_module(name, module)
            if shared:
                self._modules[key] = name, module
        data = [
            entry
            for position, entry in enumerate(node.inputs)
            if position not in own or position in computed
        ]
        arguments = tuple(self._value(entry) for entry in data)
        value = self.graph.create_node("call_module", name, arguments, {}, self._free(node.name))
        self._finish(number, node, operation, value, data, module)

    def _free(self, name: str) -> str:
        identifier = to_identifier(name, _RESERVED)
        return identifier

    def _layer_shapes(
        self, node: Node, operation: Layer, own: Mapping[int, str]
    ) -> list[Shape | None]:
        shapes: list[Shape | None] = []
        for position, entry in enumerate(node.inputs):
            if position in own and entry[0] in self.parameters:
                shapes.append(self._parameter_shape(entry[0]))
            else:
                example = self._example(entry)
                shapes.append(None if example is None else tuple(example.shape))
        data = shapes[0] if shapes else None
        if operation.shapes is not None and data is not None:
            for position, shape in operation.shapes(data).items():
                if position < len(shapes) and shapes[position] is None:
                    shapes[position] = tuple(shape)
        for position in own:
            if shapes[position] is None:
                argument = self.symbol.nodes[node.inputs[position][0]].name
                raise ValueError(
                    f"the shape of {argument} cannot be inferred: pass its value in params, or "
                    "the shapes of the data in inputs"
                )
        return shapes

    def _match(self, node: Node, position: int, made: Tensor) -> None:
        source = node.inputs[position][0]
        given = self._parameter_shape(source)
        if given is not None and given != tuple(made.shape):
            name = self.symbol.nodes[source].name
            raise ValueError(f"{name} must have shape {tuple(made.shape)}, got {given}")

    def _finish(
        self,
        number: int,
        node: Node,
        operation: Operation,
        value: torch.fx.Node,
        data: list[tuple[int, int]],
        module: nn.Module | None = None,
    ) -> None:
        """Name the outputs of a node, and run it on meta where its inputs are known."""
        outputs = operation.outputs
        values = {0: value}
        if len(outputs) > 1:
            values = {
                i: self.graph.create_node(
                    "call_function", operator.getitem, (value, i), {}, f"{value.name}_{output}"
                )
                for i, output in enumerate(outputs)
                if (number, i) in self._read
            }
        for i, result in values.items():
            self._note(result, node.name, f"{node.name}_{outputs[i]}")
        self.values[number] = values
        if not self._known(node, data):
            return
        arguments = [self._example(entry) for entry in data]
        with torch.no_grad():
            if module is not None:
                result = module.eval()(*arguments)
                module.train()
            else:
                assert isinstance(operation, Function)
                listed = (arguments,) if operation.as_list else arguments
                result = operation.function(*listed, **operation.keywords)
        results = [result] if len(outputs) == 1 else list(result)
        # fresh tensors: no views and no autograd history between nodes
        self.examples[number] = [torch.empty_like(each, device="meta") for each in results]

    def _add_output(self) -> None:
        heads = [self._value(entry) for entry in self.symbol.heads]
        self.meta["outputs"] = [self.meta["node_outputs"][head.name] for head in heads]
        self.graph.output(heads[0] if len(heads) == 1 else tuple(heads))

    # Values -------------------------------------------------------------------------------

    def module(self) -> PortedModule:
        """The finished module, its parameters filled in."""
        for number, places in self.places.items():
            name = self.symbol.nodes[number].name
            module, attribute, _ = places[0]
            made = cast(Tensor, getattr(module, attribute))
            if self.params is not None:
                value = self.params[name]
            else:
                value = initial_value(name, self.symbol.nodes[number].attrs, tuple(made.shape))
            filled: Tensor = value
            if isinstance(made, nn.Parameter):
                filled = value
                if not isinstance(value, nn.Parameter):
                    filled = nn.Parameter(value, value.is_floating_point())
            for module, attribute, _ in places:
                setattr(module, attribute, filled)
        for module, attribute, constant in self.constants:
            setattr(module, attribute, torch.full_like(getattr(module, attribute), constant))
        for child in self.root.modules():
            _leave_meta(child)
        module = PortedModule(self.root, self.graph, "PortedModule")
        module.meta["mxnet"] = self.meta
        return module


def _leave_meta(module: nn.Module) -> None:
    """Parameters that are no variables of the symbol are made by the module itself."""
    for name, buffer in module.named_buffers(recurse=False):
        if buffer.is_meta:
            raise AssertionError(f"{type(module).__name__}.{name} was left without a value")


def build(
    symbol: Symbol,
    params: Mapping[str, Tensor] | None,
    inputs: Mapping[str, Shape] | None,
    *,
    allow_extra: bool = False,
) -> PortedModule:
    """The module of a symbol: see `mxdeconv.porting.symbol.load_symbol`."""
    builder = Builder(symbol, params, inputs)
    extra = builder.extra_parameters()
    if extra and not allow_extra:
        raise ValueError(
            f"params must be parameters of the symbol, got also {', '.join(extra)} (allow_extra "
            "leaves them out)"
        )
    builder.run()
    return builder.module()
