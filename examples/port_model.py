"""Carry a whole model over from MXNet, without MXNet: load, compare, fine-tune, write ONNX.

    python examples/port_model.py                       # some ten seconds
    python examples/port_model.py --prefix my/model --epoch 7 --recorded my/recorded.npz --steps 0

The model that comes with it is a small U-Net with random weights whose Deconvolution has a
target_shape, as MXNet 1.9.1 saved it, with what MXNet computed: outputs, every node, gradients. The
port has to agree with all of it to float32 rounding; exit status 1 when it does not, or when
fine-tuning it does not lower the loss.

Writes into --out: port_model.png (the loss, and what the model marks before and after) and
port_model.onnx, checked in onnxruntime.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from _pictures import BLUE, GREY, pyplot, require
from torch.nn import functional as F

require("mxdeconv", "numpy", "matplotlib", "onnx", "onnxruntime", "onnxscript")

from mxdeconv import porting  # noqa: E402

PREFIX = Path(__file__).parent / "data" / "port_model"


def draw_discs(count: int, size: tuple[int, int], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy pictures of one bright disc each, (count, 1, *size), and masks of the discs."""
    random = torch.Generator().manual_seed(seed)
    place = torch.rand(count, 3, 1, 1, generator=random)
    rows = torch.arange(size[0]).reshape(1, -1, 1)
    columns = torch.arange(size[1]).reshape(1, 1, -1)
    radius = 3 + 5 * place[:, 0]
    distance = torch.hypot(rows - size[0] * place[:, 1], columns - size[1] * place[:, 2])
    masks = (distance < radius).float().unsqueeze(1)
    noise = torch.randn(masks.shape, generator=random)
    return masks + 0.5 * noise, masks


def fine_tune(module: porting.PortedModule, steps: int, size: tuple[int, int]) -> list[float]:
    """The loss of each step, and the one after the last."""
    # The symbol says lr_mult=2 of the Deconvolution's weight; biases do not decay.
    groups = porting.parameter_groups(module, lr=0.02, weight_decay=1e-4)
    optimizer = torch.optim.AdamW(groups)
    pictures, masks = draw_discs(32, size, seed=1)
    module.train()
    losses = []
    for _ in range(steps):
        loss = F.binary_cross_entropy(module(pictures), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    with torch.no_grad():
        losses.append(float(F.binary_cross_entropy(module(pictures), masks)))
    module.eval()
    return losses


def draw(
    losses: list[float],
    picture: torch.Tensor,
    before: torch.Tensor,
    after: torch.Tensor,
    path: Path,
) -> None:
    plt = pyplot()
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.4), width_ratios=(1.5, 1, 1, 1))
    axes[0].plot(range(len(losses)), losses, color=BLUE, marker="o", markersize=4)
    axes[0].set_xlabel("step of fine-tuning")
    axes[0].set_title("binary cross entropy", loc="left")
    axes[0].set_ylim(0, None)
    axes[0].grid(color=GREY, alpha=0.3, linewidth=0.6)
    for axis, values, title in (
        (axes[1], picture, "data"),
        (axes[2], before, "output as ported"),
        (axes[3], after, f"after {len(losses) - 1} steps"),
    ):
        axis.imshow(values.numpy(), cmap="gray")
        axis.set_title(title)
        axis.set_axis_off()
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--prefix", type=Path, default=PREFIX, help="of the MXNet checkpoint")
    parser.add_argument("--epoch", type=int, default=0, help="number of the .params file")
    parser.add_argument("--recorded", type=Path, help="what MXNet computed (PREFIX.npz)")
    parser.add_argument("--steps", type=int, default=10, help="of fine-tuning; 0 leaves it out")
    parser.add_argument("--out", type=Path, default=Path("pictures"), help="folder to write into")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    module = porting.load_checkpoint(arguments.prefix, arguments.epoch)
    print(module.code)
    recorded = arguments.recorded or arguments.prefix.with_name(f"{arguments.prefix.name}.npz")
    comparison = porting.compare(module, recorded)
    print(comparison)
    if not comparison.agrees:
        return 1

    inputs = {
        name.removeprefix("input:"): value
        for name, value in porting.load_params(recorded).items()
        if name.startswith("input:")
    }
    if arguments.steps:
        size = next(iter(inputs.values())).shape[2:]
        picture, _ = draw_discs(1, size, seed=2)
        with torch.no_grad():
            before = module.eval()(picture)[0, 0]
        losses = fine_tune(module, arguments.steps, size)
        with torch.no_grad():
            after = module(picture)[0, 0]
        print(f"loss {losses[0]:.3f}, after {arguments.steps} steps {losses[-1]:.3f}")
        draw(losses, picture[0, 0], before, after, arguments.out / "port_model.png")
        print(f"wrote {arguments.out / 'port_model.png'}")
        if not losses[-1] < losses[0]:
            print("fine-tuning did not lower the loss", file=sys.stderr)
            return 1

    print(porting.convert(module, arguments.out / "port_model.onnx", inputs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
