"""explain(): what a call will do, and why. build_info(): what was built."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mxdeconv import _C, functional, spec

#: The three passes of a training step, as `explain` names them.
PASSES = ("forward", "data_gradient", "weight_gradient")


@dataclass(frozen=True)
class PassPlan:
    """How one pass of a call is computed."""

    algorithm: str  # "tap_sum", "in_place_sum", "tap_outer", "minimal_filter", "depthwise", "fill"
    lanes: str  # what lies along the vector lanes: "pixels", "in_channels", "out_channels"
    isa: str  # "baseline", "avx2", "avx512", "avx512_bf16"
    tile: tuple[int, int]  # register tile, rows x columns
    reason: str
    unfiltered: str  # why minimal filtering is not used; empty if it is

    def __str__(self) -> str:
        unfiltered = f"; unfiltered: {self.unfiltered}" if self.unfiltered else ""
        return (
            f"{self.algorithm} on {self.isa}, lanes along {self.lanes}, "
            f"{self.tile[0]}x{self.tile[1]} tile ({self.reason}{unfiltered})"
        )


@dataclass(frozen=True)
class CudaPassPlan:
    """How one pass of a call on a GPU is computed."""

    engine: str  # "cudnn", "cuda" (own kernels), "aten", "undecided" (until a call has timed them)
    reason: str
    kernel: str  # which own kernel is, or would be, the one
    unfiltered: str  # why minimal filtering is not used; empty if it is
    workspace_bytes: int  # temporary memory, copies of operands in another layout not counted
    timings: tuple[tuple[str, float, int], ...]  # candidate, milliseconds, bytes; () if not timed

    def __str__(self) -> str:
        own = f"; kernel: {self.kernel}" if self.engine == "cuda" else ""
        own += f"; unfiltered: {self.unfiltered}" if self.unfiltered else ""
        held = f"{self.workspace_bytes / 2**20:.1f} MB of workspace"
        lines = [f"{self.engine}, {held} ({self.reason}{own})"]
        lines += [
            f"    {milliseconds:9.4f} ms, {bytes_ / 2**20:8.1f} MB: {candidate}"
            for candidate, milliseconds, bytes_ in sorted(self.timings, key=lambda row: row[1])
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class Explanation:
    """What `explain` found. `str()` of it is meant to be read."""

    attributes: spec.Attributes
    data_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    pad: tuple[int, ...]  # resolved: what target_shape asks for, if that is given
    adj: tuple[int, ...]
    dtype: torch.dtype
    taps_per_phase: tuple[tuple[int, ...], ...]  # per axis; () beyond 4096 phases
    multiply_adds: int  # of one pass, before border taps are skipped
    device: torch.device
    passes: dict[str, PassPlan | CudaPassPlan]

    def __str__(self) -> str:
        a = self.attributes
        wanted = f" for target_shape {a.target_shape}" if a.target_shape else ""
        lines = [
            f"data {self.data_shape} * weight {self.weight_shape} -> out {self.out_shape}, "
            f"{str(self.dtype).removeprefix('torch.')}, layout {a.layout}",
            f"kernel {a.kernel}, stride {a.stride}, dilate {a.dilate}, num_group {a.num_group}",
            f"pad {self.pad}, adj {self.adj}{wanted}: each axis loses pad at its start and "
            "pad - adj at its end",
            f"taps of the phases, per axis: {self.taps_per_phase}",
            f"{self.multiply_adds / 1e6:,.3f} million multiply-adds a pass",
        ]
        for name, plan in self.passes.items():
            lines.append(f"{name}: {plan}")
        return "\n".join(lines)


def explain(
    data: Tensor | Sequence[int],
    dtype: torch.dtype | None = None,
    channels_last: bool | None = None,
    device: torch.device | str | int | None = None,
    **attributes: Any,
) -> Explanation:
    """What `mxdeconv.deconvolution` does for this data and these attributes, and why.

    `data` is a tensor or the shape of one, in the layout given; `dtype` (of `data`, else
    float32), `channels_last` (whether the tensors' channels are contiguous in memory: by layout,
    or a tensor's strides) and `device` (of `data`, else the CPU) may be named. The attributes are
    those of `deconvolution`. Raises what `deconvolution` would raise for them.
    """
    spec.refuse_unknown(
        [key for key in attributes if key not in spec.ATTRIBUTES],
        ("data", "dtype", "channels_last", "device", *spec.ATTRIBUTES),
    )
    call = functional.prepare(spec.parse(**attributes))
    parsed = call.attributes
    if isinstance(data, Tensor):
        functional.require_dense("data", data)
        dtype = dtype or data.dtype
        device = data.device if device is None else device
        if channels_last is None and not parsed.channels_last:
            channels_last = data.dim() > 2 and data.stride(1) == 1 and not data.is_contiguous()
    shape = tuple(data.shape) if isinstance(data, Tensor) else _shape(data)
    dtype = dtype or torch.float32
    place = _device(device)
    parsed.check_data_shape(shape)
    channels = parsed.channels(shape)
    weight_shape = parsed.weight_shape(channels)
    for name, sizes in (("data", shape), ("weight", weight_shape)):
        if math.prod(sizes) * dtype.itemsize > spec.INT64_MAX:
            raise ValueError(
                f"{name} must have a size in bytes that fits in 64 bits, got shape {sizes} of "
                f"{str(dtype).removeprefix('torch.')}"
            )
    arguments = call.arguments
    meta = torch.empty(shape, dtype=dtype, device="meta")
    if parsed.target_shape:
        arguments = functional.cropped(call, meta, parsed.target_shape)
    weight = torch.empty(weight_shape, dtype=dtype, device="meta")
    out = functional.run(meta, weight, None, arguments, parsed.channels_last)
    size = tuple(parsed.spatial_size(shape))
    out_size = tuple(parsed.spatial_size(out.shape))
    axes = list(
        zip(
            *(size, out_size, parsed.kernel, parsed.stride, parsed.dilate, arguments.pad),
            strict=True,
        )
    )
    sizes_of_call: dict[str, Any] = {
        "dtype": str(dtype).removeprefix("torch."),
        "batch": shape[0],
        "groups": parsed.num_group,
        "in_channels": channels,
        "out_channels": parsed.num_filter,
        "axes": axes,
        "channels_last": parsed.channels_last or bool(channels_last),
        "workspace": parsed.workspace,
    }
    plans = {name: _C.choose(pass_=name, **sizes_of_call) for name in PASSES}
    passes: dict[str, PassPlan | CudaPassPlan] = {}
    for name, plan in plans.items():
        if place.type == "cuda":
            passes[name] = _cuda_plan(name, place, parsed, sizes_of_call)
        else:
            passes[name] = PassPlan(**{key: plan[key] for key in plan if key != "taps_per_phase"})
    macs = shape[0] * torch.Size(weight_shape).numel() * torch.Size(size).numel()
    return Explanation(
        attributes=parsed,
        data_shape=shape,
        weight_shape=weight_shape,
        out_shape=tuple(out.shape),
        pad=tuple(arguments.pad),
        adj=tuple(arguments.adj),
        dtype=dtype,
        taps_per_phase=tuple(tuple(t) for t in plans["forward"]["taps_per_phase"]),
        multiply_adds=macs,
        device=place,
        passes=passes,
    )


def _device(device: torch.device | str | int | None) -> torch.device:
    place = torch.device("cpu" if device is None else device)
    if place.type == "cuda" and not _C.build_info()["cuda"]:
        raise ValueError(
            f"device must be one that mxdeconv was built for, the CPU, got {place} "
            "(the line that the build prints says why)"
        )
    return place if place.type == "cuda" else torch.device("cpu")


def _cuda_plan(
    name: str, device: torch.device, parsed: spec.Attributes, sizes: dict[str, Any]
) -> CudaPassPlan:
    index = torch.cuda.current_device() if device.index is None else device.index
    plan = _C.choose_cuda(
        pass_=name,
        **sizes,
        cudnn_tune=parsed.cudnn_tune,
        cudnn_off=parsed.cudnn_off,
        bias=not parsed.no_bias,
        device=index,
    )
    return CudaPassPlan(
        engine=plan["engine"],
        reason=plan["reason"],
        kernel=plan["kernel"],
        unfiltered=plan["unfiltered"],
        workspace_bytes=plan["workspace_bytes"],
        timings=tuple(plan["timings"]),
    )


def _shape(data: Sequence[int]) -> tuple[int, ...]:
    shape = spec.parse_tuple("data", data) or ()
    if any(size < 0 for size in shape):
        raise ValueError(f"data must have sizes of at least 0, got shape {shape}")
    return shape


def build_info() -> dict[str, Any]:
    """What the compiled part was built with and what it uses.

    Keys: torch (version built with), compiler, cpu_isas (built and runnable here), cpu_isa (in
    use; the environment variable MXDECONV_CPU_ISA lowers it), cuda (whether CUDA was built),
    cuda_version and cuda_archs (of that build), cudnn (the version of cuDNN's headers; None where
    there were none: then ATen's operators stand in, and `workspace` and `cudnn_tune` have no
    effect on a GPU).
    """
    return dict(_C.build_info())
