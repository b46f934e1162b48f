"""What MXNet's front ends do around the operator: Gluon, initialisers, UpSampling, one symbol.

Run by ``record_mxnet.py``, in a process with MXNet's native path: UpSampling has no other, and the
recorded layer has a target_shape without the pad that oneDNN would need.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np

# ---- Gluon and shape inference ---------------------------------------------------------------

GLUON_CALLS: list[tuple[str, dict[str, Any]]] = [
    ("Conv1DTranspose", {"channels": 4, "kernel_size": 3}),
    ("Conv1DTranspose", {"channels": 4, "kernel_size": (3,), "in_channels": 6, "strides": 2}),
    ("Conv2DTranspose", {"channels": 4, "kernel_size": 3}),
    ("Conv2DTranspose", {"channels": 4, "kernel_size": (3, 2), "in_channels": 6, "groups": 2}),
    ("Conv2DTranspose", {"channels": 4, "kernel_size": 3, "in_channels": 6, "use_bias": False}),
    (
        "Conv2DTranspose",
        {
            "channels": 4,
            "kernel_size": (3, 3),
            "strides": (2, 2),
            "padding": (1, 1),
            "output_padding": (1, 1),
            "dilation": (2, 2),
            "groups": 2,
            "in_channels": 6,
            "activation": "relu",
            "use_bias": False,
        },
    ),
    (
        "Conv2DTranspose",
        {"channels": 4, "kernel_size": 3, "strides": 3, "padding": 1, "output_padding": 2},
    ),
    ("Conv2DTranspose", {"channels": 4, "kernel_size": (3, 2), "layout": "NHWC"}),
    (
        "Conv2DTranspose",
        {"channels": 4, "kernel_size": (3, 2), "layout": "NHWC", "in_channels": 6, "groups": 2},
    ),
    ("Conv3DTranspose", {"channels": 4, "kernel_size": 3}),
    ("Conv3DTranspose", {"channels": 4, "kernel_size": (3, 2, 1), "in_channels": 6, "strides": 2}),
    (
        "Conv3DTranspose",
        {"channels": 4, "kernel_size": (3, 2, 1), "layout": "NDHWC", "in_channels": 6},
    ),
]


def _record_gluon() -> dict[str, Any]:
    signatures = {}
    for name in ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"):
        parameters = inspect.signature(getattr(mx.gluon.nn, name).__init__).parameters
        signatures[name] = {
            parameter.name: None
            if parameter.default is inspect.Parameter.empty
            else repr(parameter.default)
            for parameter in parameters.values()
            if parameter.name != "self"
        }
    layers = []
    for name, arguments in GLUON_CALLS:
        layer = getattr(mx.gluon.nn, name)(**arguments)
        layers.append(
            {
                "layer": name,
                "arguments": arguments,
                "attributes": dict(layer._kwargs),
                "weight_shape": layer.weight.shape,
                "bias_shape": layer.bias.shape if layer.bias is not None else None,
                "repr": repr(layer),
            }
        )
    return {"signatures": signatures, "layers": layers}


# layout, data shape, attributes
INFERENCES: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("NCW", (2, 6, 5), {"kernel": (3,), "stride": (2,), "adj": (1,)}),
    ("NCHW", (2, 6, 5, 4), {"kernel": (3, 2), "stride": (2, 3), "pad": (1, 0), "adj": (1, 2)}),
    ("NHWC", (2, 5, 4, 6), {"kernel": (3, 2), "stride": (2, 3), "pad": (1, 0), "adj": (1, 2)}),
    ("NHWC", (2, 5, 4, 6), {"kernel": (3, 2), "stride": (2, 3), "target_shape": (10, 9)}),
    ("NHWC", (2, 5, 4, 6), {"kernel": (3, 2), "dilate": (2, 3), "num_group": 2}),
    ("NCDHW", (2, 6, 3, 5, 4), {"kernel": (3, 2, 1), "stride": (2, 1, 3), "adj": (1, 0, 2)}),
    ("NDHWC", (2, 3, 5, 4, 6), {"kernel": (3, 2, 1), "stride": (2, 1, 3), "adj": (1, 0, 2)}),
    ("NDHWC", (2, 3, 5, 4, 6), {"kernel": (3, 2, 1), "stride": (2, 1, 1), "num_group": 2}),
]


def _record_inferences() -> list[dict[str, Any]]:
    recorded = []
    for layout, data_shape, attributes in INFERENCES:
        symbol = mx.sym.Deconvolution(
            mx.sym.Variable("data"), num_filter=4, no_bias=False, layout=layout, **attributes
        )
        (_, weight_shape, bias_shape), (out_shape,), _ = symbol.infer_shape(data=data_shape)
        recorded.append(
            {
                "arguments": {**attributes, "num_filter": 4, "no_bias": False, "layout": layout},
                "data_shape": data_shape,
                "weight_shape": weight_shape,
                "bias_shape": bias_shape,
                "out_shape": out_shape,
            }
        )
    return recorded


# ---- initialisers ----------------------------------------------------------------------------

INITIALISERS: list[tuple[str, dict[str, Any]]] = [
    ("Uniform", {}),
    ("Uniform", {"scale": 0.5}),
    ("Normal", {}),
    ("Normal", {"sigma": 0.25}),
    ("Xavier", {}),
    ("Xavier", {"factor_type": "in", "magnitude": 2.34}),
    ("Xavier", {"factor_type": "out"}),
    ("Xavier", {"rnd_type": "gaussian"}),
    ("Xavier", {"rnd_type": "gaussian", "factor_type": "in", "magnitude": 2}),
    ("Xavier", {"rnd_type": "gaussian", "factor_type": "out", "magnitude": 0.5}),
    ("MSRAPrelu", {}),
    ("MSRAPrelu", {"factor_type": "in"}),
    ("MSRAPrelu", {"factor_type": "out", "slope": 0.0}),
]
WEIGHT_SHAPES = [(6, 4), (6, 4, 3), (6, 4, 3, 2), (6, 3, 2, 4), (6, 4, 3, 2, 5)]
BILINEAR_SHAPES = [
    *((1, 1, size, size) for size in (1, 2, 3, 4, 5, 6, 7, 8, 16)),
    (2, 3, 4, 4),
    (3, 1, 3, 3),
    (1, 1, 4, 2),
    (1, 1, 2, 4),
    (1, 2, 5, 3),
    (2, 3, 4, 1),
    (2, 4, 4, 1),
    (1, 1, 4, 4, 4),
    (1, 2, 3, 2, 4),
]


def _initialise(initialiser: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = mx.nd.zeros(shape)
    initialiser(mx.init.InitDesc("weight"), array)
    return array.asnumpy()


def _record_initialisers() -> list[dict[str, Any]]:
    """The arguments with which each initialiser calls MXNet's random generator."""
    recorded: list[dict[str, Any]] = []
    drawn: list[tuple[str, float, float]] = []
    module = mx.initializer.random
    originals = {"uniform": module.uniform, "normal": module.normal}
    try:
        for name in originals:
            setattr(
                module,
                name,
                lambda first, second, *_, _name=name, **__: drawn.append((_name, first, second)),
            )
        for name, arguments in INITIALISERS:
            for shape in WEIGHT_SHAPES:
                _initialise(getattr(mx.init, name)(**arguments), shape)
                distribution, first, second = drawn.pop()
                recorded.append(
                    {
                        "initialiser": name,
                        "arguments": arguments,
                        "shape": shape,
                        "distribution": distribution,  # uniform (low, high), normal (mean, std)
                        "parameters": [float(first), float(second)],
                    }
                )
    finally:
        for name, original in originals.items():
            setattr(module, name, original)
    return recorded


