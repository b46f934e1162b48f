"""The command line: `mxdeconv inspect`, `mxdeconv convert`, `mxdeconv verify`.

Exit status: 0 done, 1 the model departs from MXNet, cannot be ported or failed its conversion's
check, 2 the command cannot be done as asked (arguments, missing or broken files), 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import mxdeconv
from mxdeconv.porting.checkpoint import checkpoint_files, load_checkpoint
from mxdeconv.porting.comparison import compare, load_recording, notes_of, recorded_shapes
from mxdeconv.porting.conversion import ConversionError, convert, missing_inputs
from mxdeconv.porting.inspection import inspect
from mxdeconv.porting.progress import Bar
from mxdeconv.porting.symbol import PortingError

_EPILOG = """
exit status:
  0  done, or the model agrees
  1  the model departs from MXNet, holds what cannot be ported, or failed its conversion's check
  2  the command cannot be done as asked: arguments, missing or broken files
  130  interrupted
"""
_PREFIX = "of PREFIX-symbol.json and PREFIX-0000.params, as MXNet saved them"
_SHAPE = "size of an input, e.g. data=1,3,224,224; once for each input"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except PortingError as error:
        print(f"mxdeconv: {error}", file=sys.stderr)
        return 1
    except ConversionError as error:
        print(f"mxdeconv: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("mxdeconv: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, `head` say, has seen enough
        sys.stderr.close()
        return 0
    except Exception as error:
        if options.traceback:
            raise
        print(f"mxdeconv: {_one_line(error)}", file=sys.stderr)
        return 2
    return status


def _one_line(error: Exception) -> str:
    """What went wrong, named by its type where the text is not one of ours."""
    text = str(error).strip().split("\n")[0]
    if isinstance(error, FileNotFoundError) and error.filename:
        text = f"there is no {error.filename}"
    elif isinstance(error, OSError) and error.filename:
        text = f"{error.filename}: {error.strerror}"
    if isinstance(error, (ValueError, OSError, ImportError)) and text:
        return text
    return f"{type(error).__name__}: {text} (--traceback shows where)"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mxdeconv",
        description="Port MXNet models to PyTorch, without MXNet.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mxdeconv {mxdeconv.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    command = _command(
        commands,
        "inspect",
        "what a model holds and what of it cannot be ported",
        "Print every node with its output shape, the parameters, and each Deconvolution with the "
        "pad and adj that its target_shape comes to. Exit status 1 if anything is not supported.",
        "mxdeconv inspect model --epoch 0 --shape data=1,3,224,224",
    )
    command.add_argument("--epoch", type=_epoch, help="number of the .params file to count, too")
    _add_shape(command, "shapes in the table need it")
    command.set_defaults(run=_inspect)

    command = _command(
        commands,
        "convert",
        "write a model as a folder, a .pt2 or an .onnx file",
        "Write the model and check what was written. A folder gets model.py, readable source, and "
        "model.safetensors. PATH.pt2 (torch.export) and PATH.onnx hold standard operators only and "
        "load without mxdeconv; they are for prediction.",
        "mxdeconv convert model --epoch 0 --shape data=1,3,224,224 -o model.onnx",
    )
    command.add_argument("--epoch", type=_epoch, default=0, help="number of the .params file (0)")
    _add_shape(
        command, ".pt2 and .onnx need it unless the symbol states it, a folder is run with it"
    )
    _add_allow_extra(command)
    command.add_argument(
        "--dynamic-batch", action="store_true", help="leave the first axis of the data free"
    )
    command.add_argument(
        "-o", "--out", required=True, metavar="PATH", help="a folder, PATH.pt2 or PATH.onnx"
    )
    command.set_defaults(run=_convert)

    command = _command(
        commands,
        "verify",
        "compare a model with what MXNet computed",
        "Run the model on recorded inputs and compare its outputs, and nodes and gradients where "
        "they were recorded. mxdeconv/porting/record_mxnet.py, a file to copy to where MXNet is, "
        "writes recordings. Exit status 1 if anything departs by more than rounding explains.",
        "mxdeconv verify model --against recorded.npz",
    )
    command.add_argument("--epoch", type=_epoch, default=0, help="number of the .params file (0)")
    _add_allow_extra(command)
    command.add_argument("--against", required=True, metavar="FILE.npz", help="the recording")
    command.set_defaults(run=_verify)
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    description: str,
    example: str,
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"example:\n  {example}\n{_EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("prefix", metavar="PREFIX", help=_PREFIX)
    command.add_argument("--traceback", action="store_true", help="show where an error arose")
    return command


def _add_shape(command: argparse.ArgumentParser, why: str) -> None:
    command.add_argument(
        "--shape",
        type=_shape,
        action="append",
        default=[],
        metavar="NAME=SIZES",
        help=f"{_SHAPE}; {why}",
    )


def _add_allow_extra(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--allow-extra", action="store_true", help="leave out arrays that the symbol does not have"
    )


def _epoch(text: str) -> int:
    if not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, got {text!r}")
    return int(text)


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, equals, sizes = text.rpartition("=")
    entries = sizes.strip("()").rstrip(",").split(",")
    if not equals or not all(entry.strip().isdigit() for entry in entries):
        raise argparse.ArgumentTypeError(f"must be NAME=SIZE,SIZE,..., got {text!r}")
    return name, tuple(int(entry) for entry in entries)


# Commands -----------------------------------------------------------------------------------


def _given_shapes(options: argparse.Namespace) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in options.shape:
        if name in shapes:
            raise ValueError(f"--shape {name}: is given twice")
        shapes[name] = shape
    return shapes


def _inspect(options: argparse.Namespace) -> int:
    symbol, params = checkpoint_files(options.prefix, options.epoch)
    with Bar("reading") as bar:
        found = inspect(symbol, params, _given_shapes(options), progress=bar.show)
    print(found)
    return 1 if found.unsupported else 0


def _convert(options: argparse.Namespace) -> int:
    given = _given_shapes(options)
    with Bar("reading") as bar:
        module = load_checkpoint(
            options.prefix,
            options.epoch,
            inputs=given or None,
            allow_extra=options.allow_extra,
            progress=bar.show,
        )
    missing = missing_inputs(module, {**notes_of(module)["shapes"], **given})
    if missing and (given or options.out.endswith((".pt2", ".onnx"))):
        raise ValueError(
            f"--shape must be given for {', '.join(missing)}, e.g. "
            + " ".join(f"--shape {name}=1,3,224,224" for name in missing)
        )
    with Bar(f"writing {options.out}") as bar:
        outcome = convert(
            module,
            options.out,
            given or None,
            dynamic_batch=options.dynamic_batch,
            progress=bar.show,
        )
    print(outcome)
    return 0


def _verify(options: argparse.Namespace) -> int:
    with Bar(f"reading {options.against}") as bar:
        recorded = load_recording(options.against, progress=bar.show)
        inputs = recorded_shapes(recorded, options.against)
    with Bar("reading") as bar:
        module = load_checkpoint(
            options.prefix,
            options.epoch,
            inputs=inputs,
            allow_extra=options.allow_extra,
            progress=bar.show,
        )
    with Bar("comparing"):
        outcome = compare(module, recorded)
    print(outcome)
    return 0 if outcome.agrees else 1
