"""deconvolution(): MXNet's `mx.nd.Deconvolution` on torch tensors.

A call goes: attributes and shapes by `spec`, autocast, a permuted view where the layout is
channels-last, then the raw operator, which checks the rest and carries autograd. Calls in which
nothing is unusual, which is most of them, take a shortcut: attributes that were parsed before, and
`_C.call_eagerly`, which looks at the tensors in C++ and goes straight to the operator.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.compiler import is_dynamo_compiling
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from mxdeconv import _C, ops, spec


def deconvolution(
    data: Any = None,
    weight: Any = None,
    bias: Any = None,
    kernel: Any = None,
    stride: Any = (),
    dilate: Any = (),
    pad: Any = (),
    adj: Any = (),
    target_shape: Any = (),
    num_filter: Any = None,
    num_group: Any = 1,
    workspace: Any = 512,
    no_bias: Any = True,
    cudnn_tune: Any = None,
    cudnn_off: Any = False,
    layout: Any = None,
    out: Tensor | None = None,
    name: str | None = None,
    **unknown: Any,
) -> Tensor:
    """Transposed convolution as MXNet 1.x defines it; its names, order and defaults.

    Attributes may be Python values or the strings of a symbol.json. With k spatial axes:

        data    (N, C, *n), or (N, *n, C) for layout NWC, NHWC, NDHWC
        weight  (C, num_filter / num_group, *kernel), or (C, *kernel, num_filter / num_group)
        bias    (num_filter,), given exactly when no_bias is False (the default is True)
        result  (N, num_filter, *o), or (N, *o, num_filter), in the dtype of data

    On each axis o = stride*(n - 1) + dilate*(kernel - 1) + 1 - 2*pad + adj. A target_shape
    replaces pad and adj by the crop that yields it. dtypes: float32, float64, float16,
    bfloat16, the same for all tensors; under torch.autocast as torch's conv_transpose does.
    `workspace` (MB) bounds the memory a call takes beyond operands and result. On a GPU
    `cudnn_tune` says how one of cuDNN's plans is found: 'off' by its heuristics,
    'limited_workspace' by timing those that fit, 'fastest' by timing all, None by
    torch.backends.cudnn.benchmark; cudnn_off=True runs our own kernels.
    `out` receives the result and is returned; it may not share memory with an input, and
    autograd may not be recording. `name` prefixes error messages.

    Raises TypeError for a missing, unknown or mistyped argument and ValueError for an invalid
    value, before anything is computed.
    """
    try:
        if unknown:
            spec.refuse_unknown(list(unknown), spec.ARGUMENTS)
        call, eager = _call(
            *(kernel, stride, dilate, pad, adj, target_shape, num_filter, num_group),
            *(workspace, no_bias, cudnn_tune, cudnn_off, layout),
        )
        if eager is not None and out is None:
            result = _C.call_eagerly(eager, data, weight, bias, None)
            if result is not None:
                return result
        return apply(call, data, weight, bias, call.attributes.target_shape, out)
    except (TypeError, ValueError) as error:
        if name is None:
            raise
        raise named(error, name) from None


def named(error: Exception, name: str | None) -> Exception:
    """The same error, saying which layer it speaks of if that has a name."""
    kinds = (kind for kind in (TypeError, RuntimeError) if isinstance(error, kind))
    kind = next(kinds, ValueError)
    if name is None:
        return error
    return kind(f"{name if type(name) is str else spec.show(name)}: {error}")


def require_tensor(argument: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{argument} must be a torch.Tensor, got {spec.show(value)}")


def require_memory(argument: str, tensor: Tensor) -> None:
    """Views of a tensor whose storage was resized away raise inside torch: say it before."""
    if not tensor.numel():
        return
    try:
        held = tensor.untyped_storage().nbytes()
    except (NotImplementedError, RuntimeError):  # a wrapper (torch.func) or not a dense tensor
        return
    if held == 0:
        raise ValueError(f"{argument} must have its memory, got a storage of 0 bytes")


class Call(NamedTuple):
    """Parsed attributes, and the raw operator's arguments where no size has to be known."""

    attributes: spec.Attributes
    arguments: ops.Arguments


