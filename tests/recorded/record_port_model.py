"""Make and record the checkpoint of examples/port_model.py and docs/porting.md with MXNet 1.9.1.

    mxnet-env/bin/python tests/recorded/record_port_model.py    # see record_mxnet.py for mxnet-env

writes examples/data/port_model-symbol.json, port_model-0000.params and port_model.npz: a small
U-Net that marks discs in noisy pictures of 27x33 pixels. Its Deconvolution meets the skip
connection with a target_shape, for the odd size; its weights are random.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mxnet as mx
import numpy as np

ROOT = Path(__file__).parents[2]
PREFIX = ROOT / "examples" / "data" / "port_model"
SHAPE = (1, 1, 27, 33)


def block(data: mx.sym.Symbol, name: str, num_filter: int, stride: int) -> mx.sym.Symbol:
    data = mx.sym.Convolution(
        data,
        name=f"{name}_conv",
        kernel=(3, 3),
        stride=(stride, stride),
        pad=(1, 1),
        num_filter=num_filter,
        no_bias=True,
    )
    data = mx.sym.BatchNorm(data, name=f"{name}_bn", fix_gamma=False)
    return mx.sym.Activation(data, name=f"{name}_relu", act_type="relu")


def network() -> mx.sym.Symbol:
    data = mx.sym.Variable("data")
    high = block(data, "high", 4, 1)
    low = block(block(high, "down", 8, 2), "low", 8, 1)
    up = mx.sym.Deconvolution(
        low,
        name="up",
        kernel=(4, 4),
        stride=(2, 2),
        target_shape=SHAPE[2:],
        num_filter=4,
        no_bias=False,
        attr={"__lr_mult__": "2.0"},
    )
    both = mx.sym.Concat(high, up, name="skip")
    score = mx.sym.Convolution(both, name="score", kernel=(1, 1), num_filter=1)
    return mx.sym.Activation(score, name="disc", act_type="sigmoid")


def main() -> None:
    symbol = network()
    random = np.random.RandomState(0)
    shapes, _, states = symbol.infer_shape(data=SHAPE)
    arg = {}
    for name, shape in zip(symbol.list_arguments(), shapes):  # noqa: B905
        scale = 0.3 if name.endswith("weight") else 0.1
        values = scale * random.standard_normal(shape) + name.endswith("gamma")
        arg[name] = mx.nd.array(values)
    del arg["data"]
    aux = {
        name: mx.nd.array(random.uniform(0.5, 1.5, shape))
        for name, shape in zip(symbol.list_auxiliary_states(), states)  # noqa: B905
    }
    mx.model.save_checkpoint(str(PREFIX), 0, symbol, arg, aux)
    recorder = ROOT / "mxdeconv" / "porting" / "record_mxnet.py"
    shape = ",".join(map(str, SHAPE))
    options = ["--shape", f"data={shape}", "--nodes", "--gradients", "-o", f"{PREFIX}.npz"]
    subprocess.run([sys.executable, str(recorder), str(PREFIX), *options], check=True)


if __name__ == "__main__":
    main()
