"""Carry one layer over from MXNet: its symbol.json attributes and its arrays, nothing retyped.

    python examples/mxnet_layer.py                      # a second

examples/data holds what MXNet 1.9.1 saved of a Deconvolution layer (symbol.json) and what it
computed with it: data, weight, bias, output and, for a given output gradient, all gradients. The
layer is grouped and has a target_shape that wants an odd crop. mxdeconv must agree to float32
rounding; exit status 1 when it does not.

Writes into --out: mxnet_layer.png (both results and their difference).
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
from pathlib import Path

import torch
from _pictures import BLUE, GREY, INK, pyplot, require

require("mxdeconv", "numpy", "matplotlib")

import mxdeconv  # noqa: E402

DATA = Path(__file__).parent / "data"


def load_layer(symbol: Path, arrays: dict[str, torch.Tensor]) -> tuple[str, torch.nn.Module]:
    """The first Deconvolution of a symbol.json as a module with its weights: (name, module)."""
    nodes = json.loads(symbol.read_text())["nodes"]
    node = next(node for node in nodes if node["op"] == "Deconvolution")
    module = mxdeconv.Deconvolution.from_attrs(node["attrs"])
    # Inputs are (node, output, version) triples: data, weight and, unless no_bias, bias.
    parameters = [nodes[index]["name"] for index, *_ in node["inputs"][1:]]
    module.load_state_dict(
        {key: arrays[name] for key, name in zip(("weight", "bias"), parameters, strict=False)}
    )
    return node["name"], module


def run(
    module: torch.nn.Module, data: torch.Tensor, out_grad: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Output and all gradients, under the names that the recorded arrays have."""
    data = data.clone().requires_grad_()
    out = module(data)
    data_grad, *rest = torch.autograd.grad(out, (data, *module.parameters()), out_grad)
    named = {
        f"{name}_grad": grad
        for (name, _), grad in zip(module.named_parameters(), rest, strict=True)
    }
    return {"output": out.detach(), "data_grad": data_grad, **named}


def rounding_bounds(
    module: torch.nn.Module, data: torch.Tensor, out_grad: torch.Tensor
) -> dict[str, torch.Tensor]:
    """How far two float32 evaluations may be apart, for every number that is compared.

    A sum of K products, in any order, is within K u sum|a b| of the exact one (u = 2**-24), and
    two are compared. The sums of absolute products are the layer itself on absolute values.
    """
    absolute = copy.deepcopy(module).double()
    with torch.no_grad():
        for parameter in absolute.parameters():
            parameter.abs_()
    sums = run(absolute, data.abs().double(), out_grad.abs().double())
    channels, filters_per_group, *kernel = module.weight.shape
    taps = math.prod(kernel)
    groups = out_grad.shape[1] // filters_per_group
    terms = {
        "output": channels // groups * taps + 1,
        "data_grad": filters_per_group * taps,
        "weight_grad": data.numel() // channels,
        "bias_grad": out_grad.numel() // out_grad.shape[1],
    }
    return {name: 2 * terms[name] * 2.0**-24 * value for name, value in sums.items()}


def draw(
    ours: dict[str, torch.Tensor],
    theirs: dict[str, torch.Tensor],
    bounds: dict[str, torch.Tensor],
    path: Path,
) -> None:
    plt = pyplot()
    figure, axes = plt.subplots(2, 4, figsize=(14.5, 5.6), width_ratios=(1, 1, 1, 1.1))
    for row, name in zip(axes, ("output", "data_grad"), strict=True):
        mxnet, here = theirs[name][0, 0], ours[name][0, 0]
        difference = (here - mxnet).double() * 1e6
        reach = float(mxnet.abs().max())
        small = max(float(difference.abs().max()), 1e-3)
        label = f"{name.replace('_', ' ')}, channel 0"
        for axis, picture, title, limit in (
            (row[0], mxnet, f"MXNet 1.9.1: {label}", reach),
            (row[1], here, f"mxdeconv: {label}", reach),
            (row[2], difference, "difference, in millionths", small),
        ):
            image = axis.imshow(picture.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
            figure.colorbar(image, ax=axis, shrink=0.82)
            axis.set_title(title)
            axis.set_axis_off()
    for axis in axes[:, 3]:
        axis.remove()
    axis = figure.add_subplot(axes[0, 3].get_gridspec()[:, 3])
    for row, name in enumerate(bounds):
        share = ((ours[name] - theirs[name]).double().abs() / bounds[name]).reshape(-1)
        share = share.clamp_min(1e-6)
        random = torch.Generator().manual_seed(row)
        heights = row + (torch.rand(share.shape, generator=random) - 0.5) * 0.6
        axis.scatter(share, heights, s=6, color=BLUE, alpha=0.35, linewidths=0)
    axis.axvline(1, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axis.set_xscale("log")
    axis.set_xlim(6e-7, 3)
    axis.set_xticks([1e-6, 1e-4, 1e-2, 1], ["equal", "1e-4", "1e-2", "1"])
    axis.set_yticks(range(len(bounds)), [name.replace("_", "\n") for name in bounds])
    axis.set_ylim(len(bounds) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
    axis.set_xlabel("|difference| / bound of float32 rounding")
    axis.set_title("Every number, against its bound", loc="left")
    axis.grid(axis="x", color=GREY, alpha=0.3, linewidth=0.6)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def main() -> int:
    import numpy

    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("pictures"), help="folder to write into")
    arguments = parser.parse_args()

    with numpy.load(DATA / "mxnet_layer.npz") as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    name, module = load_layer(DATA / "mxnet_layer-symbol.json", arrays)
    print(f"{name}: {module}")

    data, out_grad = arrays["data"], arrays[f"{name}_output_grad"]
    ours = run(module, data, out_grad)
    theirs = {key: arrays[key if key == "data_grad" else f"{name}_{key}"] for key in ours}
    bounds = rounding_bounds(module, data, out_grad)

    print(f"{'compared':<13}{'shape':<18}{'largest value':>14}{'max diff':>11}{'of its bound':>14}")
    wrong = []
    for key, here in ours.items():
        assert here.shape == theirs[key].shape, (key, here.shape, theirs[key].shape)
        difference = (here - theirs[key]).double().abs()
        share = float((difference / bounds[key]).max())
        largest, worst = float(theirs[key].abs().max()), float(difference.max())
        shape = str(tuple(here.shape))
        print(f"{key:<13}{shape:<18}{largest:>14.3f}{worst:>11.1e}{share:>13.1%}")
        if not share <= 1:
            wrong.append(key)

    arguments.out.mkdir(parents=True, exist_ok=True)
    draw(ours, theirs, bounds, arguments.out / "mxnet_layer.png")
    print(f"wrote {arguments.out / 'mxnet_layer.png'}")
    if wrong:
        print(f"further from MXNet than rounding explains: {', '.join(wrong)}", file=sys.stderr)
        return 1
    print("the layer computes what it computed in MXNet, forward and backward")
    return 0


if __name__ == "__main__":
    sys.exit(main())
