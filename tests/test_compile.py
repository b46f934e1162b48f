"""torch.compile and torch.export: whole graphs, static and dynamic, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from passes import arguments_of, in_order
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

import mxdeconv
from mxdeconv.testing import SMOKE, Problem, integer_data


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def gradients(call: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    """The result, and the gradients of its squares' sum, of fresh leaves."""
    leaves = [value.detach().clone().requires_grad_() for value in inputs]
    out = call(*leaves)
    out.square().sum().backward()
    grads = []
    for leaf in leaves:
        assert leaf.grad is not None
        grads.append(leaf.grad)
    return [out.detach(), *grads]


def assert_same(got: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(got, expected, strict=True):
        assert torch.equal(one, other)
        assert one.stride() == other.stride()


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("problem", SMOKE, ids=str)
def test_function(problem: Problem, dynamic: bool) -> None:
    """In the user's layout, from strings, with all gradients."""
    data, weight, bias, _ = integer_data(problem, torch.float64)
    attributes = {key: str(value) for key, value in problem.arguments.items()}

    def call(data: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return mxdeconv.deconvolution(data, weight, bias, no_bias="False", **attributes)

    compiled = torch.compile(call, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    assert_same(gradients(compiled, data, weight, bias), gradients(call, data, weight, bias))


def test_sizes_of_a_tensor_are_an_attribute() -> None:
    """A torch.Size is a tuple of another type."""

    def call(data: Tensor, weight: Tensor) -> Tensor:
        return mxdeconv.deconvolution(data, weight, kernel=weight.shape[2:], num_filter=3)

    data, weight = torch.ones(1, 2, 4, 5), torch.ones(2, 3, 3, 2)
    compiled = torch.compile(call, backend="eager", fullgraph=True)
    assert torch.equal(compiled(data, weight), call(data, weight))


@pytest.mark.parametrize("dynamic", [False, True])
def test_inductor(dynamic: bool) -> None:
    """With what inductor generates around the operator, at several sizes."""
    module = mxdeconv.Deconvolution(
        num_filter=4, kernel=(3, 4), stride=(2, 2), pad=(1, 1), no_bias=False, in_channels=3
    )

    def call(data: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        state = {"weight": weight, "bias": bias}
        return torch.func.functional_call(module, state, (data * 2,)).relu() + 1

    compiled = torch.compile(call, fullgraph=True, dynamic=dynamic)
    assert module.bias is not None
    for size in ((5, 6), (8, 3)):
        data = torch.randint(-3, 4, (2, 3, *size)).float()
        weight, bias = module.weight.detach().mul(8).round(), module.bias.detach().mul(8).round()
        assert_same(gradients(compiled, data, weight, bias), gradients(call, data, weight, bias))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_layouts(layout: str, channels_last: bool) -> None:
    """The graph knows the memory format that the operator returns: strides agree throughout."""
    shape = (2, 3, 5, 4) if layout == "NCHW" else (2, 5, 4, 3)
    weight_shape = (3, 4, 3, 3) if layout == "NCHW" else (3, 3, 3, 4)
    data = torch.randint(-3, 4, shape).double()
    weight = torch.randint(-3, 4, weight_shape).double()
    if channels_last:
        data = data.to(memory_format=torch.channels_last)

    def call(data: Tensor, weight: Tensor) -> Tensor:
        attributes: dict[str, Any] = {"kernel": (3, 3), "stride": (2, 1), "num_filter": 4}
        return mxdeconv.deconvolution(data, weight, layout=layout, **attributes)

    def with_format(call: Callable[..., Tensor]) -> list[Tensor]:
        one, other = data.detach().requires_grad_(), weight.detach().requires_grad_()
        out = call(one, other)
        return [out.detach(), *torch.autograd.grad(out.square().sum(), (one, other))]

    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    assert_same(with_format(compiled), with_format(call))


def test_one_dynamic_graph_serves_all_sizes() -> None:
    """A U-Net's skip: the target_shape is the size of another tensor. Two graphs at most."""
    module = mxdeconv.Deconvolution(
        num_filter=2, kernel=(4, 4), stride=(2, 2), in_channels=3, dtype=torch.float64
    )
    counter = CompileCounterWithBackend("aot_eager")

    @torch.compile(backend=counter, fullgraph=True)
    def decode(data: Tensor, skip: Tensor) -> Tensor:
        return module(data, target_shape=skip.shape[2:]) + skip

    for height, width in ((4, 5), (6, 5), (7, 9), (11, 3), (5, 5)):
        data = torch.randn(2, 3, height, width, dtype=torch.float64)
        skip = torch.randn(2, 2, 2 * height + 1, 2 * width, dtype=torch.float64)
        expected = module(data, target_shape=tuple(skip.shape[2:])) + skip
        assert torch.equal(decode(data, skip), expected)
    assert counter.frame_count <= 3  # static; one size dynamic; both


@pytest.mark.parametrize("stored", [False, True])
def test_dynamic_module_does_not_recompile(stored: bool) -> None:
    module = mxdeconv.Deconvolution(
        num_filter=2,
        kernel=(5,),
        stride=(3,),
        target_shape=(7,) if stored else (),
        in_channels=3,
        dtype=torch.float64,
    )
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(module, backend=counter, fullgraph=True, dynamic=True)
    for batch, size in ((2, 4), (3, 5), (4, 9), (5, 6)):
        data = torch.randn(batch, 3, size, dtype=torch.float64)
        assert torch.equal(compiled(data), module(data))
    assert counter.frame_count == 1


@pytest.mark.parametrize("dynamic", [False, True])
def test_autocast_inside(dynamic: bool) -> None:
    data, weight = torch.randint(-3, 4, (2, 3, 5)).float(), torch.randint(-3, 4, (3, 2, 3)).float()

    def call(data: Tensor, weight: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return mxdeconv.deconvolution(data, weight, kernel=(3,), num_filter=2)

    compiled = torch.compile(call, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    assert compiled(data, weight).dtype == torch.bfloat16
    assert_same(gradients(compiled, data, weight), gradients(call, data, weight))


def test_raw_operators() -> None:
    """The gradient operators and the one that writes into a tensor, in one graph."""
    problem = SMOKE[2]
    data, weight, bias, out_grad = in_order(integer_data(problem, torch.float64), problem)
    arguments = arguments_of(problem)
    raw = torch.ops.mxdeconv

    def call(out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        raw.deconvolution_into(data, weight, bias, *arguments, out)
        grad = raw.deconvolution_data(weight, out + out_grad, *arguments)
        return out, grad, raw.deconvolution_weight(data + grad, out_grad, *arguments)

    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    expected = call(torch.zeros_like(out_grad))
    given = torch.zeros_like(out_grad)
    got = compiled(given)
    for one, other in zip(got, expected, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(given, expected[0])


def test_out_argument() -> None:
    data, weight = torch.ones(2, 3, 5), torch.ones(3, 2, 3)

    def call(out: Tensor) -> Tensor:
        with torch.no_grad():
            return mxdeconv.deconvolution(data, weight, kernel=(3,), num_filter=2, out=out) + 1

    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    given = torch.zeros(2, 2, 7)
    assert torch.equal(compiled(given), call(torch.zeros(2, 2, 7)))
    assert torch.equal(given, call(torch.zeros(2, 2, 7)) - 1)


class Up(torch.nn.Module):
    def __init__(self, layout: str) -> None:
        super().__init__()
        self.up = mxdeconv.Deconvolution(
            num_filter=4,
            kernel=(4, 4),
            stride=(2, 2),
            pad=(1, 1),
            no_bias=False,
            layout=layout,
            in_channels=3,
        )

    def forward(self, data: Tensor) -> Tensor:
        result: Tensor = self.up(data).relu()
        return result


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_export(layout: str, strict: bool, tmp_path: Any) -> None:
    """Dynamic batch and image; the program is saved, loaded and run at other sizes."""
    model = Up(layout)
    axes = (2, 3) if layout == "NCHW" else (1, 2)

    def sample(batch: int, *size: int) -> Tensor:
        shape = (batch, 3, *size) if layout == "NCHW" else (batch, *size, 3)
        return torch.randn(shape)

    dims = dict.fromkeys((0, *axes), torch.export.Dim.AUTO)
    program = torch.export.export(
        model, (sample(2, 5, 6),), dynamic_shapes=({**dims},), strict=strict
    )
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert "mxdeconv.deconvolution.default" in names
    path = tmp_path / "up.pt2"
    torch.export.save(program, path)
    loaded = torch.export.load(path).module()
    for size in ((1, 4), (7, 3)):
        data = sample(3, *size)
        assert torch.equal(loaded(data), model(data))
    decomposed = program.run_decompositions()
    data = sample(4, 3, 3)
    assert torch.equal(decomposed.module()(data), model(data))


def test_a_bad_size_is_refused_by_the_compiled_call() -> None:
    """Sizes that no longer fit raise our text when the graph is traced for them."""

    @torch.compile(backend="aot_eager", fullgraph=True)
    def call(data: Tensor, weight: Tensor) -> Tensor:
        return mxdeconv.deconvolution(data, weight, kernel=(3,), pad=(3,), num_filter=2)

    weight = torch.ones(3, 2, 3)
    assert call(torch.ones(1, 3, 5), weight).shape == (1, 2, 1)
    with pytest.raises(Exception, match="pad must leave an output size of at least 0"):
        call(torch.ones(1, 3, 3), weight)
