"""The examples run as a user runs them, in a process of their own, and draw what they say.

gradient_check, mxnet_layer and port_model run in full. The two that train run a few steps: that
shows that they work from photograph to picture, not that they learn; `make demo` shows that.
"""

from __future__ import annotations

import importlib
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
EXTRAS = {
    "numpy": "numpy",
    "matplotlib": "matplotlib",
    "skimage": "scikit-image",
    "PIL": "pillow",
    "tqdm": "tqdm",
}
ONNX = ("onnx", "onnxruntime", "onnxscript")


def missing(*modules: str) -> list[str]:
    found = []
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError:
            found.append(EXTRAS[module])
    return found


def run(script: str, out: Path, *options: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), "--out", str(out), *options],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == status, f"exit status {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def assert_pictures(out: Path, done: subprocess.CompletedProcess[str], *names: str) -> None:
    """Each is written, named in the output, of a size to look at, and not of one colour."""
    from PIL import Image

    for name in names:
        assert f"wrote {out / name}" in done.stdout
        with Image.open(out / name) as image:
            assert image.width >= 600, (name, image.size)
            assert image.height >= 300, (name, image.size)
            low, high = image.convert("L").getextrema()
            assert high - low > 100, (name, low, high)


drawing = pytest.mark.skipif(
    bool(missing("numpy", "matplotlib", "tqdm", "PIL")),
    reason=f"not installed: {', '.join(missing('numpy', 'matplotlib', 'tqdm', 'PIL'))}",
)
photographs = pytest.mark.skipif(
    bool(missing(*EXTRAS)), reason=f"not installed: {', '.join(missing(*EXTRAS))}"
)


@drawing
def test_gradient_check(tmp_path: Path) -> None:
    done = run("gradient_check.py", tmp_path)
    assert "all gradients agree" in done.stdout
    assert_pictures(tmp_path, done, "gradient_check.png")


@drawing
def test_mxnet_layer(tmp_path: Path) -> None:
    done = run("mxnet_layer.py", tmp_path)
    assert "computes what it computed in MXNet" in done.stdout
    assert_pictures(tmp_path, done, "mxnet_layer.png")


@drawing
def test_port_model(tmp_path: Path) -> None:
    for package in ONNX:
        pytest.importorskip(package)
    done = run("port_model.py", tmp_path)
    assert "agrees with MXNet: 1 output, 13 nodes, 21 values of a training step" in done.stdout
    first, last = re.search(r"loss ([\d.]+), after 10 steps ([\d.]+)", done.stdout).groups()
    assert float(last) < 0.3 * float(first)
    assert "run in onnxruntime" in done.stdout
    assert (tmp_path / "port_model.onnx").is_file()
    assert_pictures(tmp_path, done, "port_model.png")


@drawing
def test_port_model_fails_where_the_port_departs(tmp_path: Path) -> None:
    for package in ONNX:
        pytest.importorskip(package)
    data = EXAMPLES / "data"
    symbol = (data / "port_model-symbol.json").read_text().replace('"sigmoid"', '"tanh"')
    (tmp_path / "m-symbol.json").write_text(symbol)
    (tmp_path / "m-0000.params").write_bytes((data / "port_model-0000.params").read_bytes())
    (tmp_path / "m.npz").write_bytes((data / "port_model.npz").read_bytes())
    done = run("port_model.py", tmp_path, "--prefix", str(tmp_path / "m"), status=1)
    assert "first at disc_output (Tanh)" in done.stdout


@photographs
def test_super_resolution_runs(tmp_path: Path) -> None:
    """--min-gain -40: what three steps at full learning rate lead to says nothing."""
    done = run("super_resolution.py", tmp_path, "--steps", "3", "--min-gain", "-40")
    assert_pictures(tmp_path, done, "super_resolution.png", "super_resolution_loss.png")
    numbers = json.loads((tmp_path / "super_resolution.json").read_text())
    assert set(numbers["psnr_db"]) == {"astronaut", "chelsea", "coffee"}
    for psnr in numbers["psnr_db"].values():
        assert 20 < psnr["bicubic"] < 40
        assert 0 < psnr["mxdeconv"] < 40
    assert all(math.isfinite(loss) for loss in numbers["loss_first_last"])


@photographs
def test_super_resolution_fails_below_its_goal(tmp_path: Path) -> None:
    done = run("super_resolution.py", tmp_path, "--steps", "1", "--min-gain", "50", status=1)
    assert "is below --min-gain 50 dB" in done.stdout


@photographs
def test_dcgan_runs(tmp_path: Path) -> None:
    done = run("dcgan.py", tmp_path, "--steps", "3")
    assert_pictures(tmp_path, done, "dcgan_samples.png", "dcgan_sheet.png", "dcgan_losses.png")


@pytest.mark.parametrize(
    "script",
    ["super_resolution.py", "dcgan.py", "gradient_check.py", "mxnet_layer.py", "port_model.py"],
)
def test_missing_package_is_named_in_one_line(script: str) -> None:
    """As if matplotlib were not installed: importing it raises, before anything else happens."""
    code = (
        "import runpy, sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'matplotlib':\n"
        "            raise ModuleNotFoundError(\"No module named 'matplotlib'\", name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
        f"sys.path.insert(0, {str(EXAMPLES)!r})\n"
        f"sys.argv = [{script!r}]\n"
        f"runpy.run_path({str(EXAMPLES / script)!r}, run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "matplotlib" in done.stderr
    assert "pip install --no-build-isolation '.[examples]'" in done.stderr
