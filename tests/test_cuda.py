"""The CUDA engine on a device: what the CPU engine is held to, for cuDNN and the own kernels."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from math import prod
from typing import Any

import pytest
import torch
from bad_calls import BAD_CALLS, FUNCTION, BadCall
from cuda_devices import needs_cudnn, require_device
from passes import (
    DTYPES,
    NAMES,
    PLACES,
    arguments_of,
    as_channels_last,
    error_bounds,
    in_order,
    torch_passes,
)
from torch import Tensor

import mxdeconv
import mxdeconv._C as _C
from mxdeconv import ops
from mxdeconv.testing import (
    LAYERS,
    SMALL,
    SMOKE,
    Operands,
    Problem,
    find_layer,
    force_algorithm,
    integer_data,
    parse,
    random_data,
)

require_device()

# What a call may say of cuDNN.
MODES: dict[str, dict[str, Any]] = {
    "own": {"cudnn_off": True},
    "off": {"cudnn_tune": "off"},
    "limited_workspace": {"cudnn_tune": "limited_workspace"},
    "fastest": {"cudnn_tune": "fastest"},
}
REAL = [layer.problem for layer in LAYERS if layer.problem.products <= 2**26]


@pytest.fixture(autouse=True)
def exact_float32() -> Iterator[None]:
    """float32 in float32, so that integers are exact."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark, cudnn.deterministic
    cudnn.allow_tf32 = matmul.allow_tf32 = False
    yield
    cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark, cudnn.deterministic = before


def on_device(operands: Operands) -> Operands:
    """Copies that keep their strides."""
    return Operands(*(value.cuda() for value in operands))


def calls(
    problem: Problem, operands: Operands, mode: str, workspace: int = 512
) -> dict[str, Callable[[], Tensor]]:
    arguments = arguments_of(problem, workspace)._replace(**MODES[mode])
    data, weight, bias, out_grad = operands
    return {
        "out": lambda: ops.deconvolution(data, weight, bias, arguments),
        "data_grad": lambda: ops.deconvolution_data(weight, out_grad, arguments),
        "weight_grad": lambda: ops.deconvolution_weight(data, out_grad, arguments),
    }


def run(problem: Problem, operands: Operands, mode: str) -> dict[str, Tensor]:
    return {name: call() for name, call in calls(problem, operands, mode).items()}


def operands_of(name: str, dtype: torch.dtype = torch.float32) -> tuple[Problem, Operands]:
    problem = parse(name)
    return problem, on_device(in_order(integer_data(problem, dtype), problem))


# Values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", SMALL, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mode", ["own", "off"])
def test_integers_are_exact(mode: str, dtype: torch.dtype, problem: Problem) -> None:
    """Wherever the tensors lie."""
    operands = in_order(integer_data(problem, dtype), problem)
    expected = torch_passes(problem, operands)
    for place, put in PLACES.items():
        placed = Operands(*(put(value.cuda()) for value in operands))
        for name, value in run(problem, placed, mode).items():
            assert torch.equal(value.cpu(), expected[name].to(dtype)), (place, name)


