"""Builds and runs the torch-free tests: python3 build.py VARIANT [arguments of the program].

    plain      the flags of the extension
    sanitize   AddressSanitizer and UndefinedBehaviorSanitizer, by default a shorter campaign
    thread     ThreadSanitizer; by default the tests with several threads only
    aarch64    Debian's cross compiler; runs under qemu-user, by default a shorter campaign

Needs a C++17 compiler (CXX= names another one) and the standard library of Python only. Objects
and the program go to build/native/VARIANT. The flags of the engine are read from setup.py.
"""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
EMULATOR = HERE.parent / "cuda_emulator"  # kernels of csrc/cuda as C++, and what runs them
SANITIZER = ["-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g", "-O1"]
SANITIZER += ["-Wno-maybe-uninitialized"]  # at -O1, of vectors that are filled lane by lane
# Flags of the compiler beyond setup.py's, and arguments of the program.
VARIANTS: dict[str, tuple[list[str], list[str]]] = {
    "plain": ([], []),
    "sanitize": (["-fsanitize=address,undefined", *SANITIZER], ["--count", "100"]),
    "thread": (["-fsanitize=thread", *SANITIZER], ["--only", "threads"]),
    "aarch64": (["-static"], ["--count", "60", "--products", "500000"]),
}


def setup_constants() -> tuple[list[str], dict[str, list[str]]]:
    """COMMON_FLAGS and X86_ISAS of setup.py, without running it."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    values: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name in ("COMMON_FLAGS", "AVX512", "X86_ISAS"):
                # Lists of strings with *(...) inside: more than ast.literal_eval takes.
                values[name] = eval(ast.unparse(node.value), dict(values))
    return values["COMMON_FLAGS"], values["X86_ISAS"]


def compiler(variant: str) -> list[str]:
    """The compiler's command, or exits with one line that says what is missing."""
    cross = variant == "aarch64" and platform.machine() != "aarch64"
    if cross and not (shutil.which("aarch64-linux-gnu-g++") and shutil.which("qemu-aarch64")):
        sys.exit(
            "test-aarch64 needs a cross compiler and an emulator "
            "(Debian: apt install g++-aarch64-linux-gnu qemu-user)"
        )
    command = ["aarch64-linux-gnu-g++"] if cross else shlex.split(os.environ.get("CXX", "c++"))
    if not shutil.which(command[0]):
        sys.exit(f"{command[0]} is not there: install a C++17 compiler or name one with CXX=")
    return command


def build(variant: str) -> Path:
    """Compiles what is out of date, links, and returns the program."""
    common, x86_isas = setup_constants()
    isas = x86_isas if variant != "aarch64" and platform.machine() in ("x86_64", "AMD64") else {}
    out = ROOT / "build" / "native" / variant
    out.mkdir(parents=True, exist_ok=True)
    program = out / "native_test"
    # The engine is compiled as the extension is; only a sanitizer's -O1 comes after its -O3.
    base = [*compiler(variant), "-std=c++17", *common, *VARIANTS[variant][0], "-pthread"]
    base += [f"-I{ROOT / 'csrc'}", f"-I{HERE}", f"-I{EMULATOR}"]

    isa_flags = {ROOT / f"csrc/cpu/isa/kernels_{isa}.cpp": isas[isa] for isa in isas}
    isa_flags[ROOT / "csrc/cpu/isa/kernels_baseline.cpp"] = []
    defines = [f"-DMXD_HAVE_{isa.upper()}=1" for isa in isas]
    sources = [*(ROOT / "csrc/core").glob("*.cpp"), *(ROOT / "csrc/cpu").glob("*.cpp")]
    sources += [*isa_flags, *HERE.glob("*.cpp")]
    headers = [*(ROOT / "csrc/core").glob("*.h"), *(ROOT / "csrc/cpu").glob("*.[hi]*")]
    headers += HERE.glob("*.h")
    cuda_sources = [*(ROOT / "csrc/cuda").glob("*.c[pu]*"), *EMULATOR.glob("*.cpp")]
    cuda_headers = [*(ROOT / "csrc/cuda").glob("*.h"), *EMULATOR.glob("*.h")]
    sources += cuda_sources
    read = b"".join(path.read_bytes() for path in sorted(headers))
    cuda_read = read + b"".join(path.read_bytes() for path in sorted(cuda_headers))

    def compile_one(source: Path) -> Path:
        """Compiles unless the object was made by this command from these very texts."""
        target = out / f"{source.parent.name}-{source.stem}.o"
        command = [*base, *isa_flags.get(source, defines)]
        if source.suffix == ".cu":
            command += ["-x", "c++"]
        command += ["-c", str(source), "-o", str(target)]
        context = cuda_read if source in cuda_sources else read
        text = shlex.join(command).encode() + context + source.read_bytes()
        made_from = target.with_suffix(".made-from")
        key = hashlib.sha256(text).hexdigest()
        if not target.exists() or not made_from.exists() or made_from.read_text() != key:
            made_from.unlink(missing_ok=True)
            subprocess.run(command, check=True)
            made_from.write_text(key)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, sorted(sources)))
    newest = max(o.stat().st_mtime for o in objects)
    if not program.exists() or program.stat().st_mtime < newest:
        subprocess.run([*base, *map(str, objects), "-o", str(program)], check=True)
    return program


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in VARIANTS:
        print(__doc__)
        return 2
    variant = sys.argv[1]
    print(f"native tests: building {variant} in build/native/{variant}", flush=True)
    try:
        program = [str(build(variant)), *VARIANTS[variant][1], *sys.argv[2:]]
    except subprocess.CalledProcessError as error:
        print(f"native tests: this failed: {shlex.join(error.cmd)}", file=sys.stderr)
        return 1
    if variant == "aarch64" and platform.machine() != "aarch64":
        program.insert(0, "qemu-aarch64")
    return subprocess.run(program).returncode


if __name__ == "__main__":
    sys.exit(main())
