"""Upscale photographs threefold with a small network whose upsampler is mxdeconv.Deconvolution.

    python examples/super_resolution.py                 # a minute or two on two cores

The network is FSRCNN's (Dong, Loy, Tang 2016): everything is computed on the small image, and one
transposed convolution with a 9 x 9 kernel and stride 3 makes all pixels of the large one. It adds
what it finds to a bicubic upscaling, and it works on luminance, as is customary: the colour planes
of the pictures are bicubic.

It is trained on some of the photographs that scikit-image brings and measured on others. Exit
status 1 unless it beats bicubic there by --min-gain dB (0.3) of mean PSNR.

Writes into --out: super_resolution.png (bicubic, network and target side by side),
super_resolution_loss.png and super_resolution.json (the numbers).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from _pictures import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    photograph,
    progress,
    pyplot,
    require,
    rgb_to_ycc,
    ycc_to_rgb,
)
from torch import nn
from torch.nn import functional as F

require("mxdeconv", "numpy", "matplotlib", "skimage", "PIL", "tqdm")

import mxdeconv  # noqa: E402

SCALE = 3
TRAINING = (
    "brick.png",
    "camera.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "motorcycle_left.png",
    "page.png",
    "rocket.jpg",
)
# Never seen in training. The boxes (top, left, height, width) are only what the picture shows;
# the PSNR is that of the whole photograph.
HELD_OUT = {
    "astronaut.png": (48, 150, 108, 144),
    "chelsea.png": (60, 120, 108, 144),
    "coffee.png": (192, 300, 108, 144),
}
PATCH = 24  # side of a training patch on the small image
BATCH = 16


class Upscaler(nn.Module):
    """(N, 1, h, w) luminance in [0, 1] -> (N, 1, 3h, 3w): FSRCNN on top of bicubic."""

    def __init__(self, features: int = 48, shrunk: int = 12, depth: int = 3) -> None:
        super().__init__()
        self.feature = nn.Sequential(nn.Conv2d(1, features, 5, padding=2), nn.PReLU(features))
        self.shrink = nn.Sequential(nn.Conv2d(features, shrunk, 1), nn.PReLU(shrunk))
        self.map = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(shrunk, shrunk, 3, padding=1), nn.PReLU(shrunk))
                for _ in range(depth)
            )
        )
        self.expand = nn.Sequential(nn.Conv2d(shrunk, features, 1), nn.PReLU(features))
        # Out size 3(n-1) + 9 - 2*3 = 3n. With pad 3 the kernel's centre falls on the middle one
        # of the 3 x 3 pixels that a small pixel stands for: no half-pixel shift to be unlearned.
        self.upsample = mxdeconv.Deconvolution(
            in_channels=features,
            num_filter=1,
            kernel=(9, 9),
            stride=(SCALE, SCALE),
            pad=(3, 3),
            no_bias=False,  # MXNet's default is True
        )
        # FSRCNN's own choice for this layer: start close to bicubic and grow detail from there.
        nn.init.normal_(self.upsample.weight, std=1e-3)
        nn.init.zeros_(self.upsample.bias)

    def forward(self, small: torch.Tensor) -> torch.Tensor:
        detail = self.expand(self.map(self.shrink(self.feature(small - 0.5))))
        return bicubic(small, SCALE) + self.upsample(detail)


def bicubic(image: torch.Tensor, factor: float) -> torch.Tensor:
    """Bicubic (a = -0.5) resampling as Pillow does it: antialiased when it makes smaller."""
    size = [round(side * factor) for side in image.shape[-2:]]
    return F.interpolate(image, size=size, mode="bicubic", antialias=True)


def make_small(image: torch.Tensor) -> torch.Tensor:
    """The network's input: reduced threefold, with the 8-bit rounding that a file would have."""
    return (bicubic(image, 1 / SCALE).clamp(0, 1) * 255).round() / 255


def load(name: str) -> torch.Tensor:
    """A photograph (1, 3, H, W), cropped to a multiple of the scale."""
    image = photograph(name)
    height, width = (side - side % SCALE for side in image.shape[-2:])
    return image[None, :, :height, :width]


