"""Losses. Their output is a prediction, and their gradient that of a loss.

MXNet's gradient does not depend on the gradient that arrives (but for SoftmaxOutput's out_grad):
`output.sum().backward()` trains. Without a label, at inference, only the prediction is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mxdeconv.porting.attributes import Attributes
from mxdeconv.porting.operators.table import Layer, Operation, operator


class _WithGradient(torch.autograd.Function):
    """`output`, with `gradient` as the gradient of `data`, times the arriving one if `scaled`."""

    @staticmethod
    def forward(data: Tensor, output: Tensor, gradient: Tensor, scaled: bool) -> Tensor:
        return output.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])
        ctx.scaled = inputs[3]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0] if ctx.scaled else gradient, None, None, None


class _Loss(nn.Module):
    """Prediction from the data, gradient from the prediction and the label."""

    scaled = False

    def predict(self, data: Tensor) -> Tensor:
        raise NotImplementedError

    def gradient(self, output: Tensor, label: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, data: Tensor, label: Tensor | None = None) -> Tensor:
        if label is None:
            if self.training:
                raise ValueError("label must be given in training; call eval() for inference")
            return self.predict(data)
        with torch.no_grad():
            output = self.predict(data)
            gradient = self.gradient(output, label)
        result: Tensor = _WithGradient.apply(  # type: ignore[no-untyped-call]
            *(data, output, gradient, self.scaled)
        )
        return result


class SoftmaxOutput(_Loss):
    """Softmax; the gradient is that of the cross entropy with the label.

    The classes lie along axis 1 (`multi_output`), the last one (`preserve_shape`), or all but
    the first. A label in the shape of the data holds probabilities.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()
        self.options = options
        self.scaled = options["out_grad"]

    def predict(self, data: Tensor) -> Tensor:
        if self.options["multi_output"]:
            return torch.softmax(data, 1)
        if self.options["preserve_shape"]:
            return torch.softmax(data, -1)
        return torch.softmax(data.flatten(1), 1).reshape(data.shape)

    def gradient(self, output: Tensor, label: Tensor) -> Tensor:
        scale: float = self.options["grad_scale"]
        if label.shape == output.shape:
            return torch.mul(output - label, scale)
        if self.options["multi_output"]:
            flat = output.flatten(2).movedim(1, -1)  # N, positions, classes
        elif self.options["preserve_shape"]:
            flat = output.reshape(1, -1, output.shape[-1])
        else:
            flat = output.flatten(1).unsqueeze(0)
        labels = label.reshape(flat.shape[:-1])
        result = torch.mul(flat - self._targets(flat, labels), self._scale(labels))
        if self.options["use_ignore"]:
            ignored = labels.to(flat.dtype) == self.options["ignore_label"]
            result = result.masked_fill(ignored.unsqueeze(-1), 0.0)
        if self.options["multi_output"]:
            result = result.movedim(-1, 1)
        return result.reshape(output.shape)

    def _targets(self, flat: Tensor, labels: Tensor) -> Tensor:
        """1 for the right class; smooth_alpha of it is spread over the other ones."""
        classes = flat.shape[-1]
        hot = labels.long().unsqueeze(-1) == torch.arange(classes, device=flat.device)
        # MXNet smooths nothing with multi_output
        alpha = 0.0 if self.options["multi_output"] else self.options["smooth_alpha"]
        other = alpha / (classes - 1) if alpha and classes > 1 else 0.0
        targets = torch.full_like(flat, other)
        return targets.masked_fill(hot, 1.0 - alpha)

    def _scale(self, labels: Tensor) -> Any:
        options = self.options
        scale = options["grad_scale"]
        positions = labels.shape[1] if options["multi_output"] else 1
        if options["normalization"] == "batch":
            count = labels.shape[0] if options["multi_output"] else labels.numel()
            return scale / positions / count
        if options["normalization"] == "valid":
            valid = (labels.long() != int(options["ignore_label"])).sum().clamp(min=1)
            return scale / valid
        return scale / positions

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value!r}" for key, value in self.options.items())


_NORMALIZATIONS = ("null", "batch", "valid")


@operator("SoftmaxOutput", "Softmax")
def softmax_output(attributes: Attributes) -> Operation:
    options = {
        "grad_scale": attributes.number("grad_scale", 1.0),
        "ignore_label": attributes.number("ignore_label", -1.0),
        "multi_output": attributes.flag("multi_output", False),
        "use_ignore": attributes.flag("use_ignore", False),
        "preserve_shape": attributes.flag("preserve_shape", False),
        "normalization": attributes.choice("normalization", _NORMALIZATIONS, "null"),
        "out_grad": attributes.flag("out_grad", False),
        "smooth_alpha": attributes.number("smooth_alpha", 0.0),
    }
    attributes.need_inputs(2)
    return Layer(lambda shapes: SoftmaxOutput(options), labels=(1,))


class RegressionOutput(_Loss):
    """The data, or its sigmoid; the gradient is the error, or its sign for "mae"."""

    def __init__(self, kind: str, grad_scale: float) -> None:
        super().__init__()
        self.kind = kind
        self.grad_scale = grad_scale

    def predict(self, data: Tensor) -> Tensor:
        return torch.sigmoid(data) if self.kind == "logistic" else data

    def gradient(self, output: Tensor, label: Tensor) -> Tensor:
        error = output - label.reshape(output.shape)
        if self.kind == "mae":
            error = torch.where(error > 0, 1.0, -1.0).to(error.dtype)
        return error * (self.grad_scale / (label.numel() // label.shape[0]))

    def extra_repr(self) -> str:
        return f"'{self.kind}', grad_scale={self.grad_scale}"


def _regression(kind: str) -> Callable[[Attributes], Operation]:
    def read(attributes: Attributes) -> Operation:
        scale = attributes.number("grad_scale", 1.0)
        attributes.need_inputs(2)
        return Layer(lambda shapes: RegressionOutput(kind, scale), labels=(1,))

    return read


operator("LinearRegressionOutput")(_regression("linear"))
operator("LogisticRegressionOutput")(_regression("logistic"))
operator("MAERegressionOutput")(_regression("mae"))


class MakeLoss(nn.Module):
    """The data; its gradient is grad_scale, over the batch or over the number of valid entries."""

    def __init__(self, grad_scale: float, normalization: str, valid_thresh: float) -> None:
        super().__init__()
        self.grad_scale = grad_scale
        self.normalization = normalization
        self.valid_thresh = valid_thresh

    def forward(self, data: Tensor) -> Tensor:
        with torch.no_grad():
            scale: Any = self.grad_scale
            if self.normalization == "batch":
                scale = scale / data.shape[0]
            elif self.normalization == "valid":
                scale = scale / (data > self.valid_thresh).sum().clamp(min=1)
            gradient = torch.ones_like(data) * scale
        result: Tensor = _WithGradient.apply(  # type: ignore[no-untyped-call]
            *(data, data.detach(), gradient, False)
        )
        return result

    def extra_repr(self) -> str:
        return f"{self.grad_scale}, normalization='{self.normalization}'"


@operator("make_loss")
def plain_make_loss(attributes: Attributes) -> Operation:
    attributes.ignore_all()
    return Layer(lambda shapes: MakeLoss(1.0, "null", 0.0))


@operator("MakeLoss")
def make_loss(attributes: Attributes) -> Operation:
    scale = attributes.number("grad_scale", 1.0)
    normalization = attributes.choice("normalization", _NORMALIZATIONS, "null")
    threshold = attributes.number("valid_thresh", 0.0)
    return Layer(lambda shapes: MakeLoss(scale, normalization, threshold))
