"""DeconvolutionFunction: the torch.autograd.Function over the three raw operators.

With T(x, w, g) the trilinear form of `mxdeconv.ops`: out = dT/dg + bias, and its derivatives
are dT/dx, dT/dw and the sum of the output gradient over batch and space. Each is again one of
the raw operators, which are differentiable themselves, so this one rule serves every order.

`mxdeconv.deconvolution` and the module call the raw operator, whose derivatives live in C++ and
which torch.compile accepts (Dynamo refuses every Function that has a jvp). This class is for
code that subclasses, wraps or inspects an autograd.Function.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mxdeconv import ops


class DeconvolutionFunction(torch.autograd.Function):
    """apply(data, weight, bias, stride, dilate, pad, adj, num_group, workspace, cudnn_tune,
    cudnn_off) -> out, with the raw operator's shapes (channels first) and errors.
    """

    @staticmethod
    def forward(data: Tensor, weight: Tensor, bias: Tensor | None, *arguments: Any) -> Tensor:
        return ops.deconvolution(data, weight, bias, ops.Arguments(*arguments))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        data, weight = inputs[:2]
        ctx.arguments = ops.Arguments(*inputs[3:])
        ctx.set_materialize_grads(False)
        wants_data, wants_weight = ctx.needs_input_grad[:2]
        # weight's gradient needs data and data's gradient needs weight; bias's needs neither
        ctx.save_for_backward(data if wants_weight else None, weight if wants_data else None)
        ctx.save_for_forward(data, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (out_grad,) = grads
        inputs = [None] * len(ctx.needs_input_grad)
        if out_grad is None:
            return tuple(inputs)
        data, weight = ctx.saved_tensors
        wants_data, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        return (
            ops.deconvolution_data(weight, out_grad, ctx.arguments) if wants_data else None,
            ops.deconvolution_weight(data, out_grad, ctx.arguments) if wants_weight else None,
            ops.bias_gradient(out_grad, ctx.arguments) if wants_bias else None,
            *inputs[3:],
        )

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """T is linear in each of its arguments: one term for each tensor that has a tangent."""
        data_tangent, weight_tangent, bias_tangent = tangents[:3]
        data, weight = ctx.saved_tensors
        terms = []
        if data_tangent is not None:
            terms.append(ops.deconvolution(data_tangent, weight, bias_tangent, ctx.arguments))
            bias_tangent = None
        if weight_tangent is not None:
            terms.append(ops.deconvolution(data, weight_tangent, bias_tangent, ctx.arguments))
            bias_tangent = None
        if bias_tangent is not None:
            zero = ops.deconvolution(torch.zeros_like(data), weight, bias_tangent, ctx.arguments)
            terms.append(zero)
        return sum(terms[1:], terms[0]) if terms else None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> ops.Folded:
        return ops.fold_deconvolution(DeconvolutionFunction.apply, info.batch_size, in_dims, *args)
