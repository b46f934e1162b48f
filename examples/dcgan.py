"""Learn the look of brick, grass and gravel: a DCGAN with a generator of mxdeconv.Deconvolution.

    python examples/dcgan.py                            # some minutes on two cores

A random vector is projected to 4 x 4, and four layers (kernel 4, stride 2, pad 1) bring it to
64 x 64 (Radford, Metz, Chintala 2016). The network is told which texture to draw, so a sheet of
samples has a row for each. Real images are random 64 x 64 crops of scikit-image's texture
photographs, at half their size. The default run is short: it finds tones, grain and mortar lines,
not photographs.

Writes into --out: dcgan_samples.png (the same noise over time, beside real crops),
dcgan_sheet.png (many samples at the end) and dcgan_losses.png.
"""

from __future__ import annotations

import argparse
import copy
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from _pictures import BLUE, GREY, INK, ORANGE, luminance, photograph, progress, pyplot, require
from torch import nn
from torch.nn import functional as F

require("mxdeconv", "numpy", "matplotlib", "skimage", "PIL", "tqdm")

import mxdeconv  # noqa: E402

TEXTURES = ("brick", "grass", "gravel")
SIDE = 64
NOISE = 48
BATCH = 24


class Generator(nn.Module):
    """(N, NOISE) noise and (N,) texture numbers -> (N, 1, 64, 64) images in [-1, 1]."""

    def __init__(self, width: int = 20) -> None:
        super().__init__()
        channels = [NOISE + len(TEXTURES), 8 * width, 4 * width, 2 * width, width, 1]
        self.project = mxdeconv.Deconvolution(  # 1 x 1 -> 4 x 4: (1-1) + 4
            in_channels=channels[0], num_filter=channels[1], kernel=(4, 4)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(count) for count in channels[1:-1])
        # How much of a fresh random picture each channel takes: where blades and stones lie is
        # chance, and need not be squeezed out of one vector (as in StyleGAN).
        self.chance = nn.ParameterList(
            nn.Parameter(torch.full((count, 1, 1), 0.5)) for count in channels[1:-1]
        )
        self.layers = nn.ModuleList(
            mxdeconv.Deconvolution(  # n -> 2n: 2(n-1) + 4 - 2
                in_channels=c_in,
                num_filter=c_out,
                kernel=(4, 4),
                stride=(2, 2),
                pad=(1, 1),
                # A batch norm follows every layer but the last, and has a bias of its own.
                no_bias=c_out != 1,
            )
            for c_in, c_out in pairwise(channels[1:])
        )
        for layer in (self.project, *self.layers):
            nn.init.normal_(layer.weight, std=0.04)

    def forward(self, noise: torch.Tensor, texture: torch.Tensor) -> torch.Tensor:
        known = F.one_hot(texture, len(TEXTURES)).to(noise.dtype)
        image = self.project(torch.cat([noise, known], 1)[:, :, None, None])
        for norm, chance, layer in zip(self.norms, self.chance, self.layers, strict=True):
            image = norm(image)
            image = image + chance * torch.randn_like(image[:, :1])
            image = layer(F.leaky_relu(image, 0.1))
        return torch.tanh(image)


class Discriminator(nn.Module):
    """(N, 1, 64, 64) images and (N,) texture numbers -> (N, 4, 4): how real, each for a region."""

    def __init__(self, width: int = 20) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for c_in, c_out in pairwise([1, width, 2 * width, 4 * width, 8 * width]):
            conv = nn.Conv2d(c_in, c_out, 4, stride=2, padding=1)
            nn.init.normal_(conv.weight, std=0.03)
            layers += [nn.utils.parametrizations.spectral_norm(conv), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers)
        self.score = nn.Conv2d(8 * width, 1 + len(TEXTURES), 1)

    def forward(self, image: torch.Tensor, texture: torch.Tensor) -> torch.Tensor:
        scores = self.score(self.body(image))
        # One score for "a photograph", one for "a photograph of this texture".
        of_texture = scores[torch.arange(len(texture)), 1 + texture]
        return scores[:, 0] + of_texture