@pytest.mark.parametrize("problem", SMOKE, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mode", ["limited_workspace", "fastest"])
def test_integers_are_exact_when_tuned(mode: str, dtype: torch.dtype, problem: Problem) -> None:
    """In the call that tunes, and in the next, which runs the winner."""
    operands = in_order(integer_data(problem, dtype), problem)
    expected = torch_passes(problem, operands)
    placed = on_device(operands)
    _C.forget_library_decisions()
    for _ in range(2):
        for name, value in run(problem, placed, mode).items():
            assert torch.equal(value.cpu(), expected[name].to(dtype)), name


@cache
def bounded(
    problem: Problem, dtype: torch.dtype
) -> tuple[Operands, dict[str, Tensor], dict[str, Tensor]]:
    """Random operands, torch's float64 results without cuDNN, and how far ours may be off."""
    operands = on_device(in_order(random_data(problem, dtype), problem))
    with torch.backends.cudnn.flags(enabled=False, allow_tf32=False):
        return operands, torch_passes(problem, operands), error_bounds(problem, operands)


@pytest.mark.parametrize("problem", REAL, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mode", ["own", "off"])
def test_real_layers_keep_the_error_bound(mode: str, dtype: torch.dtype, problem: Problem) -> None:
    operands, exact, bounds = bounded(problem, dtype)
    for put in (lambda tensor: tensor, as_channels_last):
        placed = Operands(*(put(value) for value in operands))
        for name, value in run(problem, placed, mode).items():
            assert bool(((value.double() - exact[name]).abs() <= bounds[name]).all()), name


@pytest.mark.parametrize("mode", ["own", "off"])
def test_non_finite_values_stay_where_the_sum_has_them(mode: str) -> None:
    problem, operands = operands_of("n1g1c8k8-i16x16-w4x4-s2x2-p1x1-d1x1-a0x0-nchw")
    operands.data[0, 3, 5, 7] = float("inf")
    operands.weight.abs_().add_(1)
    out = run(problem, operands, mode)["out"].cpu()
    reached = torch.zeros(32, 32, dtype=torch.bool)
    reached[9:13, 13:17] = True
    assert bool(torch.isinf(out[0, :, reached]).all())
    assert bool(torch.isfinite(out[0, :, ~reached]).all())


@pytest.mark.parametrize("problem", SMOKE, ids=str)
def test_tf32_where_allowed_stays_close(problem: Problem) -> None:
    """Products of numbers with 11 bits: an error of some 2^-10 of the sum of absolute products."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    operands = in_order(random_data(problem, torch.float32), problem)
    exact = torch_passes(problem, operands)
    sums = torch_passes(problem, Operands(*(value.abs() for value in operands)))
    for mode in ("own", "off"):
        for name, value in run(problem, on_device(operands), mode).items():
            assert bool(((value.cpu() - exact[name]).abs() <= 2**-9 * sums[name]).all()), name


# Minimal filtering -------------------------------------------------------------------------------


def filtered_passes(problem: Problem, data: Tensor) -> list[str]:
    """The results that own kernels filter while that is forced."""
    plan = mxdeconv.explain(data, **problem.arguments, cudnn_off=True)
    passes = ("forward", "data_gradient", "weight_gradient")
    return [
        name
        for name, of in zip(NAMES, passes, strict=True)
        if plan.passes[of].kernel.startswith("minimal filtering")
    ]


@pytest.mark.parametrize("problem", [*SMALL, *REAL[:8]], ids=str)
def test_filtered_integers_are_exact(problem: Problem) -> None:
    operands = in_order(integer_data(problem, torch.float32), problem)
    expected = torch_passes(problem, operands)
    for place, put in PLACES.items():
        placed = Operands(*(put(value.cuda()) for value in operands))
        with force_algorithm("minimal_filter"):
            got = run(problem, placed, "own")
        for name, value in got.items():
            assert torch.equal(value.cpu(), expected[name]), (place, name)


@pytest.mark.parametrize("problem", REAL, ids=str)
def test_filtered_layers_keep_the_bound_of_filtering(problem: Problem) -> None:
    operands, exact, _ = bounded(problem, torch.float32)
    with force_algorithm("minimal_filter"):
        filtered = filtered_passes(problem, operands.data)
        got = run(problem, operands, "own")
        again = run(problem, operands, "own")
    bounds = error_bounds(problem, operands, filtered)
    for name, value in got.items():
        assert torch.equal(value, again[name]), name
        assert bool(((value.double() - exact[name]).abs() <= bounds[name]).all()), name


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 2.0**100], ids=str)
def test_filtered_graph_leaves_other_values_to_the_direct_sum(value: float) -> None:
    """One graph for operands that may be filtered, and for those that must not be."""
    problem, operands = operands_of("n4g1c32k32-i16x16-w4x4-s2x2-p1x1-d1x1-a0x0-nchw")
    names = ("out", "data_grad")
    graph = torch.cuda.CUDAGraph()
    with force_algorithm("minimal_filter"):
        assert filtered_passes(problem, operands.data) == list(names)
        with torch.cuda.graph(graph):
            results = run(problem, operands, "own")
    for disturbed in (None, operands.data, operands.out_grad, operands.weight, None):
        operands_before = Operands(*(each.clone() for each in operands))
        if disturbed is not None:
            disturbed[1, 2, 1, 3] = value
        expected = run(problem, operands, "own")
        graph.replay()
        torch.cuda.synchronize()
        for name in names:
            assert torch.equal(results[name].nan_to_num(7), expected[name].nan_to_num(7)), name
        for each, before in zip(operands, operands_before, strict=True):
            each.copy_(before)


@needs_cudnn
def test_filtering_is_raced_and_can_be_switched_off() -> None:
    problem = find_layer("dcgan-4").problem
    data = torch.randn(problem.data_shape, device="cuda")
    weight = torch.randn(problem.weight_shape, device="cuda")
    tuned = {**problem.arguments, "cudnn_tune": "limited_workspace"}
    _C.forget_library_decisions()
    for enabled in (True, False):
        with mxdeconv.set_minimal_filtering(enabled):
            mxdeconv.deconvolution(data, weight, **tuned)
            plan = mxdeconv.explain(data, **tuned).passes["forward"]
        raced = "own kernels with minimal filtering" in [name for name, _, _ in plan.timings]
        assert raced is enabled
        assert ("switched off" in plan.unfiltered) is not enabled
    for mode in ({"cudnn_off": True}, {"cudnn_tune": "off"}):
        plan = mxdeconv.explain(data, **{**problem.arguments, **mode}).passes["forward"]
        assert "timed mode" in plan.unfiltered


# What a call leaves and takes ----------------------------------------------------------------


@pytest.mark.parametrize("problem", [*SMOKE, *REAL[:8]], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_own_kernels_are_bitwise_reproducible(dtype: torch.dtype, problem: Problem) -> None:
    placed = on_device(in_order(random_data(problem, dtype), problem))
    first = run(problem, placed, "own")
    for _ in range(3):
        again = run(problem, placed, "own")
        assert all(torch.equal(first[name], again[name]) for name in NAMES)


@pytest.mark.parametrize("problem", SMOKE, ids=str)
def test_deterministic_cudnn_is_bitwise_reproducible(problem: Problem) -> None:
    torch.backends.cudnn.deterministic = True
    placed = on_device(in_order(random_data(problem, torch.float32), problem))
    first = run(problem, placed, "limited_workspace")
    for _ in range(3):
        again = run(problem, placed, "limited_workspace")
        assert all(torch.equal(first[name], again[name]) for name in NAMES)


@needs_cudnn
@pytest.mark.parametrize("layer", ["dcgan-4", "unet-up4", "wavegan-1", "3dgan-4", "grouped-32"])
@pytest.mark.parametrize("mode", ["own", "off", "limited_workspace"])
@pytest.mark.parametrize("workspace", [0, 1, 16, 512])
def test_workspace_is_a_bound(layer: str, mode: str, workspace: int) -> None:
    """Of the memory that is asked of torch's allocator, which lends more: it rounds up."""
    problem = find_layer(layer).problem
    asked = "requested_bytes.all"
    for put in (lambda tensor: tensor, as_channels_last):
        placed = Operands(
            *(put(value.cuda()) for value in in_order(random_data(problem, torch.float16), problem))
        )
        for name, call in calls(problem, placed, mode, workspace).items():
            call()  # decides; what that takes while it times is bounded, too, but not kept
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_stats()[f"{asked}.current"]
            result = call()
            taken = torch.cuda.memory_stats()[f"{asked}.peak"] - before - result.nbytes
            assert taken <= workspace << 20, name


@needs_cudnn
def test_decisions_are_kept_and_explained() -> None:
    problem = find_layer("dcgan-4").problem
    data = torch.randn(problem.data_shape, device="cuda")
    weight = torch.randn(problem.weight_shape, device="cuda")
    _C.forget_library_decisions()
    tuned = {**problem.arguments, "cudnn_tune": "limited_workspace"}
    assert mxdeconv.explain(data, **tuned).passes["forward"].engine == "undecided"
    mxdeconv.deconvolution(data, weight, **tuned)
    assert _C.library_decisions() == 1
    mxdeconv.deconvolution(data, weight, **tuned)
    assert _C.library_decisions() == 1
    plan = mxdeconv.explain(data, **tuned).passes["forward"]
    assert plan.engine in ("cudnn", "cuda")
    assert len(plan.timings) > 1
    assert plan.workspace_bytes <= 512 << 20
    assert "own kernels" in str(plan)
    own = mxdeconv.explain(data, **problem.arguments, cudnn_off=True).passes["forward"]
    assert own.engine == "cuda"
    assert own.kernel


@needs_cudnn
def test_benchmark_switch_stands_for_no_mode() -> None:
    problem, operands = operands_of("n1g1c8k8-i16x16-w4x4-s2x2-p1x1-d1x1-a0x0-nchw")
    arguments = arguments_of(problem)
    for benchmark, timed in ((False, False), (True, True)):
        torch.backends.cudnn.benchmark = benchmark
        _C.forget_library_decisions()
        ops.deconvolution(operands.data, operands.weight, None, arguments)
        plan = mxdeconv.explain(operands.data, **problem.arguments).passes["forward"]
        assert (len(plan.timings) > 0) is timed


def test_disabled_cudnn_leaves_it_to_the_own_kernels() -> None:
    problem, operands = operands_of("n1g1c8k8-i16x16-w4x4-s2x2-p1x1-d1x1-a0x0-nchw")
    expected = run(problem, operands, "own")
    with torch.backends.cudnn.flags(enabled=False, allow_tf32=False):
        plan = mxdeconv.explain(operands.data, **problem.arguments).passes["forward"]
        assert plan.engine == "cuda"
        assert "enabled is False" in plan.reason
        got = run(problem, operands, "off")
    assert all(torch.equal(got[name], expected[name]) for name in NAMES)


# Streams, graphs, threads, devices ---------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_side_stream(mode: str) -> None:
    problem, operands = operands_of("n4g1c32k32-i32x32-w4x4-s2x2-p1x1-d1x1-a0x0-nchw")
    expected = run(problem, operands, mode)
    stream = torch.cuda.Stream()
    for _ in range(5):
        with torch.cuda.stream(stream):
            torch.cuda._sleep(10_000_000)
            late = Operands(*(value.clone() for value in operands))
            got = run(problem, late, mode)
        stream.synchronize()
        assert all(torch.equal(got[name], expected[name]) for name in NAMES)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_graph_capture_and_replay(mode: str, warm: bool) -> None:
    """Nothing is timed in a capture, so it works without a call before it, too."""
    problem, operands = operands_of("n4g1c32k32-i16x16-w4x4-s2x2-p1x1-d1x1-a0x0-nchw")
    expected = run(problem, operands, "own")
    _C.forget_library_decisions()
    static = Operands(*(torch.zeros_like(value) for value in operands))
    if warm:
        run(problem, static, mode)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run(problem, static, mode)
    _C.forget_library_decisions()  # a captured plan lives on
    for into, value in zip(static, operands, strict=True):
        into.copy_(value)
    for _ in range(3):
        graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(results[name], expected[name]) for name in NAMES)


def test_threads_share_decisions() -> None:
    problem, operands = operands_of("n2g1c16k16-i16x16-w4x4-s2x2-p1x1-d1x1-a0x0-nchw")
    expected = run(problem, operands, "own")
    _C.forget_library_decisions()

    def wrong_results(_: int) -> list[str]:
        wrong: list[str] = []
        with torch.cuda.stream(torch.cuda.Stream()):
            for mode in ("off", "limited_workspace"):
                for _ in range(20):
                    got = run(problem, operands, mode)
                    torch.cuda.current_stream().synchronize()
                    wrong.extend(n for n in NAMES if not torch.equal(got[n], expected[n]))
        return wrong

    torch.cuda.synchronize()
    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(wrong_results, range(4))] == [[]] * 4


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are fewer than two devices")
@pytest.mark.parametrize("mode", MODES)
def test_second_device(mode: str) -> None:
    problem, operands = operands_of("n2g1c16k16-i16x16-w4x4-s2x2-p1x1-d1x1-a0x0-nchw")
    there = Operands(*(value.to("cuda:1") for value in operands))
    expected, got = run(problem, operands, mode), run(problem, there, mode)
    assert all(got[name].device == torch.device("cuda:1") for name in NAMES)
    assert all(torch.equal(got[name].cpu(), expected[name].cpu()) for name in NAMES)


