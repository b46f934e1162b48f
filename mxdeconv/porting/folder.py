"""A port as a folder: `model.py`, its source for people, and `model.safetensors`, its weights.

The source builds the modules by their constructors, with the arguments that they were built with,
and has the forward of the graph. It imports torch, mxdeconv and safetensors.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import operator
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from mxdeconv.porting.binary import raw_bytes
from mxdeconv.porting.source import CHUNK_BYTES, Progress

_SAFETENSORS_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def save_safetensors(path: Path, tensors: Mapping[str, Tensor], progress: Progress | None) -> None:
    """The safetensors format: u64 length, a JSON table of (dtype, shape, offsets), the data."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    total = 0
    for name, tensor in tensors.items():
        size_bytes = tensor.numel() * tensor.element_size()
        entries[name] = {
            "dtype": _SAFETENSORS_DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [total, total + size_bytes],
        }
        total += size_bytes
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    done = 0
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for tensor in tensors.values():
            raw = raw_bytes(tensor)
            for start in range(0, len(raw), CHUNK_BYTES):
                done += file.write(raw[start : start + CHUNK_BYTES])
                if progress:
                    progress(done, total)


def digests(module: nn.Module) -> dict[str, str]:
    """What the state_dict holds, by name, in a few letters each."""
    return {
        name: f"{value.dtype} {tuple(value.shape)} {hashlib.blake2b(raw_bytes(value)).hexdigest()}"
        for name, value in module.state_dict().items()
    }


def write(module: fx.GraphModule, path: Path, progress: Progress | None = None) -> None:
    """Write model.py and model.safetensors into the folder `path`."""
    source, tensors = module_source(module)
    path.mkdir(parents=True, exist_ok=True)
    save_safetensors(path / "model.safetensors", tensors, progress)
    (path / "model.py").write_text(source)


def module_source(module: fx.GraphModule) -> tuple[str, dict[str, Tensor]]:
    """The text of model.py, and the tensors to save: one name for each that is shared."""
    body = [f"self.{name} = {_constructor(child, name)}" for name, child in module.named_children()]
    for kind, values in (
        ("Parameter", module.named_parameters(recurse=False)),
        ("Buffer", module.named_buffers(recurse=False)),
    ):
        for name, value in values:
            body.append(f"self.{name} = nn.{kind}({_empty(value)})")
    tensors, ties = _shared(module)
    body += [f"self.{again} = self.{first}" for again, first in ties.items()]
    head, lines = _forward(module)
    text = "\n".join([*body, *lines])
    imports = [
        *(["from math import inf, nan"] if re.search(r"\b(inf|nan)\b", text) else []),
        *(["import mxdeconv"] if "mxdeconv." in text else []),
        *(["from mxdeconv.porting import operators"] if "operators." in text else []),
    ]
    source = _TEMPLATE.format(
        imports="".join(f"\n{line}" for line in ["import torch", *imports, "from torch import nn"]),
        body="\n        ".join(body),
        head=head,
        lines="\n        ".join(lines),
    )
    return source, tensors


_TEMPLATE = '''"""Written by `mxdeconv convert`. `load()` returns the model with its weights."""

from pathlib import Path
{imports}


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        {body}

    {head}
        {lines}


def load(path=Path(__file__).with_name("model.safetensors")):
    """The model in evaluation mode."""
    from safetensors.torch import load_file

    model = Model()
    with torch.no_grad():
        for name, value in load_file(path).items():
            owner, _, own = name.rpartition(".")
            getattr(model.get_submodule(owner), own).copy_(value)
    return model.eval()
'''

# Names in the text that are not local variables of forward.
_GLOBALS = frozenset(("torch", "nn", "mxdeconv", "operators", "inf", "nan", "self"))
_OPERATORS = "mxdeconv.porting.operators."


