"""mxdeconv and torch's cuDNN on a GPU, on layers that people run, at batch sizes of a GPU.

    python benchmarks/bench_cuda.py                       # what seven minutes allow
    python benchmarks/bench_cuda.py --layers 'dcgan|unet' --dtypes bfloat16 --orders last
    python benchmarks/bench_cuda.py --dtypes float32 tf32 float16 bfloat16 float64 --minutes 600

Backends: torch, and torch with `torch.backends.cudnn.benchmark`; mxdeconv with cudnn_tune 'off' and
'fastest', and with cudnn_off (own kernels); where it is named, 'own filtered': own kernels with
minimal filtering of what can be filtered. They take turns in rounds; the figure is the median of
CUDA events around single calls, each after a write through a buffer larger than the L2 cache, so
that operands come from memory, and queued while the device waits, so that the CPU does not count.
Copy bandwidth and matrix peak are measured in the same run. Tuning takes most of the time, so the
layers come in an order in which a run that is stopped has seen some of each kind. Results go to
benchmarks/results/ as JSON lines, under the device's name, as they come.
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
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import product
from math import prod
from pathlib import Path

import torch

import mxdeconv
from mxdeconv.testing import LAYERS, Layer, force_algorithm
from mxdeconv.testing.problems import Problem

PASSES = ("fwd", "dgrad", "wgrad")
DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}
BACKENDS = ("torch", "torch benchmark", "off", "fastest", "own", "own filtered")
RESULTS = Path(__file__).parent / "results"
LEAST_BATCH = 32  # a layer's batch grows to this, as far as VALUES allows
VALUES = 2**27  # elements of data, weight and output together
Call = Callable[[], object]


@dataclass
class Result:
    """One backend on one pass of one layer. Seconds are per call, on the device."""

    layer: str
    problem: str
    pass_name: str
    backend: str
    dtype: str
    order: str  # of the memory: channels "first" or "last"
    median_s: float
    spread_s: float
    tflops: float  # of the direct sum, cropped taps included
    peak_share: float  # of the measured matrix product
    copy_share: float  # of the measured copy, data, weight and out moved once each


def at_gpu_batch(problem: Problem) -> Problem:
    per_image = (prod(problem.data_shape) + prod(problem.out_shape)) / max(problem.batch, 1)
    batch = max(problem.batch, min(LEAST_BATCH, int(VALUES / per_image)), 1)
    return replace(problem, batch=batch)


class Tensors:
    def __init__(self, problem: Problem, dtype: torch.dtype, last: bool) -> None:
        generator = torch.Generator("cuda").manual_seed(0)

        def draw(shape: tuple[int, ...]) -> torch.Tensor:
            value = torch.randn(shape, device="cuda", generator=generator).to(dtype)
            return value.movedim(1, -1).contiguous().movedim(-1, 1) if last else value

        self.data, self.weight = draw(problem.data_shape), draw(problem.weight_shape)
        self.out_grad = draw(problem.out_shape)


def ours(problem: Problem, t: Tensors, tune: str | None, off: bool) -> dict[str, Call]:
    ops = torch.ops.mxdeconv
    arguments = (
        *(problem.stride, problem.dilate, problem.pad, problem.adj, problem.num_group),
        *(512, tune, off),
    )
    return {
        "fwd": lambda: ops.deconvolution(t.data, t.weight, None, *arguments),
        "dgrad": lambda: ops.deconvolution_data(t.weight, t.out_grad, *arguments),
        "wgrad": lambda: ops.deconvolution_weight(t.data, t.out_grad, *arguments),
    }


def torchs(problem: Problem, t: Tensors, benchmark: bool) -> dict[str, Call]:
    def with_switch(call: Call) -> Call:
        def run() -> object:
            torch.backends.cudnn.benchmark = benchmark
            result = call()
            torch.backends.cudnn.benchmark = False
            return result

        return run

    geometry = (problem.stride, problem.pad, problem.dilate, True, problem.adj, problem.num_group)

    def backward(mask: list[bool]) -> object:
        return torch.ops.aten.convolution_backward(
            t.out_grad, t.data, t.weight, None, *geometry, mask
        )

    return {
        "fwd": with_switch(lambda: torch.convolution(t.data, t.weight, None, *geometry)),
        "dgrad": with_switch(lambda: backward([True, False, False])),
        "wgrad": with_switch(lambda: backward([False, True, False])),
    }


def filtered(calls: dict[str, Call]) -> dict[str, Call]:
    def with_force(call: Call) -> Call:
        def run() -> object:
            with force_algorithm("minimal_filter"):
                return call()

        return run

    return {name: with_force(call) for name, call in calls.items()}


def backends(problem: Problem, t: Tensors, names: list[str]) -> dict[str, dict[str, Call]]:
    every = {
        "torch": torchs(problem, t, False),
        "torch benchmark": torchs(problem, t, True),
        "off": ours(problem, t, "off", False),
        "fastest": ours(problem, t, "fastest", False),
        "own": ours(problem, t, None, True),
        "own filtered": filtered(ours(problem, t, None, True)),
    }
    return {name: every[name] for name in names}


class Cache:
    """Writes through more memory than the L2 cache holds."""

    def __init__(self) -> None:
        size = torch.cuda.get_device_properties(0).L2_cache_size
        self.buffer = torch.empty(max(4 * size, 2**26), dtype=torch.int8, device="cuda")

    def flush(self) -> None:
        self.buffer.zero_()


def seconds(call: Call, cache: Cache) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    cache.flush()
    torch.cuda._sleep(600_000)  # the call is queued while the device waits
    begin.record()
    call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def measure(calls: dict[str, Call], rounds: int, cache: Cache) -> dict[str, list[float]]:
    """Seconds of each call, one entry per round; those that fail are said and left out."""
    working = {}
    for name, call in calls.items():
        try:
            call()  # first calls tune, compile, load
            call()
            torch.cuda.synchronize()
            working[name] = call
        except RuntimeError as error:  # out of memory, or torch's cuDNN has no plan
            print(f"  {name} failed: {str(error).split(chr(10))[0][:100]}", flush=True)
            torch.cuda.empty_cache()
    times: dict[str, list[float]] = {name: [] for name in working}
    for _ in range(rounds):
        for name, call in working.items():
            times[name].append(seconds(call, cache))
    return times


@contextmanager
def precision(dtype: str) -> Iterator[None]:
    allowed = dtype == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed
    yield
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = True


def copy_bandwidth(cache: Cache) -> float:
    """Bytes read plus bytes written per second."""
    source = torch.empty(2**30, dtype=torch.int8, device="cuda")
    target = torch.empty_like(source)
    times = [seconds(lambda: target.copy_(source), cache) for _ in range(10)]
    return 2 * source.numel() / statistics.median(times)


def matrix_peak(dtype: torch.dtype, cache: Cache) -> float:
    """Flop/s of a square product of random numbers."""
    size = 4096 if dtype in (torch.float64, torch.float32) else 8192
    a, b = (torch.randn(size, size, device="cuda").to(dtype) for _ in range(2))
    times = [seconds(lambda: a @ b, cache) for _ in range(10)]
    return 2 * size**3 / statistics.median(times)


def spread(values: list[float]) -> float:
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return high - low


def mixed(layers: list[Layer], step: int = 5) -> list[Layer]:
    """Every fifth, then those after them: neighbours in the list are of one kind."""
    return [layer for first in range(step) for layer in layers[first::step]]


def run(
    args: argparse.Namespace, layers: list[Layer], copy: float, cache: Cache
) -> Iterator[list[Result]]:
    """The backends' results on a pass of a layer, one after the other."""
    stop = time.monotonic() + args.minutes * 60
    peaks = {}
    for dtype in args.dtypes:
        with precision(dtype):
            peaks[dtype] = matrix_peak(DTYPES[dtype], cache)
            print(f"{dtype}: matrix product {peaks[dtype] / 1e12:.1f} TF/s", flush=True)
    for layer, dtype, order in product(mixed(layers), args.dtypes, args.orders):
        problem = at_gpu_batch(layer.problem)
        with precision(dtype):
            tensors = Tensors(problem, DTYPES[dtype], order == "last")
            made = backends(problem, tensors, args.backends)
            for pass_name in args.passes:
                if time.monotonic() > stop:
                    print(f"stopped after {args.minutes} minutes, at {layer.name} {dtype} {order}")
                    return
                calls = {name: made[name][pass_name] for name in made}
                yield [
                    Result(
                        *(layer.name, str(problem), pass_name, name, dtype, order),
                        *(statistics.median(times), spread(times)),
                        *figures(problem, DTYPES[dtype], times, peaks[dtype], copy),
                    )
                    for name, times in measure(calls, args.rounds, cache).items()
                ]


