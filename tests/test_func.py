"""torch.func over the three operators: vmap of every combination, Jacobians, Hessians.

Integer operands: whatever vmap folds, the result is the loop's to the last bit.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from passes import arguments_of
from torch import Tensor
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.nn import Parameter

import mxdeconv
from mxdeconv.testing import Problem, parse

PROBLEMS = tuple(
    parse(name)
    for name in (
        "n2g1c3k4-i3-w3-s2-p1-d1-a1-ncw",
        "n2g1c3k2-i3x2-w2x3-s2x1-p1x0-d1x2-a0x0-nchw",
        "n1g2c4k6-i2x3-w3x2-s2x1-p1x0-d1x1-a1x0-nchw",
        "n2g3c3k6-i2x2-w2x2-s2x2-p0x0-d1x1-a1x1-nchw",
        "n1g2c2k4-i2x1x2-w2x1x2-s1x2x2-p0x0x1-d1x1x1-a0x1x1-ncdhw",
    )
)
OPERANDS = {
    "deconvolution": ("data", "weight", "bias"),
    "deconvolution_data": ("weight", "out_grad"),
    "deconvolution_weight": ("data", "out_grad"),
}
BATCH = 3


def shape_of(problem: Problem, name: str) -> tuple[int, ...]:
    return {
        "data": problem.data_shape,
        "weight": problem.weight_shape,
        "bias": (problem.num_filter,),
        "out_grad": problem.out_shape,
    }[name]


def integers(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-4, 5, shape, generator=generator).double()


def calling(op: str, problem: Problem) -> Any:
    raw = (
        mxdeconv.DeconvolutionFunction.apply
        if op == "DeconvolutionFunction"
        else getattr(torch.ops.mxdeconv, op)
    )
    arguments = arguments_of(problem)
    return lambda *tensors: raw(*tensors, *arguments)


@pytest.mark.parametrize("op", [*OPERANDS, "DeconvolutionFunction"])
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_vmap_of_every_combination(problem: Problem, op: str) -> None:
    """Each operand batched or not, along any of its axes, equals a loop; gradients too."""
    roles = OPERANDS.get(op, OPERANDS["deconvolution"])
    call = calling(op, problem)
    choices = [(None, *range(len(shape_of(problem, role)) + 1)) for role in roles]
    for in_dims in product(*choices):
        if all(dim is None for dim in in_dims):
            continue
        operands = []
        for seed, (role, dim) in enumerate(zip(roles, in_dims, strict=True)):
            shape = list(shape_of(problem, role))
            if dim is not None:
                shape.insert(dim, BATCH)
            operands.append(integers(seed, *shape))
        expected = torch.stack(
            [
                call(
                    *(
                        value if dim is None else value.select(dim, i)
                        for value, dim in zip(operands, in_dims, strict=True)
                    )
                )
                for i in range(BATCH)
            ]
        )
        assert torch.equal(vmap(call, in_dims)(*operands), expected), in_dims


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_vmap_without_bias_and_in_two_levels(problem: Problem) -> None:
    data = integers(0, BATCH, 2, *problem.data_shape)
    weight = integers(1, 2, *problem.weight_shape)
    call = calling("deconvolution", problem)

    def one(data: Tensor, weight: Tensor) -> Tensor:
        return call(data, weight, None)

    got = vmap(vmap(one), in_dims=(0, None))(data, weight)
    for i, j in product(range(BATCH), range(2)):
        assert torch.equal(got[i, j], one(data[i, j], weight[j]))


@pytest.mark.parametrize("op", [*OPERANDS, "DeconvolutionFunction"])
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_jacobians_are_the_linear_maps(problem: Problem, op: str) -> None:
    """The operators are linear in each operand, so the Jacobian's columns are images of units."""
    roles = OPERANDS.get(op, OPERANDS["deconvolution"])
    call = calling(op, problem)
    operands = [integers(seed, *shape_of(problem, role)) for seed, role in enumerate(roles)]
    for position, value in enumerate(operands):
        if roles[position] == "bias":
            base = call(*operands[:2], torch.zeros_like(value))
        else:
            base = torch.zeros(())
        columns = []
        for unit in torch.eye(value.numel(), dtype=torch.float64):
            moved = [*operands[:position], unit.reshape(value.shape), *operands[position + 1 :]]
            if "bias" in roles and roles[position] != "bias":
                moved[2] = torch.zeros_like(moved[2])
            columns.append(call(*moved) - base)
        expected = torch.stack(columns, -1).reshape(*columns[0].shape, *value.shape)
        for jacobian in (jacrev, jacfwd):
            assert torch.equal(jacobian(call, argnums=position)(*operands), expected)


