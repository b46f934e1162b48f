"""Record what MXNet 1.9.1 computes, for tests that run without MXNet.

    python3 -m venv mxnet-env
    mxnet-env/bin/pip install mxnet==1.9.1 numpy==1.23.5      # works with Python 3.10 and 3.11
    mxnet-env/bin/python tests/recorded/record_mxnet.py

writes, always the same:

    tests/recorded/deconvolution.json   the calls, one a line: problem, dtype, arguments, paths
    tests/recorded/deconvolution.npz    their inputs and results, see ``_write_cases``
    tests/recorded/front_ends.json      Gluon's shapes and defaults, shape inference by layout,
                                        scales and kernels of the initialisers
    tests/recorded/upsampling.npz       UpSampling(sample_type="bilinear"), output and gradients
    examples/data/mxnet_layer*          one layer: symbol, parameters, input, output

MXNet has two implementations on the CPU, chosen once for a process by MXNET_MKLDNN_ENABLED, and
each is wrong somewhere. So this program starts itself once for each path; ``cases.right_paths``
says which path computes what by the operator's definition, and only that is recorded.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import mxnet_front_ends
import numpy as np
from cases import NATIVE, ONEDNN, Case, recorded_cases, right_paths

HERE = Path(__file__).parent
EXAMPLE_DATA = HERE.parents[1] / "examples" / "data"

Arrays = dict[str, np.ndarray]


def draw_operands(case: Case) -> Arrays:
    """data, weight, bias (if any) and out_grad in the case's dtype, as float32 or float64 arrays.

    RandomState's streams are frozen, so that these are the same under every numpy. Normal numbers
    for bfloat16 are cut to its 8 bits here, so that MXNet's conversion is exact.
    """
    rng = np.random.RandomState(case.seed)
    shapes = {"data": case.problem.data_shape, "weight": case.problem.weight_shape}
    if case.has_bias:
        shapes["bias"] = (case.problem.num_filter,)
    shapes["out_grad"] = case.problem.out_shape
    operands = {}
    for name, shape in shapes.items():
        if case.values == "integer":
            drawn = rng.randint(-case.amplitude, case.amplitude + 1, shape)
        else:
            drawn = rng.standard_normal(shape)
        array = np.asarray(drawn, np.float64 if case.dtype == "float64" else np.float32)
        if case.dtype == "bfloat16":
            array = np.asarray(array.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
        operands[name] = array
    return operands


# ---- inside one process with one path --------------------------------------------------------


def run_call(case: Case, operands: Arrays, with_gradients: bool) -> Arrays:
    """The output and, if asked for, all gradients of one call, as float32 or float64 arrays."""
    import mxnet as mx

    def to_mxnet(array: np.ndarray) -> Any:
        converted = mx.nd.array(array, dtype=array.dtype)
        if case.dtype == "bfloat16":
            converted = converted.astype(np.dtype([("bfloat16", np.uint16)]))
        return converted

    def to_numpy(array: Any) -> np.ndarray:
        if case.dtype == "bfloat16":
            array = mx.nd.amp_cast(array, dtype="float32")
        return array.asnumpy()

    leaves = {name: to_mxnet(operands[name]) for name in operands if name != "out_grad"}
    for leaf in leaves.values():
        leaf.attach_grad()
    with mx.autograd.record():
        out = mx.nd.Deconvolution(*leaves.values(), **case.arguments)
    if out.shape != case.problem.out_shape:
        raise AssertionError(f"output shape {out.shape} instead of {case.problem.out_shape}")
    results = {"out": to_numpy(out)}
    if with_gradients:
        out.backward(to_mxnet(operands["out_grad"]))
        for name, leaf in leaves.items():
            results[f"{name}_grad"] = to_numpy(leaf.grad)
    mx.nd.waitall()  # the error of an empty result shows only here
    return results


def record_cases(path: str) -> Arrays:
    """Everything that ``path`` gets right, keyed "<number of the case> <result>"."""
    recorded = {}
    for number, case in enumerate(recorded_cases()):
        out_path, gradient_path = right_paths(case)
        if path not in (out_path, gradient_path):
            continue
        try:
            results = run_call(case, draw_operands(case), with_gradients=path == gradient_path)
        except Exception as error:
            raise RuntimeError(f"{path}: {case}") from error
        for name, array in results.items():
            if path == (out_path if name == "out" else gradient_path):
                recorded[f"{number} {name}"] = array
    return recorded


# ---- the program -----------------------------------------------------------------------------


def _run_in_process(path: str) -> Arrays:
    """``record_cases(path)`` in a process of its own, where MXNet takes that path."""
    environment = dict(
        os.environ,
        MXNET_MKLDNN_ENABLED="1" if path == ONEDNN else "0",
        MXNET_STORAGE_FALLBACK_LOG_VERBOSE="0",  # else every native call is reported
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recorded.npz"
        subprocess.run([sys.executable, __file__, path, str(file)], env=environment, check=True)
        with np.load(file) as archive:
            return dict(archive)


def _write_cases(results: Arrays) -> None:
    """deconvolution.json and deconvolution.npz.

    The archive holds one flat array for each kind of number; a case's values follow each other in
    the order data, weight, bias, out_grad and then its "recorded" list, the cases in the order of
    the JSON file. The problem gives the shapes. Integers are stored as such; bfloat16 as its bits.
    """
    streams: dict[str, list[np.ndarray]] = {}
    lines = []
    for number, case in enumerate(recorded_cases()):
        operands = draw_operands(case)
        names = [f"{name}_grad" for name in operands if name != "out_grad"]
        recorded = [name for name in ("out", *names) if f"{number} {name}" in results]
        for array in (*operands.values(), *(results[f"{number} {name}"] for name in recorded)):
            kind, stored = _as_stored(case, array)
            streams.setdefault(kind, []).append(stored.ravel())
        out_path, gradient_path = right_paths(case)
        entry = {
            "problem": str(case.problem),
            "dtype": case.dtype,
            "values": case.values,
            "has_bias": case.has_bias,
            "arguments": case.arguments,
            "recorded": recorded,
            "paths": {"out": out_path, "gradients": gradient_path},
        }
        lines.append(json.dumps(entry))
    (HERE / "deconvolution.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")
    flat = {kind: np.concatenate(arrays) for kind, arrays in streams.items()}
    _write_archive(HERE / "deconvolution.npz", flat)


def _write_archive(file: Path, arrays: Arrays) -> None:
    """A compressed .npz that does not change when the same arrays are written again."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy")  # has a fixed date
            archive.writestr(entry, content.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)


def _as_stored(case: Case, array: np.ndarray) -> tuple[str, np.ndarray]:
    if case.values == "integer":
        kind = "int64" if case.dtype == "float64" else "int32"
        stored = array.astype(kind)
    elif case.dtype == "bfloat16":
        kind = "bfloat16_bits"
        stored = (np.ascontiguousarray(array).view(np.uint32) >> 16).astype(np.uint16)
    else:
        kind, stored = case.dtype, array
    return kind, stored


def main(arguments: list[str]) -> None:
    if not arguments:
        _write_cases({**_run_in_process(ONEDNN), **_run_in_process(NATIVE)})
        return
    path, file = arguments  # the process of one path
    np.savez(file, **record_cases(path))
    if path == NATIVE:
        front_ends = mxnet_front_ends.dump_json(mxnet_front_ends.record_front_ends())
        (HERE / "front_ends.json").write_text(front_ends + "\n")
        _write_archive(HERE / "upsampling.npz", mxnet_front_ends.record_upsampling())
        layer = mxnet_front_ends.record_layer(EXAMPLE_DATA)
        _write_archive(EXAMPLE_DATA / "mxnet_layer.npz", layer)


if __name__ == "__main__":
    main(sys.argv[1:])
