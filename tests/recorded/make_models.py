# ruff: noqa: B905 MXNet's environment may be an old Python
"""Record what MXNet 1.9.1 computes for whole models with Deconvolution.

    python3 -m venv gluoncv-env
    gluoncv-env/bin/pip install mxnet==1.9.1 numpy==1.23.5 gluoncv==0.10.5
    gluoncv-env/bin/python tests/recorded/make_models.py

writes tests/recorded/models/NAME.npz for each of ``mxnet_models``, at reduced width where it can
have one, on small data. Parameters and data are not stored: ``model_values`` draws them anew. A
file has

    symbol          the text of symbol.json, as bytes
    about           a JSON text: where the model comes from, shapes of its inputs and parameters
    output:N        the outputs in prediction mode
    node:NAME       the output of every operator, for one model
    train_output:N, grad:NAME, train_aux:NAME
                    one step in training mode; of large models the gradients of vectors only

With ``--full FOLDER`` it writes the models at full size instead, NAME-symbol.json,
NAME-0000.params and NAME-recorded.npz, for `mxdeconv verify FOLDER/NAME --against
FOLDER/NAME-recorded.npz`. Names of models may follow; all are made otherwise.

Everything runs on MXNet's native path, but for the three-dimensional model, which has no other
than oneDNN.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from model_values import draw_head_gradient, draw_input, draw_parameter

HERE = Path(__file__).parent
MODELS_FOLDER = HERE / "models"
#: Gradients of larger parameters are left out, so that files stay small.
LARGEST_GRADIENT = 5000


def prepare(name: str, full: bool) -> tuple[Any, Any, dict[str, Any], dict[str, Any]]:
    """The model, its symbol, and its arguments and auxiliary states by name."""
    import mxnet as mx
    from mxnet_models import MODELS

    model = MODELS[name]
    symbol = model.build(model.full_width if full else model.width)
    shapes = model.full_shapes if full else model.shapes
    argument_shapes, _, auxiliary_shapes = symbol.infer_shape(**shapes)
    arguments = {
        key: mx.nd.array(
            draw_input(key, shape, model.labels) if key in shapes else draw_parameter(key, shape)
        )
        for key, shape in zip(symbol.list_arguments(), argument_shapes)
    }
    auxiliary = {
        key: mx.nd.array(draw_parameter(key, shape))
        for key, shape in zip(symbol.list_auxiliary_states(), auxiliary_shapes)
    }
    return model, symbol, arguments, auxiliary


def record(name: str) -> None:
    import mxnet as mx

    model, symbol, arguments, auxiliary = prepare(name, full=False)
    about = {
        "source": model.source,
        "labels": model.labels,
        "inputs": {key: list(shape) for key, shape in model.shapes.items()},
        "parameters": {
            key: list(array.shape)
            for key, array in {**arguments, **auxiliary}.items()
            if key not in model.shapes
        },
    }
    text = json.dumps(json.loads(symbol.tojson()), separators=(",", ":"))
    if name == "old_json":
        from mxnet_models import old_json

        text = old_json(model.width)
    results = {
        "symbol": np.frombuffer(text.encode(), np.uint8),
        "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
    }

    def bind(bound: Any, gradients: dict[str, Any] | None = None) -> Any:
        states = {key: array.copy() for key, array in auxiliary.items()}
        given = {key: arguments[key] for key in bound.list_arguments()}
        request = "null" if gradients is None else "write"
        return bound.bind(mx.cpu(), given, gradients, request, states)

    for number, output in enumerate(bind(symbol).forward(is_train=False)):
        results[f"output:{number}"] = output.asnumpy()
    if model.nodes:
        internals = symbol.get_internals()
        variables = {*symbol.list_arguments(), *symbol.list_auxiliary_states()}
        names = [each for each in internals.list_outputs() if each not in variables]
        group = mx.sym.Group([internals[each] for each in names])
        for each, output in zip(names, bind(group).forward(is_train=False)):
            results[f"node:{each}"] = output.asnumpy()
    if model.gradients:
        gradients = {key: mx.nd.zeros_like(array) for key, array in arguments.items()}
        executor = bind(symbol, gradients)
        outputs = executor.forward(is_train=True)
        executor.backward(
            [mx.nd.array(draw_head_gradient(n, each.shape)) for n, each in enumerate(outputs)]
        )
        for number, output in enumerate(outputs):
            results[f"train_output:{number}"] = output.asnumpy()
        for key, array in gradients.items():
            if model.wrong_gradients and key.endswith(model.wrong_gradients):
                continue
            if array.size <= LARGEST_GRADIENT and not key.endswith("label"):
                results[f"grad:{key}"] = array.asnumpy()
        for key, array in executor.aux_dict.items():
            results[f"train_aux:{key}"] = array.asnumpy()
    MODELS_FOLDER.mkdir(exist_ok=True)
    write_archive(MODELS_FOLDER / f"{name}.npz", results)
    print(f"{name}: {len(results)} arrays, {(MODELS_FOLDER / f'{name}.npz').stat().st_size} bytes")


def write_archive(file: Path, arrays: dict[str, np.ndarray]) -> None:
    """A compressed .npz that does not change when the same arrays are written again."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy")  # has a fixed date
            archive.writestr(entry, content.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)


def record_full(name: str, folder: Path) -> None:
    """A checkpoint at full size and what MXNet computes of it, by mxdeconv's own recorder."""
    import mxnet as mx

    sys.path.insert(0, str(HERE.parents[1] / "mxdeconv" / "porting"))
    import record_mxnet

    model, symbol, arguments, auxiliary = prepare(name, full=True)
    parameters = {key: array for key, array in arguments.items() if key not in model.full_shapes}
    folder.mkdir(parents=True, exist_ok=True)
    symbol.save(str(folder / f"{name}-symbol.json"))
    stored = {f"arg:{key}": array for key, array in parameters.items()}
    stored.update({f"aux:{key}": array for key, array in auxiliary.items()})
    mx.nd.save(str(folder / f"{name}-0000.params"), stored)
    inputs = {key: arguments[key].asnumpy() for key in model.full_shapes}
    results = record_mxnet.record(symbol, parameters, auxiliary, inputs)
    np.savez(str(folder / f"{name}-recorded.npz"), **results)
    print(f"{name}: {folder / name}-symbol.json, -0000.params, -recorded.npz")


def main() -> None:
    parser = argparse.ArgumentParser(description="Record models from MXNet.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="models to record, else all")
    parser.add_argument("--full", type=Path, metavar="FOLDER", help="write them at full size")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        for name in options.names:
            if options.full:
                record_full(name, options.full)
            else:
                record(name)
        return
    os.environ["MXNET_MKLDNN_ENABLED"] = "0"
    os.environ.update(MXNET_STORAGE_FALLBACK_LOG_VERBOSE="0", MXNET_SUBGRAPH_BACKEND="NONE")
    from mxnet_models import MODELS

    unknown = sorted(set(options.names) - set(MODELS))
    if unknown:
        parser.error(f"there is no model {', '.join(unknown)}, but {', '.join(MODELS)}")
    for name in options.names or MODELS:  # each in a process of its own: the path is chosen once
        os.environ["MXNET_MKLDNN_ENABLED"] = "1" if name == "vnet" else "0"
        command = [sys.executable, __file__, "--here", name]
        if options.full:
            command += ["--full", str(options.full)]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"{name} could not be recorded:\n{done.stderr}")  # else warnings of MXNet's


if __name__ == "__main__":
    main()
