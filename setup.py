"""Builds mxdeconv._C: the torch-free engine once per CPU instruction set, the ops once, and the
CUDA engine where torch has CUDA and its compiler is found.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup

try:
    import torch
    from torch.utils.cpp_extension import (
        CUDA_HOME,
        BuildExtension,
        CppExtension,
        CUDAExtension,
        is_ninja_available,
    )
except ImportError as error:
    sys.exit(
        f"mxdeconv: torch must be installed before the build ({error}); "
        "install it, then run: pip install --no-build-isolation ."
    )

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (ROOT / "mxdeconv/_version.py").read_text())[1]

# Extra flags of each instruction set of the CPU kernels. Only csrc/cpu/isa is compiled with them:
# nothing else may contain an instruction that the CPU at hand might not have.
AVX512 = [
    *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mf16c"),
    "-mprefer-vector-width=512",
    "-Wno-maybe-uninitialized",  # false alarm inside GCC's own AVX-512 headers
]
X86_ISAS = {
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": AVX512,
    "avx512_bf16": [*AVX512, "-mavx512bf16"],
}
IS_X86 = platform.machine().lower() in {"x86_64", "amd64"}
ISAS = X86_ISAS if IS_X86 else {}

# One GPU architecture for each generation of tensor cores; the last also as PTX, for later ones.
CUDA_ARCHS = "7.5;8.0;9.0;10.0+PTX"

COMMON_FLAGS = ["-O3", "-g0", "-fvisibility=hidden", "-Wall", "-fno-math-errno"]
NVCC_FLAGS = ["-O3", "-Xcompiler", "-fvisibility=hidden"]
# torch's own flags take these operators away; the kernels are written with them.
NVCC_FLAGS += [
    f"-U__CUDA_NO_{name}__"
    for name in ("HALF_OPERATORS", "HALF_CONVERSIONS", "HALF2_OPERATORS", "BFLOAT16_CONVERSIONS")
]


def why_no_cuda() -> str:
    """What keeps CUDA out of the build, in a few words; empty where nothing does."""
    if os.environ.get("MXDECONV_CUDA", "1") == "0":
        return "MXDECONV_CUDA=0"
    if torch.version.cuda is None:
        return "this torch has none"
    if CUDA_HOME is None or not (Path(CUDA_HOME) / "bin/nvcc").exists():
        return "nvcc was not found: set CUDA_HOME or put nvcc on PATH"
    release = subprocess.run(
        [str(Path(CUDA_HOME) / "bin/nvcc"), "--version"], capture_output=True, text=True
    ).stdout
    found = re.search(r"release (\d+)\.", release)
    wanted = torch.version.cuda.split(".")[0]
    if found is None or found[1] != wanted:
        which = f"of CUDA {found[1]}" if found else "of no known version"
        return f"nvcc is {which}, torch was built with CUDA {torch.version.cuda}"
    return ""


def cudnn_include() -> Path | None:
    """The folder of cudnn_backend.h: in the package that torch depends on, or CUDA's own."""
    if os.environ.get("MXDECONV_CUDNN", "1") == "0":
        return None
    packages = [Path(torch.__file__).parents[1], *map(Path, sys.path)]
    folders = [package / "nvidia/cudnn/include" for package in packages]
    if CUDA_HOME:
        folders.append(Path(CUDA_HOME) / "include")
    folders += [Path("/usr/include"), Path(f"/usr/include/{platform.machine()}-linux-gnu")]
    return next((f for f in folders if (f / "cudnn_backend.h").exists()), None)


WHY_NO_CUDA = why_no_cuda()
CUDNN_INCLUDE = None if WHY_NO_CUDA else cudnn_include()
# Compiled apart with cuDNN's headers, so that builds with and without them share all other objects.
CUDNN_SOURCES = "csrc/ops/cudnn_*.cpp"