# The faces above the operator ------------------------------------------------------------------


@pytest.mark.parametrize(
    "call", [row for row in BAD_CALLS if FUNCTION in row.faces], ids=lambda call: call.id[:60]
)
def test_bad_calls_are_refused_alike(call: BadCall) -> None:
    tail = "" if call.text.endswith("valid are ") else "$"
    data, weight, bias = call.tensors("cuda")
    with pytest.raises(call.error, match=f"^{re.escape(call.text)}{tail}"):
        mxdeconv.deconvolution(data, weight, bias, **call.all_attributes)


def test_operands_must_share_the_device() -> None:
    data, weight = torch.zeros(1, 2, 4, 4, device="cuda:0"), torch.zeros(2, 3, 3, 3)
    text = "weight must be on the device of data, cuda:0, got cpu"
    with pytest.raises(ValueError, match=text):
        mxdeconv.deconvolution(data, weight, kernel=(3, 3), num_filter=3)


def test_a_result_that_no_device_holds_is_refused() -> None:
    data, weight = torch.zeros(1, 1, 2, 2, device="cuda"), torch.zeros(1, 1, 1, 1, device="cuda")
    with pytest.raises(ValueError, match="out must fit in the memory of this device"):
        mxdeconv.deconvolution(data, weight, kernel=(1, 1), stride=(2**20, 2**20), num_filter=1)


