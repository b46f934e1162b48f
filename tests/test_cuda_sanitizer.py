"""The own kernels under compute-sanitizer: no access out of bounds, no race in shared memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_devices import require_device
from torch.utils.cpp_extension import CUDA_HOME

FOUND = shutil.which("compute-sanitizer") or str(
    Path(CUDA_HOME or "/nonexistent") / "bin/compute-sanitizer"
)
SECONDS = 120

require_device()
pytestmark = pytest.mark.skipif(
    not Path(FOUND).exists(), reason="compute-sanitizer is not installed"
)


@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_compute_sanitizer_finds_nothing(tool: str) -> None:
    script = Path(__file__).with_name("cuda_sanitized.py")
    # torch's own kernels are not looked at: they are many, and slow under the tool.
    command = [FOUND, "--tool", tool, "--kernel-name", "kns=body_kernel", "--error-exitcode", "9"]
    if tool == "memcheck":  # torch asks CUDA for things that may be missing, and copes
        command += ["--report-api-errors", "no"]
    try:
        done = subprocess.run(
            [*command, sys.executable, str(script), "--smoke"],
            env={**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"compute-sanitizer takes more than {SECONDS} seconds on this machine")
    if "Device not supported" in done.stdout + done.stderr:
        pytest.skip("compute-sanitizer does not support this machine")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
