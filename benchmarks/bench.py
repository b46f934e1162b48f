"""mxdeconv beside torch, and MXNet (float32, NCHW) where it is installed, on real layers.

    python benchmarks/bench.py                       # float32, NCHW, one thread
    python benchmarks/bench.py --dtype bfloat16 --channels-last --layers 'dcgan|unet'
    python benchmarks/bench.py --json results.jsonl

Every layer and pass is timed in rounds that alternate between the backends, so that both see the
same machine; the figure is the median over the rounds of CPU time per call (wall time with more
than one thread), the spread is the distance between its quartiles. GF/s counts two for each
multiply-add of the direct sum, N * prod(in) * C * F/g * prod(kernel), taps that are cropped away
included. The peak and the copy bandwidth are measured in the same run, on the same thread.

Temporary memory (mxdeconv / torch, MiB beyond operands and result) is measured before the timing,
in processes of its own: memory.py says how.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from math import prod

import memory
import torch
from machine import copy_bandwidth, describe, fma_peak

import mxdeconv
from mxdeconv.testing import LAYERS, Layer, random_data
from mxdeconv.testing.problems import Problem

PASSES = ("fwd", "dgrad", "wgrad", "fwd+bwd")
DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
Call = Callable[[], object]


@dataclass
class Result:
    """One backend on one pass of one layer. Seconds are per call."""

    layer: str
    pass_name: str
    backend: str
    dtype: str
    channels_last: bool
    threads: int
    median_s: float
    spread_s: float
    gflops: float  # 1e9 flop/s of the direct sum
    peak_share: float | None  # of the measured FMA peak
    gbytes: float  # 1e9 byte/s, data, weight and out once each
    copy_share: float  # of the measured copy bandwidth
    temporaries: int | None  # bytes at the peak of a call, beyond operands and result


def in_format(tensor: torch.Tensor, form: torch.memory_format) -> torch.Tensor:
    """A copy whose strides say so even if it has one channel, as the strides of a result do."""
    return torch.empty_like(tensor, memory_format=form).copy_(tensor)


class Tensors:
    """The operands of a layer and torch's view of its arguments."""

    def __init__(self, problem: Problem, dtype: torch.dtype, channels_last: bool) -> None:
        values = random_data(problem, dtype)
        self.data, self.weight, self.out_grad = values.data, values.weight, values.out_grad
        if channels_last and problem.rank > 1:
            form = torch.channels_last if problem.rank == 2 else torch.channels_last_3d
            self.data, self.out_grad, self.weight = (
                in_format(tensor, form) for tensor in (self.data, self.out_grad, self.weight)
            )
        self.data_leaf = self.data.detach().requires_grad_()
        self.weight_leaf = self.weight.detach().requires_grad_()


def train_step(function: Callable[..., torch.Tensor], tensors: Tensors) -> object:
    out = function(tensors.data_leaf, tensors.weight_leaf)
    return torch.autograd.grad(out, (tensors.data_leaf, tensors.weight_leaf), tensors.out_grad)


