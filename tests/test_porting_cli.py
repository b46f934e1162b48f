"""The command line: what it prints, where, and with what exit status."""

from __future__ import annotations

import errno
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mxdeconv
from mxdeconv.porting import cli, load_params, save_params
from mxdeconv.porting.cli import main
from mxdeconv.porting.progress import Bar

EXAMPLE = Path(__file__).parents[1] / "examples" / "data"
SHAPE = ["--shape", "data=1,1,27,33"]


@pytest.fixture(autouse=True)
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """model-symbol.json, model-0000.params and recorded.npz in the current folder."""
    shutil.copy(EXAMPLE / "port_model-symbol.json", tmp_path / "model-symbol.json")
    shutil.copy(EXAMPLE / "port_model-0000.params", tmp_path / "model-0000.params")
    shutil.copy(EXAMPLE / "port_model.npz", tmp_path / "recorded.npz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edit_symbol(old: str, new: str) -> None:
    path = Path("model-symbol.json")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 2) -> str:
    """The one line that a command prints on stderr when it is refused."""
    assert main(arguments) == status
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("mxdeconv: ")
    assert len(printed.err.splitlines()) == 1, printed.err
    return printed.err.removeprefix("mxdeconv: ").strip()


# inspect ------------------------------------------------------------------------------------


def test_inspect_prints_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "model", "--epoch", "0", *SHAPE]) == 0
    out = capsys.readouterr().out
    assert "model-symbol.json: 13 nodes of 5 operators" in out
    assert "model-0000.params: 19 arrays, 1,505 numbers, 5.9 KiB" in out
    rows = {line.split()[0]: line for line in out.splitlines() if line}
    assert re.fullmatch(r"data +input +\(1, 1, 27, 33\)", rows["data"])
    assert re.fullmatch(r"skip +Concat +\(1, 8, 27, 33\) +high_relu, up", rows["skip"])
    assert re.fullmatch(r"up_weight +\(8, 4, 4, 4\) +float32 +trained", rows["up_weight"])
    assert rows["high_bn_moving_mean"].endswith("auxiliary")
    # total 30x36 of 14x17 at stride 2: e = (3, 3), pad = (2, 2), adj = (1, 1)
    assert re.fullmatch(
        r"up +\(1, 8, 14, 17\) +\(8, 4, 4, 4\) +\(4, 4\) +\(2, 2\) +\(1, 1\) +\(2, 2\) +"
        r"\(1, 1\) +1 +yes +\(1, 4, 27, 33\) +target_shape \(27, 33\)",
        [line for line in out.splitlines() if line.startswith("up ")][-1],
    )
    assert "everything is supported" in out


def test_inspect_without_shapes_or_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    Path("model-0000.params").unlink()
    assert main(["inspect", "model"]) == 0
    out = capsys.readouterr().out
    assert "--shape NAME=SIZES gives those of the data" in out
    assert "target_shape (27, 33)" in out


def test_inspect_lists_all_that_is_not_supported(capsys: pytest.CaptureFixture[str]) -> None:
    edit_symbol('"op": "Concat"', '"op": "Custom"')
    edit_symbol('"act_type": "sigmoid"', '"act_type": "wave"')
    assert main(["inspect", "model", *SHAPE]) == 1
    out = capsys.readouterr().out
    assert "not supported: 2" in out
    assert re.search(r"^skip +Custom +the operator is not supported$", out, flags=re.MULTILINE)
    assert re.search(r"^disc +Activation +act_type.*'wave'", out, flags=re.MULTILINE)
    assert main(["convert", "model", "-o", "out"]) == 1
    printed = capsys.readouterr()
    assert "2 nodes cannot be ported" in printed.err
    assert "Traceback" not in printed.err


def test_inspect_names_arrays_that_do_not_belong(capsys: pytest.CaptureFixture[str]) -> None:
    params = load_params("model-0000.params")
    params["stranger"] = params.pop("up_weight")
    save_params("model-0000.params", params)
    assert main(["inspect", "model"]) == 0
    out = capsys.readouterr().out
    assert "not in the symbol: stranger" in out
    assert "not in the file: up_weight" in out