def _record_bilinear() -> list[dict[str, Any]]:
    return [
        {"shape": shape, "values": _initialise(mx.init.Bilinear(), shape).ravel().tolist()}
        for shape in BILINEAR_SHAPES
    ]


def record_front_ends() -> dict[str, Any]:
    """Everything about shapes, defaults and initialisation, ready for JSON."""
    return {
        "gluon": _record_gluon(),
        "inference": _record_inferences(),
        "initialisers": _record_initialisers(),
        "bilinear": _record_bilinear(),
    }


# ---- UpSampling ------------------------------------------------------------------------------


def record_upsampling() -> dict[str, np.ndarray]:
    """UpSampling(sample_type="bilinear") on integers, keyed "<scale> <name>"; float32.

    The weight is integer too, because MXNet lets it be anything: every sum is then exact.
    """
    rng = np.random.RandomState(2)
    recorded = {}
    for scale in (1, 2, 3, 4, 5, 8):
        kernel = 2 * scale - scale % 2
        operands = {
            "data": rng.randint(-9, 10, (2, 3, 3, 4)),
            "weight": rng.randint(-9, 10, (3, 1, kernel, kernel)),
            "out_grad": rng.randint(-9, 10, (2, 3, 3 * scale, 4 * scale)),
        }
        data, weight, out_grad = (
            mx.nd.array(value, dtype="float32") for value in operands.values()
        )
        data.attach_grad()
        weight.attach_grad()
        with mx.autograd.record():
            out = mx.nd.UpSampling(
                data, weight, scale=scale, sample_type="bilinear", num_filter=3, num_args=2
            )
        out.backward(out_grad)
        results = {"out": out, "data_grad": data.grad, "weight_grad": weight.grad}
        for name, value in {**operands, **results}.items():
            array = value.asnumpy() if isinstance(value, mx.nd.NDArray) else value
            recorded[f"{scale} {name}"] = array.astype(np.int32)
    return recorded


