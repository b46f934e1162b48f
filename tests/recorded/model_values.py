"""Inputs and parameters of the recorded models: drawn anew on both sides, not stored.

Needs NumPy only. RandomState's streams are frozen, so that the values are the same everywhere.
"""

from __future__ import annotations

import zlib

import numpy as np


def draw_parameter(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Weights that keep activations near 1, statistics near those of normalized data."""
    rng = np.random.RandomState(zlib.crc32(name.encode()) % 2**31)
    noise = rng.standard_normal(int(np.prod(shape))).reshape(shape).astype(np.float32)
    if name.endswith("var"):
        return 0.5 + noise * noise
    if name.endswith("gamma"):
        return 1 + noise / 10 if "_p" not in name else np.abs(noise) / 4
    if name.endswith("weight"):
        fan_in = max(int(np.prod(shape[1:])), 1)
        if name.startswith("centernet"):  # scores that the sigmoid does not round to 1
            fan_in *= 1000
        return noise * np.float32(np.sqrt(2 / fan_in))
    return noise / np.float32(10)


def draw_input(name: str, shape: tuple[int, ...], labels: int) -> np.ndarray:
    """Normal numbers, or classes for a label."""
    rng = np.random.RandomState(zlib.crc32(name.encode()) % 2**31)
    if name.endswith("label"):
        return rng.randint(0, labels, shape).astype(np.float32)
    return rng.standard_normal(shape).astype(np.float32)


def draw_head_gradient(number: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.RandomState(number).randint(-3, 4, shape).astype(np.float32)
