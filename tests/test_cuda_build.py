"""What a build with CUDA does where there is no device: it imports, checks, traces, plans."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from bad_calls import BAD_CALLS, FUNCTION, BadCall
from cuda_devices import BUILT, H200, needs_build, needs_cudnn
from torch._subclasses.fake_tensor import FakeTensorMode

import mxdeconv
import mxdeconv._C as _C
from mxdeconv.testing import LAYERS, SMALL, Layer, Problem, find_layer

PASSES = ("forward", "data_gradient", "weight_gradient")
DTYPES = ("float32", "float64", "float16", "bfloat16")


def test_build_info_says_what_was_built() -> None:
    info = mxdeconv.build_info()
    if not BUILT:
        assert info["cuda"] is False
        assert (info["cuda_version"], info["cuda_archs"], info["cudnn"]) == (None, "", None)
        return
    assert info["cuda_version"].split(".")[0] == torch.version.cuda.split(".")[0]
    assert re.fullmatch(r"\d+\.\d+a?(\+PTX)?([; ]\d+\.\d+a?(\+PTX)?)*", info["cuda_archs"])
    assert info["cudnn"] is None or re.fullmatch(r"\d+\.\d+\.\d+", info["cudnn"])


@pytest.mark.parametrize("name", ["", "_data", "_weight", "_into"])
def test_every_operator_has_a_kernel_for_the_device(name: str) -> None:
    operator = f"mxdeconv::deconvolution{name}"
    assert torch._C._dispatch_has_kernel_for_dispatch_key(operator, "CUDA") is BUILT


@pytest.mark.skipif(BUILT, reason="mxdeconv was built with CUDA")
def test_explain_without_the_build_refuses_a_device() -> None:
    with pytest.raises(ValueError, match="device must be one that mxdeconv was built for"):
        mxdeconv.explain((1, 2, 4, 4), kernel=(3, 3), num_filter=3, device="cuda:0")


# Traced: fake tensors on a device that need not be there ------------------------------------------


@needs_build
@pytest.mark.parametrize("problem", SMALL, ids=str)
def test_fake_tensors_on_the_device(problem: Problem) -> None:
    with FakeTensorMode():
        data = torch.empty(problem.data_shape, device="cuda")
        weight = torch.empty(problem.weight_shape, device="cuda")
        out = mxdeconv.deconvolution(data, weight, **problem.arguments)
        assert out.shape == problem.out_shape
        assert out.device.type == "cuda"


@needs_build
@pytest.mark.parametrize(
    "call", [row for row in BAD_CALLS if FUNCTION in row.faces], ids=lambda call: call.id[:60]
)
def test_bad_calls_are_refused_alike(call: BadCall) -> None:
    """The same texts as on the CPU, before anything touches the device."""
    tail = "" if call.text.endswith("valid are ") else "$"
    with FakeTensorMode():
        data, weight, bias = call.tensors("cuda")
        with pytest.raises(call.error, match=f"^{re.escape(call.text)}{tail}"):
            mxdeconv.deconvolution(data, weight, bias, **call.all_attributes)


# cuDNN's plans for a device that is only described -----------------------------------------------


def survey(problem: Problem, pass_name: str, dtype: str, **options: Any) -> dict[str, Any]:
    wanted = {"channels_last": problem.is_channels_last, "bias": False, "allow_tf32": False}
    wanted |= {"deterministic": False, "device": H200}
    axes = [
        problem.in_size,
        problem.out_size,
        problem.kernel,
        problem.stride,
        problem.dilate,
        problem.pad,
    ]
    return _C.survey_cudnn(
        pass_=pass_name,
        dtype=dtype,
        batch=problem.batch,
        groups=problem.num_group,
        in_channels=problem.channels,
        out_channels=problem.num_filter,
        axes=list(zip(*axes, strict=True)),
        **{**wanted, **options},
    )


@needs_cudnn
@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("pass_name", PASSES)
def test_cudnn_plans_for_real_layers(layer: Layer, pass_name: str) -> None:
    """cuDNN takes the graphs as they are written: every layer has a plan in float32."""
    found = survey(layer.problem, pass_name, "float32")
    assert found["error"] == ""
    assert found["plans"]
    assert found["offered"] == len(found["plans"]) + found["ruled_out"] + found["unsupported"]
    assert len({name for name, _ in found["plans"]}) == len(found["plans"])
    assert all(workspace >= 0 for _, workspace in found["plans"])


@needs_cudnn
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels_last", [False, True], ids=["first", "last"])
def test_cudnn_plans_for_every_dtype_and_layout(dtype: str, channels_last: bool) -> None:
    for pass_name in PASSES:
        found = survey(find_layer("dcgan-4").problem, pass_name, dtype, channels_last=channels_last)
        assert found["plans"], (pass_name, found)


@needs_cudnn
def test_rules_remove_plans() -> None:
    """TF32 and nondeterministic engines only where torch allows them."""
    problem = find_layer("dcgan-4").problem
    for pass_name in PASSES:
        exact, rounded = (
            survey(problem, pass_name, "float32", allow_tf32=allowed) for allowed in (False, True)
        )
        assert exact["ruled_out"] > rounded["ruled_out"]
        assert {name for name, _ in exact["plans"]} < {name for name, _ in rounded["plans"]}
    free, fixed = (
        survey(problem, "weight_gradient", "float32", deterministic=only) for only in (False, True)
    )
    assert fixed["ruled_out"] > free["ruled_out"]


@needs_cudnn
@pytest.mark.parametrize("problem", SMALL, ids=str)
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
def test_cudnn_never_breaks_on_odd_problems(problem: Problem, bias: bool) -> None:
    """A plan, or a reason: nothing is raised and nothing is left to chance."""
    for pass_name in PASSES if not bias else PASSES[:1]:
        for dtype in ("float32", "float16"):
            found = survey(problem, pass_name, dtype, bias=bias)
            assert (
                found["offered"]
                == len(found["plans"]) + found["ruled_out"] + (found["unsupported"])
            )
            if min(problem.batch, *problem.out_size) == 0:
                assert not found["plans"]


@needs_cudnn
def test_a_description_that_is_none_is_a_reason() -> None:
    found = survey(find_layer("dcgan-4").problem, "forward", "float32", device="{}")
    assert found["plans"] == []
    assert found["error"].startswith("cuDNN could not finalize a descriptor")