def figures(
    problem: Problem, dtype: torch.dtype, times: list[float], peak: float, copy: float
) -> tuple[float, float, float]:
    rate = 2 * problem.products / statistics.median(times)
    moved = problem.values * dtype.itemsize / statistics.median(times)
    return rate / 1e12, rate / peak, moved / copy


def show(line: list[Result]) -> None:
    if not line:
        return
    first = line[0]
    text = f"{first.layer:16} {first.dtype:8} {first.order:5} {first.pass_name:5}"
    for result in line:
        text += f"  {result.backend} {result.median_s * 1e6:8.1f} us"
    best = min(line, key=lambda result: result.median_s)
    print(f"{text}  best {best.peak_share:4.0%} peak {best.copy_share:4.0%} copy", flush=True)


def summarise(results: list[Result]) -> None:
    """Geometric means and the worst layer of our backends against torch's."""
    times = {(r.layer, r.dtype, r.order, r.pass_name, r.backend): r.median_s for r in results}
    for dtype in dict.fromkeys(r.dtype for r in results):
        for own in ("off", "fastest", "own", "own filtered"):
            for other in ("torch", "torch benchmark"):
                ratios = {
                    key[:4]: times[(*key[:4], other)] / value
                    for key, value in times.items()
                    if key[1] == dtype and key[4] == own and (*key[:4], other) in times
                }
                if ratios:
                    mean = math.exp(sum(map(math.log, ratios.values())) / len(ratios))
                    worst = min(ratios, key=lambda key: ratios[key])
                    print(
                        f"{dtype:8} {own:8} against {other:15}: geomean {mean:5.2f}x over "
                        f"{len(ratios)}, worst {ratios[worst]:.2f}x ({' '.join(worst)})"
                    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--layers", default="", help="regular expression on layer names")
    parser.add_argument("--passes", nargs="+", choices=PASSES, default=list(PASSES))
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["float32", "bfloat16"])
    parser.add_argument("--orders", nargs="+", choices=("first", "last"), default=["first", "last"])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS[:-1]))
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--minutes", type=float, default=7, help="stop after so many")
    return parser.parse_args()