def test_arrays_that_do_not_belong_can_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    params = load_params("model-0000.params")
    params["stranger"] = params["up_weight"]
    save_params("model-0000.params", params)
    line = refused(capsys, "convert", "model", "-o", "out")
    assert line.startswith("params must be parameters of the symbol, got also stranger")
    assert main(["convert", "model", "-o", "out", "--allow-extra"]) == 0
    assert main(["verify", "model", "--against", "recorded.npz", "--allow-extra"]) == 0


# verify -------------------------------------------------------------------------------------


def test_verify(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "model", "--against", "recorded.npz"]) == 0
    assert "agrees with MXNet" in capsys.readouterr().out


def test_verify_tells_where_a_port_departs(capsys: pytest.CaptureFixture[str]) -> None:
    edit_symbol('"act_type": "sigmoid"', '"act_type": "tanh"')
    assert main(["verify", "model", "--against", "recorded.npz"]) == 1
    assert "departs from MXNet, first at disc_output (Tanh)" in capsys.readouterr().out


# convert ------------------------------------------------------------------------------------


def test_convert_to_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("safetensors")
    assert main(["convert", "model", "--epoch", "0", "-o", "out"]) == 0
    assert "wrote out, read back, not run: no shapes were given" in capsys.readouterr().out
    assert sorted(path.name for path in Path("out").iterdir()) == ["model.py", "model.safetensors"]


def test_places_that_cannot_be_written_into(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = refused(capsys, "convert", "model", *SHAPE, "-o", "recorded.npz/m.pt2")
    assert line.startswith("recorded.npz cannot be written into: ")

    def denied(*arguments: object, **options: object) -> None:  # a superuser may write anywhere
        raise PermissionError(errno.EACCES, "Permission denied", "here/.mxdeconv-x")

    monkeypatch.setattr("tempfile.TemporaryDirectory", denied)
    line = refused(capsys, "convert", "model", "-o", "here/out")
    assert line == "here cannot be written into: Permission denied"


def test_a_file_that_may_not_be_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*arguments: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "model-0000.params")

    monkeypatch.setattr(cli, "load_checkpoint", denied)
    line = refused(capsys, "convert", "model", "-o", "out")
    assert line == "model-0000.params: Permission denied"


def test_convert_needs_shapes_for_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "convert", "model", "-o", "m.pt2")
    assert line == "--shape must be given for data, e.g. --shape data=1,3,224,224"
    assert not Path("m.pt2").exists()


# errors -------------------------------------------------------------------------------------


def test_missing_and_broken_files(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "inspect", "none")
    assert line == "there is no none-symbol.json; prefixes there: model"
    assert refused(capsys, "inspect", "no/folder") == "there is no no/folder-symbol.json"
    line = refused(capsys, "convert", "model", "--epoch", "7", "-o", "out")
    assert line == "there is no model-0007.params; epochs with a file: 0"
    line = refused(capsys, "verify", "model", "--against", "none.npz")
    assert line == "there is no none.npz"
    line = refused(capsys, "verify", "model", "--against", "model-0000.params")
    assert line == "model-0000.params is no recording: it has no input:NAME"
    whole = Path("model-0000.params").read_bytes()
    Path("model-0000.params").write_bytes(whole[:100])
    line = refused(capsys, "convert", "model", "-o", "out")
    assert line.startswith("model-0000.params: at byte 80: ")
    for content in (b"{", b"", b"\xff\xfe{", b"[]", whole):
        Path("model-symbol.json").write_bytes(content)
        assert refused(capsys, "inspect", "model").startswith("model-symbol.json: ")


