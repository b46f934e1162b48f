"""Swap the transposed convolutions of a whole model: torch's for mxdeconv's, and back.

The model is changed in place and keeps its Parameters, the very objects, so an optimizer, tied
weights and their gradients stay as they were. What cannot be swapped without changing what the
model computes is left alone and reported with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from mxdeconv.nn import CONV_TRANSPOSE, DTYPES, Deconvolution

#: Where torch keeps what users attach to a module; the same dicts go on, so handles stay valid.
_HOOKS = (
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"),
    *("_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks", "_state_dict_pre_hooks"),
    *("_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"),
)


class Report(NamedTuple):
    """What happened to each module of the kind in question; `str` makes it readable.

    `replaced` and `left` map the path of a module in the model ("" for the model itself) to
    what it is now, or to the reason why it was left.
    """

    replaced: dict[str, str]
    left: dict[str, str]

    def __str__(self) -> str:
        lines = [f"replaced {len(self.replaced)}, left {len(self.left)}"]
        lines += [f"  {path or '(model)'}: {now}" for path, now in self.replaced.items()]
        lines += [f"  {path or '(model)'}: left, {why}" for path, why in self.left.items()]
        return "\n".join(lines)


class Swapped(NamedTuple):
    """The model, a new object where it was itself swapped, and the report."""

    model: nn.Module
    report: Report


def replace_conv_transpose(model: nn.Module) -> Swapped:
    """Replace every nn.ConvTranspose1d, 2d and 3d of `model` by the equal Deconvolution.

    In place, with the same Parameters, hooks and training flags; a module registered in several
    places stays one. Left: subclasses, parametrized, pruned and lazy ones, and those that carry
    anything of their own. A swapped module still takes ConvTranspose's output_size, by keyword
    only: its second positional argument is target_shape.
    """
    return _swap(model, CONV_TRANSPOSE, _reason_to_leave_torch, Deconvolution.from_torch)


def restore_conv_transpose(model: nn.Module) -> Swapped:
    """Replace every `mxdeconv.Deconvolution` of `model` by the equal nn.ConvTransposeNd.

    As `replace_conv_transpose`. Also left: channels-last layouts, for which torch would need
    other data, and a target_shape, which torch's fixed padding follows for one data size only.
    """
    return _swap(model, (Deconvolution,), _reason_to_leave_ours, Deconvolution.to_torch)


_Kinds: TypeAlias = tuple[type[nn.Module], ...]


def _swap(
    model: nn.Module,
    kinds: _Kinds,
    reason_to_leave: Callable[..., str | None],
    convert: Callable[..., nn.Module],
) -> Swapped:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    report = Report({}, {})
    swapped: dict[nn.Module, nn.Module] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if not isinstance(module, kinds):
            continue
        reason = _reason_to_leave_any(module, kinds) or reason_to_leave(module)
        if reason:
            report.left[path] = reason
            continue
        if module not in swapped:
            swapped[module] = _with_everything(convert(module), module)
        report.replaced[path] = repr(swapped[module])
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child in swapped:
                parent._modules[name] = swapped[child]
    return Swapped(swapped.get(model, model), report)


def _with_everything(new: nn.Module, old: nn.Module) -> nn.Module:
    for name in _HOOKS:
        new.__dict__[name] = old.__dict__[name]
    new._is_full_backward_hook = old._is_full_backward_hook
    return new


def _reason_to_leave_any(module: nn.Module, kinds: _Kinds) -> str | None:
    if "parametrizations" in module._modules:
        return "its weight is parametrized"
    weight = module._parameters.get("weight")
    if weight is None:
        return "its weight is computed by a hook (weight_norm, spectral_norm, pruning)"
    if is_lazy(weight):
        return "its channels are not known yet (call the model once)"
    if type(module) not in kinds:
        return f"{type(module).__name__} is a subclass and may compute something else"
    plain = set(vars(_plain_like(module)))
    own = sorted(set(vars(module)) - plain)
    own += sorted({*module._buffers, *module._modules, *module._parameters} - {"weight", "bias"})
    if own:
        return f"it has attributes of its own ({', '.join(own)})"
    return None


def _plain_like(module: nn.Module) -> nn.Module:
    if isinstance(module, Deconvolution):
        return Deconvolution(num_filter=1, kernel=(1,), in_channels=1, device="meta")
    return nn.ConvTranspose1d(1, 1, 1, device="meta")


def _reason_to_leave_torch(
    module: nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d,
) -> str | None:
    if module.padding_mode != "zeros":
        return f"padding_mode {module.padding_mode!r} has no counterpart"
    if module.weight.layout is not torch.strided or module.weight.dtype not in DTYPES:
        return f"its weight is of {module.weight.dtype}, {module.weight.layout}"
    try:
        Deconvolution.from_torch(module)
    except (TypeError, ValueError) as error:
        return str(error)
    return None


def _reason_to_leave_ours(module: Deconvolution) -> str | None:
    if module.attributes.channels_last:
        return f"layout {module.attributes.layout}: torch's module wants other data"
    if module.attributes.target_shape:
        return (
            f"target_shape {module.attributes.target_shape} depends on the size of the data "
            "(convert it alone with to_torch(input_size=...))"
        )
    return None
