"""Whole models swapped: what is replaced, what is left, what is carried over."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import mxdeconv
from mxdeconv import Deconvolution, replace_conv_transpose, restore_conv_transpose


def integers(*shape: int) -> torch.Tensor:
    return torch.randint(-2, 3, shape).float()


def with_integers(module: nn.Module) -> Any:
    for parameter in module.parameters():
        parameter.data = torch.randint(-2, 3, parameter.shape).to(parameter.dtype)
    return module


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class UNet(nn.Module):
    """Nested, with a module registered twice, two that share a weight, and an output_size."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(4, 4, 3, 3, 2, bias=False)
        self.blocks = nn.ModuleDict({"a": nn.Sequential(nn.ReLU(), self.up)})
        self.tied = nn.ConvTranspose2d(4, 4, 3, bias=False)
        self.tied.weight = self.up.weight
        self.head = nn.ModuleList([nn.ConvTranspose2d(4, 2, (2, 3), (2, 1), groups=2)])

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        data = self.up(data, output_size=(13, 13))
        return self.head[0](self.tied(self.blocks["a"](data)))


def test_a_model_and_back() -> None:
    model = with_integers(UNet())
    parameters = dict(model.named_parameters())
    data = integers(1, 4, 5, 5)
    expected = model(data)
    text = repr(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

    swapped, report = replace_conv_transpose(model)
    assert swapped is model
    assert torch.equal(model(data), expected)
    assert set(report.replaced) == {"up", "blocks.a.1", "tied", "head.0"}
    assert report.left == {}
    assert isinstance(model.up, Deconvolution)
    assert model.blocks["a"][1] is model.up
    assert model.tied.weight is model.up.weight
    after = dict(model.named_parameters())
    assert list(after) == list(parameters)
    assert all(after[name] is parameters[name] for name in parameters)
    model(data).sum().backward()
    before = model.up.weight.clone()
    optimizer.step()
    assert not torch.equal(model.up.weight, before)  # the optimizer still holds the parameters

    expected = with_integers(model)(data)
    back, report = restore_conv_transpose(model)
    assert back is model
    assert repr(model) == text
    assert set(report.replaced) == {"up", "blocks.a.1", "tied", "head.0"}
    assert torch.equal(model(data), expected)
    assert all(dict(model.named_parameters())[name] is parameters[name] for name in parameters)


def test_state_dicts_stay_interchangeable() -> None:
    model, twin = UNet(), UNet()
    replace_conv_transpose(model)
    model.load_state_dict(twin.state_dict())
    twin.load_state_dict(model.state_dict())


@pytest.mark.parametrize("kind", [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d])
def test_the_model_itself(kind: Any) -> None:
    module = kind(3, 4, 2)
    swapped, report = replace_conv_transpose(module)
    assert type(swapped) is Deconvolution
    assert swapped.weight is module.weight
    assert list(report.replaced) == [""]
    assert "(model): Deconvolution(" in str(report)
    assert type(restore_conv_transpose(swapped).model) is kind


class Subclass(nn.ConvTranspose2d):
    pass


def pruned(module: nn.Module) -> nn.Module:
    return prune.random_unstructured(module, "weight", 0.5)


def old_weight_norm(module: nn.Module) -> nn.Module:
    return nn.utils.weight_norm(module, dim=1)


def attribute(module: nn.Module) -> nn.Module:
    module.note = 1
    return module


def own_forward(module: nn.Module) -> nn.Module:
    module.forward = lambda data: data  # type: ignore[method-assign]
    return module


def buffer(module: nn.Module) -> nn.Module:
    module.register_buffer("mask", torch.ones(1))
    return module


def padding_mode(module: Any) -> nn.Module:
    module.padding_mode = "reflect"
    return module


CONV: Callable[[], nn.Module] = lambda: nn.ConvTranspose2d(4, 4, 3)  # noqa: E731
LEFT = [
    (lambda: Subclass(4, 4, 3), "Subclass is a subclass and may compute something else"),
    (lambda: nn.LazyConvTranspose2d(4, 3), "its channels are not known yet (call the model once)"),
    (lambda: nn.utils.parametrizations.weight_norm(CONV(), dim=1), "its weight is parametrized"),
    (lambda: nn.utils.parametrizations.spectral_norm(CONV()), "its weight is parametrized"),
    (lambda: nn.utils.spectral_norm(CONV()), "its weight is computed by a hook"),
    (lambda: old_weight_norm(CONV()), "its weight is computed by a hook"),
    (lambda: pruned(CONV()), "its weight is computed by a hook"),
    (lambda: attribute(CONV()), "it has attributes of its own (note)"),
    (lambda: own_forward(CONV()), "it has attributes of its own (forward)"),
    (lambda: buffer(CONV()), "it has attributes of its own (mask)"),
    (lambda: padding_mode(CONV()), "padding_mode 'reflect' has no counterpart"),
    (lambda: CONV().to(torch.complex64), "its weight is of torch.complex64"),
]


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
@pytest.mark.filterwarnings("ignore:.*Complex modules.*")
@pytest.mark.parametrize(("make", "reason"), LEFT)
def test_left_with_the_reason(make: Callable[[], nn.Module], reason: str) -> None:
    module = make()
    model = nn.Sequential(nn.ConvTranspose2d(4, 4, 3), module)
    _, report = replace_conv_transpose(model)
    assert model[1] is module
    assert type(model[0]) is Deconvolution
    assert list(report.left) == ["1"]
    assert report.left["1"].startswith(reason)
    assert f"1: left, {reason}" in str(report)
    assert str(report).startswith("replaced 1, left 1\n")


def test_what_restore_leaves() -> None:
    attributes: dict[str, Any] = {"num_filter": 4, "kernel": (3, 3)}
    model = nn.Sequential(
        Deconvolution(**attributes, layout="NHWC", in_channels=4),
        Deconvolution(**attributes, target_shape=(5, 5), in_channels=4),
        Deconvolution(**attributes),
        mxdeconv.gluon.Conv2DTranspose(4, 3, in_channels=4, activation="relu"),
        nn.utils.parametrizations.weight_norm(Deconvolution(**attributes, in_channels=4), dim=1),
        Deconvolution(**attributes, in_channels=4),
    )
    modules = list(model)
    _, report = restore_conv_transpose(model)
    assert list(report.replaced) == ["5"]
    assert all(model[i] is modules[i] for i in range(5))
    assert [reason.split(" ")[0] for reason in report.left.values()] == [
        *("layout", "target_shape", "its", "Conv2DTranspose", "its")
    ]


def test_hooks_flags_and_handles_are_carried_over() -> None:
    module = with_integers(nn.ConvTranspose2d(4, 4, 3)).eval()
    module.bias.requires_grad_(False)
    seen: list[str] = []
    handles = [
        module.register_forward_hook(lambda *_: seen.append("forward")),
        module.register_forward_pre_hook(lambda *_: seen.append("pre")),
        module.register_full_backward_hook(lambda *_: seen.append("backward")),
        module.register_forward_hook(
            lambda m, args, kwargs, out: seen.append(f"kwargs {sorted(kwargs)}"), with_kwargs=True
        ),
        module.register_state_dict_post_hook(lambda *_: seen.append("state")),
    ]
    model = nn.Sequential(module)
    for swap in (replace_conv_transpose, restore_conv_transpose):
        swap(model)
        assert model[0].training is False
        assert model[0].bias.requires_grad is False
        assert model[0].weight.requires_grad is True
        seen.clear()
        model[0](integers(1, 4, 3, 3).requires_grad_(), output_size=(5, 5)).sum().backward()
        model.state_dict()
        assert seen == ["pre", "forward", "kwargs ['output_size']", "backward", "state"]
    replace_conv_transpose(model)
    for handle in handles:
        handle.remove()
    seen.clear()
    model(integers(1, 4, 3, 3))
    assert seen == []


def test_a_swapped_model_can_be_copied_and_trained_in_lower_precision() -> None:
    model = nn.Sequential(nn.ConvTranspose2d(4, 4, 3), nn.ReLU()).to(torch.bfloat16)
    replace_conv_transpose(model)
    twin = copy.deepcopy(model)
    data = integers(1, 4, 3, 3).bfloat16()
    assert torch.equal(twin(data), model(data))
    assert twin[0].weight is not model[0].weight
    assert model[0].weight.dtype is torch.bfloat16


def test_a_model_without_any_and_what_is_no_model() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    assert str(replace_conv_transpose(model).report) == "replaced 0, left 0"
    with pytest.raises(TypeError, match=r"^model must be a torch.nn.Module, got int"):
        replace_conv_transpose(3)  # type: ignore[arg-type]
