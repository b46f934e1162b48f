"""The torch-free tests of the engine, and what its objects may export."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OBJECTS = ROOT / "build" / "native" / "plain"
COMPILER = shlex.split(os.environ.get("CXX", "c++"))[0]


def run_native(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Builds what is out of date and runs the program with these arguments."""
    command = [sys.executable, str(ROOT / "tests/native/build.py"), "plain", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def built() -> None:
    """The native test program, up to date."""
    if shutil.which(COMPILER) is None:
        pytest.skip(f"no C++ compiler: {COMPILER} is not there")
    listed = run_native("--list")
    assert listed.returncode == 0, listed.stdout + listed.stderr


def test_native_program(built: None) -> None:
    result = run_native("--count", "100")
    assert result.returncode == 0, result.stdout + result.stderr
    assert ", 0 failed" in result.stdout


def test_one_problem_by_its_name(built: None) -> None:
    name = "n1g2c6k4-i5x3-w3x2-s2x3-p1x0-d1x2-a1x0"
    result = run_native("--problem", name, "--count", "4")
    assert result.returncode == 0, result.stdout + result.stderr
    assert name in result.stdout


def test_a_wrong_name_is_refused(built: None) -> None:
    assert run_native("--problem", "n1c6").returncode == 2
    assert run_native("--only", "no test has this name").returncode == 2


def test_isa_objects_export_their_kernel_table_only(built: None) -> None:
    """Anything else, an inline function of a header above all, could be picked by the linker for
    the whole process and stop a CPU that lacks its instructions."""
    if shutil.which("nm") is None:
        pytest.skip("no nm to list the symbols of an object (Debian: apt install binutils)")
    objects = sorted(OBJECTS.glob("isa-kernels_*.o"))
    assert objects
    for path in objects:
        isa = path.stem.removeprefix("isa-kernels_")
        command = ["nm", "-C", "--defined-only", "--extern-only", "--format=posix", str(path)]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        names = [line.split()[0] for line in listing.splitlines()]
        assert names == [f"mxd::cpu::k_{isa}_kernels"], path.name
