"""mxdeconv.Deconvolution: parameters, deferred channels, conversion, torch.compile.

Integer-valued parameters and data: equality is to the last bit.
"""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import prune

from mxdeconv import Deconvolution, deconvolution

CONV_TRANSPOSE = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
ATTRIBUTES: dict[str, Any] = {
    "num_filter": 6,
    "kernel": (3, 4),
    "stride": (2, 3),
    "dilate": (1, 2),
    "pad": (1, 2),
    "adj": (1, 0),
    "num_group": 2,
    "no_bias": False,
}


def torch_module(**more: Any) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(4, 6, (3, 4), (2, 3), (1, 2), (1, 0), 2, True, (1, 2), **more)


def integers(*shape: int) -> torch.Tensor:
    return torch.randint(-3, 4, shape).float()


def with_integers(module: nn.Module) -> Any:
    for parameter in module.parameters():
        parameter.data = torch.randint(-3, 4, parameter.shape).to(parameter.dtype)
    return module


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()


# Parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
def test_same_seed_same_parameters_as_conv_transpose(
    rank: int, groups: int, bias: bool, channels_last: bool
) -> None:
    kernel = (3, 2, 5)[:rank]
    layouts = ("NWC", "NHWC", "NDHWC") if channels_last else ("NCW", "NCHW", "NCDHW")
    torch.manual_seed(5)
    expected = CONV_TRANSPOSE[rank - 1](4, 6, kernel, groups=groups, bias=bias).state_dict()
    after = torch.get_rng_state()
    for in_channels in (4, 0):
        torch.manual_seed(5)
        module = Deconvolution(
            num_filter=6,
            kernel=kernel,
            num_group=groups,
            no_bias=not bias,
            layout=layouts[rank - 1],
            in_channels=in_channels,
        )
        shape = (1, *(2,) * rank, 4) if channels_last else (1, 4, *(2,) * rank)
        module(torch.ones(shape))
        got = module.state_dict()
        assert list(got) == list(expected)
        weight = got["weight"].movedim(-1, 1) if channels_last else got["weight"]
        assert torch.equal(weight, expected["weight"])
        assert weight.shape == expected["weight"].shape
        assert not bias or torch.equal(got["bias"], expected["bias"])
        assert torch.equal(torch.get_rng_state(), after)


def test_state_dict_goes_both_ways() -> None:
    ours, theirs = Deconvolution(**ATTRIBUTES, in_channels=4), torch_module()
    ours.load_state_dict(theirs.state_dict())
    assert torch.equal(ours.weight, theirs.weight)
    with_integers(ours)
    theirs.load_state_dict(ours.state_dict())
    data = integers(2, 4, 5, 6)
    assert torch.equal(ours(data), theirs(data))


def test_device_and_dtype() -> None:
    module = Deconvolution(**ATTRIBUTES, in_channels=4, device="meta", dtype=torch.float64)
    assert {(p.device.type, p.dtype) for p in module.parameters()} == {("meta", torch.float64)}
    assert module(torch.empty(1, 4, 5, 6, device="meta", dtype=torch.float64)).is_meta
    deferred = Deconvolution(**ATTRIBUTES, dtype=torch.float64).to(torch.bfloat16)
    assert deferred(integers(1, 4, 5, 6).bfloat16()).dtype is torch.bfloat16
    assert deferred.weight.dtype is torch.bfloat16


def test_channels_last_memory_format() -> None:
    module = with_integers(Deconvolution(**ATTRIBUTES, in_channels=4))
    data = integers(2, 4, 5, 6)
    expected = module(data)
    module = module.to(memory_format=torch.channels_last)
    out = module(data)
    assert torch.equal(out, expected)
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_attributes_can_be_read_and_not_set() -> None:
    module = Deconvolution(**ATTRIBUTES, in_channels=4)
    for name, value in module.attributes._asdict().items():
        assert getattr(module, name) == value
        with pytest.raises(AttributeError):
            setattr(module, name, value)
    assert module.stride == (2, 3)


def test_parameters_are_keyword_only() -> None:
    with pytest.raises(TypeError):
        Deconvolution(6, (3, 4))


