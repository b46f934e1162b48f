"""A port as a folder: `model.py`, its source for people, and `model.safetensors`, its weights.

The source builds the modules by their constructors, with the arguments that they were built with,
and has the forward of the graph. It imports torch, mxdeconv and safetensors.
"""

from __future__ import annotations

import inspect
import json
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


def write(module: fx.GraphModule, path: Path, progress: Progress | None = None) -> None:
    """Write model.py and model.safetensors into the folder `path`."""
    source, tensors = module_source(module)
    path.mkdir(parents=True, exist_ok=True)
    save_safetensors(path / "model.safetensors", tensors, progress)
    (path / "model.py").write_text(source)


def module_source(module: fx.GraphModule) -> tuple[str, dict[str, Tensor]]:
    """The text of model.py, and the tensors to save: one name for each that is shared."""
    code = module.graph.python_code("self")
    writer = _Writer()
    body = [
        f"self.{name} = {writer.module(child, name)}" for name, child in module.named_children()
    ]
    own = [
        *(("Parameter", name, value) for name, value in module.named_parameters(recurse=False)),
        *(("Buffer", name, value) for name, value in module.named_buffers(recurse=False)),
    ]
    for kind, name, value in own:
        empty = f"torch.empty({tuple(value.shape)}, dtype={value.dtype})"
        body.append(f"self.{name} = nn.{kind}({empty})")
    tensors, ties = _shared(module)
    body += [f"self.{again} = self.{first}" for again, first in ties.items()]
    imports = sorted(
        {*writer.imports, *(_import(name, value) for name, value in code.globals.items())} - {""}
    )
    forward = code.src.strip().replace("\n", "\n    ")
    source = _TEMPLATE.format(
        imports="\n".join(imports), body="\n        ".join(body), forward=forward
    )
    return source, tensors


_TEMPLATE = '''"""Written by `mxdeconv convert`. `load()` returns the model with its weights."""

from pathlib import Path

import torch
{imports}
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        {body}

    {forward}


def load(path=Path(__file__).with_name("model.safetensors")):
    """The model in evaluation mode."""
    from safetensors.torch import load_file

    model = Model()
    model.load_state_dict(load_file(path), strict=False)
    return model.eval()
'''


def _import(name: str, value: Any) -> str:
    """The line that makes a global of the graph's code; "" for what the template has."""
    if inspect.ismodule(value):
        if name == "torch":
            return ""
        return f"import {value.__name__}" + ("" if name == value.__name__ else f" as {name}")
    if name in ("inf", "nan"):
        return f"from math import {name}"
    if isinstance(value, type(None)) or name == "NoneType":
        return ""
    module, own = value.__module__, value.__qualname__
    return f"from {module} import {own}" + ("" if own == name else f" as {name}")


def _shared(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """State under the first name of each tensor, and the other names with their first."""
    first: dict[int, str] = {}
    ties: dict[str, str] = {}
    tensors: dict[str, Tensor] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) in first:
            ties[name] = first[id(tensor)]
        else:
            first[id(tensor)] = name
            tensors[name] = tensor
    return tensors, ties


class _Writer:
    """Turns modules into the calls of their constructors and collects what those import."""

    def __init__(self) -> None:
        self.imports: set[str] = set()

    def module(self, module: nn.Module, name: str) -> str:
        """The constructor's call: every argument is an attribute of the same name."""
        kind = type(module)
        if kind is getattr(nn, kind.__name__, None):
            called = f"nn.{kind.__name__}"
        elif kind.__module__ == "mxdeconv.nn":
            self.imports.add("import mxdeconv")
            called = f"mxdeconv.{kind.__name__}"
        else:
            self.imports.add(f"from {kind.__module__} import {kind.__name__}")
            called = kind.__name__
        arguments = []
        for parameter in inspect.signature(kind.__init__).parameters.values():
            if parameter.name in ("self", "device", "dtype") or parameter.kind in (
                parameter.VAR_POSITIONAL,
                parameter.VAR_KEYWORD,
            ):
                continue
            if not hasattr(module, parameter.name):
                raise TypeError(
                    f"{name} ({kind.__name__}) cannot be written as source: it does not keep its "
                    f"argument {parameter.name}"
                )
            value = getattr(module, parameter.name)
            if parameter.name == "bias":  # torch's layers are asked with a bool and keep a tensor
                value = value is not None
            if value == parameter.default and type(value) is type(parameter.default):
                continue
            if isinstance(value, nn.Module):
                text = self.module(value, f"{name}.{parameter.name}")
            else:
                text = self.value(value)
            positional = parameter.default is parameter.empty and parameter.kind is not (
                parameter.KEYWORD_ONLY
            )
            arguments.append(text if positional else f"{parameter.name}={text}")
        return f"{called}({', '.join(arguments)})"

    def value(self, value: Any) -> str:
        if isinstance(value, float) and value in (float("inf"), -float("inf")):
            self.imports.add("from math import inf")
        if isinstance(value, torch.dtype):
            return str(value)
        return repr(value)
