"""freeze(): weights prepared once, the same bits as ever, and nothing stale."""

from __future__ import annotations

import copy
import io
import pickle
from concurrent.futures import ThreadPoolExecutor
from math import inf, nan

import pytest
import torch
from torch import Tensor, nn

import mxdeconv
from mxdeconv.testing import ALGORITHMS, SMALL, Problem, force_algorithm, random_data

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
DATA = torch.randn(1, 64, 8, 7, generator=torch.Generator().manual_seed(0))


def up(**more: object) -> mxdeconv.Deconvolution:
    """Enough work and few enough pixels for a weight to be prepared."""
    torch.manual_seed(0)
    given = {"num_filter": 48, "kernel": (4, 4), "stride": (2, 2), "no_bias": False}
    return mxdeconv.Deconvolution(**{**given, "in_channels": 64, **more}).eval()


def kept_bytes(module: mxdeconv.Deconvolution) -> int:
    assert module._frozen is not None
    return module._frozen.bytes


def computed(module: mxdeconv.Deconvolution, data: Tensor) -> Tensor:
    with torch.no_grad():
        result: Tensor = module(data)
    return result


def same(got: Tensor, expected: Tensor) -> bool:
    """To the last bit, NaN included."""
    return got.stride() == expected.stride() and torch.equal(
        got.contiguous().view(torch.uint8), expected.contiguous().view(torch.uint8)
    )


# No bit changes -------------------------------------------------------------------------------


def module_of(problem: Problem, weight: Tensor, bias: Tensor) -> mxdeconv.Deconvolution:
    given = {**problem.arguments, "no_bias": False, "in_channels": problem.channels}
    module = mxdeconv.Deconvolution(**given, dtype=weight.dtype).eval()
    module.load_state_dict({"weight": weight, "bias": bias})
    return module


@pytest.mark.usefixtures("isa", "poison")
@pytest.mark.parametrize("algorithm", [None, "minimal_filter", "tap_sum", "in_place_sum"])
@pytest.mark.parametrize("problem", SMALL, ids=str)
def test_every_problem(problem: Problem, algorithm: str | None) -> None:
    for dtype in DTYPES:
        operands = random_data(problem, dtype, 0)
        module = module_of(problem, operands.weight, operands.bias)
        with force_algorithm(algorithm):
            expected = computed(module, operands.data)
            module.freeze()
            for _ in range(2):  # what prepares, and what finds it prepared
                assert same(computed(module, operands.data), expected)


def test_algorithms_are_known() -> None:
    assert {"minimal_filter", "tap_sum", "in_place_sum"} <= set(ALGORITHMS)


@pytest.mark.usefixtures("restored_threads")
def test_sizes_and_threads_by_turns() -> None:
    module = up()
    inputs = [torch.randn(2, 64, size, size + 1) for size in (1, 2, 3, 5, 8, 20)]
    expected = [computed(module, data) for data in inputs]
    module.freeze()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        for _ in range(2):
            for data, wanted in zip(inputs, expected, strict=True):
                assert same(computed(module, data), wanted)


@pytest.mark.parametrize("value", [inf, -inf, nan, 3e38])
def test_weights_that_are_not_finite(value: float) -> None:
    module = up(pad=(1, 1))
    module.weight.data[3, 5, 0, 1] = value
    expected = computed(module, DATA)
    module.freeze()
    for _ in range(2):
        assert same(computed(module, DATA), expected)


@pytest.mark.parametrize(
    "more",
    [{"layout": "NHWC"}, {"target_shape": (15, 13)}, {"layout": "NHWC", "target_shape": (16, 15)}],
    ids=str,
)
def test_layouts_and_target_shapes(more: dict[str, object]) -> None:
    """These calls take another way to the operator."""
    module = up(**more)
    data = DATA.movedim(1, -1).contiguous() if "layout" in more else DATA
    expected = computed(module, data)
    module.freeze()
    assert same(computed(module, data), expected)
    assert kept_bytes(module) > 0
    assert same(computed(module, data), expected)


def test_gradients() -> None:
    module = up()
    expected = torch.autograd.grad(module(DATA).square().sum(), list(module.parameters()))
    module.freeze()
    got = torch.autograd.grad(module(DATA).square().sum(), list(module.parameters()))
    assert all(map(same, got, expected))


