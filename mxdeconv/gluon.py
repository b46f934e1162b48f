"""Gluon's transposed convolutions, with its signatures, defaults and broadcasting of ints.

Each is a `mxdeconv.Deconvolution` that says channels, kernel_size, strides, ... and, unlike the
operator, has a bias by default, repeats an int for every axis, and may end in an activation.
As in Gluon everything is checked at construction. Two things differ on purpose: parameters are
initialized at once (in_channels=0: at the first call), there being no `initialize()` in torch;
and in_channels=0 works with any number of groups.
"""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from mxdeconv import functional, init, spec
from mxdeconv.nn import Deconvolution

__all__ = ["Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"]

_LABELS = spec.Labels(
    kernel="kernel_size",
    stride="strides",
    dilate="dilation",
    pad="padding",
    adj="output_padding",
    num_filter="channels",
    num_group="groups",
)
_ARGUMENTS = (
    *("channels", "kernel_size", "strides", "padding", "output_padding", "dilation", "groups"),
    *("layout", "activation", "use_bias", "weight_initializer", "bias_initializer"),
    *("in_channels", "prefix", "device", "dtype"),
)
#: The activations of MXNet's operator. softrelu is log(1 + exp(x)).
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "softrelu": nn.Softplus,
    "softsign": nn.Softsign,
}


class _ConvTranspose(Deconvolution):
    """What the three layers share. `act` is the activation module, or None."""

    _rank: ClassVar[int]
    _layouts: ClassVar[tuple[str, ...]]
    act: nn.Module | None

    def __init__(
        self,
        channels: Any,
        kernel_size: Any,
        strides: Any,
        padding: Any,
        output_padding: Any,
        dilation: Any,
        groups: Any,
        layout: Any,
        activation: Any,
        use_bias: Any,
        weight_initializer: Any,
        bias_initializer: Any,
        in_channels: Any,
        *,
        prefix: str | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        **unknown: Any,
    ) -> None:
        try:
            if "params" in unknown:
                raise TypeError(
                    "params must not be given: share parameters by assigning them, "
                    "layer.weight = other.weight"
                )
            spec.refuse_unknown(list(unknown), _ARGUMENTS)
            if not isinstance(layout, str) or layout not in self._layouts:
                raise ValueError(
                    f"layout must be {' or '.join(map(repr, self._layouts))}, "
                    f"got {spec.show(layout)}"
                )
            use_bias = spec.parse_bool("use_bias", use_bias)
            attributes = spec.parse(
                kernel=self._broadcast("kernel_size", kernel_size),
                stride=self._broadcast("strides", strides),
                dilate=self._broadcast("dilation", dilation),
                pad=self._broadcast("padding", padding),
                adj=self._broadcast("output_padding", output_padding),
                num_filter=channels,
                num_group=groups,
                no_bias=not use_bias,
                layout=layout,
                labels=_LABELS,
            )
            if activation is not None and (
                not isinstance(activation, str) or activation not in _ACTIVATIONS
            ):
                raise ValueError(
                    f"activation must be None or one of {', '.join(map(repr, _ACTIVATIONS))}, "
                    f"got {spec.show(activation)}"
                )
            # Gluon hands both to the default Uniform(0.07) where they are None.
            default = init.Uniform()
            weight_init, bias_init = (
                default if value is None else init.create(argument, value)
                for argument, value in (
                    ("weight_initializer", weight_initializer),
                    ("bias_initializer", bias_initializer),
                )
            )
            if attributes.channels_last and isinstance(weight_init, _CHANNELS_FIRST_ONLY):
                raise ValueError(
                    f"weight_initializer must not be {weight_init} for layout '{layout}', "
                    "where MXNet's formula does not follow the axes of weight"
                )
        except (TypeError, ValueError) as error:
            raise functional.named(error, prefix) from None
        LazyModuleMixin.__init__(self)
        self.act = None if activation is None else _ACTIVATIONS[activation]()
        self._weight_init, self._bias_init = weight_init, bias_init
        self._build(attributes, in_channels, prefix, device, dtype, _LABELS)

    def _broadcast(self, argument: str, value: Any) -> tuple[int, ...]:
        """An int for every axis, or one value for each axis."""
        parsed = spec.parse_tuple(argument, value)
        if parsed is not None and len(parsed) == 1 and not isinstance(value, (tuple, list, str)):
            parsed *= self._rank
        if parsed is None or len(parsed) != self._rank:
            counted = f"{self._rank} int{'' if self._rank == 1 else 's'}"
            raise ValueError(
                f"{argument} must be an int or a tuple of {counted}, got {spec.show(value)}"
            )
        return parsed

    def reset_parameters(self) -> None:
        """Run the two initializers."""
        if self.has_uninitialized_params():
            return
        with torch.no_grad():
            self._weight_init(self.weight)
            if self.bias is not None:
                self._bias_init(self.bias)

    def forward(self, data: Tensor, target_shape: Any = None, *, output_size: Any = None) -> Tensor:
        """The deconvolution, then the activation."""
        out = super().forward(data, target_shape, output_size=output_size)
        return out if self.act is None else self.act(out)

    def to_torch(
        self, input_size: Any = None
    ) -> nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d:
        """As `Deconvolution.to_torch`, for a layer without activation."""
        if self.act is not None:
            raise ValueError(
                "activation must be None for to_torch, whose result has no place for it, "
                f"got {self.act}"
            )
        return super().to_torch(input_size)

    @classmethod
    def from_attrs(cls, *_: Any, **__: Any) -> NoReturn:
        """Not here: a symbol.json speaks of the operator."""
        raise TypeError(
            f"{cls.__name__} must be constructed; use mxdeconv.Deconvolution.from_attrs"
        )

    @classmethod
    def from_torch(cls, *_: Any, **__: Any) -> NoReturn:
        """Not here: torch's arguments are those of the operator."""
        raise TypeError(
            f"{cls.__name__} must be constructed; use mxdeconv.Deconvolution.from_torch"
        )