@pytest.mark.parametrize("name", ["model", "model-symbol.json", "model-0000.params"])
def test_the_name_of_a_file_stands_for_its_prefix(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", name]) == 0
    assert capsys.readouterr().out.startswith("model-symbol.json: 13 nodes")


def test_wrong_names_and_shapes(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "convert", "model", "--shape", "dat=1,2", "-o", "out")
    assert line == "inputs must name variables of the symbol (data), got dat"
    line = refused(capsys, "inspect", "model", *SHAPE, *SHAPE)
    assert line == "--shape data: is given twice"
    line = refused(capsys, "inspect", "model", "--shape", "data=1,1")
    assert line.startswith("high_conv (Convolution): ")
    assert line.endswith("; its data: (1, 1)")
    line = refused(capsys, "inspect", "model", "--shape", f"data={10**11},{10**11}")
    assert line.startswith("data: ")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["port", "model"],
        ["inspect"],
        ["convert", "model"],
        ["verify", "model"],
        ["inspect", "model", "--shape", "1,2,3"],
        ["inspect", "model", "--shape", "data=1,-2"],
        ["inspect", "model", "--epoch", "-1"],
        ["inspect", "model", "--unknown"],
    ],
)
def test_usage_errors_are_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: mxdeconv" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["inspect"], ["convert"], ["verify"]])
def test_help_says_what_statuses_mean(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert "exit status:" in out
    assert not command or "example:" in out


def test_unforeseen_errors_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise KeyError("deep inside")

    monkeypatch.setattr(cli, "inspect", fail)
    line = refused(capsys, "inspect", "model")
    assert line == "KeyError: 'deep inside' (--traceback shows where)"
    with pytest.raises(KeyError):
        main(["inspect", "model", "--traceback"])


def test_as_a_module() -> None:
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "mxdeconv", "--version"],
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
    )
    assert done.stdout == f"mxdeconv {mxdeconv.__version__}\n"


def test_bar_says_how_much_and_how_fast() -> None:
    bar = Bar("reading model")
    assert bar.line(2) == "reading model 2 s"
    bar.show(2**26, 2**27)
    filled = "#" * 15 + " " * 15
    expected = f"reading model [{filled}] 64.0 MiB of 128.0 MiB, 32.0 MiB/s, 2 s"
    assert bar.line(2) == expected
    bar.show(2**27, 2**27)  # what comes then, a check say, has no size
    assert bar.line(9).endswith("128.0 MiB of 128.0 MiB, 9 s")


@pytest.mark.parametrize("terminal", [True, False])
def test_bar_is_drawn_on_a_terminal_only(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    for name in ("DELAY", "INTERVAL"):
        monkeypatch.setattr(Bar, name, 0.001)
    bar, drawn = Bar("reading"), ""
    bar.show(1, 2)
    with bar:
        while terminal and "reading [" not in drawn:
            drawn += capsys.readouterr().err
    drawn += capsys.readouterr().err
    assert drawn.endswith("\r\x1b[K") if terminal else drawn == ""


def test_bar_of_a_short_step_is_not_drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(Bar, "DELAY", 3600.0)
    with Bar("reading") as bar:
        bar.show(1, 2)
    assert capsys.readouterr().err == ""


def test_convert_takes_the_shape_that_the_symbol_states(
    capsys: pytest.CaptureFixture[str],
) -> None:
    edit_symbol('"name": "data"', '"name": "data", "attrs": {"__shape__": "(1, 1, 27, 33)"}')
    assert main(["convert", "model", "-o", "m.pt2"]) == 0
    assert "wrote m.pt2" in capsys.readouterr().out
    assert main(["inspect", "model"]) == 0
    assert re.search(r"^data +input +\(1, 1, 27, 33\)", capsys.readouterr().out, re.MULTILINE)
    edit_symbol("(1, 1, 27, 33)", "(1, 1, 0, 33)")
    line = refused(capsys, "convert", "model", "-o", "m.pt2")
    assert line.startswith("--shape must be given for data")
    edit_symbol("(1, 1, 0, 33)", "(1, 1, x)")
    assert "__shape__ of data" in refused(capsys, "convert", "model", "-o", "m.pt2")
