"""Peak of the temporary memory of a call: what it takes beyond its operands and its result.

bench.py runs this file as a program of its own; it prints a JSON line for each layer and pass:

    python benchmarks/memory.py --layers dcgan

Method. One child process is forked for each layer, pass and backend, before any thread exists. The
child makes the operands and calls once, so that code is loaded and primitives are built. Then it
drops the result, resets the kernel's high-water mark of resident memory (5 to
/proc/self/clear_refs), and calls again: the mark, less what was resident before and less the bytes
of the result, is the peak of the temporaries. That sees every allocator (oneDNN's, the C++
library's, torch's) and counts pages that were written, not addresses that were reserved. So that
nothing hides in memory that the C library kept from an earlier call, the program starts itself with
fixed malloc thresholds: blocks of 64 KiB and more come fresh from the kernel and go back at once.
Huge pages, which round up, are switched off. Smaller blocks and the kernel's own counting, which is
by batches of pages, leave an uncertainty of about 0.3 MiB. Memory that a backend keeps from call to
call is not seen. Linux only.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_TOP_PAD_": "0",
}
UNCERTAIN = 300 * 1024  # bytes
PASSES = ("fwd", "dgrad", "wgrad")
PR_SET_THP_DISABLE = 41
Key = tuple[str, str, str]  # layer, pass, backend


def measured(arguments: list[str]) -> dict[Key, int]:
    """{(layer, pass, backend): bytes}, by this file as a program; empty where it cannot run."""
    command = [sys.executable, __file__, *arguments]
    if not Path("/proc/self/clear_refs").exists():
        return {}
    run = subprocess.run(
        command, env={**os.environ, **MALLOC}, stdout=subprocess.PIPE, text=True, check=True
    )
    rows = map(json.loads, run.stdout.splitlines())
    return {(row["layer"], row["pass"], row["backend"]): row["bytes"] for row in rows}


def resident(name: str) -> int:
    """VmRSS or VmHWM, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"name must be a line of /proc/self/status, got {name!r}")


def peak_of(call: Callable[[], object]) -> int:
    """Bytes of temporaries; run in a process of its own."""
    ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
    call()
    gc.collect()
    gc.disable()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmHWM")
    result = call()
    return max(resident("VmHWM") - before - result_bytes(result), 0)


def result_bytes(result: object) -> int:
    """Of a tensor, or of those that torch's backward returns."""
    tensors = result if isinstance(result, tuple) else (result,)
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)


def in_a_child(function: Callable[[], int]) -> int:
    """function() in a forked process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writing, str(function()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if status != 0:
        raise RuntimeError(f"a measuring process ended with status {status}")
    return int(text)


def measure(args: argparse.Namespace) -> Iterator[tuple[Key, int]]:
    import bench
    import torch

    from mxdeconv.testing import LAYERS

    sides = {"mxdeconv": bench.ours, "torch": bench.torchs}

    def peak(problem: object, backend: str, pass_name: str) -> int:
        torch.set_num_threads(args.threads)
        tensors = bench.Tensors(problem, bench.DTYPES[args.dtype], args.channels_last)
        return peak_of(sides[backend](problem, tensors)[pass_name])

    for layer in LAYERS:
        if not re.search(args.layers, layer.name):
            continue
        for pass_name in args.passes:
            for backend in sides:
                work = lambda b=backend, p=pass_name, x=layer.problem: peak(x, b, p)  # noqa: E731
                yield (layer.name, pass_name, backend), in_a_child(work)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--layers", default="", help="regular expression on layer names")
    parser.add_argument("--passes", nargs="+", choices=PASSES, default=list(PASSES))
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--channels-last", action="store_true", help="torch's channels_last")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in MALLOC.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **MALLOC})
    for (layer, pass_name, backend), peak in measure(args):
        row = {"layer": layer, "pass": pass_name, "backend": backend, "bytes": peak}
        print(json.dumps(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
