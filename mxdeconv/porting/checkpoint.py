"""load_checkpoint: PREFIX-symbol.json and PREFIX-0000.params as one module."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from mxdeconv.porting.module import PortedModule
from mxdeconv.porting.params import load_params
from mxdeconv.porting.source import Progress
from mxdeconv.porting.symbol import load_symbol


def checkpoint_files(prefix: str | os.PathLike[str], epoch: int | None) -> tuple[Path, Path | None]:
    """(symbol, parameters) of a checkpoint; without an epoch, parameters if there is one file.

    Raises FileNotFoundError that says which epochs there are.
    """
    prefix = re.sub(r"-(symbol\.json|\d{4,}\.params)$", "", os.fspath(prefix))
    symbol = Path(f"{prefix}-symbol.json")
    if not symbol.is_file():
        raise FileNotFoundError(f"there is no {symbol}{_others(symbol.parent)}")
    found = epochs(prefix)
    if epoch is None:
        return symbol, Path(f"{prefix}-{found[0]:04d}.params") if len(found) == 1 else None
    params = Path(f"{prefix}-{epoch:04d}.params")
    if not params.is_file():
        there = ", ".join(map(str, found)) or "none"
        raise FileNotFoundError(f"there is no {params}; epochs with a file: {there}")
    return symbol, params


def _others(folder: Path) -> str:
    """The prefixes that a folder does have, for an error."""
    files = sorted(folder.glob("*-symbol.json")) if folder.is_dir() else []
    names = [str(file).removesuffix("-symbol.json") for file in files[:5]]
    return f"; prefixes there: {', '.join(names)}{', ...' * (len(files) > 5)}" if names else ""


def epochs(prefix: str | os.PathLike[str]) -> list[int]:
    """The numbers of the .params files of a prefix, ascending."""
    base = Path(prefix)
    pattern = re.compile(re.escape(base.name) + r"-(\d{4,})\.params")
    names = [path.name for path in base.parent.glob("*.params")] if base.parent.is_dir() else []
    return sorted(int(match[1]) for match in map(pattern.fullmatch, names) if match)


def load_checkpoint(
    prefix: str | os.PathLike[str],
    epoch: int = 0,
    *,
    inputs: Mapping[str, tuple[int, ...]] | None = None,
    allow_extra: bool = False,
    mmap: bool | None = None,
    progress: Progress | None = None,
) -> PortedModule:
    """The model that `mx.model.save_checkpoint` or Gluon's `export` saved, as a torch module.

    Reads PREFIX-symbol.json and PREFIX-0000.params (the epoch, in four digits). `inputs` and
    `allow_extra` are those of `load_symbol`; `mmap` and `progress` those of `load_params`.
    """
    symbol, params = checkpoint_files(prefix, epoch)
    assert params is not None
    return load_symbol(
        symbol,
        load_params(params, mmap=mmap, progress=progress),
        inputs=inputs,
        allow_extra=allow_extra,
    )