def test_repr() -> None:
    assert repr(Deconvolution(**ATTRIBUTES, in_channels=4, name="up")) == (
        "Deconvolution(name='up', in_channels=4, num_filter=6, kernel=(3, 4), stride=(2, 3), "
        "dilate=(1, 2), pad=(1, 2), adj=(1, 0), num_group=2, no_bias=False)"
    )
    assert repr(Deconvolution(num_filter=6, kernel=3, layout="NWC", target_shape=9)) == (
        "Deconvolution(in_channels=0, num_filter=6, kernel=(3,), target_shape=(9,), layout='NWC')"
    )


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"in_channels": 3}, ValueError, "num_group must divide in_channels, 3, got 2"),
        ({"in_channels": -1}, ValueError, "in_channels must be at least 0, got -1"),
        ({"in_channels": 2.0}, TypeError, "in_channels must be an int, got 2.0"),
        ({"in_channels": True}, TypeError, "in_channels must be an int, got True"),
        (
            *({"dtype": torch.int8}, TypeError),
            "dtype must be float32, float64, float16 or bfloat16, got torch.int8",
        ),
        (
            *({"channels": 4}, TypeError),
            "unknown argument 'channels'; valid are kernel, stride, dilate, pad, adj, "
            "target_shape, num_filter, num_group, workspace, no_bias, cudnn_tune, cudnn_off, "
            "layout, in_channels, name, device, dtype",
        ),
    ],
)
def test_constructor_errors(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    for name, prefix in ((None, ""), ("up", "up: ")):
        with pytest.raises(error) as caught:
            Deconvolution(**{**ATTRIBUTES, **arguments, "name": name})
        assert str(caught.value) == prefix + text


# Deferred channels ------------------------------------------------------------------------------


def deferred(**more: Any) -> Deconvolution:
    return Deconvolution(**{**ATTRIBUTES, **more})


def test_deferred_is_a_lazy_module_and_stays_what_it_is() -> None:
    module = deferred()
    assert isinstance(module, LazyModuleMixin)
    assert module.has_uninitialized_params()
    assert module.in_channels == 0
    assert list(module.state_dict()) == ["weight", "bias"]
    assert all(type(p) is UninitializedParameter for p in module.state_dict().values())
    module(integers(1, 4, 5, 6))
    assert type(module) is Deconvolution
    assert module.in_channels == 4
    assert not module.has_uninitialized_params()
    assert all(type(p) is nn.Parameter for p in module.parameters())
    assert not module._forward_pre_hooks  # nothing stays behind in the way of a call
    assert list(module.state_dict()) == ["weight", "bias"]
    with pytest.raises(ValueError, match=r"^weight must have shape \(6, 3, 3, 4\), got \(4, 3, "):
        module(integers(1, 6, 5, 6))


@pytest.mark.parametrize(
    "copied",
    [
        copy.deepcopy,
        lambda module: pickle.loads(pickle.dumps(module)),
        lambda module: torch.load(saved(module), weights_only=False),
    ],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_copies(copied: Any, when: str) -> None:
    module = deferred()
    data = integers(2, 4, 5, 6)
    if when == "after":
        module(data)
    twin = copied(module)
    assert type(twin) is Deconvolution
    for each in (module, twin):
        torch.manual_seed(9)
        each(data)
    if when == "before":
        torch.manual_seed(9)
        expected = torch_module().state_dict()
        for each in (module, twin):
            assert all(torch.equal(each.state_dict()[key], expected[key]) for key in expected)
    assert twin.weight is not module.weight
    assert torch.equal(twin.weight, module.weight)
    assert torch.equal(twin(data), module(data))


def saved(module: nn.Module) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return file


def test_loading_initializes() -> None:
    source = with_integers(torch_module())
    module = deferred()
    module.load_state_dict(source.state_dict())
    assert module.in_channels == 4
    data = integers(2, 4, 5, 6)
    assert torch.equal(module(data), source(data))
    assert not module._forward_pre_hooks


def test_loading_a_deferred_state_leaves_deferred() -> None:
    module = deferred()
    module.load_state_dict(deferred().state_dict())
    assert module.has_uninitialized_params()
    module(integers(1, 4, 5, 6))


def test_loading_part_of_the_state() -> None:
    source = with_integers(torch_module())
    module = deferred()
    module.load_state_dict({"weight": source.weight.detach()}, strict=False)
    module(integers(1, 4, 5, 6))
    assert torch.equal(module.weight, source.weight)
    assert module.bias.shape == (6,)


@pytest.mark.parametrize("shape", [(4, 5, 3, 4), (4, 3, 3, 3), (3, 3, 3, 4), (0, 3, 3, 4), (4, 3)])
def test_loading_a_weight_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    module = deferred()
    with pytest.raises(RuntimeError, match=r"weight must have shape \(\d+, 3, 3, 4\), got ") as e:
        module.load_state_dict({"weight": torch.zeros(shape), "bias": torch.zeros(6)})
    assert str(shape) in str(e.value)
    assert isinstance(module.weight, UninitializedParameter)
    assert module.in_channels == 0


@pytest.mark.parametrize(
    ("data", "arguments", "text"),
    [
        (torch.zeros(1, 3, 5, 6), {}, "num_group must divide the channels of data, 3, got 2"),
        (torch.zeros(1, 0, 5, 6), {}, "data must have at least 1 channel, got shape (1, 0, 5, 6)"),
        (torch.zeros(1, 4, 5), {}, "data must have 4 dimensions (batch, channels, 2 spatial axes"),
        (torch.zeros(1, 4, 5, 0), {}, "data must have a spatial size of at least 1 on every axis"),
        (torch.zeros(1, 4, 5, 6).int(), {}, "data must be a dense tensor of dtype float32, float"),
        (torch.zeros(1, 4, 5, 6).double(), {}, "weight must have the dtype of data, float64, got"),
        (torch.zeros(1, 4, 5, 6), {"target_shape": (99, 99)}, "target_shape must be at most the "),
        ("x", {}, "data must be a torch.Tensor, got 'x'"),
    ],
)
def test_a_bad_first_call_fixes_nothing(data: Any, arguments: dict[str, Any], text: str) -> None:
    for name, prefix in ((None, ""), ("up", "up: ")):
        module = deferred(name=name)
        state = torch.get_rng_state()
        with pytest.raises((TypeError, ValueError)) as caught:
            module(data, **arguments)
        assert str(caught.value).startswith(prefix + text)
        assert module.has_uninitialized_params()
        assert module.in_channels == 0
        assert torch.equal(torch.get_rng_state(), state)
        module(torch.zeros(1, 4, 5, 6))


def test_first_call_under_autocast() -> None:
    module = deferred()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert module(integers(1, 4, 5, 6).half()).dtype is torch.bfloat16
    assert module.weight.dtype is torch.float32


# Sizes of a call ----------------------------------------------------------------------------------


def test_target_shape_of_a_call_goes_before_the_stored_one() -> None:
    module = with_integers(
        Deconvolution(num_filter=3, kernel=(4, 4), stride=(2, 2), target_shape=(10, 10),
                      pad=(1, 0), in_channels=4)
    )  # fmt: skip
    data = integers(2, 4, 5, 5)

    def expected(**size: Any) -> torch.Tensor:
        return deconvolution(
            data, module.weight, kernel=(4, 4), stride=(2, 2), num_filter=3, **size
        )

    assert torch.equal(module(data), expected(target_shape=(10, 10)))
    for size in ((9, 8), "(9, 8)", [9, 8], torch.Size((9, 8))):
        assert torch.equal(module(data, target_shape=size), expected(target_shape=(9, 8)))
        assert torch.equal(module(data, size), expected(target_shape=(9, 8)))
    assert torch.equal(module(data, target_shape=(0, 0)), expected(pad=(1, 0)))
    assert torch.equal(module(data), expected(target_shape=(10, 10)))
    with pytest.raises(ValueError, match=r"^target_shape must have 2 values"):
        module(data, target_shape=(9,))


@pytest.mark.parametrize("size", [(11, 16), (12, 17), (13, 18)])
def test_output_size_is_that_of_conv_transpose(size: tuple[int, int]) -> None:
    theirs = with_integers(nn.ConvTranspose2d(4, 6, 3, 3, 2, bias=False))
    ours = Deconvolution.from_torch(theirs)
    data = integers(2, 4, 5, 7)
    try:
        expected = theirs(data, output_size=size)
    except ValueError:
        with pytest.raises(ValueError, match=r"^output_size must be between "):
            ours(data, output_size=size)
    else:
        assert torch.equal(ours(data, output_size=size), expected)
        assert torch.equal(ours(data, output_size=[2, 6, *size]), expected)
    with pytest.raises(ValueError, match=r"^target_shape must be None when output_size is given"):
        ours(data, target_shape=size, output_size=size)


# Compile ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("lazy", [False, True])
def test_compiled_with_dynamic_shapes(layout: str, lazy: bool) -> None:
    module = Deconvolution(**ATTRIBUTES, layout=layout, in_channels=0 if lazy else 4)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True, dynamic=True)
    if lazy:
        compiled(integers(2, 4, 5, 6) if layout == "NCHW" else integers(2, 5, 6, 4))
    with_integers(module)
    for n, h, w in ((2, 5, 6), (3, 8, 4), (4, 9, 7)):
        data = integers(n, 4, h, w) if layout == "NCHW" else integers(n, h, w, 4)
        expected = module(data)
        got = compiled(data)
        assert torch.equal(got, expected)
        parameters = list(module.parameters())
        grads = [torch.autograd.grad(o.square().sum(), parameters) for o in (got, expected)]
        assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_compiled_with_the_target_of_a_skip_connection() -> None:
    module = with_integers(Deconvolution(num_filter=3, kernel=(4, 4), stride=(2, 2), in_channels=4))

    @torch.compile(backend="aot_eager", fullgraph=True, dynamic=True)
    def up(data: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return torch.cat([module(data, target_shape=skip.shape[2:]), skip], 1)

    for size, target in (((5, 6), (10, 11)), ((4, 8), (9, 16))):
        data, skip = integers(2, 4, *size), integers(2, 1, *target)
        assert torch.equal(up(data, skip)[:, :3], module(data, target_shape=target))


# Conversion ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_from_torch_and_back(rank: int) -> None:
    theirs = with_integers(
        CONV_TRANSPOSE[rank - 1](4, 6, 3, 2, 1, 1, groups=2, bias=rank != 2, dilation=2)
    ).eval()
    theirs.weight.requires_grad_(False)
    ours = Deconvolution.from_torch(theirs)
    assert ours.weight is theirs.weight
    assert ours.bias is theirs.bias
    assert ours.training is False
    data = integers(2, 4, *(5, 6, 4)[:rank])
    assert torch.equal(ours(data), theirs(data))
    again = ours.to_torch()
    assert repr(again) == repr(theirs)
    assert again.weight is theirs.weight
    assert again.training is False
    assert torch.equal(again(data), theirs(data))


def test_to_torch_resolves_target_shape_for_one_size() -> None:
    module = with_integers(
        Deconvolution(num_filter=3, kernel=(4, 3), stride=(2, 3), target_shape=(9, 15),
                      in_channels=4)
    )  # fmt: skip
    data = integers(2, 4, 5, 6)
    theirs = module.to_torch(input_size=(5, 6))
    assert theirs.weight is module.weight
    assert torch.equal(theirs(data), module(data))
    with pytest.raises(ValueError, match=r"^input_size must be given to resolve target_shape "):
        module.to_torch()
    for size in ((5,), (0, 5), (), (5, 6, 7), "x"):
        with pytest.raises(ValueError, match=r"^input_size must "):
            module.to_torch(input_size=size)


def test_to_torch_of_a_channels_last_layout_copies_the_weight() -> None:
    module = with_integers(Deconvolution(**ATTRIBUTES, layout="NHWC", in_channels=4))
    theirs = module.to_torch()
    data = integers(2, 4, 5, 6)
    assert torch.equal(theirs(data), module(data.movedim(1, -1)).movedim(-1, 1))
    assert theirs.bias is module.bias


@pytest.mark.parametrize(
    "module", [nn.Conv2d(4, 4, 3), nn.LazyConvTranspose2d(4, 3), "x", nn.Linear(2, 2)]
)
def test_from_torch_refuses(module: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^module must "):
        Deconvolution.from_torch(module)


def test_to_torch_refuses_a_deferred_module() -> None:
    with pytest.raises(ValueError, match=r"^module must own an initialized Parameter 'weight'"):
        deferred().to_torch()


def test_from_attrs() -> None:
    attrs = {
        "adj": "(1, 0)",
        "dilate": "(1, 2)",
        "kernel": "(3L, 4L)",
        "layout": "NCHW",
        "no_bias": "False",
        "num_filter": "6",
        "num_group": "2",
        "pad": "(1, 2)",
        "stride": "(2, 3)",
        "__lr_mult__": "1.0",
        "__init__": '["bilinear", {}]',
    }
    module = Deconvolution.from_attrs(attrs, in_channels=4, name="up")
    assert module.attributes == Deconvolution(**ATTRIBUTES).attributes
    assert (module.in_channels, module.name) == (4, "up")
    del attrs["no_bias"]
    assert Deconvolution.from_attrs(attrs).attributes.no_bias is True
    with pytest.raises(TypeError, match=r"^up: unknown argument 'channels'; valid are kernel, str"):
        Deconvolution.from_attrs({**attrs, "channels": "3"}, name="up")
    for bad in (None, "kernel", {1: "(3, 4)"}):
        with pytest.raises(TypeError, match=r"^up: (attrs must be a mapping|unknown argument 1;)"):
            Deconvolution.from_attrs(bad, name="up")
    with pytest.raises(ValueError, match=r"^up: kernel must be a tuple of ints"):
        Deconvolution.from_attrs({**attrs, "kernel": "3,4"}, name="up")


# With torch's own tools ---------------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["weight_norm", "spectral_norm", "pruning"])
def test_reparametrizations(tool: str) -> None:
    torch.manual_seed(2)
    ours, theirs = Deconvolution(**ATTRIBUTES, in_channels=4), torch_module()
    theirs.load_state_dict(ours.state_dict())
    for module in (ours, theirs):
        torch.manual_seed(3)
        if tool == "weight_norm":
            nn.utils.parametrizations.weight_norm(module, dim=1)
        elif tool == "spectral_norm":
            nn.utils.parametrizations.spectral_norm(module, dim=1)
        else:
            prune.l1_unstructured(module, "weight", 0.5)
    assert torch.equal(ours.weight, theirs.weight)
    ours.eval()  # the power iteration of spectral_norm runs at every access while training
    data = integers(2, 4, 5, 6)
    out = ours(data)
    assert torch.equal(out, deconvolution(data, ours.weight, ours.bias, **ATTRIBUTES))
    out.sum().backward()
    assert all(p.grad is not None for p in ours.parameters())


def test_functional_call_ensembles_and_per_sample_gradients() -> None:
    modules = [with_integers(Deconvolution(**ATTRIBUTES, in_channels=4)) for _ in range(3)]
    parameters, _ = torch.func.stack_module_state(modules)
    data = integers(5, 4, 4, 5)

    def call(parameters: Any, data: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(modules[0], parameters, (data,))

    outs = torch.func.vmap(call, (0, None))(parameters, data)
    for module, out in zip(modules, outs, strict=True):
        assert torch.equal(out, module(data))
    one = {name: p.detach() for name, p in modules[0].named_parameters()}
    loss = torch.func.grad(lambda p, sample: call(p, sample[None]).square().sum())
    grads = torch.func.vmap(loss, (None, 0))(one, data)
    for i, sample in enumerate(data):
        out = modules[0](sample[None]).square().sum()
        expected = torch.autograd.grad(out, list(modules[0].parameters()))
        assert torch.equal(grads["weight"][i], expected[0])
        assert torch.equal(grads["bias"][i], expected[1])


def test_data_parallel_replicas_are_allowed_once_initialized() -> None:
    module = deferred()
    with pytest.raises(RuntimeError, match="uninitialized"):
        module._replicate_for_data_parallel()
    module(integers(1, 4, 5, 6))
    assert module._replicate_for_data_parallel() is not module
