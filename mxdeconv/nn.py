"""Deconvolution: the torch.nn.Module under MXNet's argument names."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import Parameter, UninitializedParameter, is_lazy

from mxdeconv import _C, functional, spec

if TYPE_CHECKING:
    from typing_extensions import Self

CONV_TRANSPOSE = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_KEYWORDS = (*spec.ATTRIBUTES, "in_channels", "name", "device", "dtype")


class Deconvolution(LazyModuleMixin, nn.Module):
    """Transposed convolution over 1, 2 or 3 spatial axes, with MXNet's attributes.

    Attributes are those of `mxdeconv.deconvolution`, as Python values or symbol.json strings;
    MXNet's defaults hold, so there is a bias only with no_bias=False. `in_channels=0` leaves
    the channels to the first call: until then the parameters are uninitialized, as in torch's
    lazy modules. Parameters are initialized as torch.nn.ConvTransposeNd initializes them, and
    for the channels-first layouts have its names and shapes:

        weight  (in_channels, num_filter / num_group, *kernel), or for the channels-last layouts
                (in_channels, *kernel, num_filter / num_group)
        bias    (num_filter,), or None

    `name` prefixes error messages. Raises as `mxdeconv.deconvolution` does, at construction for
    whatever does not depend on the data.
    """

    weight: Parameter
    bias: Parameter | None

    # MXNet's names, to be read: what a call does is fixed at construction.
    kernel = property(attrgetter("attributes.kernel"))
    stride = property(attrgetter("attributes.stride"))
    dilate = property(attrgetter("attributes.dilate"))
    pad = property(attrgetter("attributes.pad"))
    adj = property(attrgetter("attributes.adj"))
    target_shape = property(attrgetter("attributes.target_shape"))
    num_filter = property(attrgetter("attributes.num_filter"))
    num_group = property(attrgetter("attributes.num_group"))
    workspace = property(attrgetter("attributes.workspace"))
    no_bias = property(attrgetter("attributes.no_bias"))
    cudnn_tune = property(attrgetter("attributes.cudnn_tune"))
    cudnn_off = property(attrgetter("attributes.cudnn_off"))
    layout = property(attrgetter("attributes.layout"))

    def __init__(
        self,
        *,
        num_filter: Any = None,
        kernel: Any = None,
        stride: Any = (),
        dilate: Any = (),
        pad: Any = (),
        adj: Any = (),
        target_shape: Any = (),
        num_group: Any = 1,
        workspace: Any = 512,
        no_bias: Any = True,
        cudnn_tune: Any = None,
        cudnn_off: Any = False,
        layout: Any = None,
        in_channels: int = 0,
        name: str | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        **unknown: Any,
    ) -> None:
        try:
            spec.refuse_unknown(list(unknown), _KEYWORDS)
            attributes = spec.parse(
                kernel=kernel,
                stride=stride,
                dilate=dilate,
                pad=pad,
                adj=adj,
                target_shape=target_shape,
                num_filter=num_filter,
                num_group=num_group,
                workspace=workspace,
                no_bias=no_bias,
                cudnn_tune=cudnn_tune,
                cudnn_off=cudnn_off,
                layout=layout,
            )
        except (TypeError, ValueError) as error:
            raise functional.named(error, name) from None
        super().__init__()
        self._build(attributes, in_channels, name, device, dtype)

    def _build(
        self,
        attributes: spec.Attributes,
        in_channels: int,
        name: str | None,
        device: torch.device | str | int | None,
        dtype: torch.dtype | None,
        labels: spec.Labels = spec.MXNET_LABELS,
    ) -> None:
        """What remains of construction once the attributes are parsed."""
        self.attributes = attributes
        self.name = name
        self._call = functional.prepare(attributes)
        self._shortcut = functional.shortcut(attributes)
        self._frozen: _C.FrozenWeight | None = None
        given: dict[str, Any] = {"device": device, "dtype": dtype}
        try:
            self.in_channels = spec.parse_int("in_channels", in_channels, 0, spec.INT64_MAX)
            if self.in_channels % attributes.num_group != 0:
                raise ValueError(
                    f"{labels.num_group} must divide in_channels, {self.in_channels}, "
                    f"got {attributes.num_group}"
                )
            if (dtype or torch.get_default_dtype()) not in DTYPES:
                raise TypeError(f"dtype must be float32, float64, float16 or bfloat16, got {dtype}")
            probe = torch.empty(0, **given)
            _check_memory(attributes.weight_shape(self.in_channels), probe.device, probe.dtype)
        except (TypeError, ValueError) as error:
            raise functional.named(error, name) from None
        bias: Parameter | None = None
        if self.in_channels:
            self.weight = Parameter(torch.empty(attributes.weight_shape(self.in_channels), **given))
            if not attributes.no_bias:
                bias = Parameter(torch.empty(attributes.num_filter, **given))
        else:
            self.weight = cast(Parameter, UninitializedParameter(**given))
            if not attributes.no_bias:
                bias = cast(Parameter, UninitializedParameter(**given))
        self.register_parameter("bias", bias)
        if self.in_channels:
            self._finish_deferral()
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize as torch.nn.ConvTransposeNd does: same seed, same values."""
        if self.has_uninitialized_params():
            return
        with torch.no_grad():
            # Drawn in channels-first order, so that the values do not depend on the layout.
            weight = self.weight.movedim(-1, 1) if self.attributes.channels_last else self.weight
            values = torch.empty_like(weight, memory_format=torch.contiguous_format)
            weight.copy_(nn.init.kaiming_uniform_(values, a=math.sqrt(5)))
            if self.bias is not None:
                bound = 1 / math.sqrt(math.prod(weight.shape[1:]))
                self.bias.uniform_(-bound, bound)

    def forward(self, data: Tensor, target_shape: Any = None, *, output_size: Any = None) -> Tensor:
        """data (N, C, *n) to (N, num_filter, *o), or (N, *n, C) to (N, *o, num_filter).

        `target_shape` replaces the stored one for this call. `output_size` is the argument of
        torch.nn.ConvTransposeNd, for models that were swapped: it keeps pad and replaces adj.
        """
        try:
            call, target = self._call, self.attributes.target_shape
            if target_shape is not None or output_size is not None:
                call, target = self._resized(data, target_shape, output_size)
            elif self._shortcut is not None and not is_dynamo_compiling():
                # Looked up where they usually are: torch's own lookup costs as much as the call.
                held = self._parameters.get
                result = _C.call_eagerly(
                    self._shortcut, data, held("weight"), held("bias"), self._frozen
                )
                if result is not None:
                    return result
            if self._frozen is None or is_dynamo_compiling():
                return functional.apply(call, data, self.weight, self.bias, target)
            return _C.call_frozen(
                self._frozen, functional.apply, call, data, self.weight, self.bias, target
            )
        except (TypeError, ValueError) as error:
            if self.name is None:
                raise
            raise functional.named(error, self.name) from None

    def _resized(
        self, data: Tensor, target_shape: Any, output_size: Any
    ) -> tuple[functional.Call, tuple[int, ...]]:
        """The call with the size that was asked for, and its target_shape."""
        call = self._call
        rank = len(call.attributes.kernel)
        if output_size is None:
            target = spec.parse_tuple("target_shape", target_shape)
            return call, spec.check_target_shape(target, rank)
        if target_shape is not None:
            raise ValueError("target_shape must be None when output_size is given, got both")
        functional.require_tensor("data", data)
        functional.require_dense("data", data)
        wanted = spec.parse_tuple("output_size", output_size) or ()
        adj = call.attributes.adj_for(data.shape, wanted)
        return call._replace(arguments=call.arguments._replace(adj=adj)), ()

    # Deferred channels ----------------------------------------------------------------------

    def initialize_parameters(
        self, data: Tensor, target_shape: Any = None, *, output_size: Any = None
    ) -> None:
        """Create the parameters for the channels of data; nothing, where they exist."""
        if not self.has_uninitialized_params():
            return
        attributes = self.attributes
        try:
            functional.require_tensor("data", data)
            functional.require_dense("data", data)
            attributes.check_data_shape(data.shape)
            channels = int(attributes.channels(data.shape))
            if not is_lazy(self.weight):
                channels = self.weight.shape[0]
            _check_memory(attributes.weight_shape(channels), self.weight.device, self.weight.dtype)
        except (TypeError, ValueError) as error:
            raise functional.named(error, self.name) from None
        self._try_on_meta(data, channels, target_shape, output_size)
        self.in_channels = channels
        loaded = {
            name: parameter.detach().clone()
            for name, parameter in self._parameters.items()
            if parameter is not None and not is_lazy(parameter)
        }
        if isinstance(self.weight, UninitializedParameter):
            self.weight.materialize(attributes.weight_shape(channels))
        if isinstance(self.bias, UninitializedParameter):
            self.bias.materialize((attributes.num_filter,))
        self.reset_parameters()
        with torch.no_grad():
            for name, value in loaded.items():
                getattr(self, name).copy_(value)

    def _try_on_meta(
        self, data: Tensor, channels: int, target_shape: Any, output_size: Any
    ) -> None:
        """Let a bad first call raise before it has fixed the channels for good."""
        dtypes = data.dtype, self.weight.dtype
        device_type = data.device.type
        if functional.autocasts(device_type):
            first, second = dtypes
            dtypes = (
                functional.autocast_dtype(first, device_type),
                functional.autocast_dtype(second, device_type),
            )
        trial = Deconvolution.__new__(Deconvolution)
        nn.Module.__init__(trial)
        trial.attributes, trial._call, trial.name = self.attributes, self._call, self.name
        trial._shortcut = trial._frozen = None
        shape = self.attributes.weight_shape(channels)
        trial.weight = Parameter(torch.empty(shape, device="meta", dtype=dtypes[1]), False)
        trial.bias = None
        if self.bias is not None:
            size = self.attributes.num_filter
            trial.bias = Parameter(torch.empty(size, device="meta", dtype=dtypes[1]), False)
        meta = torch.empty(data.shape, device="meta", dtype=dtypes[0])
        trial.forward(meta, target_shape, output_size=output_size)

    def _finish_deferral(self) -> None:
        self._initialize_hook.remove()
        self._load_hook.remove()
        del self._initialize_hook, self._load_hook

    def _lazy_load_hook(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        error_messages = rest[-1]
        attributes = self.attributes
        weight = state_dict.get(prefix + "weight")
        if is_lazy(self.weight) and isinstance(weight, Tensor) and not is_lazy(weight):
            channels = weight.shape[0] if weight.dim() else 0
            expected = attributes.weight_shape(channels)
            if channels < 1 or channels % attributes.num_group or weight.shape != expected:
                error_messages.append(
                    f"weight must have shape {attributes.weight_shape(max(channels, 1))}, "
                    f"got {tuple(weight.shape)}"
                )
                return
            self.in_channels = channels
        super()._lazy_load_hook(state_dict, prefix, *rest)

    def _replicate_for_data_parallel(self) -> Any:
        if self.has_uninitialized_params():
            return super()._replicate_for_data_parallel()
        replica = nn.Module._replicate_for_data_parallel(self)  # type: ignore[no-untyped-call]
        replica._frozen = None
        return replica

    # Inference ------------------------------------------------------------------------------

    def freeze(self) -> Self:
        """Let calls on the CPU keep the weight in the form that they compute with.

        For inference on small inputs (up to 8,192 pixels, batch included), where a call spends
        most of its time arranging the weight. No result changes, to the last bit. The first call
        prepares the weight, and those that follow find it; its forms take up to eight times the
        memory of the weight as float64, and 16 MB more. Frozen, the weight must not be written
        to: a call raises RuntimeError when autograd's version counter shows that it was (writes
        through `.data` or numpy are not counted: call `freeze()` again after them).

        Undone by `train()`, `load_state_dict()` and whatever moves or converts the module; copies
        are not frozen. Raises RuntimeError in training mode, ValueError without a weight in CPU
        memory.
        """
        if self.training:
            raise functional.named(
                RuntimeError("freeze() is for inference: call eval() first, got training mode"),
                self.name,
            )
        if is_lazy(self.weight) or "weight" not in self._parameters:
            message = f"freeze() needs an initialized Parameter 'weight', got {self}"
            raise functional.named(ValueError(message), self.name)
        if self.weight.device.type != "cpu":
            message = f"freeze() prepares a weight in CPU memory, got device {self.weight.device}"
            raise functional.named(ValueError(message), self.name)
        self._frozen = _C.FrozenWeight(self.weight)
        return self

    @property
    def frozen(self) -> bool:
        """Whether `freeze()` holds."""
        return self._frozen is not None

    def train(self, mode: bool = True) -> Self:
        """As torch.nn.Module.train; training mode undoes `freeze()`."""
        if mode:
            self._frozen = None
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        self._frozen = None
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(self, *args: Any) -> None:
        self._frozen = None
        super()._load_from_state_dict(*args)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_frozen": None}

    # Conversion -----------------------------------------------------------------------------

    @classmethod
    def from_attrs(
        cls,
        attrs: Mapping[str, Any],
        *,
        in_channels: int = 0,
        name: str | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """A module from the attributes of a symbol.json node; an absent no_bias means True.

        Keys of the form `__key__` are MXNet's notes to itself and, as there, not read.
        """
        try:
            if not isinstance(attrs, Mapping):
                raise TypeError(f"attrs must be a mapping of strings, got {spec.show(attrs)}")
            given = {
                key: value
                for key, value in attrs.items()
                if not (str(key).startswith("__") and str(key).endswith("__"))
            }
            unknown = [key for key in given if key not in spec.ATTRIBUTES]
            spec.refuse_unknown(unknown, spec.ATTRIBUTES)
        except TypeError as error:
            raise functional.named(error, name) from None
        return cls(**given, in_channels=in_channels, name=name, device=device, dtype=dtype)

    @classmethod
    def from_torch(
        cls,
        module: nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d,
        *,
        name: str | None = None,
    ) -> Self:
        """The Deconvolution that computes what `module` computes, with the same Parameters."""
        if not isinstance(module, CONV_TRANSPOSE):
            kinds = "nn.ConvTranspose1d, nn.ConvTranspose2d or nn.ConvTranspose3d"
            raise TypeError(f"module must be an {kinds}, got {type(module).__name__}")
        if is_lazy(module.weight) or "weight" not in module._parameters:
            raise ValueError(
                "module must own an initialized Parameter 'weight' (call a lazy module once, "
                f"remove parametrizations), got {module}"
            )
        if module.padding_mode != "zeros":
            raise ValueError(f"padding_mode must be 'zeros', got {module.padding_mode!r}")
        new = cls(
            num_filter=module.out_channels,
            kernel=module.kernel_size,
            stride=module.stride,
            dilate=module.dilation,
            pad=module.padding,
            adj=module.output_padding,
            num_group=module.groups,
            no_bias=module.bias is None,
            in_channels=module.in_channels,
            name=name,
            device="meta",
            dtype=module.weight.dtype,
        )
        new.weight = cast(Parameter, module.weight)
        new.bias = cast("Parameter | None", module.bias)
        return new.train(module.training)

    def to_torch(
        self, input_size: Any = None
    ) -> nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d:
        """The torch.nn.ConvTransposeNd that computes what this module computes.

        `input_size`, the spatial size of the data, is needed to resolve a target_shape. The
        Parameters are the same objects, except that torch knows channels-first weights only: a
        channels-last weight is copied, and the result wants its data channels-first. workspace,
        cudnn_tune and cudnn_off do not change what is computed and have no place in torch.
        """
        attributes = self.attributes
        if is_lazy(self.weight) or "weight" not in self._parameters:
            raise ValueError(
                "module must own an initialized Parameter 'weight' (call a deferred module once, "
                f"remove parametrizations), got {self}"
            )
        size: tuple[int, ...] = ()
        if input_size is not None:
            size = spec.parse_tuple("input_size", input_size) or ()
            if len(size) != len(attributes.kernel) or min(size) < 1:
                raise ValueError(
                    f"input_size must have {len(attributes.kernel)} values of at least 1, "
                    f"got {spec.show(input_size)}"
                )
        elif attributes.target_shape:
            raise ValueError(
                "input_size must be given to resolve target_shape "
                f"{attributes.target_shape}, got None"
            )
        pad, adj = attributes.crop(size, attributes.target_shape)
        new = CONV_TRANSPOSE[len(attributes.kernel) - 1](
            self.in_channels,
            attributes.num_filter,
            attributes.kernel,  # type: ignore[arg-type]
            attributes.stride,  # type: ignore[arg-type]
            pad,  # type: ignore[arg-type]
            adj,  # type: ignore[arg-type]
            attributes.num_group,
            self.bias is not None,
            attributes.dilate,  # type: ignore[arg-type]
            device="meta",
            dtype=self.weight.dtype,
        )
        weight = self.weight
        if attributes.channels_last:
            copy = weight.detach().movedim(-1, 1).contiguous()
            weight = Parameter(copy, requires_grad=weight.requires_grad)
        new.weight, new.bias = weight, self.bias
        return new.train(self.training)

    def extra_repr(self) -> str:
        attributes = self.attributes
        parts = [
            *([] if self.name is None else [f"name={self.name!r}"]),
            f"in_channels={self.in_channels}",
            f"num_filter={attributes.num_filter}",
            f"kernel={attributes.kernel}",
        ]
        rank = len(attributes.kernel)
        for key, default in {
            **dict.fromkeys(("stride", "dilate"), (1,) * rank),
            **dict.fromkeys(("pad", "adj"), (0,) * rank),
            **{"target_shape": (), "num_group": 1, "workspace": 512, "no_bias": True},
            **{"cudnn_tune": None, "cudnn_off": False, "layout": spec.LAYOUTS[rank - 1]},
        }.items():
            value = getattr(attributes, key)
            if value != default:
                parts.append(f"{key}={value!r}")
        return ", ".join(parts)


def _check_memory(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> None:
    """Refuse parameters that this machine could never hold, before torch asks for them."""
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if device.type == "cpu" and math.prod(shape) * dtype.itemsize > available:
        raise ValueError(
            f"weight must fit in the memory of this machine, {available >> 20} MiB, got shape "
            f"{shape} of {str(dtype).removeprefix('torch.')}"
        )
    if math.prod(shape) * dtype.itemsize > spec.INT64_MAX:
        raise ValueError(
            f"weight must have a size in bytes that fits in 64 bits, got shape {shape} of "
            f"{str(dtype).removeprefix('torch.')}"
        )
