"""What a small call costs, mxdeconv beside torch, on one thread.

    python benchmarks/overhead.py                 # one call of a tiny layer, by every way in
    python benchmarks/overhead.py --shapes 1000   # many sizes in a row, each for the first time

The first asks for the time around the arithmetic: 1x8x4x4 data, 8 filters, once with kernel 3 and
stride 1, where torch has a short way for tiny images, and once with kernel 4 and stride 2, where it
asks oneDNN. Each way in stands against torch's own: the operator in `torch.ops` against aten's, the
function against `F.conv_transpose2d`, the module against `nn.ConvTranspose2d`; forward with
gradients off ("no_grad") and on ("forward"), and forward with backward ("train").

The second calls a layer (kernel 4, stride 2, 16 to 16 channels) with sizes from 8 to 64 in shuffled
order, no two alike: what a network pays whose inputs vary. torch builds a oneDNN primitive for each
size, mxdeconv plans each call anew. It runs in turns over disjoint sizes, so that every call is a
first one for both.

Both sides take turns within one run; figures are medians of CPU time per call.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from machine import describe
from torch import Tensor, nn

import mxdeconv

Forward = Callable[[Tensor, Tensor], Tensor]
WAYS = ("op", "function", "module")
MODES = ("no_grad", "forward", "train")
LAYERS = {"k3s1": (3, 1), "k4s2": (4, 2)}  # kernel, stride; pad 1


def ways_in(way: str, kernel: int, stride: int, channels: int = 8) -> dict[str, Forward]:
    """{backend: (data, weight) -> out} for one way of calling; a module has its own weight."""
    if way == "op":
        ours, torchs = torch.ops.mxdeconv.deconvolution, torch.ops.aten.convolution
        strides, pads, ones, zeros = [stride] * 2, [1, 1], [1, 1], [0, 0]
        return {
            "mxdeconv": lambda x, w: ours(x, w, None, strides, ones, pads, zeros, 1, 512, None, 0),
            "torch": lambda x, w: torchs(x, w, None, strides, pads, ones, True, zeros, 1),
        }
    pair = (kernel, kernel), (stride, stride), (1, 1)
    if way == "function":
        return {
            "mxdeconv": lambda x, w: mxdeconv.deconvolution(
                x, w, kernel=pair[0], stride=pair[1], pad=pair[2], num_filter=channels
            ),
            "torch": lambda x, w: F.conv_transpose2d(x, w, None, pair[1], pair[2]),
        }
    own = mxdeconv.Deconvolution(
        num_filter=channels, kernel=pair[0], stride=pair[1], pad=pair[2], in_channels=channels
    )
    other = nn.ConvTranspose2d(channels, channels, *pair, bias=False)
    return {"mxdeconv": lambda x, _: own(x), "torch": lambda x, _: other(x)}


def seconds(forward: Forward, mode: str, data: Tensor, weight: Tensor, repeats: int) -> float:
    """CPU seconds of one call."""
    grad = mode != "no_grad"
    data.requires_grad_(grad)
    weight.requires_grad_(grad)
    with torch.set_grad_enabled(grad):
        out_grad = torch.ones_like(forward(data, weight))
        start = time.process_time()
        if mode == "train":
            for _ in range(repeats):
                forward(data, weight).backward(out_grad)
        else:
            for _ in range(repeats):
                forward(data, weight)
        return (time.process_time() - start) / repeats


def measure_calls(rounds: int, repeats: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for layer, (kernel, stride) in LAYERS.items():
        data, weight = torch.randn(1, 8, 4, 4), torch.randn(8, 8, kernel, kernel)
        for way in WAYS:
            sides = ways_in(way, kernel, stride)
            for mode in MODES:
                times: dict[str, list[float]] = {name: [] for name in sides}
                for _ in range(rounds):
                    for name, forward in sides.items():
                        times[name].append(seconds(forward, mode, data, weight, repeats))
                rows.append(row_of({"layer": layer, "way": way, "mode": mode}, times))
    return rows


def measure_shapes(count: int, rounds: int) -> list[dict[str, object]]:
    """`count` calls of the function, no size twice, cut into one part a round and backend."""
    sizes = [(h, w) for h in range(8, 65) for w in range(8, 65)]
    random.Random(0).shuffle(sizes)
    sides = ways_in("function", 4, 2, channels=16)
    rows: list[dict[str, object]] = []
    with torch.no_grad():
        weight = torch.randn(16, 16, 4, 4)
        times: dict[str, list[float]] = {name: [] for name in sides}
        for part in range(rounds):
            inputs = [torch.randn(1, 16, h, w) for h, w in sizes[part:count:rounds]]
            for name, forward in sides.items():
                start = time.process_time()
                for data in inputs:
                    forward(data, weight)
                times[name].append((time.process_time() - start) / len(inputs))
        rows.append(
            row_of({"layer": f"{count} shapes", "way": "function", "mode": "no_grad"}, times)
        )
    return rows


def row_of(row: dict[str, object], times: dict[str, list[float]]) -> dict[str, object]:
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratio = statistics.median(b / a for a, b in zip(times["mxdeconv"], times["torch"], strict=True))
    print(
        f"{row['layer']:12} {row['way']:9} {row['mode']:8} "
        f"mxdeconv {medians['mxdeconv'] * 1e6:8.1f} us   torch {medians['torch'] * 1e6:8.1f} us   "
        f"{ratio:6.2f}x",
        flush=True,
    )
    return {**row, **{f"{name}_s": value for name, value in medians.items()}, "ratio": ratio}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--shapes", type=int, metavar="N", help="N sizes in a row, at most 3249")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=300, help="calls per round and backend")
    parser.add_argument("--json", help="append JSON lines to this file")
    args = parser.parse_args()
    if args.shapes is not None and not args.rounds <= args.shapes <= 3249:
        print(f"--shapes must be from {args.rounds} to 3249, got {args.shapes}", file=sys.stderr)
        return 2
    shapes = f" --shapes {args.shapes}" if args.shapes else ""
    command = f"python benchmarks/overhead.py{shapes} --rounds {args.rounds}"
    torch.set_num_threads(1)
    torch.manual_seed(0)
    machine = describe()
    print(f"{machine}; torch {torch.__version__}; 1 thread; last column: torch's time over ours")
    if args.shapes is None:
        rows = measure_calls(args.rounds, args.repeats)
    else:
        rows = measure_shapes(args.shapes, args.rounds)
    if args.json:
        with open(args.json, "a") as file:
            for row in rows:
                line = {
                    **{"machine": machine, "torch": torch.__version__, "command": command},
                    **{"overhead": True, **row},
                }
                file.write(json.dumps(line) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
