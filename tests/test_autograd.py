"""The three operators are each other's derivatives: numerically, to every order, in every mode."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

import pytest
import torch
from passes import arguments_of, in_order
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

import mxdeconv
from mxdeconv.testing import SMALL, Problem, integer_data, parse, random_data

# A few values each, because every one is shaken on its own, twice.
TINY = tuple(
    parse(*line.split(maxsplit=1))
    for line in """
n2g1c1k2-i2-w2-s2-p0-d1-a1-ncw                          1-D, adj
n1g1c2k1-i2-w3-s1-p3-d2-a0-nwc                          1-D, dilated, pad beyond the kernel
n1g1c2k1-i2x1-w2x2-s2x1-p1x0-d1x1-a0x0-nchw             2-D, cropped
n1g2c2k4-i1x2-w2x1-s3x2-p0x0-d1x1-a2x1-nchw             groups, kernel < stride, adj
n2g2c2k2-i2x1-w2x2-s2x2-p1x0-d2x1-a1x0-nhwc             depthwise, channels last, gcd 2
n1g1c1k2-i1x2x1-w2x1x2-s1x2x1-p0x0x1-d1x1x2-a0x1x0-ncdhw 3-D, every axis different
n1g1c1k1-i2x2-w2x2-s2x2-p2x2-d1x1-a0x0-nchw             output 0x0
n0g1c1k1-i2-w2-s2-p0-d1-a0-ncw                          batch 0
""".strip().splitlines()
)


def leaves(problem: Problem, *names: str) -> list[Tensor]:
    operands = in_order(random_data(problem, torch.float64), problem)
    return [getattr(operands, name).contiguous().requires_grad_() for name in names]


def with_arguments(op: Any, problem: Problem) -> Any:
    arguments = arguments_of(problem)
    return lambda *tensors: op(*tensors, *arguments)


CALLS = {
    "deconvolution": ("data", "weight", "bias"),
    "deconvolution_data": ("weight", "out_grad"),
    "deconvolution_weight": ("data", "out_grad"),
}


@pytest.mark.parametrize("op", CALLS)
@pytest.mark.parametrize("problem", TINY, ids=str)
def test_gradcheck(problem: Problem, op: str) -> None:
    """Backward and forward mode, batched, and forward over reverse, against differences."""
    call = with_arguments(getattr(torch.ops.mxdeconv, op), problem)
    inputs = leaves(problem, *CALLS[op])
    assert torch.autograd.gradcheck(
        call,
        inputs,
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
        check_undefined_grad=True,
    )
    assert torch.autograd.gradgradcheck(
        call, inputs, check_fwd_over_rev=True, check_rev_over_rev=True, check_batched_grad=True
    )


@pytest.mark.parametrize("problem", TINY, ids=str)
def test_gradcheck_of_the_function(problem: Problem) -> None:
    """In the user's layout, bias and all."""
    operands = random_data(problem, torch.float64)
    inputs = [value.requires_grad_() for value in operands[:3]]

    def call(*tensors: Tensor) -> Tensor:
        return mxdeconv.deconvolution(*tensors, no_bias=False, **problem.arguments)

    assert torch.autograd.gradcheck(call, inputs, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(call, inputs, check_fwd_over_rev=True)


@pytest.mark.parametrize("problem", TINY[:4], ids=str)
def test_gradcheck_of_the_autograd_function(problem: Problem) -> None:
    arguments = arguments_of(problem)

    def call(*tensors: Tensor) -> Tensor:
        return mxdeconv.DeconvolutionFunction.apply(*tensors, *arguments)  # type: ignore[no-any-return]

    inputs = leaves(problem, "data", "weight", "bias")
    assert torch.autograd.gradcheck(call, inputs, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(call, inputs, check_fwd_over_rev=True)


@pytest.mark.parametrize("problem", SMALL, ids=str)
def test_autograd_function_equals_the_operator(problem: Problem) -> None:
    operands = in_order(integer_data(problem, torch.float64), problem)
    arguments = arguments_of(problem)
    results = []
    for call in (mxdeconv.DeconvolutionFunction.apply, torch.ops.mxdeconv.deconvolution):
        inputs = [value.clone().requires_grad_() for value in operands[:3]]
        out = call(*inputs, *arguments)
        results.append([out, *torch.autograd.grad(out, inputs, operands.out_grad)])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("op", [*CALLS, "deconvolution_into"])
@pytest.mark.parametrize("problem", [TINY[0], TINY[3], TINY[4], TINY[5]], ids=str)
def test_opcheck(problem: Problem, op: str, dynamic: bool) -> None:
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    dynamic_test = "test_aot_dispatch_dynamic" if dynamic else "test_aot_dispatch_static"
    arguments = arguments_of(problem)
    if op == "deconvolution_into":
        tensors = [value.detach() for value in leaves(problem, "data", "weight", "bias")]
        out = torch.zeros(problem.batch, problem.num_filter, *problem.out_size).double()
        torch.library.opcheck(
            torch.ops.mxdeconv.deconvolution_into.default,
            (*tensors, *arguments, out),
            test_utils=(*tests, dynamic_test),
        )
        return
    torch.library.opcheck(
        getattr(torch.ops.mxdeconv, op).default,
        (*leaves(problem, *CALLS[op]), *arguments),
        test_utils=(*tests, dynamic_test),
    )


# What is computed and what is kept -----------------------------------------------------------


class Counting(TorchDispatchMode):
    """Counts the operators of ours that run below autograd."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "mxdeconv":
            self.calls[func._schema.name.removeprefix("mxdeconv::")] += 1
        return func(*args, **(kwargs or {}))


WANTED = [wanted for wanted in product((False, True), repeat=3) if any(wanted)]


@pytest.mark.parametrize("wanted", WANTED)
def test_only_requested_gradients_are_computed(wanted: tuple[bool, bool, bool]) -> None:
    problem = TINY[2]
    inputs = leaves(problem, "data", "weight", "bias")
    for value, wants in zip(inputs, wanted, strict=True):
        value.requires_grad_(wants)
    with Counting() as counting:
        out = torch.ops.mxdeconv.deconvolution(*inputs, *arguments_of(problem))
        out.sum().backward()
    # the bias gradient is the weight gradient of a 1x1 deconvolution
    assert (
        counting.calls
        == Counter(
            deconvolution=1,
            deconvolution_data=wanted[0],
            deconvolution_weight=wanted[1] + wanted[2],
        )
        - Counter()
    )
    for value, wants in zip(inputs, wanted, strict=True):
        assert (value.grad is not None) == wants


@pytest.mark.parametrize("asked", WANTED)
def test_only_asked_gradients_are_computed(asked: tuple[bool, bool, bool]) -> None:
    """All require gradients; torch.autograd.grad names some."""
    problem = TINY[2]
    inputs = leaves(problem, "data", "weight", "bias")
    out = torch.ops.mxdeconv.deconvolution(*inputs, *arguments_of(problem))
    chosen = [value for value, ask in zip(inputs, asked, strict=True) if ask]
    with Counting() as counting:
        grads = torch.autograd.grad(out.sum(), chosen)
    assert (
        counting.calls
        == Counter(deconvolution_data=asked[0], deconvolution_weight=asked[1] + asked[2])
        - Counter()
    )
    assert len(grads) == len(chosen)


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("face", ["operator", "function", "autograd function"])
def test_only_needed_tensors_are_kept(face: str, wanted: tuple[bool, bool, bool]) -> None:
    """The weight for the gradient of the data and the data for that of the weight; no bias."""
    problem = TINY[2]
    inputs = leaves(problem, "data", "weight", "bias")
    for value, wants in zip(inputs, wanted, strict=True):
        value.requires_grad_(wants)
    kept = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.data_ptr())
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        if face == "function":
            mxdeconv.deconvolution(*inputs, no_bias=False, **problem.arguments)
        else:
            call = {
                "operator": torch.ops.mxdeconv.deconvolution,
                "autograd function": mxdeconv.DeconvolutionFunction.apply,
            }[face]
            call(*inputs, *arguments_of(problem))
    data, weight, _ = inputs
    expected = {data.data_ptr()} if wanted[1] else set()
    expected |= {weight.data_ptr()} if wanted[0] else set()
    assert set(kept) == expected
    assert len(kept) == len(expected)


def test_nothing_is_kept_without_gradients() -> None:
    inputs = leaves(TINY[0], "data", "weight", "bias")
    with torch.no_grad():
        assert torch.ops.mxdeconv.deconvolution(*inputs, *arguments_of(TINY[0])).grad_fn is None
    with torch.inference_mode():
        out = torch.ops.mxdeconv.deconvolution(*inputs, *arguments_of(TINY[0]))
    assert out.is_inference()


def test_a_changed_operand_is_noticed() -> None:
    """Backward refuses an operand that was written to, and a graph that was freed."""
    inputs = leaves(TINY[0], "data", "weight", "bias")
    out = torch.ops.mxdeconv.deconvolution(*inputs, *arguments_of(TINY[0]))
    with torch.no_grad():
        inputs[1].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()
    inputs = leaves(TINY[0], "data", "weight", "bias")
    out = torch.ops.mxdeconv.deconvolution(*inputs, *arguments_of(TINY[0])).sum()
    out.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        out.backward()


def test_names_of_the_graph() -> None:
    arguments = arguments_of(TINY[0])
    names = {
        op: getattr(torch.ops.mxdeconv, op)(*leaves(TINY[0], *roles), *arguments).grad_fn.name()
        for op, roles in CALLS.items()
    }
    assert names == {
        "deconvolution": "DeconvolutionBackward",
        "deconvolution_data": "DeconvolutionDataBackward",
        "deconvolution_weight": "DeconvolutionWeightBackward",
    }


# Bias ----------------------------------------------------------------------------------------


def test_double_backward_through_the_bias() -> None:
    """d/db of |d/db (out^2)|^2 by hand: out is linear in b with slope 1."""
    problem = TINY[0]
    data, weight, bias, _ = in_order(integer_data(problem, torch.float64), problem)
    bias.requires_grad_()
    out = torch.ops.mxdeconv.deconvolution(data, weight, bias, *arguments_of(problem))
    (grad,) = torch.autograd.grad((out**2).sum() / 2, bias, create_graph=True)
    assert torch.equal(grad, out.sum((0, 2)))
    (second,) = torch.autograd.grad(grad.sum(), bias)
    assert torch.equal(second, torch.full_like(second, problem.bias_terms))


@pytest.mark.parametrize("problem", SMALL, ids=str)
@pytest.mark.usefixtures("restored_threads")
def test_bias_gradient(problem: Problem) -> None:
    """Exact on integers, and on other values the same bits for any number of threads."""
    arguments = arguments_of(problem)

    def gradient(make: Any) -> Tensor:
        operands = in_order(make(problem, torch.float32), problem)
        bias = operands.bias.clone().requires_grad_()
        out = torch.ops.mxdeconv.deconvolution(operands.data, operands.weight, bias, *arguments)
        (grad,) = torch.autograd.grad(out, bias, operands.out_grad)
        return grad

    exact = in_order(integer_data(problem, torch.float32), problem).out_grad.double()
    assert torch.equal(gradient(integer_data).double(), exact.sum((0, *range(2, exact.dim()))))
    grads = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        grads.append(gradient(random_data))
    assert torch.equal(grads[0], grads[1])
    assert torch.equal(grads[0], grads[2])


def test_forward_mode_of_the_bias_alone() -> None:
    data, weight, bias = (value.detach() for value in leaves(TINY[0], "data", "weight", "bias"))
    tangent = torch.tensor([3.0, -5.0], dtype=torch.float64)
    with forward_ad.dual_level():
        out = torch.ops.mxdeconv.deconvolution(
            data, weight, forward_ad.make_dual(bias, tangent), *arguments_of(TINY[0])
        )
        got = forward_ad.unpack_dual(out).tangent
    assert got is not None
    assert torch.equal(got, tangent[None, :, None].expand(out.shape))


def test_compiled_autograd() -> None:
    """The backward pass traced and compiled gives the gradients that the eager one gives."""
    problem = TINY[4]

    def gradients() -> list[Tensor | None]:
        inputs = leaves(problem, "data", "weight", "bias")
        out = torch.ops.mxdeconv.deconvolution(*inputs, *arguments_of(problem))
        out.square().sum().backward()
        return [value.grad for value in inputs]

    expected = gradients()
    torch._dynamo.reset()

    def compiler(graph: Any) -> Any:
        return torch.compile(graph, backend="aot_eager", fullgraph=True)

    with torch._dynamo.compiled_autograd._enable(compiler):
        for got, wanted in zip(gradients(), expected, strict=True):
            assert got is not None
            assert wanted is not None
            assert torch.equal(got, wanted)