class Patches:
    """Random aligned patches, turned and mirrored, of the training photographs."""

    def __init__(self, names: tuple[str, ...], generator: torch.Generator) -> None:
        self.generator = generator
        self.pairs = []
        for name in names:
            large = rgb_to_ycc(load(name))[:, :1]
            self.pairs.append((make_small(large)[0], large[0]))
        areas = torch.tensor([float(large.numel()) for _, large in self.pairs])
        self.share = areas.sqrt()  # large photographs more often, but not to the last pixel

    def _integer(self, limit: int) -> int:
        return int(torch.randint(limit, (), generator=self.generator))

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        smalls, larges = [], []
        for index in torch.multinomial(
            self.share, BATCH, replacement=True, generator=self.generator
        ):
            small, large = self.pairs[int(index)]
            top = self._integer(small.shape[-2] - PATCH + 1)
            left = self._integer(small.shape[-1] - PATCH + 1)
            turns, mirror = self._integer(4), self._integer(2)
            for image, scale, patches in ((small, 1, smalls), (large, SCALE, larges)):
                patch = image[
                    :,
                    top * scale : (top + PATCH) * scale,
                    left * scale : (left + PATCH) * scale,
                ].rot90(turns, (1, 2))
                patches.append(patch.flip(2) if mirror else patch)
        return torch.stack(smalls), torch.stack(larges)


