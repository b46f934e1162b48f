"""Record what an MXNet model computes, so that its port can be compared where there is no MXNet.

This file needs MXNet 1.x and numpy, nothing of mxdeconv: copy it to where MXNet is.

    python record_mxnet.py model --epoch 0 --shape data=1,3,224,224 --nodes -o recorded.npz

reads model-symbol.json and model-0000.params and writes an .npz with

    input:NAME         the data: random, of the given --seed, or an --input file
    output:N           the outputs in prediction mode
    node:NAME_output   the output of every operator (--nodes), by its name in get_internals()
    train_output:N, out_grad:N, grad:NAME, train_aux:NAME
                       with --gradients: outputs in training mode, random gradients of them, the
                       gradients of all inputs and parameters, and auxiliary states afterwards
    about              a text: versions and options

In training mode Dropout is random, so that nothing behind it can be compared: set its p to 0 in the
symbol.json for gradients.

MXNet has two implementations on the CPU, and each is wrong about some Deconvolutions: oneDNN about
target_shape, the other about dilate with stride, and that has none in three dimensions. Where
MXNET_MKLDNN_ENABLED is not set, this turns oneDNN off for a model with a target_shape.
"""

import argparse
import json
import os
import sys

import numpy as np


def choose_implementation(symbol_json):
    """Set MXNET_MKLDNN_ENABLED for a model, before MXNet is imported."""
    for node in json.loads(symbol_json)["nodes"]:
        attrs = node.get("attrs") or node.get("attr") or node.get("param") or {}
        if node["op"] == "Deconvolution" and any(
            c in "123456789" for c in attrs.get("target_shape", "")
        ):
            os.environ.setdefault("MXNET_MKLDNN_ENABLED", "0")
    # oneDNN's fusion of nodes fails where the output of every node is asked for
    os.environ.setdefault("MXNET_SUBGRAPH_BACKEND", "NONE")
    os.environ.setdefault("MXNET_STORAGE_FALLBACK_LOG_VERBOSE", "0")


def parse_shape(text):
    name, equals, sizes = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"must be NAME=SIZE,SIZE,..., got {text!r}")
    return name, tuple(int(size) for size in sizes.split(","))


def parse_input(text):
    name, equals, path = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"must be NAME=FILE.npy, got {text!r}")
    return name, np.load(path)


def draw_inputs(symbol, arg, given, shapes, random):
    """Every argument that is no parameter: as given, or random; labels are zeros."""
    names = [name for name in symbol.list_arguments() if name not in arg]
    known = {name: array.shape for name, array in given.items()}
    known.update(shapes)
    inferred, _, _ = symbol.infer_shape_partial(**known)
    inferred = dict(zip(symbol.list_arguments(), inferred))  # noqa: B905 old Pythons
    inputs = {}
    for name in names:
        shape = known.get(name) or inferred.get(name)
        if name in given:
            inputs[name] = given[name]
        elif not shape or 0 in shape:
            sys.exit(f"the shape of {name} must be given: --shape {name}=1,3,224,224")
        elif name.endswith("_label") and name not in shapes:
            inputs[name] = np.zeros(shape, np.float32)
        else:
            inputs[name] = random.standard_normal(shape).astype(np.float32)
    return inputs


def run(symbol, arrays, aux, is_train, grad=None):
    """The executor after one forward pass."""
    import mxnet as mx

    arguments = {name: arrays[name] for name in symbol.list_arguments()}
    states = {name: aux[name].copy() for name in symbol.list_auxiliary_states()}
    executor = symbol.bind(
        mx.cpu(), arguments, grad, "null" if grad is None else "write", aux_states=states
    )
    executor.forward(is_train=is_train)
    return executor


def record(symbol, arg, aux, inputs, nodes=False, gradients=False, random=None):
    """The recorded arrays by name. `inputs` and the result are numpy arrays."""
    import mxnet as mx

    random = random or np.random.RandomState(0)
    result = {f"input:{name}": array for name, array in inputs.items()}
    arrays = dict(arg)
    arrays.update({name: mx.nd.array(x, dtype=x.dtype) for name, x in inputs.items()})
    outputs = run(symbol, arrays, aux, False).outputs
    result.update({f"output:{n}": output.asnumpy() for n, output in enumerate(outputs)})
    if nodes:
        internals = symbol.get_internals()
        variables = set(symbol.list_arguments() + symbol.list_auxiliary_states())
        names = [name for name in internals.list_outputs() if name not in variables]
        group = mx.sym.Group([internals[name] for name in names])
        values = run(group, arrays, aux, False).outputs
        for name, value in zip(names, values):  # noqa: B905
            result[f"node:{name}"] = value.asnumpy()
    if gradients:
        wanted = [
            name
            for name in symbol.list_arguments()
            if np.dtype(arrays[name].dtype).kind == "f" and not name.endswith("_label")
        ]
        grad = {name: mx.nd.zeros_like(arrays[name]) for name in wanted}
        executor = run(symbol, arrays, aux, True, grad)
        out_grads = []
        for n, output in enumerate(executor.outputs):
            out_grads.append(random.standard_normal(output.shape).astype(output.dtype))
            result[f"train_output:{n}"] = output.asnumpy()
            result[f"out_grad:{n}"] = out_grads[n]
        executor.backward([mx.nd.array(value, dtype=value.dtype) for value in out_grads])
        result.update({f"grad:{name}": array.asnumpy() for name, array in grad.items()})
        states = executor.aux_dict.items()
        result.update({f"train_aux:{name}": array.asnumpy() for name, array in states})
    return result


def main():
    parser = argparse.ArgumentParser(description="Record what an MXNet model computes.")
    parser.add_argument("prefix", help="of PREFIX-symbol.json and PREFIX-0000.params")
    parser.add_argument("--epoch", type=int, default=0, help="number of the .params file")
    parser.add_argument(
        "--shape",
        type=parse_shape,
        action="append",
        default=[],
        metavar="NAME=1,3,224,224",
        help="of an input that is drawn at random",
    )
    parser.add_argument(
        "--input",
        type=parse_input,
        action="append",
        default=[],
        metavar="NAME=FILE.npy",
        help="an input to take from a file",
    )
    parser.add_argument("--seed", type=int, default=0, help="of random inputs and gradients")
    parser.add_argument("--nodes", action="store_true", help="record the output of every node")
    parser.add_argument("--gradients", action="store_true", help="record gradients, too")
    parser.add_argument("-o", "--out", default="recorded.npz", help="file to write")
    options = parser.parse_args()

    with open(options.prefix + "-symbol.json") as file:
        choose_implementation(file.read())
    import mxnet as mx

    symbol, arg, aux = mx.model.load_checkpoint(options.prefix, options.epoch)
    dropouts = [n["name"] for n in json.loads(symbol.tojson())["nodes"] if n["op"] == "Dropout"]
    if options.gradients and dropouts:
        print(
            f"{', '.join(dropouts)}: random in training mode, so that nothing behind it can be "
            "compared; set its p to 0 in the symbol.json for gradients",
            file=sys.stderr,
        )
    random = np.random.RandomState(options.seed)
    inputs = draw_inputs(symbol, arg, dict(options.input), dict(options.shape), random)
    result = record(symbol, arg, aux, inputs, options.nodes, options.gradients, random)
    about = {"mxnet": mx.__version__, "epoch": options.epoch, "seed": options.seed}
    np.savez(options.out, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **result)
    print(f"wrote {options.out}: {len(result)} arrays")


if __name__ == "__main__":
    main()
