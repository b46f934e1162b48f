"""Compiles every .cu for GPU architectures, each with -Icsrc alone: no kernel may spill registers.

    python tests/cuda_check.py                    # sm_75 to sm_100, as nvcc knows them, and sm_90a
    python tests/cuda_check.py --archs 80 90a --only product
    python tests/cuda_check.py --where-possible   # without nvcc: says so, and that is no failure

Needs nvcc (CUDA_HOME= names its folder) and the standard library of Python only; no GPU.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIRST, LAST = 75, 100  # what is compiled by default
EXTRA = ("90a",)  # instructions of one architecture only
FLAGS = ("-std=c++17", "-O3", "-Icsrc", "-Xptxas", "-v", "-Werror", "all-warnings")


def find_nvcc() -> str | None:
    homes = [os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    found = [f"{home}/bin/nvcc" for home in homes if home and Path(home, "bin/nvcc").exists()]
    return found[0] if found else shutil.which("nvcc")


def known_archs(nvcc: str) -> list[str]:
    listed = subprocess.run(
        [nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True
    ).stdout
    numbers = sorted(int(found) for found in re.findall(r"compute_(\d+)\b", listed))
    return [*(str(n) for n in numbers if FIRST <= n <= LAST), *EXTRA]


def compile_one(nvcc: str, source: Path, arch: str) -> str:
    """What went wrong, empty if nothing did; prints one line."""
    with tempfile.TemporaryFile("w+") as log:
        started = subprocess.Popen(
            [nvcc, *FLAGS, f"-arch=sm_{arch}", "-cubin", "-o", os.devnull, str(source)],
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
        _, status, used = os.wait4(started.pid, 0)
        started.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        text = log.read()
    spilled = [
        match
        for match in re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", text)
        if match != ("0", "0")
    ]
    fault = ""
    if started.returncode != 0:
        fault = f"does not compile:\n{text[-3000:]}"
    elif spilled:
        fault = f"{len(spilled)} kernels spill registers: {spilled[:5]}"
    seconds = used.ru_utime + used.ru_stime  # of one core, whoever else is on the machine
    print(f"{source.relative_to(ROOT)} sm_{arch}: {fault or 'ok'} ({seconds:.0f} s)", flush=True)
    return fault


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--archs", nargs="+", help="e.g. 80 90a")
    parser.add_argument("--only", default="", help="regular expression on the names of files")
    parser.add_argument("--where-possible", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    args = parser.parse_args()
    nvcc = find_nvcc()
    if nvcc is None:
        print(
            "cuda-check: nvcc is not installed, no .cu was compiled (CUDA_HOME= names its folder)"
        )
        return 0 if args.where_possible else 1
    archs = args.archs or known_archs(nvcc)
    sources = sorted((ROOT / "csrc/cuda").glob("*.cu"))
    sources = [source for source in sources if re.search(args.only, source.name)]
    with ThreadPoolExecutor(args.jobs) as pool:
        faults = list(
            pool.map(
                lambda job: compile_one(nvcc, *job),
                [(source, arch) for arch in archs for source in sources],
            )
        )
    print(f"cuda-check: {len(faults)} objects, {sum(map(bool, faults))} faulty")
    return 1 if any(faults) else 0


if __name__ == "__main__":
    sys.exit(main())
