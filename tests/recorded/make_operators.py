"""Record what MXNet 1.9.1 computes for every operator that is ported.

    mxnet-env/bin/python tests/recorded/make_operators.py

writes tests/recorded/operators.json, which says for each case of ``operator_cases`` what was
recorded (name, dtype, shape), and tests/recorded/operators.npz, its numbers in that order, one flat
array for each dtype. ``record_mxnet.py`` says how to make mxnet-env.

A case has its outputs at inference and, with ``train``, its outputs in training, the gradients of
its inputs and its auxiliary states after one step. Native code, whose results are MXNet's
documented ones, is recorded wherever it runs; oneDNN, in a process of its own, for the rest. What
both refuse is listed in tests/recorded/operators_refused.json.
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

import numpy as np
from operator_cases import CASES, Case, draw, draw_head_gradients

HERE = Path(__file__).parent
Arrays = dict[str, np.ndarray]


def run_case(case: Case) -> Arrays:
    import mxnet as mx

    symbol = mx.sym.load_json(case.symbol())
    drawn = {name: mx.nd.array(array, dtype=array.dtype) for name, array in draw(case).items()}
    arguments = {name: drawn[name] for name in symbol.list_arguments()}
    auxiliary = {name: drawn[name].copy() for name in symbol.list_auxiliary_states()}
    requests = {
        name: "write" if case.train and name not in case.frozen else "null" for name in arguments
    }
    executor = symbol.bind(
        mx.cpu(),
        arguments,
        {
            name: array.zeros_like()
            for name, array in arguments.items()
            if requests[name] == "write"
        },
        requests,
        auxiliary,
    )
    results = {}
    for number, output in enumerate(executor.forward(is_train=False)):
        results[f"eval {number}"] = output.asnumpy()
    if case.train:
        outputs = executor.forward(is_train=True)
        for number, output in enumerate(outputs):
            results[f"train {number}"] = output.asnumpy()
        heads = draw_head_gradients(case, [output.shape for output in outputs])
        executor.backward([mx.nd.array(head) for head in heads])
        for name, array in executor.grad_dict.items():
            if array is not None:
                results[f"grad {name}"] = array.asnumpy()
        for name, array in executor.aux_dict.items():
            results[f"aux {name}"] = array.asnumpy()
    mx.nd.waitall()
    return results


def run_all(numbers: list[int]) -> Arrays:
    recorded = {}
    for number in numbers:
        try:
            for name, array in run_case(CASES[number]).items():
                recorded[f"{number} {name}"] = array
        except Exception as error:
            recorded[f"{number} error"] = np.array(str(error).strip().split("\n")[-1])
    return recorded


def run_path(mkldnn: str, numbers: list[int]) -> dict[int, Arrays]:
    """The results of some cases, from a process where MXNet takes that path."""
    environment = dict(os.environ, MXNET_MKLDNN_ENABLED=mkldnn, OMP_NUM_THREADS="1")
    environment.update(MXNET_STORAGE_FALLBACK_LOG_VERBOSE="0", MXNET_SUBGRAPH_BACKEND="NONE")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recorded.npz"
        command = [sys.executable, __file__, str(file), *map(str, numbers)]
        done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True)
        if done.returncode:  # MXNet can crash
            return {number: {"error": np.array("it crashes")} for number in numbers}
        with np.load(file) as archive:
            recorded = dict(archive)
    results: dict[int, Arrays] = {}
    for key, array in recorded.items():
        number, name = key.split(" ", 1)
        results.setdefault(int(number), {})[name] = array
    return results


def write(
    file: Path, entries: list[dict[str, object]], streams: dict[str, list[np.ndarray]]
) -> None:
    text = ",\n".join(json.dumps(entry) for entry in entries)
    file.with_suffix(".json").write_text(f"[\n{text}\n]\n")
    with zipfile.ZipFile(file.with_suffix(".npz"), "w") as archive:
        for name, arrays in streams.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.concatenate(arrays), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy")  # has a fixed date
            archive.writestr(entry, content.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)


def main() -> None:
    if len(sys.argv) > 1:
        np.savez(sys.argv[1], **run_all([int(number) for number in sys.argv[2:]]))
        return
    results = run_path("0", list(range(len(CASES))))
    failed = [number for number in results if "error" in results[number]]
    for number in failed:  # one by one, for a crash takes all with it
        results |= run_path("1", [number])
    entries: list[dict[str, object]] = []
    streams: dict[str, list[np.ndarray]] = {}
    refused = []
    for number, case in enumerate(CASES):
        if "error" in results[number]:
            print(f"MXNet refuses {case}: {results[number]['error']}")
            refused.append(str(case))
            continue
        listed = []
        for name, array in results[number].items():
            streams.setdefault(str(array.dtype), []).append(array.ravel())
            listed.append([name, str(array.dtype), list(array.shape)])
        entries.append({"case": str(case), "results": listed})
    write(HERE / "operators", entries, streams)
    (HERE / "operators_refused.json").write_text(json.dumps(refused, indent=1) + "\n")


if __name__ == "__main__":
    main()