@pytest.mark.parametrize("problem", SMOKE, ids=str)
@pytest.mark.parametrize("mode", ["own", "off"])
def test_gradients(mode: str, problem: Problem) -> None:
    data, weight, bias, _ = on_device(random_data(problem, torch.float64))
    leaves = [value.requires_grad_() for value in (data, weight, bias)]

    def call(*tensors: Tensor) -> Tensor:
        return mxdeconv.deconvolution(*tensors, **problem.arguments, no_bias=False, **MODES[mode])

    # Along random directions: element by element is what the CPU's tests do.
    assert torch.autograd.gradcheck(call, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, leaves, fast_mode=True)


def test_module_under_autocast_and_compile() -> None:
    layer = mxdeconv.Deconvolution(
        num_filter=8, kernel=(4, 4), stride=(2, 2), pad=(1, 1), in_channels=4, no_bias=False
    ).cuda()
    data = torch.randn(2, 4, 8, 8, device="cuda")
    plain = layer(data)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert layer(data).dtype == torch.bfloat16
    compiled = torch.compile(layer, fullgraph=True)
    assert torch.equal(compiled(data), plain)


def test_out_receives_the_result_in_any_layout() -> None:
    problem, operands = operands_of("n2g1c4k6-i5x6-w4x4-s2x2-p1x1-d1x1-a0x0-nchw")
    expected = run(problem, operands, "own")["out"]
    call = {**problem.arguments, "no_bias": False}
    for mode in ("own", "off"):
        for put in PLACES.values():
            out = put(torch.full_like(expected, float("nan")))
            data, weight, bias, _ = operands
            mxdeconv.deconvolution(data, weight, bias, out=out, **call, **MODES[mode])
            assert torch.equal(out, expected)


