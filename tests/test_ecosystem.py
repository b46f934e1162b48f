"""Among torch's other parts: autocast, flops, parametrizations, copies."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.utils.flop_counter import FlopCounterMode

import mxdeconv
from mxdeconv.testing import SMOKE, Problem

DATA = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))


def up(**more: Any) -> mxdeconv.Deconvolution:
    """A small layer whose parameters depend on nothing but the seed."""
    torch.manual_seed(0)
    given: dict[str, Any] = {"num_filter": 4, "kernel": (3, 3), "stride": (2, 2), "pad": (1, 1)}
    return mxdeconv.Deconvolution(**{**given, "no_bias": False, "in_channels": 3, **more})


# Autocast ------------------------------------------------------------------------------------


@pytest.mark.parametrize("enabled", [torch.bfloat16, torch.float16, None], ids=str)
@pytest.mark.parametrize(
    "dtypes",
    [
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float16),
        (torch.float64, torch.float32),
    ],
    ids=str,
)
def test_autocast_is_conv_transpose_s(
    dtypes: tuple[torch.dtype, torch.dtype], enabled: torch.dtype | None
) -> None:
    """Same dtype of the result and the gradients, or an error where torch has one."""
    data, weight = DATA.to(dtypes[0]), torch.randn(3, 4, 3, 3).to(dtypes[1])
    results = []
    for call in (
        lambda x, w: nn.functional.conv_transpose2d(x, w, stride=2),
        lambda x, w: mxdeconv.deconvolution(x, w, kernel=(3, 3), stride=(2, 2), num_filter=4),
    ):
        leaves = [value.clone().requires_grad_() for value in (data, weight)]
        try:
            with torch.autocast("cpu", dtype=enabled, enabled=enabled is not None):
                out = call(*leaves)
            out.sum().backward()
        except (RuntimeError, TypeError) as error:
            results.append(type(error))
        else:
            results.append([out.dtype, *(leaf.grad.dtype for leaf in leaves)])
    if isinstance(results[0], type):
        assert results == [RuntimeError, TypeError]
    else:
        assert results[0] == results[1]


def test_autocast_casts_the_module_and_its_bias() -> None:
    module = up()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = module(DATA)
    low = copy.deepcopy(module).to(torch.bfloat16)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, low(DATA.to(torch.bfloat16)))
    out.sum().backward()
    assert module.weight.grad is not None
    assert module.weight.grad.dtype == torch.float32


# Flops ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", [p for p in SMOKE if not p.is_channels_last], ids=str)
def test_flops_are_torch_s(problem: Problem) -> None:
    """Forward and backward, as FlopCounterMode counts torch's own conv_transpose."""
    module = mxdeconv.Deconvolution(
        **problem.arguments, no_bias=False, in_channels=problem.channels
    )
    counts = []
    for layer in (module, module.to_torch()):
        with FlopCounterMode(display=False) as counter:
            layer(torch.randn(problem.data_shape, requires_grad=True)).sum().backward()
        counts.append(counter.get_total_flops())
    if problem.num_group == 1:
        # the bias gradient is a weight gradient here: two flops for each value that it adds
        counts[1] += 2 * problem.num_filter * problem.bias_terms
        assert counts[0] == counts[1]
    # torch counts its grouped backward passes as if they were dense: forward alone compares
    counts = []
    for layer in (module, module.to_torch()):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            layer(torch.randn(problem.data_shape))
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


# Parametrizations ----------------------------------------------------------------------------


def test_weight_norm() -> None:
    """`dim=1` is the filters of a transposed convolution; a doubled g doubles the weight."""
    module = nn.utils.parametrizations.weight_norm(up(), dim=1)
    reference = nn.utils.parametrizations.weight_norm(up().to_torch(), dim=1)
    assert torch.equal(module.weight, reference.weight)
    before = module.weight
    with torch.no_grad():
        module.parametrizations.weight.original0.mul_(2)
    assert torch.equal(module.weight, 2 * before)
    module(DATA).sum().backward()
    assert {name for name, _ in module.named_parameters()} == {
        name for name, _ in reference.named_parameters()
    }
    assert all(value.grad is not None for value in module.parameters())


def test_spectral_norm() -> None:
    """torch knows by its classes which layers are transposed: for others `dim` must be given."""
    torch.manual_seed(1)
    module = nn.utils.parametrizations.spectral_norm(up(), dim=1, n_power_iterations=50)
    torch.manual_seed(1)
    theirs = nn.utils.parametrizations.spectral_norm(up().to_torch(), n_power_iterations=50)
    assert torch.equal(module.weight, theirs.weight)
    largest = torch.linalg.matrix_norm(module.weight.transpose(0, 1).flatten(1), ord=2)
    plain = torch.linalg.matrix_norm(up().weight.transpose(0, 1).flatten(1), ord=2)
    assert abs(largest.item() - 1) < abs(plain.item() - 1)
    module(DATA).sum().backward()
    assert module.parametrizations.weight.original.grad is not None


def test_pruning() -> None:
    module = prune.l1_unstructured(up(), "weight", amount=0.5)
    assert int((module.weight == 0).sum()) == module.weight.numel() // 2
    module(DATA).sum().backward()
    assert torch.equal(module.weight_orig.grad == 0, module.weight_mask == 0)
    prune.remove(module, "weight")
    assert isinstance(module.weight, nn.Parameter)
    assert module(DATA).shape == up()(DATA).shape


# Copies --------------------------------------------------------------------------------------


def test_copies_compute_the_same(tmp_path: Path) -> None:
    module = up(name="decoder.up")
    expected = module(DATA)
    path = tmp_path / "state.pt"
    torch.save(module.state_dict(), path)
    loaded = mxdeconv.Deconvolution(
        num_filter=4, kernel="(3, 3)", stride="(2, 2)", pad="(1, 1)", no_bias="False"
    )
    loaded.load_state_dict(torch.load(path, weights_only=True))  # in_channels from the file
    torch.save(module, path)
    whole = torch.load(path, weights_only=False)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), loaded, whole):
        assert torch.equal(other(DATA), expected)
        assert other.weight is not module.weight
