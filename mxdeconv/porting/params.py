"""Parameters as MXNet saves them: `load_params` and `save_params`.

Reads what `mx.nd.save`, `Module.save_checkpoint`, `HybridBlock.export`, `save_parameters` and
`collect_params().save` write, in every version of the format, and the .npz files of MXNet 2;
writes byte for byte what MXNet 1.9.1 writes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from mxdeconv.porting import binary, npz
from mxdeconv.porting.source import ParamsError, Path, Progress, Source

__all__ = ["Params", "ParamsError", "load_params", "save_params"]

_KINDS = ("arg", "aux")


class Params(dict[str, Tensor]):
    """Tensors by name, in the file's order. `arg:` and `aux:` are not part of a name here.

    `kinds` says which names had which; `arg` and `aux` are the two halves, as
    `mx.model.load_checkpoint` returns them. A file that holds a list has the names "0", "1", ...
    and `named` is False. `without_data` names arrays that MXNet saved before they held anything;
    they are not among the items.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]] = (),
        kinds: Mapping[str, str] | None = None,
        *,
        named: bool = True,
        without_data: Sequence[str] = (),
    ) -> None:
        super().__init__(tensors)
        self.kinds = dict(kinds or {})
        self.named = named
        self.without_data = tuple(without_data)

    @property
    def arg(self) -> dict[str, Tensor]:
        """What training changes: everything that was not saved as `aux:`."""
        return {name: value for name, value in self.items() if self.kinds.get(name) != "aux"}

    @property
    def aux(self) -> dict[str, Tensor]:
        """Auxiliary states, such as moving averages."""
        return {name: value for name, value in self.items() if self.kinds.get(name) == "aux"}

    def saved_names(self) -> list[str]:
        """The names as they stand in the file, with `arg:` and `aux:`."""
        return [f"{self.kinds[name]}:{name}" if name in self.kinds else name for name in self]


def split_name(saved: str) -> tuple[str | None, str]:
    """("arg", "aux" or None, name) of a name as it stands in a file."""
    kind, colon, name = saved.partition(":")
    return (kind, name) if colon and kind in _KINDS else (None, saved)


def load_params(
    path: Path,
    *,
    mmap: bool | None = None,
    memory_limit: int = 2**30,
    progress: Progress | None = None,
) -> Params:
    """The arrays of a `.params` (or MXNet 2 `.npz`) file as torch tensors.

    Nothing is copied: tensors are views of the file's bytes, except where the file has an array
    unaligned for its type. With mmap=True the file is mapped instead of read, and its pages come
    from disk when they are first used; None does so from 16 MiB on. A mapping is private, so
    writing to a tensor does not change the file; but no program may shorten or overwrite the
    file in place while its tensors are in use (`save_params` replaces it, which is safe).

    Sparse arrays become dense. What takes more memory than in the file, those and compressed
    arrays, may together take `memory_limit` bytes. `progress` is called with (bytes done, bytes
    in all).

    Raises ParamsError, a ValueError that names the offset, for a broken file.
    """
    source = Source(path, mmap, memory_limit, progress)
    if bytes(source.buffer[:4]) in (b"PK\3\4", b"PK\5\6"):
        contents = _from_npz(npz.read(source, progress))
    else:
        contents = binary.read(source, progress)
    if contents.names is None:
        names = [str(number) for number in range(len(contents.arrays))]
        kinds: dict[str, str] = {}
    else:
        names, kinds = _split_names(source, contents.names)
    tensors = {n: a for n, a in zip(names, contents.arrays, strict=True) if a is not None}
    missing = [n for n, a in zip(names, contents.arrays, strict=True) if a is None]
    return Params(tensors, kinds, named=contents.names is not None, without_data=missing)


def _from_npz(arrays: dict[str, Tensor]) -> binary.Contents:
    # numpy and MXNet 2 name the arrays of a list arr_0, arr_1, ...
    listed = arrays and list(arrays) == [f"arr_{number}" for number in range(len(arrays))]
    return binary.Contents(None if listed else list(arrays), list(arrays.values()))


def _split_names(source: Source, saved: list[str]) -> tuple[list[str], dict[str, str]]:
    names: list[str] = []
    kinds: dict[str, str] = {}
    seen: dict[str, str] = {}
    for full in saved:
        kind, name = split_name(full)
        if name in seen:
            source.fail(source.size, f"names {seen[name]!r} and {full!r} mean the same parameter")
        seen[name] = full
        names.append(name)
        if kind:
            kinds[name] = kind
    return names, kinds


def save_params(
    path: Path,
    tensors: Mapping[str, Tensor] | Sequence[Tensor] | Tensor,
    *,
    np_shape: bool = False,
    progress: Progress | None = None,
) -> None:
    """Write tensors as `mx.nd.save` of MXNet 1.9.1 does, byte for byte.

    A mapping is written under its names (a `Params` with the `arg:` and `aux:` that it was
    loaded with), a sequence or one tensor without names. np_shape=True writes what MXNet does
    under `mx.util.set_np_shape(True)`, which alone can hold tensors without dimensions. The file
    takes the place of an older one when it is complete, not before.
    """
    if isinstance(tensors, Tensor):
        tensors = [tensors]
    if isinstance(tensors, Params) and not tensors.named:
        tensors = list(tensors.values())
    names: list[str] = []
    if isinstance(tensors, Mapping):
        names = tensors.saved_names() if isinstance(tensors, Params) else list(tensors)
        values = list(tensors.values())
        for name in names:
            if not isinstance(name, str):
                raise TypeError(f"names must be strings, got {name!r}")
            name.encode()  # a lone surrogate has no UTF-8: raised before anything is written
    elif isinstance(tensors, Sequence):
        values = list(tensors)
    else:
        raise TypeError(
            f"tensors must be a mapping, a sequence or a tensor, got {type(tensors).__name__}"
        )
    for number, value in enumerate(values):
        what = f"tensor {names[number]!r}" if names else f"tensor {number}"
        binary.check_writable(value, what, np_shape)
    path = os.fspath(path)
    if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
        with open(path, "wb") as file:  # a device or a pipe cannot be replaced
            binary.write(file, names, values, np_shape, progress)
        return
    partial = f"{path}.{os.getpid()}.partial"
    try:
        with open(partial, "xb") as file:
            binary.write(file, names, values, np_shape, progress)
        os.replace(partial, path)
    except BaseException:
        if os.path.exists(partial):
            os.unlink(partial)
        raise
