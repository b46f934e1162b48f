"""docs/porting.md: its snippets run, in its order, and so do its commands."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from mxdeconv.porting import cli
from mxdeconv.porting.operators import OPERATORS

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "porting.md").read_text()
BLOCKS = re.findall(r"^```(python|console)\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that the guide speaks of, in the current folder."""
    example = ROOT / "examples" / "data"
    shutil.copy(example / "port_model-symbol.json", tmp_path / "model-symbol.json")
    shutil.copy(example / "port_model-0000.params", tmp_path / "model-0000.params")
    shutil.copy(example / "port_model.npz", tmp_path / "recorded.npz")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("checkpoint")
def test_every_snippet_runs(capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("onnx", "onnxruntime", "onnxscript", "safetensors"):
        pytest.importorskip(package)
    assert sum(kind == "python" for kind, _ in BLOCKS) >= 6
    namespace: dict[str, object] = {}
    try:
        for number, (kind, text) in enumerate(BLOCKS):
            if kind == "python":
                exec(compile(text, f"docs/porting.md, block {number + 1}", "exec"), namespace)
                continue
            for line in text.splitlines():
                prompt, program, *arguments = shlex.split(line)
                assert (prompt, program) == ("$", "mxdeconv")
                assert cli.main(arguments) == 0, line
    finally:
        OPERATORS.pop("my_scale", None)
    printed = capsys.readouterr().out
    assert "agrees with MXNet: 1 output, 13 nodes, 21 values of a training step" in printed
    assert "everything is supported" in printed


def test_files_that_it_names_exist() -> None:
    for name in re.findall(r"`(mxdeconv/[\w/]+\.py)`", TEXT):
        assert (ROOT / name).is_file(), name