def psnr(image: torch.Tensor, target: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of luminance in [0, 1], without a rim of SCALE pixels."""
    rim = (..., slice(SCALE, -SCALE), slice(SCALE, -SCALE))
    error = F.mse_loss(image.clamp(0, 1)[rim], target[rim])
    return -10 * math.log10(max(float(error), 1e-12))


@dataclass
class Result:
    """One held-out photograph: PSNR of both ways, and the coloured pictures of its box."""

    name: str
    bicubic_db: float
    network_db: float
    bicubic_picture: torch.Tensor
    network_picture: torch.Tensor
    target_picture: torch.Tensor

    @property
    def gain_db(self) -> float:
        return self.network_db - self.bicubic_db


@torch.no_grad()
def evaluate(model: Upscaler) -> list[Result]:
    results = []
    for name, (top, left, height, width) in HELD_OUT.items():
        target_rgb = load(name)
        target = rgb_to_ycc(target_rgb)
        small = make_small(target_rgb)
        upscaled = rgb_to_ycc(bicubic(small, SCALE))
        network = model(rgb_to_ycc(small)[:, :1])
        pictures = [
            ycc_to_rgb(picture)[0, :, top : top + height, left : left + width].permute(1, 2, 0)
            for picture in (upscaled, torch.cat([network, upscaled[:, 1:]], 1), target)
        ]
        results.append(
            Result(
                Path(name).stem,
                psnr(upscaled[:, :1], target[:, :1]),
                psnr(network, target[:, :1]),
                *pictures,
            )
        )
    return results


@dataclass
class History:
    """How training went: per step, and now and then on the held-out photographs."""

    loss: list[float]  # mean absolute error of the batch
    relative_loss: list[float]  # the same, divided by bicubic's on the same batch
    checked_at: list[int]  # steps after which the held-out photographs were measured
    gain_db: dict[str, list[float]]  # and what was found: PSNR above bicubic


def train(model: Upscaler, steps: int, seed: int) -> History:
    """Train in place. The held-out photographs are only watched: nothing is chosen by them."""
    patches = Patches(TRAINING, torch.Generator().manual_seed(seed))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=4e-3, total_steps=max(steps, 2), pct_start=0.15
    )
    history = History([], [], [], {Path(name).stem: [] for name in HELD_OUT})
    check_every = max(1, steps // 10)
    bar = progress(range(steps), "training", "step")
    for step in bar:
        small, large = patches.batch()
        loss = F.l1_loss(model(small), large)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            history.loss.append(float(loss))
            history.relative_loss.append(float(loss / F.l1_loss(bicubic(small, SCALE), large)))
        if (step + 1) % check_every == 0 or step + 1 == steps:
            history.checked_at.append(step + 1)
            gains = {result.name: result.gain_db for result in evaluate(model)}
            for name, gain in gains.items():
                history.gain_db[name].append(gain)
            mean = sum(gains.values()) / len(gains)
            bar.set_postfix_str(f"held-out photographs {mean:+.2f} dB", refresh=False)
    return history


def draw_results(results: list[Result], path: Path) -> None:
    plt = pyplot()
    rows = len(results)
    figure, axes = plt.subplots(rows, 3, figsize=(12.6, 3.5 * rows), squeeze=False)
    for row, result in zip(axes, results, strict=True):
        titles = (
            f"before: bicubic, {result.bicubic_db:.2f} dB",
            f"after: mxdeconv, {result.network_db:.2f} dB ({result.gain_db:+.2f})",
            "target",
        )
        pictures = (result.bicubic_picture, result.network_picture, result.target_picture)
        for axis, title, picture in zip(row, titles, pictures, strict=True):
            axis.imshow(picture.numpy(), interpolation="nearest")
            axis.set_title(title, color=BLUE if axis is row[1] else INK)
            axis.set_xticks([])
            axis.set_yticks([])
            for spine in axis.spines.values():
                spine.set_visible(False)
        row[0].set_ylabel(result.name, fontsize=11)
    figure.suptitle(
        "Threefold upscaling of photographs that were not trained on "
        "(details; PSNR of the whole photograph's luminance)"
    )
    figure.tight_layout(rect=(0, 0, 1, 0.985))
    figure.savefig(path)
    plt.close(figure)


def draw_training(history: History, min_gain: float, path: Path) -> None:
    plt = pyplot()
    steps = len(history.loss)
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2))

    window = max(1, min(50, steps // 10))
    mean = torch.tensor(history.relative_loss).unfold(0, window, 1).mean(1)
    left.plot(
        range(1, steps + 1), history.relative_loss, color=GREY, linewidth=0.5, label="one batch"
    )
    left.plot(
        range(window, steps + 1),
        mean.tolist(),
        color=ORANGE,
        linewidth=2,
        label=f"mean of {window} batches",
    )
    left.axhline(1, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), label="bicubic")
    left.set(xlabel="step", ylabel="mean absolute error / bicubic's", xlim=(0, steps))
    left.set_ylim(max(0.0, float(mean.min()) - 0.2), min(2.0, float(mean.max()) + 0.2))
    left.set_title("Training loss, relative to bicubic on the same patches", loc="left")
    left.legend(loc="upper right")

    for (name, gains), color in zip(history.gain_db.items(), (BLUE, ORANGE, GREEN), strict=True):
        right.plot([0, *history.checked_at], [0, *gains], "o-", color=color, ms=3.5, label=name)
    right.axhline(0, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), label="bicubic")
    right.axhline(
        min_gain, color=INK, linewidth=0.8, linestyle=":", label=f"goal of the mean ({min_gain:g})"
    )
    right.set(xlabel="step", ylabel="PSNR above bicubic (dB)", xlim=(0, steps * 1.02))
    right.set_title("Photographs that were not trained on", loc="left")
    right.legend(loc="upper left", bbox_to_anchor=(1, 1))
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=800, help="training steps")
    parser.add_argument("--out", type=Path, default=Path("pictures"), help="folder to write into")
    parser.add_argument("--seed", type=int, default=0, help="of weights and patches")
    parser.add_argument(
        "--min-gain",
        type=float,
        default=0.3,
        metavar="DB",
        help="exit with status 1 unless mean PSNR beats bicubic by this much",
    )
    arguments = parser.parse_args()
    if arguments.steps < 1:
        parser.error(f"--steps must be at least 1, got {arguments.steps}")

    start = time.perf_counter()
    torch.manual_seed(arguments.seed)
    model = Upscaler()
    print(f"training on {', '.join(Path(name).stem for name in TRAINING)}")
    history = train(model, arguments.steps, arguments.seed)
    results = evaluate(model)

    print(f"{'held-out photograph':<22}{'bicubic':>9}{'mxdeconv':>10}{'gain':>8}   (PSNR, dB)")
    for result in results:
        columns = f"{result.bicubic_db:9.2f}{result.network_db:10.2f}{result.gain_db:+8.2f}"
        print(f"{result.name:<22}{columns}")
    gain = sum(result.gain_db for result in results) / len(results)
    print(f"{'mean':<41}{gain:+8.2f}")

    arguments.out.mkdir(parents=True, exist_ok=True)
    pictures = arguments.out / "super_resolution.png", arguments.out / "super_resolution_loss.png"
    draw_results(results, pictures[0])
    draw_training(history, arguments.min_gain, pictures[1])
    numbers = {
        "steps": arguments.steps,
        "seed": arguments.seed,
        "seconds": round(time.perf_counter() - start, 1),
        "loss_first_last": [history.loss[0], history.loss[-1]],
        "psnr_db": {r.name: {"bicubic": r.bicubic_db, "mxdeconv": r.network_db} for r in results},
        "mean_gain_db": gain,
    }
    json_path = arguments.out / "super_resolution.json"
    json_path.write_text(json.dumps(numbers, indent=2) + "\n")
    for path in (*pictures, json_path):
        print(f"wrote {path}")
    if gain < arguments.min_gain:
        print(f"mean gain {gain:+.2f} dB is below --min-gain {arguments.min_gain:g} dB")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