def _forward(module: fx.GraphModule) -> tuple[str, list[str]]:
    """The head and the lines of forward, in the graph's order."""
    writer = _Expressions()
    arguments, lines = ["self"], []
    for node in module.graph.nodes:
        name = writer.local(node)
        if node.op == "placeholder":
            arguments.append(f"{name}={node.args[0]!r}" if node.args else name)
        elif node.op == "output":
            lines.append(f"return {writer.text(node.args[0])}")
        elif node.op == "get_attr":
            lines.append(f"{name} = self.{node.target}")
        elif node.op == "call_module":
            lines.append(f"{name} = self.{node.target}({writer.arguments(node)})")
        elif node.op == "call_method":
            owner, *rest = [writer.text(value) for value in node.args]
            lines.append(f"{name} = {owner}.{node.target}({', '.join(rest)})")
        elif node.target is operator.getitem:
            owner, index = [writer.text(value) for value in node.args]
            lines.append(f"{name} = {owner}[{index}]")
        else:
            called = _function_name(node.target)
            lines.append(f"{name} = {called}({writer.arguments(node)})")
    return f"def forward({', '.join(arguments)}):", lines


def _function_name(function: Any) -> str:
    name = torch.fx.node._get_qualified_name(function)
    if name.startswith(_OPERATORS):
        return "operators." + name.removeprefix(_OPERATORS)
    if not name.startswith(("torch.", "mxdeconv.")):
        raise TypeError(f"a call of {name} cannot be written as source")
    return name


class _Expressions:
    """The text of values, nodes as local variables."""

    def __init__(self) -> None:
        self.locals: dict[fx.Node, str] = {}

    def local(self, node: fx.Node) -> str:
        return self.locals.setdefault(node, node.name + "_" * (node.name in _GLOBALS))

    def arguments(self, node: fx.Node) -> str:
        named = [f"{key}={self.text(value)}" for key, value in node.kwargs.items()]
        return ", ".join([*(self.text(value) for value in node.args), *named])

    def text(self, value: Any) -> str:
        if isinstance(value, fx.Node):
            return self.locals[value]
        if isinstance(value, list):
            return f"[{', '.join(map(self.text, value))}]"
        if isinstance(value, tuple):
            return f"({', '.join(map(self.text, value))}{',' * (len(value) == 1)})"
        if isinstance(value, dict):
            return f"{{{', '.join(f'{k!r}: {self.text(v)}' for k, v in value.items())}}}"
        if isinstance(value, torch.device):
            return f"torch.{value!r}"
        if value is None or isinstance(value, (bool, int, float, str, slice, torch.dtype)):
            return repr(value)
        if value is Ellipsis:
            return "..."
        raise TypeError(f"{value!r} cannot be written as source")


def _empty(value: Tensor) -> str:
    return f"torch.empty({tuple(value.shape)}, dtype={value.dtype})"


def _constructor(module: nn.Module, name: str) -> str:
    """The call that makes a module: every argument is an attribute of the same name."""
    kind = type(module)
    plain = kind is getattr(nn, kind.__name__, None)
    arguments = []
    for parameter in inspect.signature(kind.__init__).parameters.values():
        if parameter.name in ("self", "device", "dtype") or parameter.name.startswith("_"):
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if not hasattr(module, parameter.name):
            raise TypeError(
                f"{name} ({kind.__name__}) cannot be written as source: it does not keep its "
                f"argument {parameter.name}"
            )
        value = getattr(module, parameter.name)
        if parameter.name == "bias":  # asked for with a bool, kept as a tensor
            value = value is not None
        if type(value) is type(parameter.default) and value == parameter.default:
            continue
        if isinstance(value, nn.Module):
            text = _constructor(value, f"{name}.{parameter.name}")
        elif isinstance(value, Tensor):  # its values are among those that are loaded
            text = _empty(value)
        else:
            text = _Expressions().text(value)
        positional = plain and parameter.default is parameter.empty
        arguments.append(text if positional else f"{parameter.name}={text}")
    called = f"nn.{kind.__name__}" if plain else _class_name(kind)
    return f"{called}({', '.join(arguments)})"


def _class_name(kind: type) -> str:
    name = f"{kind.__module__}.{kind.__qualname__}"
    if kind.__module__ == "mxdeconv.nn":
        return f"mxdeconv.{kind.__name__}"
    if name.startswith(_OPERATORS):
        return "operators." + name.removeprefix(_OPERATORS)
    raise TypeError(f"a {name} cannot be written as source")


def _shared(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Parameters and buffers under the first name of each, and the other names with their first."""
    first: dict[int, str] = {}
    ties: dict[str, str] = {}
    tensors: dict[str, Tensor] = {}
    for name, tensor in (
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ):
        if id(tensor) in first:
            ties[name] = first[id(tensor)]
        else:
            first[id(tensor)] = name
            tensors[name] = tensor
    return tensors, ties