class Crops:
    """Random mirrored 64 x 64 crops of the texture photographs, in [-1, 1]."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self.photographs = []
        for name in TEXTURES:
            image = luminance(photograph(f"{name}.png"))[None]
            half = F.interpolate(image, scale_factor=0.5, mode="bicubic", antialias=True)[0]
            low, high = torch.quantile(half, torch.tensor([0.005, 0.995])).tolist()
            self.photographs.append(((half - low) / (high - low)).clamp(0, 1) * 2 - 1)

    def _integer(self, limit: int) -> int:
        return int(torch.randint(limit, (), generator=self.generator))

    def one(self, texture: int) -> torch.Tensor:
        image = self.photographs[texture]
        top = self._integer(image.shape[-2] - SIDE + 1)
        left = self._integer(image.shape[-1] - SIDE + 1)
        crop = image[:, top : top + SIDE, left : left + SIDE]
        return crop.flip(2) if self._integer(2) else crop

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        textures = torch.arange(BATCH) % len(TEXTURES)
        return torch.stack([self.one(int(texture)) for texture in textures]), textures


class Sheet:
    """The same noise, drawn by the averaged generator at several moments of the training."""

    def __init__(self, columns: int, seed: int) -> None:
        self.noise = torch.randn(
            columns * len(TEXTURES), NOISE, generator=torch.Generator().manual_seed(seed + 1)
        )
        self.texture = torch.arange(len(TEXTURES)).repeat_interleave(columns)
        self.seed = seed
        self.moments: list[tuple[int, torch.Tensor]] = []

    @torch.no_grad()
    def draw(self, averaged: Generator, step: int) -> None:
        # Batch statistics, as in training: averaged weights have no running ones of their own.
        averaged.train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.moments.append((step, averaged(self.noise, self.texture)))


def noisy(images: torch.Tensor, strength: float) -> torch.Tensor:
    return images + strength * torch.randn_like(images)


def average_into(averaged: nn.Module, model: nn.Module, keep: float) -> None:
    """Move the averaged weights a little towards the model's: their samples are calmer."""
    with torch.no_grad():
        for mean, value in zip(averaged.parameters(), model.parameters(), strict=True):
            mean.lerp_(value, 1 - keep)


def train(steps: int, seed: int) -> tuple[Generator, Sheet, Crops, list[tuple[float, float]]]:
    """Train both networks: averaged generator, its sheets over time, the crops, all losses."""
    torch.manual_seed(seed)
    generator, discriminator = Generator(), Discriminator()
    averaged = copy.deepcopy(generator)
    crops = Crops(torch.Generator().manual_seed(seed))
    sheet = Sheet(columns=8, seed=seed)
    moments = {max(1, round(steps * share)) for share in (0.1, 0.3, 0.6, 1.0)}
    adam = {"lr": 2.5e-4, "betas": (0.5, 0.99)}
    generator_step = torch.optim.Adam(generator.parameters(), **adam)
    discriminator_step = torch.optim.Adam(discriminator.parameters(), **adam)
    losses: list[tuple[float, float]] = []

    bar = progress(range(steps), "training", "step")
    for step in bar:
        real, texture = crops.batch()
        made = generator(torch.randn(BATCH, NOISE), texture)

        # What the discriminator sees is overlaid with noise that fades out, so that it cannot win
        # by single pixels while the generator still learns the coarse things.
        strength = 0.2 * (1 - step / steps)

        # Hinge losses: the discriminator stops pushing where it is already sure.
        loss_d = (
            F.relu(1 - discriminator(noisy(real, strength), texture)).mean()
            + F.relu(1 + discriminator(noisy(made.detach(), strength), texture)).mean()
        )
        discriminator_step.zero_grad(set_to_none=True)
        loss_d.backward()
        discriminator_step.step()

        discriminator.requires_grad_(False)  # its weight gradients are not needed here
        loss_g = -discriminator(noisy(made, strength), texture).mean()
        generator_step.zero_grad(set_to_none=True)
        loss_g.backward()
        generator_step.step()
        discriminator.requires_grad_(True)

        average_into(averaged, generator, keep=min(0.95, step / (step + 10)))
        losses.append((loss_g.item(), loss_d.item()))
        if step + 1 in moments:
            sheet.draw(averaged, step + 1)
        if step % 10 == 9:
            made_loss, seen_loss = losses[-1]
            bar.set_postfix_str(
                f"generator {made_loss:.2f}, discriminator {seen_loss:.2f}", refresh=False
            )
    return averaged, sheet, crops, losses