def test_concurrent_first_calls() -> None:
    module = up()
    expected = computed(module, DATA)
    for _ in range(20):
        module.freeze()
        with ThreadPoolExecutor(4) as pool:
            results = pool.map(computed, [module] * 8, [DATA] * 8)
            assert all(same(got, expected) for got in results)


# What is kept ---------------------------------------------------------------------------------


def test_the_first_call_prepares_and_others_find_it() -> None:
    module = up().freeze()
    assert module.frozen
    assert kept_bytes(module) == 0
    computed(module, DATA)
    kept = kept_bytes(module)
    assert kept >= module.weight.nbytes
    computed(module, DATA)
    assert kept_bytes(module) == kept


def test_nothing_is_kept_for_large_inputs() -> None:
    module = up().freeze()
    computed(module, torch.randn(1, 64, 100, 100))
    assert kept_bytes(module) == 0


def test_memory_is_bounded() -> None:
    """However many forms the sizes of the input ask for."""
    module = up(kernel=(9, 9), stride=(3, 3)).freeze()
    for size in range(1, 12):
        for other in range(1, 12):
            computed(module, torch.randn(1, 64, size, other))
            assert kept_bytes(module) <= 8 * 8 * module.weight.numel() + (16 << 20)


def test_other_tensors_are_not_taken_for_the_weight() -> None:
    """Such as those of torch.func.functional_call, or of another dtype under autocast."""
    module = up()
    other = {name: value + 1 for name, value in module.named_parameters()}
    expected = torch.func.functional_call(module, other, (DATA,))
    with torch.autocast("cpu", torch.bfloat16):
        lower = computed(module, DATA)
    module.freeze()
    computed(module, DATA)
    assert same(torch.func.functional_call(module, other, (DATA,)), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert same(computed(module, DATA), lower)


# What undoes it -------------------------------------------------------------------------------


def test_train() -> None:
    module = nn.Sequential(up().freeze())
    assert module.eval()[0].frozen
    assert not module.train()[0].frozen


def test_load_state_dict() -> None:
    model, other = nn.Sequential(up()), nn.Sequential(up())
    other[0].weight.data.mul_(2)
    model[0].freeze()
    computed(model[0], DATA)
    model.load_state_dict(other.state_dict())
    assert not model[0].frozen
    assert same(computed(model[0], DATA), computed(other[0], DATA))


@pytest.mark.parametrize("convert", [lambda m: m.double(), lambda m: m.to(torch.bfloat16)])
def test_conversions(convert: object) -> None:
    module = up().freeze()
    assert not convert(module).frozen  # type: ignore[operator]


def test_copies_are_not_frozen() -> None:
    module = up().freeze()
    expected = computed(module, DATA)
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    copies = [
        copy.copy(module),
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(file, weights_only=False),
    ]
    for other in copies:
        assert not other.frozen
        assert same(computed(other, DATA), expected)
    assert module.frozen


@pytest.mark.parametrize("more", [{}, {"layout": "NHWC"}], ids=["short-way", "long-way"])
def test_a_write_to_the_weight_is_noticed(more: dict[str, object]) -> None:
    module = up(**more)
    data = DATA.movedim(1, -1) if more else DATA
    module.freeze()
    computed(module, data)
    with torch.no_grad():
        module.weight.mul_(2)
    with pytest.raises(RuntimeError, match=r"weight must not change .* call freeze\(\) again"):
        computed(module, data)
    module.freeze()
    frozen = computed(module, data)
    assert same(frozen, computed(module.train().eval(), data))


def test_inference_mode() -> None:
    with torch.inference_mode():
        module = up()
        expected = module(DATA)
        module.freeze()
        assert same(module(DATA), expected)


# What is refused ------------------------------------------------------------------------------


def test_training_mode() -> None:
    module = up(name="up4").train()
    with pytest.raises(RuntimeError, match=r"^up4: freeze\(\) is for inference: call eval\(\)"):
        module.freeze()
    assert not module.frozen


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (mxdeconv.Deconvolution(kernel=(2, 2), num_filter=3).eval(), "an initialized Parameter"),
        (up(device="meta"), "CPU memory, got device meta"),
    ],
    ids=["without-weight", "meta"],
)
def test_weights_that_cannot_be_prepared(module: mxdeconv.Deconvolution, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module.freeze()
