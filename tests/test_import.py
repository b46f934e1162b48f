"""What `import mxdeconv` says where it cannot work, and that it needs torch only."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import torch

import mxdeconv

PACKAGE = Path(mxdeconv.__file__).parent


def import_error(folder: Path, prelude: str = "") -> str:
    """Last line of what a fresh interpreter says about the package in `folder`."""
    # an editable installation would offer the real _C to any package of this name
    alone = "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in str(f).lower()]"
    code = f"import sys; sys.path.insert(0, {str(folder)!r})\n{alone}\n{prelude}\nimport mxdeconv"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    return done.stderr.strip().splitlines()[-1]


def copy_package(folder: Path) -> Path:
    package = folder / "mxdeconv"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    return package


def test_not_built(tmp_path: Path) -> None:
    copy_package(tmp_path)
    assert import_error(tmp_path) == (
        "ImportError: mxdeconv._C must be built before mxdeconv can be imported: "
        "run 'pip install --no-build-isolation .' in its source tree"
    )


def test_built_with_another_torch_that_still_loads(tmp_path: Path) -> None:
    package = copy_package(tmp_path)
    (package / "_C.py").write_text("def build_info():\n    return {'torch': '1.2.3'}\n")
    assert import_error(tmp_path) == (
        "ImportError: mxdeconv._C must run under the torch it was built with, 1.2.3, "
        f"got torch {torch.__version__}: "
        "run 'pip install --no-build-isolation .' in its source tree"
    )


def test_built_with_another_torch_that_does_not_load(tmp_path: Path) -> None:
    package = copy_package(tmp_path)
    (package / "_C.py").write_text("raise ImportError('undefined symbol: _ZN3c10')\n")
    assert import_error(tmp_path) == (
        f"ImportError: mxdeconv._C does not load under torch {torch.__version__}, probably because "
        "it was built with another torch (undefined symbol: _ZN3c10): "
        "run 'pip install --no-build-isolation .' in its source tree"
    )


def test_needs_torch_only() -> None:
    extras = ("numpy", "matplotlib", "skimage", "tqdm", "PIL", "mxnet")
    blocked = "; ".join(f"sys.modules[{name!r}] = None" for name in extras if name != "numpy")
    code = (
        f"import sys, torch; {blocked}; before = set(sys.modules)\n"
        f"sys.path.insert(0, {str(PACKAGE.parent)!r}); import mxdeconv\n"
        f"print(sorted(set({extras}) & (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