# ---- one layer for the example ---------------------------------------------------------------


def record_layer(folder: Path) -> dict[str, np.ndarray]:
    """Write ``mxnet_layer-symbol.json`` and return its parameters, input, output and gradients.

    A learned enlargement as a decoder has it: grouped, with bias, cropped to the 14x17 of a skip
    connection, so that one axis has an even and the other an odd excess.
    """
    symbol = mx.sym.Deconvolution(
        mx.sym.Variable("data"),
        name="up",
        kernel=(4, 4),
        stride=(2, 2),
        target_shape=(14, 17),
        num_filter=6,
        num_group=2,
        no_bias=False,
        workspace=256,
        cudnn_tune="limited_workspace",
        layout="NCHW",
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mxnet_layer-symbol.json").write_text(symbol.tojson() + "\n")
    rng = np.random.RandomState(9)
    shapes, (out_shape,), _ = symbol.infer_shape(data=(2, 8, 7, 9))
    names = symbol.list_arguments()
    recorded = {
        name: rng.standard_normal(shape).astype(np.float32)
        for name, shape in zip(names, shapes, strict=True)
    }
    executor = symbol.bind(
        mx.cpu(),
        args={name: mx.nd.array(value) for name, value in recorded.items()},
        args_grad={name: mx.nd.zeros(value.shape) for name, value in recorded.items()},
    )
    recorded["up_output"] = executor.forward(is_train=True)[0].asnumpy()
    recorded["up_output_grad"] = rng.standard_normal(out_shape).astype(np.float32)
    executor.backward(mx.nd.array(recorded["up_output_grad"]))
    for name in names:
        recorded[f"{name}_grad"] = executor.grad_dict[name].asnumpy()
    return recorded


def dump_json(value: Any, indent: str = "") -> str:
    """JSON with a line for every entry of every list of objects, so that changes can be read."""
    inner = indent + "  "
    if isinstance(value, dict) and all(isinstance(item, dict | list) for item in value.values()):
        items = [f"{json.dumps(key)}: {dump_json(item, inner)}" for key, item in value.items()]
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        items = [json.dumps(item) for item in value]
    else:
        return json.dumps(value)
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    lines = ",\n".join(inner + item for item in items)
    return f"{opening}\n{lines}\n{indent}{closing}"
