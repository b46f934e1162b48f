"""A port with torch's own operators only: every Deconvolution becomes the equal conv_transpose.

For what has to run where mxdeconv is not: exported programs and ONNX files. A target_shape is
resolved for the size of the data at hand, so the result is for data of that size.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from mxdeconv.nn import Deconvolution


class ConvTranspose(nn.Module):
    """What one Deconvolution computes, for data of one spatial size; `weight` as MXNet has it."""

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, layer: Deconvolution, size: Sequence[int]) -> None:
        super().__init__()
        attributes = layer.attributes
        self.pad, self.adj = attributes.crop(size, attributes.target_shape)
        self.stride, self.dilate = attributes.stride, attributes.dilate
        self.num_group = attributes.num_group
        self.channels_last = attributes.channels_last
        self.register_parameter("weight", layer.weight)
        self.register_parameter("bias", layer.bias)

    def forward(self, data: Tensor) -> Tensor:
        weight: Tensor = self.weight
        if self.channels_last:
            data, weight = data.movedim(-1, 1), weight.movedim(-1, 1)
        functions: tuple[Callable[..., Tensor], ...] = (
            *(F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
        )
        result = functions[data.dim() - 3](
            *(data, weight, self.bias, self.stride, self.pad, self.adj),
            *(self.num_group, self.dilate),
        )
        return result.movedim(1, -1) if self.channels_last else result


def standard(module: fx.GraphModule, arguments: Mapping[str, Tensor]) -> fx.GraphModule:
    """A copy of `module` in which no operator of mxdeconv is left; parameters are shared.

    It is for prediction; the modes and moving averages of `module` stay as they are. `arguments`
    are those of forward. Each call of a Deconvolution gets a module of its own where it is called
    with data of several sizes.
    """
    tensors = (*module.parameters(), *module.buffers())
    module = copy.deepcopy(module, {id(tensor): tensor for tensor in tensors}).eval()
    result = fx.GraphModule(module, copy.deepcopy(module.graph))
    sizes = _Sizes(module)
    values = [arguments.get(str(node.target)) for node in module.graph.nodes if _is_input(node)]
    with torch.no_grad():
        sizes.run(*values)
    made: dict[str, dict[tuple[int, ...], str]] = {}
    for node, original in zip(result.graph.nodes, module.graph.nodes, strict=True):
        for path, layer in _deconvolutions(module, original):
            size, paths = sizes.seen[original.name, path], made.setdefault(path, {})
            if size not in paths:
                paths[size] = _put(result, path, ConvTranspose(layer, size), len(paths) + 1)
            if path == original.target:
                node.target = paths[size]
    result.recompile()
    return result.eval()


def _is_input(node: fx.Node) -> bool:
    return node.op == "placeholder"


def _deconvolutions(module: fx.GraphModule, node: fx.Node) -> list[tuple[str, Deconvolution]]:
    if node.op != "call_module":
        return []
    path = str(node.target)
    owner = module.get_submodule(path)
    return [
        (f"{path}.{name}" if name else path, layer)
        for name, layer in owner.named_modules()
        if isinstance(layer, Deconvolution)
    ]


def _put(module: fx.GraphModule, path: str, layer: nn.Module, number: int) -> str:
    """Set the layer in place of `path`, or from the second on beside it; where it is now."""
    if number > 1:
        path = f"{path}_size{number}"
    parent, _, name = path.rpartition(".")
    owner = module.get_submodule(parent)
    if parent:  # the owner belongs to the original: a copy, with the same parameters
        owner = copy.copy(owner)
        owner._modules = dict(owner._modules)
        module.set_submodule(parent, owner)
    setattr(owner, name, layer)
    return path


class _Sizes(fx.Interpreter):
    """Runs a module and notes the spatial size that each Deconvolution sees, by (node, path)."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.seen: dict[tuple[str, str], tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        handles = []
        for path, layer in _deconvolutions(self.module, n):  # type: ignore[arg-type]
            handles.append(layer.register_forward_pre_hook(self._note(n.name, path)))
        try:
            return super().run_node(n)
        finally:
            for handle in handles:
                handle.remove()

    def _note(self, node: str, path: str) -> Any:
        def hook(layer: Deconvolution, inputs: tuple[Tensor, ...]) -> None:
            size = layer.attributes.spatial_size(inputs[0].shape)
            self.seen[node, path] = tuple(size)

        return hook
