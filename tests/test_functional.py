"""mxdeconv.deconvolution: what it accepts, what it computes, what it leaves alone.

Data are small integers, so every sum is exact and equality is to the last bit.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import mxdeconv
from mxdeconv import deconvolution

CONV_TRANSPOSE = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
UP = {"kernel": (4, 4), "stride": (2, 2), "pad": (1, 1), "num_filter": 3}


def integers(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randint(-3, 4, shape).to(dtype)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()


def test_signature_is_mxnets() -> None:
    parameters = inspect.signature(deconvolution).parameters
    assert list(parameters) == [
        *("data", "weight", "bias", "kernel", "stride", "dilate", "pad", "adj", "target_shape"),
        *("num_filter", "num_group", "workspace", "no_bias", "cudnn_tune", "cudnn_off", "layout"),
        *("out", "name", "unknown"),
    ]
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    assert defaults["no_bias"] is True
    assert (defaults["workspace"], defaults["num_group"], defaults["layout"]) == (512, 1, None)


def test_arguments_by_position() -> None:
    data, weight, bias = integers(1, 4, 5, 6), integers(4, 3, 4, 3), integers(6)
    out = deconvolution(
        *(data, weight, bias, (4, 3), (2, 3), (1, 2), (1, 0), (1, 2), (), 6, 2, 64, False),
        *("off", True, "NCHW", None, "up"),
    )
    expected = F.conv_transpose2d(data, weight, bias, (2, 3), (1, 0), (1, 2), 2, (1, 2))
    assert torch.equal(out, expected)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [False, True])
def test_layouts_and_dtypes(rank: int, dtype: torch.dtype, channels_last: bool) -> None:
    kernel, stride, dilate = (3, 2, 3)[:rank], (2, 3, 1)[:rank], (1, 2, 2)[:rank]
    pad, adj = (1, 0, 2)[:rank], (1, 2, 0)[:rank]
    data = torch.randint(-1, 2, (2, 4, *(5, 4, 6)[:rank])).to(dtype)
    weight = torch.randint(-1, 2, (4, 3, *kernel)).to(dtype)
    bias = integers(6, dtype=dtype)
    expected = CONV_TRANSPOSE[rank - 1](data, weight, bias, stride, pad, adj, 2, dilate)
    layout = ("NCW", "NCHW", "NCDHW")[rank - 1]
    if channels_last:
        layout = ("NWC", "NHWC", "NDHWC")[rank - 1]
        data, weight = data.movedim(1, -1).contiguous(), weight.movedim(1, -1).contiguous()
        expected = expected.movedim(1, -1)
    out = deconvolution(
        *(data, weight, bias, kernel, stride, dilate, pad, adj),
        num_filter=6,
        num_group=2,
        no_bias=False,
        layout=layout,
    )
    assert out.dtype is dtype
    assert torch.equal(out, expected)
    if channels_last:
        assert out.is_contiguous()  # written where NHWC wants it, not permuted afterwards


#: Attributes that mean the same: as values, as a symbol.json has them, as numpy has them.
SPELLINGS: list[dict[str, Any]] = [
    {"kernel": (4, 4), "stride": (2, 2), "pad": (1, 1), "num_filter": 3},
    {"kernel": [4, 4], "stride": [2, 2], "pad": [1, 1], "num_filter": np.int64(3)},
    {"kernel": "(4, 4)", "stride": "[2, 2]", "pad": "(1L, 1L)", "num_filter": "3"},
    {"kernel": torch.Size((4, 4)), "stride": (np.int32(2), 2), "pad": "(1,1,)", "num_filter": 3},
    {**UP, "dilate": (), "adj": "()", "target_shape": "None", "num_group": " 1 "},
    {**UP, "target_shape": (0, 0), "layout": "None", "cudnn_tune": "None", "no_bias": "true"},
    {**UP, "pad": (99, 99), "adj": (101, 101), "target_shape": (10, 12)},
    {**UP, "pad": (), "target_shape": "(10, 12)", "workspace": "0", "cudnn_off": "1"},
    {**UP, "workspace": 0},
    {**UP, "workspace": 2**63 - 1, "cudnn_tune": "fastest", "cudnn_off": True},
    {**UP, "cudnn_tune": "limited_workspace", "name": "up", "layout": "NCHW", "out": None},
]


@pytest.mark.parametrize("attributes", SPELLINGS, ids=str)
def test_spellings(attributes: dict[str, Any]) -> None:
    data, weight = integers(2, 5, 5, 6), integers(5, 3, 4, 4)
    expected = F.conv_transpose2d(data, weight, stride=2, padding=1)
    for _ in range(2):  # the second time from the cache
        assert torch.equal(deconvolution(data, weight, **attributes), expected)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ({"kernel": (1, 1)}, {"kernel": (True, 1)}),
        ({"kernel": (1, 1)}, {"kernel": (1.0, 1.0)}),
        ({"num_group": 1}, {"num_group": True}),
        ({"num_group": 1}, {"num_group": 1.0}),
        ({"workspace": 512}, {"workspace": 512.0}),
        ({"no_bias": True}, {"no_bias": 1.0}),
        ({"stride": (1, 1)}, {"stride": (1, np.float64(1))}),
    ],
)
def test_a_call_that_was_good_does_not_let_an_equal_one_pass(
    good: dict[str, Any], bad: dict[str, Any]
) -> None:
    data, weight = integers(1, 2, 3, 3), integers(2, 3, 1, 1)
    base = {"kernel": (1, 1), "num_filter": 3}
    deconvolution(data, weight, **{**base, **good})
    with pytest.raises(TypeError, match=f"^{next(iter(bad))} must be "):
        deconvolution(data, weight, **{**base, **bad})


def test_calls_that_mxnet_refuses_or_gets_wrong_are_accepted() -> None:
    cases: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
        ((0, 2, 4, 4), (2, 3, 3, 3), {"kernel": (3, 3)}),  # batch 0
        ((1, 2, 4, 4), (2, 3, 3, 3), {"kernel": (3, 3), "pad": (3, 3)}),  # output size 0
        ((1, 2, 4, 4, 4), (2, 3, 3, 3, 3), {"kernel": (3, 3, 3), "dilate": (1, 2, 2)}),
        ((1, 2, 5, 5), (2, 3, 3, 3), {"kernel": (3, 3), "stride": (2, 2), "dilate": (2, 2)}),
        ((1, 2, 1), (2, 3, 3), {"kernel": (3,), "stride": (3,), "target_shape": (1,)}),
    ]
    for data_shape, weight_shape, attributes in cases:
        data, weight = integers(*data_shape).requires_grad_(), integers(*weight_shape)
        weight.requires_grad_()
        out = deconvolution(data, weight, num_filter=3, **attributes)
        pad = (1,) if "target_shape" in attributes else attributes.get("pad", 0)
        expected_data, expected_weight = (t.detach().requires_grad_() for t in (data, weight))
        if out.numel():
            expected = CONV_TRANSPOSE[data.dim() - 3](
                *(expected_data, expected_weight, None, attributes.get("stride", 1), pad),
                dilation=attributes.get("dilate", 1),
            )
            assert torch.equal(out, expected)
            expected.sum().backward()
        else:
            expected_data.grad = torch.zeros_like(data)
            expected_weight.grad = torch.zeros_like(weight)
        out.sum().backward()
        assert torch.equal(data.grad, expected_data.grad)
        assert torch.equal(weight.grad, expected_weight.grad)


# Memory format and views ----------------------------------------------------------------------


@pytest.mark.parametrize("which", ["data", "weight", "neither"])
def test_output_memory_format_is_that_of_conv_transpose(which: str) -> None:
    data, weight = integers(2, 4, 5, 6), integers(4, 3, 3, 3)
    if which == "data":
        data = data.contiguous(memory_format=torch.channels_last)
    elif which == "weight":
        weight = weight.contiguous(memory_format=torch.channels_last)
    out = deconvolution(data, weight, kernel=(3, 3), num_filter=3)
    expected = F.conv_transpose2d(data, weight)
    assert torch.equal(out, expected)
    assert out.stride() == expected.stride()


def test_inputs_may_lie_anyhow_and_are_not_written() -> None:
    data = integers(4, 2, 6, 5).permute(1, 0, 3, 2)[:, :, 1:, ::2]
    weight = integers(1, 1, 3, 3).expand(4, 3, 3, 3)
    before = data.clone(), weight.clone()
    out = deconvolution(data, weight, kernel=(3, 3), num_filter=3)
    assert torch.equal(out, F.conv_transpose2d(*before))
    assert torch.equal(data, before[0])
    assert torch.equal(weight, before[1])


# out= -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_out_is_written_and_returned(layout: str) -> None:
    data, weight = integers(2, 5, 5, 5), integers(5, 4, 4, 4)
    attributes = {**UP, "num_filter": 4, "layout": layout}
    expected = deconvolution(data, weight, **attributes)
    out = torch.full_like(expected, torch.nan)
    assert deconvolution(data, weight, **attributes, out=out) is out
    assert torch.equal(out, expected)
    whole = torch.full((*expected.shape, 2), torch.nan)
    deconvolution(data, weight, **attributes, out=whole[..., 1])  # a slice is written through
    assert torch.equal(whole[..., 1], expected)
    assert whole[..., 0].isnan().all()


def test_out_beside_the_input_in_one_buffer() -> None:
    """Views that interleave without sharing an element are no overlap."""
    buffer = integers(3, 8, 5, 5)
    data, weight = buffer[:, :4], integers(4, 4, 1, 1)
    expected = deconvolution(data, weight, kernel=(1, 1), num_filter=4)
    deconvolution(data, weight, kernel=(1, 1), num_filter=4, out=buffer[:, 4:])
    assert torch.equal(buffer[:, 4:], expected)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda data, out: data, "out must not share memory with data"),
        (lambda data, out: data.movedim(2, 3), "out must not share memory with data"),
        (lambda data, out: "x", "out must be a torch.Tensor, got 'x'"),
        (lambda data, out: [out], "out must be a torch.Tensor, got [tensor("),
        (lambda data, out: out[:, :2], "out must have shape (1, 4, 5, 5), got (1, 2, 5, 5)"),
        (lambda data, out: out[0], "out must have shape (1, 4, 5, 5), got (4, 5, 5)"),
        (lambda data, out: out.double(), "out must have the dtype of data, float32, got float64"),
        (lambda data, out: out.to("meta"), "out must be on the device of data, cpu, got meta"),
        (
            lambda data, out: torch.zeros(5).expand(1, 4, 5, 5),
            "out must not have elements that share memory, got strides (0, 0, 0, 1)",
        ),
    ],
)
def test_out_is_refused(make: Any, text: str) -> None:
    data, weight = integers(1, 4, 5, 5), integers(4, 4, 1, 1)
    attributes = {"kernel": (1, 1), "num_filter": 4}
    out = make(data, deconvolution(data, weight, **attributes))
    before = data.clone()
    for name, prefix in ((None, ""), ("up", "up: ")):
        with pytest.raises((TypeError, ValueError)) as caught:
            deconvolution(data, weight, **attributes, out=out, name=name)
        assert str(caught.value).startswith(prefix + text)
    assert torch.equal(data, before)


def test_out_of_a_channels_last_layout_is_reported_in_that_layout() -> None:
    data, weight = integers(1, 5, 5, 4), integers(4, 1, 1, 3)
    with pytest.raises(
        ValueError, match=r"^out must have shape \(1, 5, 5, 3\), got \(1, 3, 5, 5\)$"
    ):
        deconvolution(
            *(data, weight), kernel=(1, 1), num_filter=3, layout="NHWC", out=torch.zeros(1, 3, 5, 5)
        )


def test_out_overlapping_partly_or_through_another_storage() -> None:
    buffer = integers(1, 6, 5, 5)
    weight = integers(4, 4, 1, 1)
    alias = torch.from_numpy(buffer.numpy())  # the same memory, another storage
    for out in (buffer[:, 2:], alias[:, 2:], alias[:, :4]):
        with pytest.raises(ValueError, match=r"^out must not share memory with data$"):
            deconvolution(buffer[:, :4], weight, kernel=(1, 1), num_filter=4, out=out)
    bias = integers(100)
    with pytest.raises(ValueError, match=r"^out must not share memory with bias$"):
        deconvolution(
            *(integers(1, 4, 5, 5), weight, bias[50:54]),
            kernel=(1, 1),
            num_filter=4,
            no_bias=False,
            out=bias.view(1, 4, 5, 5),
        )


@pytest.mark.parametrize("which", ["data", "weight", "bias", "out"])
def test_out_and_autograd(which: str) -> None:
    tensors = {"data": integers(1, 4, 5, 5), "weight": integers(4, 4, 1, 1), "bias": integers(4)}
    tensors["out"] = torch.zeros(1, 4, 5, 5)
    tensors[which].requires_grad_()
    with pytest.raises(ValueError, match=r"^out must be None where autograd records "):
        deconvolution(**tensors, kernel=(1, 1), num_filter=4, no_bias=False)
    with torch.no_grad():
        deconvolution(**tensors, kernel=(1, 1), num_filter=4, no_bias=False)
    assert tensors["out"].detach().abs().sum() > 0


# Autocast, compile, fake tensors, flops -----------------------------------------------------------


@pytest.mark.parametrize("autocast_dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "dtypes",
    [
        (torch.float32, torch.float32, torch.float32),
        (torch.float16, torch.float32, torch.float32),
        (torch.float32, torch.bfloat16, torch.float16),
        (torch.float64, torch.float64, torch.float64),
    ],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_autocast_as_conv_transpose(
    autocast_dtype: torch.dtype, dtypes: tuple[torch.dtype, ...], compiled: bool
) -> None:
    data, weight, bias = (
        integers(*shape, dtype=dtype)
        for shape, dtype in zip(((2, 4, 5, 5), (4, 3, 2, 2), (3,)), dtypes, strict=True)
    )

    def call(data: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return deconvolution(data, weight, bias, kernel=(2, 2), num_filter=3, no_bias=False)

    if compiled:
        call = torch.compile(call, backend="aot_eager", fullgraph=True)
    with torch.autocast("cpu", dtype=autocast_dtype):
        out = call(data, weight, bias)
        expected = F.conv_transpose2d(data, weight, bias)
    assert out.dtype is expected.dtype
    assert torch.equal(out, expected)


def test_autocast_leaves_mixed_float64_an_error_and_gradients_in_their_dtype() -> None:
    data, weight = integers(1, 2, 3, 3), integers(2, 3, 2, 2).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with pytest.raises(TypeError, match=r"^weight must have the dtype of data, float64, got "):
            deconvolution(data.double(), weight, kernel=(2, 2), num_filter=3)
        out = deconvolution(data, weight, kernel=(2, 2), num_filter=3)
    out.sum().backward()
    assert weight.grad.dtype is torch.float32


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_with_target_shape(dynamic: bool) -> None:
    weight = integers(4, 3, 4, 4)

    @torch.compile(backend="aot_eager", fullgraph=True, dynamic=dynamic)
    def up_like(data: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return deconvolution(
            data, weight, kernel="(4, 4)", stride=(2, 2), target_shape=skip.shape[2:], num_filter=3
        )

    for size, target in (((5, 6), (10, 12)), ((5, 6), (9, 13)), ((8, 3), (17, 5))):
        data, skip = integers(2, 4, *size), integers(1, 1, *target)
        expected = deconvolution(
            data, weight, kernel=(4, 4), stride=(2, 2), target_shape=target, num_filter=3
        )
        assert expected.shape[2:] == target
        assert torch.equal(up_like(data, skip), expected)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_dynamic_shapes_compile_once_forward_and_backward(layout: str) -> None:
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")

    @torch.compile(backend=counter, fullgraph=True, dynamic=True)
    def up(data: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return deconvolution(data, weight, **UP, layout=layout)

    for n, h, w in ((2, 5, 6), (3, 7, 4), (5, 9, 11)):
        shapes = ((n, 4, h, w), (4, 3, 4, 4))
        if layout == "NHWC":
            shapes = ((n, h, w, 4), (4, 4, 4, 3))
        data, weight = (integers(*shape).requires_grad_() for shape in shapes)
        grads = torch.autograd.grad(up(data, weight).square().sum(), (data, weight))
        plain = deconvolution(data, weight, **UP, layout=layout)
        expected = torch.autograd.grad(plain.square().sum(), (data, weight))
        assert torch.equal(up(data, weight), plain)
        for got, want in zip(grads, expected, strict=True):
            assert torch.equal(got, want)
    assert counter.frame_count == 1


def test_compiled_out() -> None:
    data, weight = integers(2, 4, 5, 6), integers(4, 3, 4, 4)
    expected = deconvolution(data, weight, **UP)

    @torch.compile(backend="aot_eager", fullgraph=True)
    def into(data: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        return deconvolution(data, weight, **UP, out=out)

    out = torch.full_like(expected, torch.nan)
    assert torch.equal(into(data, out), expected)
    assert torch.equal(out, expected)


def test_exported_with_a_dynamic_size() -> None:
    class Up(torch.nn.Module):
        def forward(self, data: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            return deconvolution(data, weight, **{**UP, "pad": (), "target_shape": (16, 16)})

    height = torch.export.Dim("height", min=7, max=100)
    data, weight = integers(2, 4, 8, 9), integers(4, 3, 4, 4)
    program = torch.export.export(Up(), (data, weight), dynamic_shapes=({2: height}, None))
    for size in (8, 11, 20):
        data = integers(2, 4, size, 9)
        assert torch.equal(program.module()(data, weight), Up()(data, weight))


def test_fake_and_meta_tensors() -> None:
    shape = (2, 3, 10, 12)
    meta = [torch.empty(s, device="meta") for s in ((2, 4, 5, 6), (4, 3, 4, 4), shape)]
    assert deconvolution(*meta[:2], **UP).shape == shape
    assert deconvolution(*meta[:2], **UP, out=meta[2]) is meta[2]
    with torch.autocast("cpu"):
        assert deconvolution(*meta[:2], **UP).dtype is F.conv_transpose2d(*meta[:2]).dtype
    with FakeTensorMode():
        fake = [torch.empty(s) for s in ((2, 4, 5, 6), (4, 3, 4, 4), shape)]
        assert deconvolution(*fake[:2], **UP).shape == shape
        assert deconvolution(*fake[:2], **UP, out=fake[2]) is fake[2]
        square = torch.empty(4, 4, 1, 1)
        with pytest.raises(ValueError, match=r"^out must not share memory with data$"):
            deconvolution(fake[0], square, kernel=(1, 1), num_filter=4, out=fake[0])


@pytest.mark.parametrize("groups", [1, 2])
def test_flops_are_torchs_count(groups: int) -> None:
    data = torch.ones(2, 4, 5, 6, requires_grad=True)
    weight = torch.ones(4, 6 // groups, 3, 4, requires_grad=True)

    def flops(call: Any) -> dict[Any, int]:
        with FlopCounterMode(display=False) as counter:
            call()
        return counter.get_flop_counts()["Global"]

    attributes = {"kernel": (3, 4), "num_filter": 6, "num_group": groups}
    one_pass = 2 * 2 * (5 * 6) * weight.numel()
    assert flops(lambda: deconvolution(data, weight, **attributes).sum().backward()) == {
        torch.ops.mxdeconv.deconvolution: one_pass,
        torch.ops.mxdeconv.deconvolution_data: one_pass,
        torch.ops.mxdeconv.deconvolution_weight: one_pass,
    }
    forward = flops(lambda: F.conv_transpose2d(data, weight, groups=groups))
    assert forward == {torch.ops.aten.convolution: one_pass}
    if groups == 1:  # torch counts a grouped weight gradient as if it were dense
        both = flops(lambda: F.conv_transpose2d(data, weight).sum().backward())
        assert sum(both.values()) == 3 * one_pass
    with torch.no_grad():
        out = torch.empty(2, 6, 7, 9)
        into = flops(lambda: deconvolution(data, weight, **attributes, out=out))
    assert into == {torch.ops.mxdeconv.deconvolution_into: one_pass}


def test_public_names() -> None:
    for name in mxdeconv.__all__:
        assert getattr(mxdeconv, name) is not None
    assert mxdeconv.__version__ == "0.1.0"