def prepare(attributes: spec.Attributes) -> Call:
    """Everything about a call that does not depend on its tensors."""
    return Call(
        attributes,
        ops.Arguments(
            *(attributes.stride, attributes.dilate, attributes.pad, attributes.adj),
            *(attributes.num_group, attributes.workspace),
            *(attributes.cudnn_tune, attributes.cudnn_off),
        ),
    )


def shortcut(attributes: spec.Attributes) -> _C.EagerCall | None:
    """What `_C.call_eagerly` needs; None where the arguments depend on sizes or axes move."""
    if attributes.target_shape or attributes.channels_last:
        return None
    a = attributes
    return _C.EagerCall(
        *(a.kernel, a.num_filter, a.no_bias, a.stride, a.dilate, a.pad, a.adj, a.num_group),
        *(a.workspace, a.cudnn_tune, a.cudnn_off),
    )


def _parse_call(*values: Any) -> Call:
    return prepare(spec.parse(**dict(zip(spec.ATTRIBUTES, values, strict=True))))


@functools.lru_cache(maxsize=1024, typed=True)
def _parse_call_once(*values: Any) -> tuple[Call, _C.EagerCall | None]:
    call = _parse_call(*values)
    return call, shortcut(call.attributes)


def _call(*values: Any) -> tuple[Call, _C.EagerCall | None]:
    # Parsing costs more than a small operator call, so its result is kept. The key compares
    # values and their types, but not the types inside tuples: (1.0, True) would find (1, 1).
    # Dynamo has no use for the cache: it runs this once and keeps the result itself.
    if is_dynamo_compiling() or not _C.are_plain(*values[:6]):
        return _parse_call(*values), None
    try:
        return _parse_call_once(*values)
    except TypeError:  # of the values, or because one has no hash: parse says which and why
        return _parse_call(*values), None


def cropped(call: Call, data: Tensor, target_shape: tuple[int, ...]) -> ops.Arguments:
    """The raw operator's arguments with the pad and adj that target_shape asks of this data."""
    attributes, arguments = call
    pad, adj = attributes.crop(attributes.spatial_size(data.shape), target_shape)
    return arguments._replace(pad=pad, adj=adj)


def apply(
    call: Call,
    data: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target_shape: tuple[int, ...],
    out: Tensor | None = None,
) -> Tensor:
    """A call whose attributes are parsed, on tensors in the caller's layout.

    Checks what the raw operator cannot know (layout, num_filter, kernel, no_bias); it checks
    the rest.
    """
    attributes, arguments = call
    if not (isinstance(data, Tensor) and isinstance(weight, Tensor)):
        require_tensor("data", data)
        require_tensor("weight", weight)
    if bias is not None:
        require_tensor("bias", bias)
    if attributes.no_bias is not (bias is None):
        spec.check_bias(attributes, None if bias is None else bias.shape)
    try:
        data_shape = data.shape
        attributes.check_data_shape(data_shape)
        if attributes.channels_last and not torch.compiler.is_compiling():
            require_memory("data", data)
            require_memory("weight", weight)
        attributes.check_weight_shape(weight.shape, attributes.channels(data_shape))
        if target_shape:
            arguments = cropped(call, data, target_shape)
        if out is not None:
            _run_into(data, weight, bias, arguments, attributes, out)
            return out
        return run(data, weight, bias, arguments, attributes.channels_last)
    except RuntimeError:  # among them: torch has no kernel, or no shape, for this kind of tensor
        for name, tensor in (("data", data), ("weight", weight), ("bias", bias)):
            if tensor is not None:
                require_dense(name, tensor)
        raise


def require_dense(argument: str, tensor: Tensor) -> None:
    if isinstance(tensor, (UninitializedParameter, UninitializedBuffer)):
        raise TypeError(f"{argument} must be initialized, got {type(tensor).__name__}") from None
    if tensor.is_nested or tensor.is_quantized or tensor.layout is not torch.strided:
        kind = "nested" if tensor.is_nested else "quantized" if tensor.is_quantized else None
        raise TypeError(
            f"{argument} must be a dense tensor of dtype float32, float64, float16 or bfloat16, "
            f"got {kind or tensor.layout}"
        ) from None