@pytest.mark.parametrize("mode", ["own", "off"])
def test_every_element_is_written(mode: str) -> None:
    """Results that held NaN before."""
    fill = torch.utils.deterministic.fill_uninitialized_memory
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        for problem in SMALL:
            placed = on_device(in_order(integer_data(problem, torch.float32), problem))
            assert not any(bool(v.isnan().any()) for v in run(problem, placed, mode).values())
    finally:
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = fill


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["own", "off"])
def test_more_elements_than_32_bits_count(mode: str) -> None:
    """1x1 kernel of value 3 in bfloat16; values at both ends and around 2^31."""
    shape = (1, 1, 2**15 + 2, 2**16)
    count = prod(shape)
    positions = (0, 1, 2**20 + 7, 2**31 - 1, 2**31, 2**31 + 1, count - 1)
    data = torch.zeros(shape, dtype=torch.bfloat16, device="cuda")
    for number, position in enumerate(positions):
        data.view(-1)[position] = number + 1
    weight = torch.full((1, 1, 1, 1), 3, dtype=torch.bfloat16, device="cuda")
    unit = ops.Arguments((1, 1), (1, 1), (0, 0), (0, 0), 1, 512, None, False)
    unit = unit._replace(**MODES[mode])
    total = sum((number + 1) ** 2 for number in range(len(positions)))
    assert ops.deconvolution_weight(data, data, unit).item() == total
    for out in (
        ops.deconvolution(data, weight, None, unit),
        ops.deconvolution_data(weight, data, unit),
    ):
        flat = out.view(-1)
        assert [flat[position].item() for position in positions] == [
            3 * (number + 1) for number in range(len(positions))
        ]
        assert int(flat.count_nonzero()) == len(positions)
