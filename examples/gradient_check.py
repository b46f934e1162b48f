"""Check every gradient of mxdeconv.deconvolution against finite differences, in float64.

    python examples/gradient_check.py                   # some seconds

For each layer of a table of layers that people really have: gradcheck (backward, forward mode),
gradgradcheck (second derivatives), and the largest difference between the analytic gradient and
one by central differences, entry by entry. Exit status 1 when anything disagrees.

Writes into --out: gradient_check.png (analytic against numeric, every single number).
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _pictures import BLUE, GREY, INK, progress, pyplot, require

require("mxdeconv", "numpy", "matplotlib", "tqdm")

import mxdeconv  # noqa: E402


@dataclass(frozen=True)
class Layer:
    """One row of the table: a name, the shape of data and MXNet's attributes."""

    name: str
    data: tuple[int, ...]
    attributes: dict[str, Any]

    def weight_shape(self) -> tuple[int, ...]:
        kernel, groups = self.attributes["kernel"], self.attributes.get("num_group", 1)
        filters = self.attributes["num_filter"] // groups
        if str(self.attributes.get("layout")).endswith("C"):
            return (self.data[-1], *kernel, filters)
        return (self.data[1], filters, *kernel)

    def tensors(self, seed: int) -> list[torch.Tensor]:
        """data, weight and, unless no_bias, bias: normal, float64, wanting gradients."""
        random = torch.Generator().manual_seed(seed)
        shapes = [self.data, self.weight_shape()]
        if not self.attributes.get("no_bias", True):
            shapes.append((self.attributes["num_filter"],))
        return [
            torch.randn(shape, generator=random, dtype=torch.float64).requires_grad_()
            for shape in shapes
        ]

    def __call__(self, *tensors: torch.Tensor) -> torch.Tensor:
        return mxdeconv.deconvolution(*tensors, **self.attributes)


LAYERS = (
    Layer(
        "DCGAN k4 s2 p1",
        (2, 3, 4, 4),
        {"num_filter": 2, "kernel": (4, 4), "stride": (2, 2), "pad": (1, 1), "no_bias": False},
    ),
    Layer(
        "FSRCNN k9 s3 p3",
        (1, 2, 3, 3),
        {"num_filter": 1, "kernel": (9, 9), "stride": (3, 3), "pad": (3, 3), "no_bias": False},
    ),
    Layer(
        "U-Net k2 s2",
        (2, 2, 3, 4),
        {"num_filter": 3, "kernel": (2, 2), "stride": (2, 2), "no_bias": False},
    ),
    Layer(
        "bilinear depthwise",
        (1, 3, 3, 3),
        {"num_filter": 3, "kernel": (4, 4), "stride": (2, 2), "pad": (1, 1), "num_group": 3},
    ),
    Layer(
        "groups, adj",
        (1, 4, 3, 3),
        {
            "num_filter": 2,
            "kernel": (3, 3),
            "stride": (2, 2),
            "pad": (1, 1),
            "adj": (1, 1),
            "num_group": 2,
        },
    ),
    Layer(
        "target_shape, odd crop",
        (1, 2, 4, 3),
        {"num_filter": 2, "kernel": (4, 3), "stride": (3, 2), "target_shape": (10, 6)},
    ),
    Layer(
        "dilate with stride",
        (1, 2, 3, 3),
        {
            "num_filter": 2,
            "kernel": (3, 2),
            "stride": (2, 3),
            "dilate": (2, 2),
            "pad": (2, 1),
            "no_bias": False,
        },
    ),
    Layer(
        "channels last NHWC",
        (1, 3, 4, 2),
        {
            "num_filter": 3,
            "kernel": (3, 3),
            "stride": (2, 2),
            "pad": (1, 1),
            "layout": "NHWC",
            "no_bias": False,
        },
    ),
    Layer(
        "1-D k8 s4 (audio)",
        (2, 2, 5),
        {"num_filter": 2, "kernel": (8,), "stride": (4,), "pad": (2,), "no_bias": False},
    ),
    Layer(
        "3-D k2 s2 (volumes)",
        (1, 2, 2, 2, 2),
        {"num_filter": 2, "kernel": (2, 2, 2), "stride": (2, 2, 2), "no_bias": False},
    ),
    Layer(
        "3-D k3 s2 dilate",
        (1, 1, 2, 2, 2),
        {
            "num_filter": 1,
            "kernel": (3, 2, 2),
            "stride": (2, 2, 1),
            "dilate": (1, 2, 1),
            "pad": (1, 0, 0),
        },
    ),
)


# Relative to the layer's largest gradient entry: sums of some hundred products, each rounded to
# 1.1e-16, and the cancellation of the two sides of the difference.
LARGEST_ERROR = 1e-12


