"""BatchNorm and the other normalizations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from mxdeconv.porting.attributes import Attributes
from mxdeconv.porting.operators.table import (
    Function,
    Layer,
    Operation,
    Shape,
    Shapes,
    known,
    operator,
)

BATCH_NORM_PARAMETERS = {1: "weight", 2: "bias", 3: "running_mean", 4: "running_var"}


class BatchNorm(_BatchNorm):
    """MXNet's BatchNorm over any number of axes, under torch's names.

    In evaluation torch's. In training the running variance takes in the biased variance of the
    batch, where torch's takes the unbiased one. `momentum` is torch's: 1 - MXNet's. With
    `fix_gamma` the weight is a buffer of ones. `use_global_stats` trains with the running
    statistics, which then stay as they are. The statistics take in a batch when it is computed;
    MXNet waits for its gradient.
    """

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float,
        *,
        fix_gamma: bool = False,
        use_global_stats: bool = False,
        axis: int = 1,
        output_mean_var: bool = False,
        device: Any = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, device=device)
        self.fix_gamma = fix_gamma
        self.use_global_stats = use_global_stats
        self.axis = axis
        self.output_mean_var = output_mean_var
        self.num_batches_tracked = None
        if fix_gamma:
            del self.weight
            self.register_buffer("weight", torch.ones(num_features, device=device))

    def forward(self, input: Tensor) -> Any:
        data = input if self.axis == 1 else input.movedim(self.axis, 1)
        assert self.running_mean is not None
        assert self.running_var is not None
        mean, var = self.running_mean, self.running_var
        if self.training and not self.use_global_stats:
            axes = [0, *range(2, data.dim())]
            batch_var, batch_mean = torch.var_mean(data.detach(), axes, correction=0)
            result = self._normalize(data, None, None)
            with torch.no_grad():
                momentum = self.momentum or 0.0
                mean.mul_(1 - momentum).add_(batch_mean, alpha=momentum)
                var.mul_(1 - momentum).add_(batch_var, alpha=momentum)
            mean, var = batch_mean, batch_var
        else:
            result = self._normalize(data, mean, var)
        result = result if self.axis == 1 else result.movedim(1, self.axis)
        if self.output_mean_var:
            # MXNet gives these no gradient
            return result, mean.clone(), torch.rsqrt(var + self.eps)
        return result

    def _normalize(self, data: Tensor, mean: Tensor | None, var: Tensor | None) -> Tensor:
        # not F.batch_norm, which refuses a batch of one value
        return torch.batch_norm(
            *(data, self.weight, self.bias, mean, var, mean is None, 0.0, self.eps),
            torch.backends.cudnn.enabled,
        )

    def _load_from_state_dict(self, *arguments: Any) -> None:
        # torch's adds num_batches_tracked where a file (a .safetensors) has no version
        nn.Module._load_from_state_dict(self, *arguments)

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def extra_repr(self) -> str:
        parts = [f"{self.num_features}, eps={self.eps}, momentum={self.momentum:.6g}"]
        for name, default in (
            *(("fix_gamma", False), ("use_global_stats", False), ("axis", 1)),
            ("output_mean_var", False),
        ):
            if getattr(self, name) != default:
                parts.append(f"{name}={getattr(self, name)}")
        return ", ".join(parts)


@operator("BatchNorm", "BatchNorm_v1", "CuDNNBatchNorm", "_contrib_SyncBatchNorm")
def batch_norm(attributes: Attributes) -> Operation:
    eps = attributes.number("eps", 1e-3)
    momentum = attributes.number("momentum", 0.9)
    options = {
        "fix_gamma": attributes.flag("fix_gamma", True),
        "use_global_stats": attributes.flag("use_global_stats", False),
        "output_mean_var": attributes.flag("output_mean_var", False),
    }
    axis = attributes.integer("axis", 1)
    attributes.ignore("cudnn_off", "min_calib_range", "max_calib_range", "ndev", "key")
    attributes.need_inputs(5)

    def make(shapes: Shapes) -> nn.Module:
        channels = known(shapes, 1)[0]
        return BatchNorm(channels, eps, 1 - momentum, axis=axis, device="meta", **options)

    def infer(data: Shape) -> Mapping[int, Shape]:
        return dict.fromkeys((1, 2, 3, 4), (data[axis],))

    outputs = ("output", "mean", "var") if options["output_mean_var"] else ("output",)
    constants = {1: 1.0} if options["fix_gamma"] else {}
    return Layer(make, BATCH_NORM_PARAMETERS, infer, outputs, constants=constants)


# Normalizations of one instance -----------------------------------------------------------------


class InstanceNorm(nn.Module):
    """Each channel of each instance to mean 0 and variance 1, then weight and bias."""

    def __init__(self, num_features: int, eps: float, device: Any = None) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_features, device=device))
        self.bias = nn.Parameter(torch.zeros(num_features, device=device))

    def forward(self, data: Tensor) -> Tensor:
        return torch.instance_norm(
            *(data, self.weight, self.bias, None, None, True, 0.0, self.eps),
            torch.backends.cudnn.enabled,
        )

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}"


@operator("InstanceNorm")
def instance_norm(attributes: Attributes) -> Operation:
    eps = attributes.number("eps", 1e-3)
    attributes.need_inputs(3)
    return Layer(
        lambda shapes: InstanceNorm(known(shapes, 1)[0], eps, device="meta"),
        {1: "weight", 2: "bias"},
        lambda data: {1: (data[1],), 2: (data[1],)},
    )


class LayerNorm(nn.Module):
    """Normalization along one axis, any; nn.LayerNorm where it is the last."""

    def __init__(
        self, size: int, axis: int, eps: float, output_mean_var: bool, device: Any = None
    ) -> None:
        super().__init__()
        self.size = size
        self.axis = axis
        self.eps = eps
        self.output_mean_var = output_mean_var
        self.weight = nn.Parameter(torch.ones(size, device=device))
        self.bias = nn.Parameter(torch.zeros(size, device=device))

    def forward(self, data: Tensor) -> Any:
        moved = data.movedim(self.axis, -1)
        result = F.layer_norm(moved, (moved.shape[-1],), self.weight, self.bias, self.eps)
        result = result.movedim(-1, self.axis)
        if not self.output_mean_var:
            return result
        var, mean = torch.var_mean(data.detach(), self.axis, correction=0, keepdim=True)
        return result, mean, torch.sqrt(var + self.eps)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, axis={self.axis}, eps={self.eps}"


@operator("LayerNorm")
def layer_norm(attributes: Attributes) -> Operation:
    axis = attributes.integer("axis", -1)
    eps = attributes.number("eps", 1e-5)
    output_mean_var = attributes.flag("output_mean_var", False)
    attributes.need_inputs(3)

    def make(shapes: Shapes) -> nn.Module:
        size = known(shapes, 1)[0]
        if axis == -1 and not output_mean_var:
            return nn.LayerNorm(size, eps, device="meta")
        return LayerNorm(size, axis, eps, output_mean_var, device="meta")

    outputs = ("output", "mean", "std") if output_mean_var else ("output",)
    return Layer(
        make,
        {1: "weight", 2: "bias"},
        lambda data: {1: (data[axis],), 2: (data[axis],)},
        outputs,
    )


class GroupNorm(nn.Module):
    """nn.GroupNorm with one weight and bias for each group, not each channel."""

    def __init__(
        self, num_groups: int, eps: float, output_mean_var: bool = False, device: Any = None
    ) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.eps = eps
        self.output_mean_var = output_mean_var
        self.weight = nn.Parameter(torch.ones(num_groups, device=device))
        self.bias = nn.Parameter(torch.zeros(num_groups, device=device))

    def forward(self, data: Tensor) -> Any:
        repeats = data.shape[1] // self.num_groups
        weight = self.weight.repeat_interleave(repeats)
        bias = self.bias.repeat_interleave(repeats)
        result = F.group_norm(data, self.num_groups, weight, bias, self.eps)
        if not self.output_mean_var:
            return result
        grouped = data.detach().reshape(data.shape[0], self.num_groups, -1)
        var, mean = torch.var_mean(grouped, 2, correction=0)
        return result, mean, torch.sqrt(var + self.eps)  # MXNet gives these no gradient

    def extra_repr(self) -> str:
        return f"{self.num_groups}, eps={self.eps}"


@operator("GroupNorm")
def group_norm(attributes: Attributes) -> Operation:
    groups = attributes.integer("num_groups", 1, minimum=1)
    eps = attributes.number("eps", 1e-5)
    attributes.need_inputs(3)
    output_mean_var = attributes.flag("output_mean_var", False)
    return Layer(
        lambda shapes: GroupNorm(groups, eps, output_mean_var, device="meta"),
        {1: "weight", 2: "bias"},
        lambda data: {1: (groups,), 2: (groups,)},
        ("output", "mean", "std") if output_mean_var else ("output",),
    )


# Without parameters -----------------------------------------------------------------------------


def l2_normalization(data: Tensor, eps: float, mode: str) -> Tensor:
    """Divide by the square root of the sum of squares + eps, over what `mode` names."""
    first = {"instance": 1, "channel": 1, "spatial": 2}[mode]
    axes = [1] if mode == "channel" else list(range(first, data.dim()))
    return data / torch.sqrt((data * data).sum(axes, keepdim=True) + eps)


@operator("L2Normalization")
def l2_normalization_operator(attributes: Attributes) -> Operation:
    eps = attributes.number("eps", 1e-10)
    mode = attributes.choice("mode", ("instance", "channel", "spatial"), "instance")
    return Function(l2_normalization, {"eps": eps, "mode": mode})


@operator("LRN")
def local_response_norm(attributes: Attributes) -> Operation:
    alpha = attributes.number("alpha", 1e-4)
    beta = attributes.number("beta", 0.75)
    knorm = attributes.number("knorm", 2.0)
    nsize = attributes.integer("nsize", minimum=1)
    if nsize % 2 == 0:
        raise ValueError(f"nsize must be odd, got {nsize}")
    return Layer(lambda shapes: nn.LocalResponseNorm(nsize, alpha, beta, knorm))