def ours(problem: Problem, t: Tensors) -> dict[str, Call]:
    ops = torch.ops.mxdeconv
    arguments = (
        *(problem.stride, problem.dilate, problem.pad, problem.adj, problem.num_group),
        *(512, None, False),
    )

    def forward(data: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = ops.deconvolution(data, weight, None, *arguments)
        return out

    return {
        "fwd": lambda: forward(t.data, t.weight),
        "dgrad": lambda: ops.deconvolution_data(t.weight, t.out_grad, *arguments),
        "wgrad": lambda: ops.deconvolution_weight(t.data, t.out_grad, *arguments),
        "fwd+bwd": lambda: train_step(forward, t),
    }


def torchs(problem: Problem, t: Tensors) -> dict[str, Call]:
    def forward(data: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.convolution(
            *(data, weight, None, problem.stride, problem.pad, problem.dilate),
            *(True, problem.adj, problem.num_group),
        )

    def backward(mask: list[bool]) -> object:
        return torch.ops.aten.convolution_backward(
            *(t.out_grad, t.data, t.weight, None, problem.stride, problem.pad, problem.dilate),
            *(True, problem.adj, problem.num_group, mask),
        )

    return {
        "fwd": lambda: forward(t.data, t.weight),
        "dgrad": lambda: backward([True, False, False]),
        "wgrad": lambda: backward([False, True, False]),
        "fwd+bwd": lambda: train_step(forward, t),
    }


def mxnets(problem: Problem, t: Tensors) -> dict[str, Call]:
    """MXNet's forward, and its forward with backward: it has no way to ask for one gradient."""
    import mxnet as mx

    data, weight, out_grad = (mx.nd.array(x.numpy()) for x in (t.data, t.weight, t.out_grad))
    arguments = {k: v for k, v in problem.arguments.items() if k != "layout"}
    data.attach_grad()
    weight.attach_grad()

    def forward() -> object:
        return mx.nd.Deconvolution(data, weight, no_bias=True, **arguments)

    def train() -> None:
        with mx.autograd.record():
            out = forward()
        out.backward(out_grad)
        mx.nd.waitall()

    def wait() -> None:
        forward().wait_to_read()  # type: ignore[attr-defined]

    return {"fwd": wait, "fwd+bwd": train}


def that_work(calls: dict[str, Call], what: str) -> dict[str, Call]:
    """The calls without those of other backends that fail, which are named."""
    working = {}
    for name, call in calls.items():
        try:
            call()  # first call: caches, primitives, page faults
        except Exception as error:
            if name == "mxdeconv":
                raise
            reason = str(error).partition("\n")[0]  # which may be empty
            print(f"{what}: {name} fails ({reason})")
        else:
            working[name] = call
    return working


def measure(calls: dict[str, Call], rounds: int, least: float, clock: Callable[[], float]) -> dict:
    """{backend: seconds per call, one entry per round}, the backends taking turns."""
    repeats = {}
    for name, call in calls.items():
        start = clock()
        call()
        repeats[name] = max(1, math.ceil(least / max(clock() - start, 1e-7)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = clock()
            for _ in range(repeats[name]):
                call()
            times[name].append((clock() - start) / repeats[name])
    return times


def spread(values: list[float]) -> float:
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return high - low


def run(
    args: argparse.Namespace,
    layers: list[Layer],
    peak: float | None,
    copy: float,
    temporaries: dict[memory.Key, int],
) -> Iterator[Result]:
    dtype = DTYPES[args.dtype]
    clock = time.process_time if args.threads == 1 else time.perf_counter
    for layer in layers:
        problem = layer.problem
        tensors = Tensors(problem, dtype, args.channels_last)
        backends = {"mxdeconv": ours(problem, tensors), "torch": torchs(problem, tensors)}
        if find_spec("mxnet") and dtype is torch.float32 and not args.channels_last:
            backends["mxnet"] = mxnets(problem, tensors)
        for pass_name in args.passes:
            calls = {name: b[pass_name] for name, b in backends.items() if pass_name in b}
            calls = that_work(calls, f"{layer.name:16} {pass_name}")
            work = 2 * problem.products * (3 if pass_name == "fwd+bwd" else 1)
            sizes = (problem.data_shape, problem.weight_shape, problem.out_shape)
            moved = sum(map(prod, sizes)) * dtype.itemsize * (3 if pass_name == "fwd+bwd" else 1)
            for name, times in measure(calls, args.rounds, args.least, clock).items():
                median = statistics.median(times)
                yield Result(
                    *(layer.name, pass_name, name, args.dtype, args.channels_last, args.threads),
                    *(median, spread(times), work / median / 1e9),
                    work / median / peak if peak else None,
                    *(moved / median / 1e9, moved / median / copy),
                    temporaries.get((layer.name, pass_name, name)),
                )


def show(results: list[Result]) -> None:
    """One line: ours, each other backend, and the ratios."""
    by_name = {r.backend: r for r in results}
    own = by_name.pop("mxdeconv")
    share = f"{own.peak_share:4.0%} peak " if own.peak_share is not None else ""
    line = (
        f"{own.layer:16} {own.pass_name:8} {own.gflops:7.1f} GF/s {share}"
        f"{own.copy_share:4.0%} copy  {own.median_s * 1e3:9.3f} ms"
        f" +-{own.spread_s / own.median_s:4.0%}"
    )
    for name, other in by_name.items():
        line += f"   {name} {other.gflops:7.1f}  {other.median_s / own.median_s:5.2f}x"
    held = [r.temporaries for r in results if r.temporaries is not None]
    if held:
        line += "   memory " + " / ".join(f"{value / 2**20:.1f}" for value in held)
    print(line, flush=True)


def geomean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def summarise(results: list[Result]) -> None:
    """Geometric means and the worst layer of each pass, against each other backend."""
    ours_by_key = {(r.layer, r.pass_name): r for r in results if r.backend == "mxdeconv"}
    for backend in sorted({r.backend for r in results} - {"mxdeconv"}):
        for pass_name in PASSES:
            ratios = {
                r.layer: r.median_s / ours_by_key[r.layer, pass_name].median_s
                for r in results
                if r.backend == backend and r.pass_name == pass_name
            }
            if ratios:
                mean = geomean(list(ratios.values()))
                worst = min(ratios, key=lambda layer: ratios[layer])
                print(
                    f"{pass_name:8} against {backend}: geomean {mean:.2f}x over {len(ratios)} "
                    f"layers, worst {ratios[worst]:.2f}x ({worst})"
                )


def list_memory_above(results: list[Result]) -> None:
    """The passes that take more temporary memory than torch does, beyond what is uncertain."""
    theirs = {(r.layer, r.pass_name): r.temporaries for r in results if r.backend == "torch"}
    for r in results:
        other = theirs.get((r.layer, r.pass_name))
        if r.backend != "mxdeconv" or r.temporaries is None or other is None:
            continue
        if r.temporaries > other + memory.UNCERTAIN:
            print(
                f"{r.pass_name:8} of {r.layer}: {r.temporaries / 2**20:.1f} MiB of temporaries, "
                f"torch {other / 2**20:.1f}"
            )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--layers", default="", help="regular expression on layer names")
    parser.add_argument("--passes", nargs="+", choices=PASSES, default=list(PASSES[:3]))
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--channels-last", action="store_true", help="torch's channels_last")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--least", type=float, default=0.02, help="seconds per round and backend")
    parser.add_argument("--no-memory", action="store_true", help="do not measure temporaries")
    parser.add_argument("--json", help="append JSON lines to this file")
    return parser.parse_args()


def without_json(arguments: list[str]) -> list[str]:
    """The arguments without the file that the results went to."""
    return [
        argument
        for before, argument in zip(["", *arguments], arguments, strict=False)
        if not argument.startswith("--json") and before != "--json"
    ]


def main() -> int:
    args = parse_arguments()
    command = " ".join(["python", "benchmarks/bench.py", *without_json(sys.argv[1:])])
    layers = [layer for layer in LAYERS if re.search(args.layers, layer.name)]
    if not layers:
        names = ", ".join(layer.name for layer in LAYERS)
        print(f"--layers must match at least one of {names}, got {args.layers!r}", file=sys.stderr)
        return 2
    temporaries: dict[memory.Key, int] = {}
    held_passes = [name for name in args.passes if name in memory.PASSES]
    if held_passes and not args.no_memory:
        temporaries = memory.measured(
            [
                *("--layers", args.layers, "--dtype", args.dtype, "--threads", str(args.threads)),
                *(["--channels-last"] if args.channels_last else []),
                *("--passes", *held_passes),
            ]
        )
    torch.set_num_threads(args.threads)
    peak = fma_peak(mxdeconv.build_info()["cpu_isa"], args.dtype, args.threads)
    copy = copy_bandwidth()
    machine = describe()
    print(f"{machine}; torch {torch.__version__}; {args.dtype}, {args.threads} thread(s)")
    print(
        f"measured: FMA peak {peak / 1e9:.1f} GF/s" if peak else "FMA peak not measured: no cc",
        f"copy {copy / 1e9:.1f} GB/s (read + written)",
        sep=", ",
    )
    results: list[Result] = []
    line: list[Result] = []
    about = {
        **{"machine": machine, "isa": mxdeconv.build_info()["cpu_isa"]},
        **{"version": mxdeconv.__version__, "torch": torch.__version__},
        **{"peak": peak, "copy": copy, "command": command},
    }
    for result in run(args, layers, peak, copy, temporaries):
        if args.json:
            with open(args.json, "a") as file:
                file.write(json.dumps({**about, **asdict(result)}) + "\n")
        if line and (line[-1].layer, line[-1].pass_name) != (result.layer, result.pass_name):
            show(line)
            line = []
        line.append(result)
        results.append(result)
    show(line)
    summarise(results)
    list_memory_above(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