def tile(images: torch.Tensor, columns: int) -> torch.Tensor:
    """(rows * columns, 1, S, S) in [-1, 1] -> one (H, W) picture in [0, 1] with white gaps."""
    padded = F.pad(images.clamp(-1, 1) / 2 + 0.5, (2, 2, 2, 2), value=1.0)
    rows, side = images.shape[0] // columns, padded.shape[-1]
    return (
        padded.view(rows, columns, side, side).transpose(1, 2).reshape(rows * side, columns * side)
    )


def show(axis: Any, picture: torch.Tensor, title: str) -> None:
    axis.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set_title(title, loc="left")
    axis.set_axis_off()


def draw_samples(sheet: Sheet, crops: Crops, path: Path) -> None:
    plt = pyplot()
    columns = 4  # of the eight that were drawn: they are compared over time here
    panels = len(sheet.moments) + 1
    figure, axes = plt.subplots(1, panels, figsize=(3.3 * panels, 3.1), squeeze=False)
    chosen = torch.cat([torch.arange(columns) + row * 8 for row in range(len(TEXTURES))])
    for axis, (step, images) in zip(axes[0], sheet.moments, strict=False):
        show(axis, tile(images[chosen], columns), f"made after {step} steps")
    real = torch.stack([crops.one(row) for row in range(len(TEXTURES)) for _ in range(columns)])
    show(axes[0][-1], tile(real, columns), "real")
    for row, name in enumerate(TEXTURES):
        axes[0][0].text(
            -6, (SIDE + 4) * (row + 0.5), name, rotation=90, ha="right", va="center", color=INK
        )
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


@torch.no_grad()
def draw_sheet(averaged: Generator, seed: int, path: Path) -> None:
    plt = pyplot()
    columns, rows_each = 12, 2
    count = columns * rows_each * len(TEXTURES)
    texture = torch.arange(len(TEXTURES)).repeat_interleave(columns * rows_each)
    noise = torch.randn(count, NOISE, generator=torch.Generator().manual_seed(seed + 2))
    figure, axis = plt.subplots(figsize=(10, 5.3))
    show(axis, tile(averaged.train()(noise, texture), columns), "Samples of the trained generator")
    for row, name in enumerate(TEXTURES):
        height = (SIDE + 4) * rows_each
        axis.text(-8, height * (row + 0.5), name, rotation=90, ha="right", va="center", color=INK)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def draw_losses(losses: list[tuple[float, float]], path: Path) -> None:
    plt = pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 3.6))
    window = max(1, min(30, len(losses) // 10))
    lines = (
        ("generator: minus the mean score of made images", BLUE),
        ("discriminator: hinge loss (2 = cannot tell)", ORANGE),
    )
    for axis, values, (title, color) in zip(axes, zip(*losses, strict=True), lines, strict=True):
        axis.plot(range(1, len(losses) + 1), values, color=GREY, linewidth=0.5)
        mean = torch.tensor(values).unfold(0, window, 1).mean(1).tolist()
        axis.plot(range(window, len(losses) + 1), mean, color=color, linewidth=2)
        axis.set(xlabel="step", ylabel="loss", xlim=(0, len(losses)))
        axis.set_title(title, loc="left")
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1500, help="training steps")
    parser.add_argument("--out", type=Path, default=Path("pictures"), help="folder to write into")
    parser.add_argument("--seed", type=int, default=0, help="of weights, noise and crops")
    arguments = parser.parse_args()
    if arguments.steps < 1:
        parser.error(f"--steps must be at least 1, got {arguments.steps}")

    averaged, sheet, crops, losses = train(arguments.steps, arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)
    names = ("dcgan_samples.png", "dcgan_sheet.png", "dcgan_losses.png")
    samples, many, curve = (arguments.out / name for name in names)
    draw_samples(sheet, crops, samples)
    draw_sheet(averaged, arguments.seed, many)
    draw_losses(losses, curve)
    for path in (samples, many, curve):
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