def run(
    data: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    arguments: ops.Arguments,
    channels_last: bool,
) -> Tensor:
    """The raw operator on tensors in the caller's layout, under the caller's autocast."""
    if autocasts(data.device.type):
        data, weight, bias = _autocast(data, weight, bias)
    if channels_last:
        return ops.deconvolution(_first(data), _first(weight), bias, arguments).movedim(1, -1)
    return ops.deconvolution(data, weight, bias, arguments)


def _first(tensor: Tensor) -> Tensor:
    """A view with the last axis second: the operator's order, of data and weight alike."""
    return tensor.movedim(-1, 1)


def autocasts(device_type: str) -> bool:
    # torch raises for meta, which has no autocast
    return device_type != "meta" and torch.is_autocast_enabled(device_type)


def autocast_dtype(dtype: torch.dtype, device_type: str) -> torch.dtype:
    """torch's rule for conv_transpose: floating tensors, except float64, change their dtype."""
    eligible = dtype.is_floating_point and dtype != torch.float64
    return torch.get_autocast_dtype(device_type) if eligible else dtype


def _autocast(
    data: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    device_type = data.device.type

    def lower(tensor: Tensor) -> Tensor:
        if tensor.device.type != device_type:
            return tensor
        return tensor.to(autocast_dtype(tensor.dtype, device_type))

    return lower(data), lower(weight), None if bias is None else lower(bias)


# out= ---------------------------------------------------------------------------------------


def _run_into(
    data: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    arguments: ops.Arguments,
    attributes: spec.Attributes,
    out: Tensor,
) -> None:
    require_tensor("out", out)
    require_dense("out", out)
    if not torch.compiler.is_compiling():  # a compiled graph writes out after it read the inputs
        for key, tensor in (("data", data), ("weight", weight), ("bias", bias)):
            try:
                shared = tensor is not None and _share_an_element(out, tensor)
            except RuntimeError:  # a wrapped tensor has no address
                raise ValueError(
                    "out must be None inside torch.func transforms, got a tensor"
                ) from None
            if shared:
                raise ValueError(f"out must not share memory with {key}")
    if autocasts(data.device.type):
        data, weight, bias = _autocast(data, weight, bias)
    view = out
    if attributes.channels_last:  # the operator would report the shapes of the permuted views
        pad, adj = tuple(arguments.pad), tuple(arguments.adj)
        shape = attributes.output_shape(data.shape, pad, adj)
        if min(shape) >= 0 and tuple(out.shape) != shape:
            raise ValueError(f"out must have shape {shape}, got {tuple(out.shape)}")
        data, weight, view = _first(data), _first(weight), _first(out)
    ops.deconvolution_into(data, weight, bias, arguments, view)


def _share_an_element(a: Tensor, b: Tensor) -> bool:
    """Whether writing to one tensor could change the other.

    The operator refuses what is plain; views that interleave are left to this exact test, so
    that writing next to the input in one buffer (a DenseNet's concatenation) stays possible.
    """
    if a.numel() == 0 or b.numel() == 0 or a.device != b.device or a.device.type == "meta":
        return False
    if isinstance(a, FakeTensor) or isinstance(b, FakeTensor):
        return False  # no memory yet; the operator compares their storages
    spans = [
        1 + sum((size - 1) * step for size, step in zip(t.shape, t.stride(), strict=True))
        for t in (a, b)
    ]
    ends = [t.data_ptr() + span * t.element_size() for t, span in zip((a, b), spans, strict=True)]
    if ends[0] <= b.data_ptr() or ends[1] <= a.data_ptr():
        return False
    shift, uneven = divmod(b.data_ptr() - a.data_ptr(), a.element_size())
    if uneven or a.element_size() != b.element_size():
        return True
    # Their ranges cross, which is rare: mark the elements of one and look for them in the other.
    first = min(0, shift)
    marks = torch.zeros(max(spans[0], shift + spans[1]) - first, dtype=torch.bool)
    marks.as_strided(a.shape, a.stride(), -first).fill_(True)
    return bool(marks.as_strided(b.shape, b.stride(), shift - first).any())
