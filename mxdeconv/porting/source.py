"""The bytes of a file of arrays, read or mapped once, and the one error that reading raises.

Whatever a file claims is checked against what is really there before anything is allocated, so a
broken or hostile file costs no more memory than its own size.
"""

from __future__ import annotations

import math
import mmap
import os
import stat
import struct
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeAlias

import torch
from torch import Tensor

Path: TypeAlias = "str | os.PathLike[str]"
#: Called with (bytes done, bytes in all), now and then.
Progress: TypeAlias = Callable[[int, int], None]

#: Smaller files are read: one page fault per 4 KiB costs more than copying them once.
MAPPED_FROM_BYTES = 2**24
CHUNK_BYTES = 2**24
MAX_DIMENSIONS = 64  # torch's own limit
DTYPES: dict[int, torch.dtype] = {
    0: torch.float32,
    1: torch.float64,
    2: torch.float16,
    3: torch.uint8,
    4: torch.int32,
    5: torch.int8,
    6: torch.int64,
    7: torch.bool,
    8: torch.int16,
    9: torch.uint16,
    10: torch.uint32,
    11: torch.uint64,
    12: torch.bfloat16,
}


class ParamsError(ValueError):
    """A file of arrays that is broken or not one: `path`, `offset` in bytes, `reason`."""

    def __init__(self, path: str, offset: int, reason: str) -> None:
        super().__init__(path, offset, reason)
        self.path, self.offset, self.reason = path, offset, reason

    def __str__(self) -> str:
        return f"{self.path}: at byte {self.offset}: {self.reason}"


class Source:
    """A file's bytes, with reading that cannot leave them.

    Tensors made here are views of the one buffer, each with a storage of its own extent. A
    mapping is private: writing to a tensor changes no file.
    """

    def __init__(
        self, path: Path, mapped: bool | None, memory_limit: int, progress: Progress | None
    ) -> None:
        self.path = os.fspath(path)
        self.granted = 0
        self.memory_limit = memory_limit
        self.buffer: bytearray | mmap.mmap = bytearray()
        if sys.byteorder != "little":
            raise NotImplementedError("MXNet's arrays are little endian, this machine is not")
        with open(self.path, "rb") as file:
            status = os.fstat(file.fileno())
            self.size = status.st_size
            if not stat.S_ISREG(status.st_mode):
                self.fail(0, "not a regular file")
            if mapped is None:
                mapped = self.size >= MAPPED_FROM_BYTES
            if mapped and self.size:
                self.buffer = mmap.mmap(file.fileno(), self.size, access=mmap.ACCESS_COPY)
                return
            self.buffer = bytearray(self.size)
            view, done = memoryview(self.buffer), 0
            while count := file.readinto(view[done : done + CHUNK_BYTES]):
                done += count
                if progress:
                    progress(done, self.size)
            if done != self.size:
                self.fail(done, f"file of {self.size} bytes ended while it was read")

    def fail(self, offset: int, reason: str) -> NoReturn:
        raise ParamsError(self.path, offset, reason)

    def need(self, offset: int, count: int, what: str) -> None:
        """Fail unless `count` bytes follow `offset`."""
        if count > self.size - offset:
            left = max(self.size - offset, 0)
            at = min(offset, self.size)
            self.fail(at, f"{what} takes {count} bytes, the file has {left} more")

    def unpack(self, form: str, offset: int, what: str) -> tuple[int, ...]:
        self.need(offset, struct.calcsize(form), what)
        return struct.unpack_from(form, self.buffer, offset)

    def grant(self, count: int, offset: int, what: str) -> None:
        """Fail where arrays that are larger in memory than in the file exceed the limit."""
        self.granted += count
        if self.granted > self.memory_limit:
            self.fail(
                offset,
                f"{what} takes {count} bytes of memory; with those before it that is more than "
                f"memory_limit={self.memory_limit} beyond the file's own size",
            )

    def check_shape(
        self, shape: Sequence[int], dtype: torch.dtype, offset: int, what: str
    ) -> tuple[int, ...]:
        """The shape, if torch can hold it; dimensions of an array without elements count, too."""
        if any(size < 0 for size in shape):
            self.fail(offset, f"{what} has a negative dimension: shape {show_shape(shape)}")
        if math.prod(max(size, 1) for size in shape) * dtype.itemsize >= 2**63:
            self.fail(offset, f"{what} of shape {show_shape(shape)} does not fit in 64 bits")
        return tuple(shape)

    def tensor(self, offset: int, shape: tuple[int, ...], dtype: torch.dtype, what: str) -> Tensor:
        """The array at `offset`: a view, or a copy where the file has it unaligned."""
        size_bytes = math.prod(shape) * dtype.itemsize
        self.need(offset, size_bytes, f"{what} of shape {show_shape(shape)}, {name_of(dtype)},")
        return self.view(self.buffer, offset, shape, dtype, what, offset)

    def view(
        self,
        buffer: bytearray | mmap.mmap,
        start: int,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        what: str,
        offset: int,
    ) -> Tensor:
        """As `tensor`, of any buffer that is long enough; `offset` is for messages."""
        count = math.prod(shape)
        if count == 0:
            return torch.empty(shape, dtype=dtype)
        raw = torch.frombuffer(
            buffer, dtype=torch.uint8, count=count * dtype.itemsize, offset=start
        )
        if dtype == torch.bool and int(raw.max()) > 1:
            self.fail(offset, f"{what} of bool holds other bytes than 0 and 1")
        if raw.data_ptr() % dtype.itemsize:
            raw = raw.clone()
        return raw.view(dtype).view(shape)


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def show_shape(shape: Sequence[int]) -> str:
    entries = ", ".join(str(size) for size in shape[:MAX_DIMENSIONS])
    return f"({entries}{',' if len(shape) == 1 else ''})"