class Build(BuildExtension):
    """Compiles the per-instruction-set kernels, each with its own flags, then the extension."""

    def build_extensions(self) -> None:
        if not is_ninja_available():
            sys.exit("mxdeconv: ninja must be installed for the build: pip install ninja")
        compiler = os.environ.get("CXX", "c++").split()[0]
        if shutil.which(compiler) is None:
            sys.exit(
                "mxdeconv: a C++20 compiler must be installed for the build, or named with CXX= "
                f"(Debian, Ubuntu: apt install g++), got {compiler}, which is not there"
            )
        print(f"mxdeconv: building for torch {torch.__version__}: {what_is_built()}")
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
        if CUDNN_INCLUDE is not None:
            cudnn_dir = build_dir / "cudnn"
            cudnn_dir.mkdir(parents=True, exist_ok=True)
            ext.extra_objects += original(
                [str(p.relative_to(ROOT)) for p in sorted(ROOT.glob(CUDNN_SOURCES))],
                output_dir=str(cudnn_dir),
                macros=ext.define_macros,
                include_dirs=[*ext.include_dirs, str(CUDNN_INCLUDE)],
                extra_postargs={"cxx": plain_flags, "nvcc": []},
                depends=ext.depends,
            )
        super().build_extension(ext)


def what_is_built() -> str:
    """The line that the build prints: the engines, and what is left out and why."""
    built = f"CPU engine ({', '.join(['baseline', *ISAS])})"
    if WHY_NO_CUDA:
        return f"{built}; leaving out CUDA ({WHY_NO_CUDA})"
    built += f", CUDA engine ({os.environ['TORCH_CUDA_ARCH_LIST']})"
    if CUDNN_INCLUDE is None:
        left_out = os.environ.get("MXDECONV_CUDNN") == "0"
        why = "MXDECONV_CUDNN=0" if left_out else "no cudnn_backend.h"
        return f"{built}; leaving out cuDNN's plans ({why}: ATen's operators instead)"
    return f"{built} with cuDNN's plans ({CUDNN_INCLUDE})"


def sources() -> list[str]:
    """Every source compiled with the plain flags alone.

    In csrc/ops, the files of the CUDA engine have cuda, cudnn, aten_pass or own_kernels in their
    names.
    """
    folders = ["csrc/core", "csrc/cpu", "csrc/ops"]
    found = [p for f in folders for p in sorted((ROOT / f).glob("*.cpp"))]
    left_out = r"^cudnn_|^aten_pass" if CUDNN_INCLUDE else r"^cudnn_"
    if WHY_NO_CUDA:
        left_out = r"cuda|^cudnn_|^aten_pass|^own_kernels"
    found = [p for p in found if not re.search(left_out, p.name)]
    if not WHY_NO_CUDA:
        found += sorted((ROOT / "csrc/cuda").glob("*.cu"))
    names = [str(p.relative_to(ROOT)) for p in found]
    return [*names, "csrc/cpu/isa/kernels_baseline.cpp"]


def extension() -> CppExtension:
    include_dirs = [str(ROOT / "csrc")]
    macros = [(f"MXD_HAVE_{isa.upper()}", "1") for isa in ISAS]
    flags = {"cxx": COMMON_FLAGS}
    if not WHY_NO_CUDA:
        archs = os.environ.setdefault("TORCH_CUDA_ARCH_LIST", CUDA_ARCHS)
        macros += [("MXD_HAVE_CUDA", "1"), ("MXD_CUDA_ARCHS", f'"{archs}"')]
        flags["nvcc"] = NVCC_FLAGS
    return (CppExtension if WHY_NO_CUDA else CUDAExtension)(
        "mxdeconv._C",
        sources(),
        include_dirs=include_dirs,
        define_macros=macros,
        extra_compile_args=flags,
        depends=[str(p) for p in sorted((ROOT / "csrc").rglob("*.[hic]*")) if p.suffix != ".cpp"],
    )


setup(version=VERSION, ext_modules=[extension()], cmdclass={"build_ext": Build})