@pytest.mark.parametrize("problem", PROBLEMS[:3], ids=str)
@pytest.mark.parametrize("op", ["deconvolution", "DeconvolutionFunction"])
def test_hessian(problem: Problem, op: str) -> None:
    """Of sum(g * T(x, w)^2) in the weight: forward over reverse, reverse over reverse, a loop."""
    call = calling(op, problem)
    data, weight, bias, out_grad = (
        integers(seed, *shape_of(problem, role))
        for seed, role in enumerate(("data", "weight", "bias", "out_grad"))
    )

    def loss(weight: Tensor) -> Tensor:
        return (out_grad * call(data, weight, bias) ** 2).sum()

    linear = jacfwd(lambda weight: call(data, weight, None))(weight).reshape(
        out_grad.numel(), weight.numel()
    )
    expected = 2 * linear.T @ (out_grad.reshape(-1, 1) * linear)
    expected = expected.reshape(*weight.shape, *weight.shape)
    assert torch.equal(hessian(loss)(weight), expected)
    assert torch.equal(jacrev(jacrev(loss))(weight), expected)
    assert torch.equal(jacrev(jacfwd(loss))(weight), expected)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_products_with_jacobians(problem: Problem) -> None:
    """vjp and jvp are the operators themselves, and adjoint to each other."""
    call = calling("deconvolution", problem)
    arguments = arguments_of(problem)
    data, weight, bias, out_grad = (
        integers(seed, *shape_of(problem, role))
        for seed, role in enumerate(("data", "weight", "bias", "out_grad"))
    )
    _, pull = vjp(call, data, weight, bias)
    grads = pull(out_grad)
    assert torch.equal(
        grads[0], torch.ops.mxdeconv.deconvolution_data(weight, out_grad, *arguments)
    )
    assert torch.equal(
        grads[1], torch.ops.mxdeconv.deconvolution_weight(data, out_grad, *arguments)
    )
    tangents = tuple(integers(seed + 9, *value.shape) for seed, value in enumerate((data, weight)))
    tangents = (*tangents, integers(12, *bias.shape))
    _, push = jvp(call, (data, weight, bias), tangents)
    across = sum((g * t).sum() for g, t in zip(grads, tangents, strict=True))
    assert (push * out_grad).sum() == across


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("num_group", [1, 2])
def test_per_sample_gradients_of_a_module(layout: str, num_group: int) -> None:
    module = mxdeconv.Deconvolution(
        num_filter=4,
        kernel=(3, 2),
        stride=(2, 1),
        pad=(1, 0),
        num_group=num_group,
        no_bias=False,
        layout=layout,
        in_channels=2,
        dtype=torch.float64,
    )
    for number, (_, parameter) in enumerate(module.named_parameters()):
        parameter.data = integers(number, *parameter.shape)
    parameters = {name: value.detach() for name, value in module.named_parameters()}
    shape = (5, 2, 3, 4) if layout == "NCHW" else (5, 3, 4, 2)
    samples = integers(7, *shape)

    def loss(parameters: dict[str, Tensor], sample: Tensor) -> Tensor:
        return functional_call(module, parameters, (sample[None],)).square().sum()

    got = vmap(grad(loss), in_dims=(None, 0))(parameters, samples)
    for number, sample in enumerate(samples):
        module.zero_grad()
        module(sample[None]).square().sum().backward()
        for name, parameter in module.named_parameters():
            assert isinstance(parameter, Parameter)
            assert parameter.grad is not None
            assert torch.equal(got[name][number], parameter.grad)


def test_ensemble_of_modules() -> None:
    """Stacked parameters, one vmap: each model of its own."""
    modules = [mxdeconv.Deconvolution(num_filter=3, kernel=(3,), in_channels=2) for _ in range(4)]
    for number, module in enumerate(modules):
        module.weight.data = integers(number, *module.weight.shape).float()
    parameters, buffers = torch.func.stack_module_state(modules)  # type: ignore[arg-type]
    data = integers(11, 2, 2, 5).float()

    def call(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        return functional_call(modules[0], (parameters, buffers), (data,))

    got = vmap(call)(parameters, buffers)
    for number, module in enumerate(modules):
        assert torch.equal(got[number], module(data))
