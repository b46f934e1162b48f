"""The CUDA engine without a GPU: nvcc compiles its kernels. What they compute is checked on the
emulator, by the native tests (test_native.py)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NO_NVCC = 2


def test_kernels_compile() -> None:
    """For the oldest architecture, which lacks most, and one of the newest; nothing spills."""
    command = [sys.executable, str(ROOT / "tests/native/compile_cuda.py"), "sm_75", "sm_90a"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode == NO_NVCC:
        pytest.skip(result.stdout.strip())
    assert result.returncode == 0, result.stdout + result.stderr
