"""Every row of bad_calls.py through every face: one and the same text."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from bad_calls import ALL_ARGUMENTS, BAD_CALLS, FUNCTION, MODULE, RAW, BadCall
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import Parameter

import mxdeconv

FUNCTION_CALLS = [row for row in BAD_CALLS if FUNCTION in row.faces]
MODULE_CALLS = [row for row in BAD_CALLS if MODULE in row.faces]
RAW_CALLS = [row for row in BAD_CALLS if RAW in row.faces]


def rows(calls: list[BadCall]) -> Any:
    return pytest.mark.parametrize("call", calls, ids=lambda call: call.id[:60])


def refuses(call: BadCall, prefix: str = "") -> Any:
    # An unknown argument is answered with all that are valid, which differ by face.
    tail = "" if call.text.endswith("valid are ") else "$"
    return pytest.raises(call.error, match=f"^{re.escape(prefix + call.text)}{tail}")


def run_function(call: BadCall, device: str = "cpu", **more: Any) -> None:
    data, weight, bias = call.tensors(device)
    mxdeconv.deconvolution(data, weight, bias, **call.all_attributes, **more)


def run_module(call: BadCall, **more: Any) -> None:
    """The module with the given tensors as its parameters, as an assignment would leave it."""
    data, weight, bias = call.tensors()
    channels = call.weight[0] if call.weight else 0
    groups = call.attributes.get("num_group", 1)
    if not isinstance(groups, int) or groups < 1 or channels % groups:
        channels = 0
    module = mxdeconv.Deconvolution(**call.all_attributes, in_channels=max(channels, 1), **more)
    module.weight = Parameter(weight)
    module.bias = None if bias is None else Parameter(bias)
    module(data)


def run_raw(call: BadCall, device: str = "cpu") -> None:
    attributes = call.all_attributes
    rank = len(attributes["kernel"])
    data, weight, bias = call.tensors(device)
    torch.ops.mxdeconv.deconvolution(
        data,
        weight,
        bias,
        attributes.get("stride", (1,) * rank),
        attributes.get("dilate", (1,) * rank),
        attributes.get("pad", (0,) * rank),
        attributes.get("adj", (0,) * rank),
        attributes.get("num_group", 1),
        attributes.get("workspace", 512),
        attributes.get("cudnn_tune"),
        False,
    )


def test_the_table_has_each_row_once() -> None:
    names = [call.id for call in BAD_CALLS]
    assert len(names) == len(set(names))


@rows(FUNCTION_CALLS)
def test_function(call: BadCall) -> None:
    with refuses(call):
        run_function(call)


@rows(FUNCTION_CALLS)
def test_function_says_its_name(call: BadCall) -> None:
    with refuses(call, "up: "):
        run_function(call, name="up")


@rows(FUNCTION_CALLS)
def test_function_on_fake_tensors(call: BadCall) -> None:
    with FakeTensorMode(), refuses(call):
        run_function(call)


@rows(FUNCTION_CALLS)
def test_function_on_meta_tensors(call: BadCall) -> None:
    with refuses(call):
        run_function(call, "meta")


@rows(FUNCTION_CALLS)
def test_compiled_function(call: BadCall) -> None:
    """torch wraps the error in its own; the text stands inside."""
    torch._dynamo.reset()
    data, weight, bias = call.tensors()
    attributes = call.all_attributes

    @torch.compile(backend="eager", fullgraph=True)
    def compiled(data: Any, weight: Any, bias: Any) -> torch.Tensor:
        return mxdeconv.deconvolution(data, weight, bias, **attributes)

    with pytest.raises(Exception) as caught:  # noqa: PT011
        compiled(data, weight, bias)
    assert unquoted(call.text) in unquoted(str(caught.value))


def unquoted(text: str) -> str:
    """Without what repr does to quotes."""
    return text.replace("\\", "").replace('"', "'")


@rows(MODULE_CALLS)
def test_module(call: BadCall) -> None:
    with refuses(call):
        run_module(call)


@rows(MODULE_CALLS)
def test_module_says_its_name(call: BadCall) -> None:
    with refuses(call, "decoder.up: "):
        run_module(call, name="decoder.up")


@rows(RAW_CALLS)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_raw_operator(call: BadCall, device: str) -> None:
    with refuses(call):
        run_raw(call, device)


@rows(RAW_CALLS)
def test_raw_operator_on_fake_tensors(call: BadCall) -> None:
    with FakeTensorMode(), refuses(call):
        run_raw(call)


def test_an_unknown_argument_is_answered_with_all_that_are_valid() -> None:
    with pytest.raises(TypeError) as caught:
        mxdeconv.deconvolution(torch.ones(1, 1, 1), foo=1)
    assert str(caught.value) == f"unknown argument 'foo'; valid are {ALL_ARGUMENTS}"


@pytest.mark.parametrize("argument", ["data", "weight", "bias"])
@pytest.mark.parametrize("value", ["x", 1, [[[1.0]]]])
def test_tensors_must_be_tensors(argument: str, value: Any) -> None:
    given: dict[str, Any] = {
        "data": torch.zeros(1, 2, 4, 4),
        "weight": torch.zeros(2, 3, 3, 3),
        "bias": torch.zeros(3),
    }
    given[argument] = value
    for no_bias in (False, True):
        if no_bias and argument != "bias":
            del given["bias"]
        with pytest.raises(TypeError, match=rf"^{argument} must be a torch\.Tensor, got "):
            mxdeconv.deconvolution(**given, kernel=(3, 3), num_filter=3, no_bias=no_bias)
    module = mxdeconv.Deconvolution(kernel=(3, 3), num_filter=3, in_channels=2)
    with pytest.raises(TypeError, match=r"^data must be a torch\.Tensor, got "):
        module(value)


def test_data_and_weight_must_be_given() -> None:
    with pytest.raises(TypeError, match=r"^data must be a torch\.Tensor, got None$"):
        mxdeconv.deconvolution(kernel=(3, 3), num_filter=3)
    with pytest.raises(TypeError, match=r"^weight must be a torch\.Tensor, got None$"):
        mxdeconv.deconvolution(torch.zeros(1, 2, 4, 4), kernel=(3, 3), num_filter=3)


def test_devices_must_agree() -> None:
    data, weight = torch.zeros(1, 2, 4, 4), torch.zeros(2, 3, 3, 3, device="meta")
    with pytest.raises(ValueError, match=r"^weight must be on the device of data, cpu, got meta$"):
        mxdeconv.deconvolution(data, weight, kernel=(3, 3), num_filter=3)


@pytest.mark.parametrize("argument", ["data", "weight", "bias"])
@pytest.mark.parametrize("kind", ["sparse", "mkldnn", "quantized", "nested"])
@pytest.mark.filterwarnings("ignore")  # torch's own, about these prototypes
def test_only_dense_tensors(argument: str, kind: str) -> None:
    given: dict[str, Any] = {
        "data": torch.zeros(2, 2, 4, 4),
        "weight": torch.zeros(2, 3, 3, 3),
        "bias": torch.zeros(3),
    }
    make: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "sparse": torch.Tensor.to_sparse,
        "mkldnn": torch.Tensor.to_mkldnn,
        "quantized": lambda tensor: torch.quantize_per_tensor(tensor, 1.0, 0, torch.qint8),
        "nested": lambda tensor: torch.nested.nested_tensor(list(tensor)),
    }
    given[argument] = make[kind](given[argument])
    with pytest.raises(TypeError, match=rf"^up: {argument} must (be a dense|have the dtype)"):
        mxdeconv.deconvolution(**given, kernel=(3, 3), num_filter=3, no_bias=False, name="up")


def test_out_under_vmap_is_refused() -> None:
    def call(data: torch.Tensor) -> torch.Tensor:
        return mxdeconv.deconvolution(
            data, torch.ones(2, 3, 3, 3), kernel=(3, 3), num_filter=3, out=torch.empty(1, 3, 6, 6)
        )

    with pytest.raises(ValueError, match=r"^out must be None inside torch.func transforms"):
        torch.func.vmap(call)(torch.ones(5, 1, 2, 4, 4))


def test_a_bad_value_is_shown_cut() -> None:
    with pytest.raises(ValueError, match=r"got ") as caught:
        mxdeconv.deconvolution(kernel=(3,) * 100_000, num_filter=3)
    assert len(str(caught.value)) < 300
