"""convert: a port as a folder of source and weights, as a .pt2 file or as an .onnx file.

Whatever is written is read back and run, where mxdeconv cannot be imported for the last two, and
has to compute what the port computes.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, fx

from mxdeconv.porting import folder, onnx_operators
from mxdeconv.porting.agreement import Agreement, table
from mxdeconv.porting.comparison import agree_all, notes_of
from mxdeconv.porting.source import Progress
from mxdeconv.porting.standard import standard

Inputs = Mapping[str, "Tensor | tuple[int, ...]"]


class ConversionError(RuntimeError):
    """What was written does not load, or does not compute what the port computes."""


class Converted(NamedTuple):
    """Where the result is, how it was checked, and how its outputs relate to the port's."""

    path: Path
    checked: str
    outputs: list[Agreement]

    def __str__(self) -> str:
        lines = [f"wrote {self.path}, {self.checked}"]
        return "\n".join([*lines, *(table("output", self.outputs) if self.outputs else [])])


def convert(
    module: fx.GraphModule,
    path: str | os.PathLike[str],
    inputs: Inputs | None = None,
    *,
    dynamic_batch: bool = False,
    progress: Progress | None = None,
) -> Converted:
    """Write a port for use elsewhere: as PATH.pt2, PATH.onnx, or a folder of any other name.

    `inputs` gives the data, or its shapes for random data, by MXNet's names, where the symbol does
    not state them; a folder can do without, then only its weights are checked. A folder holds
    `model.py`, readable source that needs mxdeconv, and `model.safetensors`; other files in a
    folder that is there stay. The two files hold torch's or ONNX's own operators only, for
    prediction, and for data of these shapes; with `dynamic_batch` the first axis of all data is
    free.

    Everything is written beside its place and moved there when its check has succeeded. Raises
    ConversionError where the check fails: then what was there before is as it was.
    """
    path = Path(path)
    _check_path(path)
    stated: dict[str, Tensor | tuple[int, ...]] = dict(notes_of(module)["shapes"])
    data = {**stated, **(inputs or {})}
    if path.suffix in _FILES:
        arguments = example_arguments(module, data)
        exported = _export(standard(module, arguments), arguments, dynamic_batch)

        def write(partial: Path) -> Converted:
            return _write_file(module, exported, partial, arguments)
    else:
        known = inputs is not None or not missing_inputs(module, data)
        examples = example_arguments(module, data) if known else None

        def write(partial: Path) -> Converted:
            return _write_folder(module, partial, examples, progress)

    # Beside its place until it is checked: what was there before stays if it fails.
    there = path.is_dir()
    place = path if there else path.parent
    with _scratch(place) as scratch:
        partial = Path(scratch, "model" if there else path.name)
        try:
            outcome = write(partial)
        except ConversionError as error:
            raise ConversionError(str(error).replace(str(partial), str(path))) from error
        # into the folder that is there; else all: ONNX may keep weights in a second file
        for written in (partial if there else Path(scratch)).iterdir():
            os.replace(written, place / written.name)
    return outcome._replace(path=path)