def gradients(layer: Layer, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All gradients of sum(out * fixed random numbers), flat: analytic, and central differences.

    The sum is linear in every single entry of data, weight and bias, so that central differences
    are exact for any step. A step of 1 leaves nothing but the rounding of float64.
    """
    tensors = layer.tensors(seed)
    with torch.no_grad():
        shape = layer(*tensors).shape
    out_grad = torch.randn(
        shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 1)
    )
    analytic = torch.autograd.grad(layer(*tensors), tensors, out_grad)
    numeric = []
    step = 1.0
    with torch.no_grad():
        for tensor in tensors:
            entries = tensor.detach().view(-1)
            for index in range(entries.numel()):
                value = entries[index].item()
                entries[index] = value + step
                above = (layer(*tensors) * out_grad).sum()
                entries[index] = value - step
                below = (layer(*tensors) * out_grad).sum()
                entries[index] = value
                numeric.append((above - below) / (2 * step))
    return torch.cat([part.reshape(-1) for part in analytic]), torch.stack(numeric)


CHECKS = {
    "backward": lambda layer, tensors: torch.autograd.gradcheck(layer, tensors),
    "forward": lambda layer, tensors: torch.autograd.gradcheck(
        layer, tensors, check_forward_ad=True, check_backward_ad=False
    ),
    "second": lambda layer, tensors: torch.autograd.gradgradcheck(layer, tensors),
}


def draw(found: list[tuple[Layer, torch.Tensor, torch.Tensor]], path: Path) -> None:
    plt = pyplot()
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12.5, 5.2), gridspec_kw={"width_ratios": (1, 1.05)}
    )
    analytic = torch.cat([values for _, values, _ in found])
    numeric = torch.cat([values for _, _, values in found])
    reach = 1.05 * float(analytic.abs().max())
    left.plot([-reach, reach], [-reach, reach], color=GREY, linewidth=1, zorder=1)
    left.scatter(numeric, analytic, s=9, color=BLUE, alpha=0.45, linewidths=0, zorder=2)
    left.set(
        xlabel="by central differences",
        ylabel="by mxdeconv",
        xlim=(-reach, reach),
        ylim=(-reach, reach),
        aspect="equal",
    )
    left.set_title(f"All {analytic.numel()} gradient entries, float64", loc="left")

    random = torch.Generator().manual_seed(0)
    for row, (_, ours, theirs) in enumerate(found):
        error = ((ours - theirs).abs() / ours.abs().max()).clamp_min(1e-18)
        heights = row + (torch.rand(error.shape, generator=random) - 0.5) * 0.55
        right.scatter(error, heights, s=7, color=BLUE, alpha=0.4, linewidths=0)
        right.plot([float(error.max())] * 2, [row - 0.36, row + 0.36], color=INK, linewidth=1.5)
    right.set_xscale("log")
    right.set_xticks([1e-18, 1e-17, 1e-16, 1e-15], ["equal", "1e-17", "1e-16", "1e-15"])
    right.set_yticks(range(len(found)), [layer.name for layer, _, _ in found])
    right.invert_yaxis()
    right.tick_params(axis="y", length=0)
    right.set_xlabel("|difference| / largest gradient of the layer (bar: worst entry)")
    right.set_title("What is left is the rounding of float64 (2.2e-16)", loc="left")
    right.grid(axis="x", color=GREY, alpha=0.3, linewidth=0.6)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("pictures"), help="folder to write into")
    parser.add_argument("--seed", type=int, default=0, help="of data, weights and biases")
    arguments = parser.parse_args()

    lines, found, failures = [], [], []
    start = time.perf_counter()
    bar = progress(LAYERS, "checking", "layer")
    for layer in bar:
        bar.set_postfix_str(layer.name, refresh=False)
        cells = []
        for check, run in CHECKS.items():
            try:
                run(layer, tuple(layer.tensors(arguments.seed)))
                cells.append("ok")
            except torch.autograd.gradcheck.GradcheckError as error:
                cells.append("WRONG")
                failures.append(f"{layer.name}, {check}: {error}")
        analytic, numeric = gradients(layer, arguments.seed)
        found.append((layer, analytic, numeric))
        error = float((analytic - numeric).abs().max() / analytic.abs().max())
        if not error < LARGEST_ERROR:
            failures.append(f"{layer.name}: differs from central differences by {error:.1e}")
        cells += [f"{analytic.numel():7d}", f"{error:9.1e}"]
        lines.append(f"{layer.name:<24}" + "".join(f"{cell:>10}" for cell in cells))

    print(f"{'layer':<24}" + "".join(f"{c:>10}" for c in (*CHECKS, "entries", "max diff")))
    print("\n".join(lines))
    print(
        f"{len(LAYERS)} layers x {len(CHECKS)} checks in {time.perf_counter() - start:.1f} s: "
        + (f"{len(failures)} WRONG" if failures else "all gradients agree")
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    draw(found, arguments.out / "gradient_check.png")
    print(f"wrote {arguments.out / 'gradient_check.png'}")
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
