"""What the machine can do at best: the yardsticks of a benchmark, measured beside it."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import torch

FLAGS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mprefer-vector-width=512"],
    "avx512_bf16": ["-mavx512f", "-mavx512bf16", "-mprefer-vector-width=512"],
}


def describe() -> str:
    """The processor's own name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def fma_peak(isa: str, dtype: str, threads: int) -> float | None:
    """Flop/s of independent multiply-adds in registers, times threads; None without a compiler.

    16-bit types are held against float32, in which they accumulate, or bfloat16 against its own
    products, where the instruction set has them.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "peak.so"
        source = Path(__file__).with_name("peak.c")
        command = [compiler, "-O3", "-ffp-contract=fast", "-shared", "-fPIC", *FLAGS[isa]]
        subprocess.run([*command, str(source), "-o", str(library)], check=True)
        loaded = ctypes.CDLL(str(library))
        if dtype == "bfloat16" and isa == "avx512_bf16":
            function = loaded.peak_bfloat16
        else:
            function = loaded.peak_double if dtype == "float64" else loaded.peak_float
        function.restype = ctypes.c_double
        function.argtypes = [ctypes.c_long]
        best = 0.0
        for _ in range(5):
            start = time.process_time()
            flop = function(2_000_000)
            best = max(best, flop / (time.process_time() - start))
    return best * threads


def copy_bandwidth() -> float:
    """Bytes read plus bytes written per second by a copy of 64 MiB on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    source = torch.zeros(2**24)
    target = torch.empty_like(source)
    times = []
    for _ in range(7):
        start = time.process_time()
        target.copy_(source)
        times.append(time.process_time() - start)
    torch.set_num_threads(threads)
    return 2 * source.numel() * source.element_size() / min(times[1:])
