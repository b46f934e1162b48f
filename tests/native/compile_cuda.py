"""Compiles the CUDA kernels alone, without torch: python3 compile_cuda.py [ARCHITECTURE ...]

Every csrc/cuda/*.cu for every architecture (by default all that the engine supports and nvcc
knows), with no include path but csrc. No kernel may spill registers. Needs nvcc, on the PATH or
below CUDA_HOME, and no GPU. What was compiled from the same text is not compiled again.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CUDA = ROOT / "csrc" / "cuda"
ARCHITECTURES = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_90a", "sm_100"]
FLAGS = ["-std=c++17", "-O3", f"-I{ROOT / 'csrc'}", "-Xptxas", "-v", "-Werror", "all-warnings"]


def find_nvcc() -> str | None:
    """The compiler's path, or None where there is none."""
    homes = [os.environ.get("CUDA_HOME", ""), "/usr/local/cuda"]
    homes += [str(path) for path in sorted(Path("/usr/local").glob("cuda-*"), reverse=True)]
    candidates = [shutil.which("nvcc"), *(f"{home}/bin/nvcc" for home in homes if home)]
    return next((path for path in candidates if path and Path(path).exists()), None)


def known_to(nvcc: str) -> set[str]:
    """The architectures that this nvcc compiles for."""
    listing = subprocess.run([nvcc, "--list-gpu-code"], capture_output=True, text=True)
    return {*listing.stdout.split(), "sm_90a"}


def compile_one(nvcc: str, source: Path, architecture: str) -> str:
    """Compiles unless it is up to date; returns what is wrong, or nothing."""
    out = ROOT / "build" / "cuda" / architecture
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"{source.stem}.o"
    compute = architecture.replace("sm_", "compute_")
    command = [nvcc, *FLAGS, "-gencode", f"arch={compute},code={architecture}"]
    command += ["-c", str(source), "-o", str(target)]
    headers = [*CUDA.glob("*.h"), *(ROOT / "csrc/core").glob("*.h")]
    text = shlex.join(command).encode() + source.read_bytes()
    text += b"".join(path.read_bytes() for path in sorted(headers))
    made_from = target.with_suffix(".made-from")
    key = hashlib.sha256(text).hexdigest()
    if target.exists() and made_from.exists() and made_from.read_text() == key:
        return ""
    made_from.unlink(missing_ok=True)
    start = time.monotonic()
    result = subprocess.run(command, capture_output=True, text=True)
    name = f"{source.name} for {architecture}"
    log = result.stdout + result.stderr
    if result.returncode != 0:
        return f"{name}: {shlex.join(command)}\n{log}"
    spilling = [n for n in re.findall(r"(\d+) bytes spill stores", log) if n != "0"]
    if spilling:
        return f"{name}: {len(spilling)} kernels spill registers\n{log}"
    registers = [int(n) for n in re.findall(r"Used (\d+) registers", log)]
    seconds = time.monotonic() - start
    print(
        f"{name}: {len(registers)} kernels, at most {max(registers, default=0)} registers, "
        f"{seconds:.0f} s",
        flush=True,
    )
    made_from.write_text(key)
    return ""


def main() -> int:
    nvcc = find_nvcc()
    if nvcc is None:
        print("nvcc is not there: install CUDA 12 or newer, or name its folder with CUDA_HOME=")
        return 2
    architectures = sys.argv[1:] or [a for a in ARCHITECTURES if a in known_to(nvcc)]
    jobs = [(nvcc, source, a) for a in architectures for source in sorted(CUDA.glob("*.cu"))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        problems = [text for text in pool.map(lambda job: compile_one(*job), jobs) if text]
    print("\n".join(problems), file=sys.stderr)
    print(f"{len(jobs)} compilations, {len(problems)} failed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