def main() -> int:
    args = parse_arguments()
    if not (mxdeconv.build_info()["cuda"] and torch.cuda.is_available()):
        print("bench-cuda: there is no CUDA device, or mxdeconv was built without CUDA")
        return 0
    layers = [layer for layer in LAYERS if re.search(args.layers, layer.name)]
    if not layers:
        names = ", ".join(layer.name for layer in LAYERS)
        print(f"--layers must match at least one of {names}, got {args.layers!r}", file=sys.stderr)
        return 2
    device = torch.cuda.get_device_name(0)
    cache = Cache()
    copy = copy_bandwidth(cache)
    print(f"{device}; torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}")
    print(f"measured: copy {copy / 1e12:.2f} TB/s (read + written)")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"cuda-{re.sub(r'[^a-z0-9]+', '-', device.lower())}.jsonl"
    run_row = {"device": device, "torch": torch.__version__, "version": mxdeconv.__version__}
    run_row |= {"copy": copy, "command": " ".join(sys.argv[1:])}
    results: list[Result] = []
    with open(path, "a") as file:
        for line in run(args, layers, copy, cache):
            show(line)
            results += line
            for result in line:
                file.write(json.dumps({**run_row, **asdict(result)}) + "\n")
            file.flush()
    summarise(results)
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