_CHANNELS_FIRST_ONLY = (init.Bilinear, init.BilinearUpsampling)


class Conv1DTranspose(_ConvTranspose):
    """data (N, C, W) to (N, channels, out_W), followed by the activation."""

    _rank, _layouts = 1, ("NCW",)

    def __init__(
        self,
        channels: Any,
        kernel_size: Any,
        strides: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        dilation: Any = 1,
        groups: Any = 1,
        layout: Any = "NCW",
        activation: Any = None,
        use_bias: Any = True,
        weight_initializer: Any = None,
        bias_initializer: Any = "zeros",
        in_channels: Any = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            *(channels, kernel_size, strides, padding, output_padding, dilation, groups, layout),
            *(activation, use_bias, weight_initializer, bias_initializer, in_channels),
            **kwargs,
        )


class Conv2DTranspose(_ConvTranspose):
    """data (N, C, H, W) to (N, channels, out_H, out_W), or with C last for NHWC."""

    _rank, _layouts = 2, ("NCHW", "NHWC")

    def __init__(
        self,
        channels: Any,
        kernel_size: Any,
        strides: Any = (1, 1),
        padding: Any = (0, 0),
        output_padding: Any = (0, 0),
        dilation: Any = (1, 1),
        groups: Any = 1,
        layout: Any = "NCHW",
        activation: Any = None,
        use_bias: Any = True,
        weight_initializer: Any = None,
        bias_initializer: Any = "zeros",
        in_channels: Any = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            *(channels, kernel_size, strides, padding, output_padding, dilation, groups, layout),
            *(activation, use_bias, weight_initializer, bias_initializer, in_channels),
            **kwargs,
        )


class Conv3DTranspose(_ConvTranspose):
    """data (N, C, D, H, W) to (N, channels, *out), or with C last for NDHWC."""

    _rank, _layouts = 3, ("NCDHW", "NDHWC")

    def __init__(
        self,
        channels: Any,
        kernel_size: Any,
        strides: Any = (1, 1, 1),
        padding: Any = (0, 0, 0),
        output_padding: Any = (0, 0, 0),
        dilation: Any = (1, 1, 1),
        groups: Any = 1,
        layout: Any = "NCDHW",
        activation: Any = None,
        use_bias: Any = True,
        weight_initializer: Any = None,
        bias_initializer: Any = "zeros",
        in_channels: Any = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            *(channels, kernel_size, strides, padding, output_padding, dilation, groups, layout),
            *(activation, use_bias, weight_initializer, bias_initializer, in_channels),
            **kwargs,
        )
