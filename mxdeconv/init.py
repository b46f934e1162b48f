"""MXNet's weight initializers, where torch has no exact counterpart.

Each is an object that is called on a tensor and fills it in place, with an optional
torch.Generator. Distributions and fans are MXNet's; random numbers are torch's. The fans are
read off the shape as MXNet reads them, whatever the layout:

    fan_in = shape[1] * prod(shape[2:])     fan_out = shape[0] * prod(shape[2:])

For a channels-first weight (C, F/g, *kernel) that is F/g * prod(kernel) and C * prod(kernel).
For a channels-last weight (C, *kernel, F/g) fan_in is the same number, but fan_out is
C * prod(kernel[1:]) * F/g: MXNet's own reading, kept, since models were trained with it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Generator, Tensor
from torch.nn.parameter import is_lazy

from mxdeconv import spec

__all__ = [
    "Bilinear",
    "BilinearUpsampling",
    "Constant",
    "Initializer",
    "MSRAPrelu",
    "Normal",
    "One",
    "Uniform",
    "Xavier",
    "Zero",
    "create",
]


class Initializer:
    """Fills a tensor in place; two are equal when they are of one kind and configured alike."""

    def __call__(self, tensor: Tensor, generator: Generator | None = None) -> Tensor:
        """Fill `tensor`, any floating dtype, and return it. Not recorded by autograd."""
        if not isinstance(tensor, Tensor) or is_lazy(tensor) or not tensor.is_floating_point():
            given = f"dtype {tensor.dtype}" if type(tensor) is Tensor else type(tensor).__name__
            raise TypeError(f"tensor must be an initialized floating point tensor, got {given}")
        with torch.no_grad():
            self._fill(tensor, generator)
        return tensor

    def _fill(self, tensor: Tensor, generator: Generator | None) -> None:
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).values()))

    def __repr__(self) -> str:
        options = ", ".join(f"{key}={value!r}" for key, value in vars(self).items())
        return f"{type(self).__name__}({options})"


class Constant(Initializer):
    """Every value the same."""

    def __init__(self, value: float) -> None:
        self.value = _number("value", value)

    def _fill(self, tensor: Tensor, generator: Generator | None) -> None:
        tensor.fill_(self.value)


class Zero(Initializer):
    """Every value 0."""

    def _fill(self, tensor: Tensor, generator: Generator | None) -> None:
        tensor.zero_()


class One(Initializer):
    """Every value 1."""

    def _fill(self, tensor: Tensor, generator: Generator | None) -> None:
        tensor.fill_(1)


class Uniform(Initializer):
    """Uniform in [-scale, scale]; MXNet's default for whatever names no initializer."""

    def __init__(self, scale: float = 0.07) -> None:
        self.scale = _number("scale", scale, 0)

    def _fill(self, tensor: Tensor, generator: Generator | None) -> None:
        tensor.uniform_(-self.scale, self.scale, generator=generator)


class Normal(Initializer):
    """Normal of mean 0 and standard deviation sigma."""

    def __init__(self, sigma: float = 0.01) -> None:
        self.sigma = _number("sigma", sigma, 0)

    def _fill(self, tensor: Tensor, generator: Generator | None) -> None:
        tensor.normal_(0, self.sigma, generator=generator)


class Xavier(Initializer):
    """Scale sqrt(magnitude / factor), factor being fan_in, fan_out or their mean.

    rnd_type 'uniform' draws from [-scale, scale], 'gaussian' with that standard deviation;
    factor_type is 'in', 'out' or 'avg'.
    """

    def __init__(
        self, rnd_type: str = "uniform", factor_type: str = "avg", magnitude: float = 3
    ) -> None:
        self.rnd_type = _choice("rnd_type", rnd_type, ("uniform", "gaussian"))
        self.factor_type = _choice("factor_type", factor_type, ("avg", "in", "out"))
        self.magnitude = _number("magnitude", magnitude, 0)

    def scale(self, shape: Sequence[int]) -> float:
        """The bound, or the standard deviation, for a weight of this shape."""
        if len(shape) < 2:
            raise ValueError(f"weight must have at least 2 dimensions, got shape {tuple(shape)}")
        fan_in = math.prod(shape[1:])
        fan_out = shape[0] * math.prod(shape[2:])
        factor = {"avg": (fan_in + fan_out) / 2, "in": fan_in, "out": fan_out}[self.factor_type]
        return math.sqrt(self.magnitude / factor)

    def _fill(self, tensor: Tensor, generator: Generator | None) -> None:
        if tensor.numel() == 0:
            return
        scale = self.scale(tensor.shape)
        if self.rnd_type == "uniform":
            tensor.uniform_(-scale, scale, generator=generator)
        else:
            tensor.normal_(0, scale, generator=generator)


class MSRAPrelu(Xavier):
    """Xavier, gaussian, of magnitude 2 / (1 + slope**2): for layers followed by a PReLU."""

    def __init__(self, factor_type: str = "avg", slope: float = 0.25) -> None:
        self.slope = _number("slope", slope)
        super().__init__("gaussian", factor_type, 2 / (1 + self.slope**2))