def _scratch(place: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder in `place`, which is made if it is not there."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=place, prefix=".mxdeconv-")
    except OSError as error:
        raise OSError(f"{place} cannot be written into: {error.strerror}") from error


#: What is written as one file; any other path is a folder.
_FILES = (".pt2", ".onnx")
_NO_FOLDERS = (".pt", ".pth", ".ts", ".bin", ".py", ".json", ".params", ".npz", ".safetensors")


def _check_path(path: Path) -> None:
    wanted = "path must be a folder, FILE.pt2 or FILE.onnx"
    if path.suffix in _FILES and path.is_dir():
        raise ValueError(f"{wanted}: {path} is a folder")
    if path.suffix in _FILES:
        return
    if path.suffix in _NO_FOLDERS:
        raise ValueError(f"{wanted}, got {path}")
    if path.exists() and not path.is_dir():
        raise ValueError(f"{wanted}: {path} is a file")


def _write_folder(
    module: fx.GraphModule,
    path: Path,
    arguments: Mapping[str, Tensor] | None,
    progress: Progress | None,
) -> Converted:
    folder.write(module, path, progress)
    if arguments is None:
        outcome = Converted(path, _check_weights(module, path), [])
    else:
        actual = run_elsewhere(_RUN_FOLDER, path, arguments)
        outcome = _verdict(module, arguments, actual, path, "read back and run")
    shutil.rmtree(path / "__pycache__", ignore_errors=True)
    return outcome


def _write_file(
    module: fx.GraphModule,
    exported: torch.export.ExportedProgram,
    path: Path,
    arguments: Mapping[str, Tensor],
) -> Converted:
    if path.suffix == ".onnx":
        _write_onnx(exported, path)
        return _check_onnx(module, arguments, path)
    _write_pt2(exported, path)
    how = "read back and run in a new interpreter without mxdeconv"
    return _verdict(module, arguments, run_elsewhere(_RUN_PT2, path, arguments), path, how)


def _verdict(
    module: fx.GraphModule,
    arguments: Mapping[str, Tensor],
    actual: list[Tensor],
    path: Path,
    how: str,
) -> Converted:
    count = len(notes_of(module)["outputs"])
    if len(actual) != count:
        raise ConversionError(f"{path} has {len(actual)} outputs, the port {count}")
    results = agree_all(module, arguments, actual)
    outcome = Converted(path, how, results)
    if not all(result.agrees for result in results):
        raise ConversionError(f"{path} computes something else than the port\n{outcome}")
    return outcome


def missing_inputs(module: fx.GraphModule, given: Collection[str]) -> list[str]:
    """The data that are not among the given names; labels may be left out."""
    notes = notes_of(module)["inputs"]
    needed = {str(n.target) for n in module.graph.nodes if n.op == "placeholder" and not n.args}
    return [name for name, own in notes.items() if own in needed and name not in given]


def example_arguments(module: fx.GraphModule, inputs: Inputs) -> dict[str, Tensor]:
    """Arguments of forward by name: the given tensors, random ones for the given shapes."""
    known = notes_of(module)["inputs"]
    unknown = sorted(set(inputs) - set(known))
    if unknown:
        raise ValueError(
            f"inputs must be among {', '.join(known)}, got {', '.join(map(repr, unknown))}"
        )
    missing = missing_inputs(module, inputs)
    if missing:
        raise ValueError(f"inputs must give data or a shape for {', '.join(missing)}")
    random = torch.Generator().manual_seed(0)
    arguments = {}
    for node in module.graph.nodes:
        if node.op != "placeholder":
            continue
        name = next(given for given, own in known.items() if own == node.target)
        value = inputs.get(name)
        if value is None:
            continue
        if not isinstance(value, Tensor):
            value = torch.randn(value, generator=random).to(notes_of(module)["dtypes"][name])
        arguments[str(node.target)] = value
    return arguments


def _export(
    module: fx.GraphModule, arguments: Mapping[str, Tensor], dynamic_batch: bool
) -> torch.export.ExportedProgram:
    values, axes = list(arguments.values()), None
    if dynamic_batch:
        # of twice the size: torch takes a size of 1 for a constant, and the check is then run
        # with another size than the export
        values = [torch.cat((value, value)) for value in values]
        axes = tuple([{0: torch.export.Dim.DYNAMIC} for _ in values])
    try:
        with torch.no_grad():
            return torch.export.export(module, tuple(values), dynamic_shapes=axes)
    except Exception as error:
        raise ConversionError(f"torch.export cannot trace the model: {_cause(error)}") from error


def _cause(error: BaseException) -> str:
    """The first line of what torch's wrappers of wrappers are about."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().split("\n")[0] or type(error).__name__


def _write_pt2(program: torch.export.ExportedProgram, path: Path) -> None:
    called = [node.target for node in program.graph.nodes if node.op == "call_function"]
    overloads = [target for target in called if isinstance(target, torch._ops.OpOverload)]
    foreign = sorted({str(target) for target in overloads if target.namespace != "aten"})
    if foreign:
        raise ConversionError(f"{path} would hold operators that are not torch's: {foreign}")
    torch.export.save(program, path)


_SAVE = "torch.save(list(result) if isinstance(result, (tuple, list)) else [result], outputs)"
_RUN_PT2 = f"""
import sys
sys.modules["mxdeconv"] = None
import torch
program, inputs, outputs = sys.argv[1:]
with torch.no_grad():
    result = torch.export.load(program).module()(*torch.load(inputs))
{_SAVE}
"""
_RUN_FOLDER = f"""
import sys
folder, inputs, outputs = sys.argv[1:]
sys.path.insert(0, folder)
import torch
import model
with torch.no_grad():
    result = model.load()(*torch.load(inputs))
{_SAVE}
"""


_LOAD_FOLDER = """
import sys
folder, here = sys.argv[1:]
sys.path.insert(0, folder)
import json
import model
from mxdeconv.porting.folder import digests
there, here = digests(model.load()), json.load(open(here))
assert there.keys() == here.keys(), "other names than the port"
assert there == here, "other values than the port"
"""


def _run(arguments: list[str], path: Path) -> None:
    """Run code, the first of the arguments, in an interpreter of its own."""
    here = str(Path(__file__).parents[2])  # for a folder, which needs this mxdeconv
    paths = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-c", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ConversionError(f"{path} was written but does not run: {last}")


def run_elsewhere(code: str, path: Path, arguments: Mapping[str, Tensor]) -> list[Tensor]:
    """The outputs that `code` computes in an interpreter of its own: PATH, inputs, outputs."""
    with tempfile.TemporaryDirectory() as scratch:
        inputs, outputs = Path(scratch, "inputs.pt"), Path(scratch, "outputs.pt")
        torch.save(list(arguments.values()), inputs)
        _run([code, str(path.absolute()), str(inputs), str(outputs)], path)
        loaded: list[Tensor] = torch.load(outputs)
    return loaded


def _write_onnx(exported: torch.export.ExportedProgram, path: Path) -> None:
    try:
        import onnx
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError as error:
        raise ImportError(
            f"writing {path.name} needs the package {error.name}: pip install 'mxdeconv[onnx]'"
        ) from None
    logger = logging.getLogger("torch.onnx")  # it names every package that is not there
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                exported,
                dynamo=True,
                verbose=False,
                custom_translation_table=onnx_operators.translations(),
            )
    except Exception as error:
        raise ConversionError(f"{path} cannot be written: {_cause(error)}") from error
    finally:
        logger.setLevel(level)
    assert program is not None
    program.save(path)
    model = onnx.load(path, load_external_data=False)
    domains = sorted({node.domain for node in model.graph.node} - {"", "ai.onnx"})
    if domains or model.functions:
        raise ConversionError(f"{path} would hold operators that are not ONNX's: {domains}")
    onnx.checker.check_model(str(path))


def _check_onnx(module: fx.GraphModule, arguments: Mapping[str, Tensor], path: Path) -> Converted:
    try:
        import onnxruntime
    except ImportError:
        return Converted(path, "checked by onnx, not run: onnxruntime is not installed", [])
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]
        feeds = {name: value.numpy() for name, value in zip(names, arguments.values(), strict=True)}
        actual = [torch.from_numpy(value) for value in session.run(None, feeds)]
    except Exception as error:  # onnxruntime's own types, which share no base
        text = f"{path} was written but onnxruntime does not run it: {_cause(error)}"
        raise ConversionError(text) from error
    how = f"checked by onnx and run in onnxruntime {onnxruntime.__version__}"
    return _verdict(module, arguments, actual, path, how)


def _check_weights(module: fx.GraphModule, path: Path) -> str:
    """Without data the folder cannot run, but its modules and weights have to come back."""
    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch, "digests.json")
        here.write_text(json.dumps(folder.digests(module)))
        _run([_LOAD_FOLDER, str(path.absolute()), str(here)], path)
    return "read back, not run: no shapes were given"
