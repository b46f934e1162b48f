"""Builds mxdeconv._C: the torch-free engine once per CPU instruction set, the ops once."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from pathlib import Path

from setuptools import setup

try:
    import torch
    from torch.utils.cpp_extension import BuildExtension, CppExtension, is_ninja_available
except ImportError as error:
    sys.exit(
        f"mxdeconv: torch must be installed before the build ({error}); "
        "install it, then run: pip install --no-build-isolation ."
    )

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (ROOT / "mxdeconv/_version.py").read_text())[1]

# Extra flags of each instruction set of the CPU kernels. Only csrc/cpu/isa is compiled with them:
# nothing else may contain an instruction that the CPU at hand might not have.
X86_ISAS = {
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": [
        *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mf16c"),
        "-mprefer-vector-width=512",
        "-Wno-maybe-uninitialized",  # false alarm inside GCC's own AVX-512 headers
    ],
}
IS_X86 = platform.machine().lower() in {"x86_64", "amd64"}
ISAS = X86_ISAS if IS_X86 else {}

COMMON_FLAGS = ["-O3", "-g0", "-fvisibility=hidden", "-Wall", "-fno-math-errno"]


class Build(BuildExtension):
    """Compiles the per-instruction-set kernels, each with its own flags, then the extension."""

    def build_extensions(self) -> None:
        if not is_ninja_available():
            sys.exit("mxdeconv: ninja must be installed for the build: pip install ninja")
        compiler = os.environ.get("CXX", "c++").split()[0]
        if shutil.which(compiler) is None:
            sys.exit(
                "mxdeconv: a C++17 compiler must be installed for the build, or named with CXX= "
                f"(Debian, Ubuntu: apt install g++), got {compiler}, which is not there"
            )
        print(
            f"mxdeconv: building for torch {torch.__version__}: CPU engine "
            f"({', '.join(['baseline', *ISAS])}); leaving out CUDA (not part of this version)"
        )
        super().build_extensions()

    def build_extension(self, ext: CppExtension) -> None:
        build_dir = Path(self.build_temp)
        build_dir.mkdir(parents=True, exist_ok=True)
        original = self.compiler.compile
        plain_flags = list(ext.extra_compile_args["cxx"])
        for isa, flags in ISAS.items():
            source = f"csrc/cpu/isa/kernels_{isa}.cpp"
            isa_dir = build_dir / isa
            isa_dir.mkdir(parents=True, exist_ok=True)
            ext.extra_objects += original(
                [source],
                output_dir=str(isa_dir),
                include_dirs=[str(ROOT / "csrc")],
                extra_postargs={"cxx": [*plain_flags, *flags]},
                depends=ext.depends,
            )
        super().build_extension(ext)


def sources() -> list[str]:
    """Every source compiled with the plain flags."""
    folders = ["csrc/core", "csrc/cpu", "csrc/ops"]
    found = [str(p.relative_to(ROOT)) for f in folders for p in sorted((ROOT / f).glob("*.cpp"))]
    return [*found, "csrc/cpu/isa/kernels_baseline.cpp"]


setup(
    version=VERSION,
    ext_modules=[
        CppExtension(
            "mxdeconv._C",
            sources(),
            include_dirs=[str(ROOT / "csrc")],
            define_macros=[(f"MXD_HAVE_{isa.upper()}", "1") for isa in ISAS],
            extra_compile_args={"cxx": COMMON_FLAGS},
            depends=[str(p) for p in sorted((ROOT / "csrc").rglob("*.[hi]*"))],
        )
    ],
    cmdclass={"build_ext": Build},
)