class Bilinear(Initializer):
    """mx.init.Bilinear, to the bit: one and the same 2-D kernel in every (in, out) entry.

    f = ceil(W / 2), c = (2f - 1 - f % 2) / (2f), value(y, x) = (1 - |x/f - c|)(1 - |y/f - c|).
    Two oddities are MXNet's and kept: f comes from the width W alone, also for a kernel that is
    not square, and for an odd f the kernel is not symmetric. Weights (C, F/g, H, W), and
    (C, F/g, k, k, k), where the kernel is the same in every depth; MXNet indexes any other
    weight out of step with its shape, which is refused here.

    What people mean by bilinear upsampling is `BilinearUpsampling`.
    """

    def _fill(self, tensor: Tensor, generator: Generator | None) -> None:
        shape = tuple(tensor.shape)
        if len(shape) != 4 and not (len(shape) == 5 and len(set(shape[2:])) == 1):
            raise ValueError(
                "weight must have shape (C, F/g, H, W) or (C, F/g, k, k, k) for Bilinear, "
                f"got {shape}"
            )
        f = math.ceil(shape[3] / 2)
        if f == 0:
            return
        c = (2 * f - 1 - f % 2) / (2.0 * f)
        y = _ramp(shape[2], f, c)
        x = _ramp(shape[3], f, c)
        kernel = (x[None, :] * y[:, None]).to(torch.float32)  # MXNet rounds here, once
        tensor.copy_(kernel.to(tensor.dtype).expand(shape))


class BilinearUpsampling(Initializer):
    """The diagonal bilinear kernel: each channel is enlarged on its own.

    Along an axis of size k, value(x) = 1 - |x - (k-1)/2| / ceil(k/2); linear in 1-D, trilinear
    in 3-D. With kernel 2s - s%2, stride s and pad ceil((s-1)/2) it enlarges s times. Weights
    (C, 1, *kernel), one group for each channel, are filled throughout; dense ones (C, C, *kernel)
    on the diagonal, with zeros elsewhere. `num_group` serves group counts in between.
    """

    def __init__(self, num_group: int | None = None) -> None:
        if num_group is not None:
            num_group = spec.parse_int("num_group", num_group, 1, spec.UINT32_MAX)
        self.num_group = num_group

    def _fill(self, tensor: Tensor, generator: Generator | None) -> None:
        shape = tuple(tensor.shape)
        if not 3 <= len(shape) <= 5:
            raise ValueError(f"weight must have shape (C, F/g, *kernel), got {shape}")
        channels, filters = shape[:2]
        groups = self.num_group or (channels if filters == 1 else 1)
        if channels != groups * filters:
            raise ValueError(
                "weight must have as many filters as channels for BilinearUpsampling, "
                f"got shape {shape} with num_group {groups}"
            )
        kernel = torch.ones((), dtype=torch.float64)
        for size in shape[2:]:
            kernel = kernel[..., None] * _ramp(size, math.ceil(size / 2), (size - 1) / 2, True)
        rows = torch.arange(channels)
        tensor.zero_()
        tensor[rows, rows % filters] = kernel.to(tensor)


def _ramp(size: int, f: float, center: float, center_in_taps: bool = False) -> Tensor:
    """1 - |x/f - center| for x = 0 .. size-1, in float64; center in taps, or in units of f."""
    x = torch.arange(size, dtype=torch.float64)
    return 1 - ((x - center) / f if center_in_taps else x / f - center).abs()


# By name ------------------------------------------------------------------------------------

Fill: TypeAlias = Callable[[Tensor], Any]

_REGISTRY: dict[str, Callable[..., Initializer]] = {
    "bilinear": Bilinear,
    "bilinearupsampling": BilinearUpsampling,
    "constant": Constant,
    "msraprelu": MSRAPrelu,
    "normal": Normal,
    "one": One,
    "ones": One,
    "uniform": Uniform,
    "xavier": Xavier,
    "zero": Zero,
    "zeros": Zero,
}


def create(argument: str, value: Any) -> Fill:
    """An initializer from what MXNet takes for one, or from any callable on a tensor.

    Names are MXNet's, in any case; so is its text form, '["xavier", {"magnitude": 2.34}]'.
    `argument` names the value in error messages.
    """
    options: dict[str, Any] = {}
    if isinstance(value, str):
        name: Any = value
        if value.startswith("["):
            try:
                name, options = json.loads(value)
            except (ValueError, TypeError, RecursionError):
                name = None
        if isinstance(name, str) and isinstance(options, dict):
            kind = _REGISTRY.get(name.lower())
            if kind is not None:
                try:
                    return kind(**options)
                except TypeError as error:
                    raise TypeError(
                        f"{argument} must name every option of {name!r} rightly: {error}"
                    ) from None
        raise ValueError(
            f"{argument} must be one of {', '.join(map(repr, _REGISTRY))}, got {spec.show(value)}"
        )
    if callable(value) and not isinstance(value, type):
        return value  # type: ignore[no-any-return]
    raise TypeError(
        f"{argument} must be a name, an initializer or a function of a tensor, "
        f"got {spec.show(value)}"
    )


def _number(argument: str, value: Any, minimum: float = -math.inf) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{argument} must be a number, got {spec.show(value)}")
    if not math.isfinite(value) or value < minimum:
        valid = "finite" if minimum == -math.inf else f"at least {minimum} and finite"
        raise ValueError(f"{argument} must be {valid}, got {value}")
    return float(value)


def _choice(argument: str, value: Any, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(
            f"{argument} must be one of {', '.join(map(repr, choices))}, got {value!r}"
        )
    return str(value)
