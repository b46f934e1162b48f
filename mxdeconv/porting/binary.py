"""MXNet's binary file of arrays, as `mx.nd.save` writes it. Little endian, nothing aligned.

    file     u64 0x112 | u64 reserved | u64 N | N x array | u64 K | K x name     K = 0 (a list) or N
    name     u64 length | UTF-8
    shape    i32 dimensions | dimensions x i64
    array    u32 V2 or V3 | i32 storage [| storage shape] | shape | device | i32 dtype
             [| per index array: i32 dtype, shape] | data [| index arrays]
             u32 V1 | shape | device | i32 dtype | data
             u32 dimensions | dimensions x u32 | device | i32 dtype | data       V0
    device   i32 type | i32 number, ignored

Storage is 0 for dense, 1 for row_sparse (one index array), 2 for csr (two); the parts in brackets
are there when it is not 0. V3 means that an array with no dimensions is a number; in the versions
before it that is an array without data, after whose shape nothing follows (V3: -1 dimensions).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from ctypes import c_ubyte
from typing import IO, NamedTuple

import torch
from torch import Tensor

from mxdeconv.porting.source import (
    CHUNK_BYTES,
    DTYPES,
    MAX_DIMENSIONS,
    Progress,
    Source,
    name_of,
    show_shape,
)
from mxdeconv.porting.sparse import CSR, ROW_SPARSE, Sparse, dense

FILE_MAGIC = 0x112
V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
DTYPE_NUMBERS = {dtype: number for number, dtype in DTYPES.items()}


class Contents(NamedTuple):
    """Arrays in the file's order, None for one without data; names are None for a list."""

    names: list[str] | None
    arrays: list[Tensor | None]


def read(source: Source, progress: Progress | None = None) -> Contents:
    """Every array and name of the file; bytes behind the last name are ignored, as in MXNet."""
    magic, _, count = source.unpack("<QQQ", 0, "the head of the file")
    if magic != FILE_MAGIC:
        source.fail(0, f"begins with {magic:#x}, a file of MXNet arrays with {FILE_MAGIC:#x}")
    if count * 4 > source.size - 24:  # the shortest array is the four bytes of one without data
        source.fail(16, f"claims {count} arrays, which do not fit in {source.size} bytes")
    arrays: list[Tensor | None] = []
    reader = _Reader(source, 24)
    for number in range(count):
        arrays.append(reader.array(f"array {number}"))
        if progress:
            progress(reader.offset, source.size)
    at = reader.offset
    named = reader.take("<Q", "the number of names")[0]
    if named not in (0, count):
        source.fail(at, f"claims {named} names for {count} arrays{reader.hint}")
    names = [reader.name(f"name {number}") for number in range(named)]
    return Contents(names if named or not count else None, arrays)


class _Reader:
    """Walks over a Source; every method leaves `offset` behind what it took."""

    def __init__(self, source: Source, offset: int) -> None:
        self.source = source
        self.offset = offset
        self.hint = ""  # set by an array without data, after which a file often makes no sense

    def take(self, form: str, what: str) -> tuple[int, ...]:
        values = self.source.unpack(form, self.offset, what)
        self.offset += struct.calcsize(form)
        return values

    def name(self, what: str) -> str:
        (length,) = self.take("<Q", f"the length of {what}")
        self.source.need(self.offset, length, what)
        raw = bytes(self.source.buffer[self.offset : self.offset + length])
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            self.source.fail(self.offset + error.start, f"{what} is not UTF-8: {error.reason}")
        self.offset += length
        return text

    def dimensions(self, count: int, size_code: str, what: str) -> tuple[int, ...]:
        if not 0 <= count <= MAX_DIMENSIONS:
            self.source.fail(
                self.offset - 4,
                f"{what} has {count} dimensions, valid are 0 to {MAX_DIMENSIONS}{self.hint}",
            )
        at = self.offset
        shape = self.take(f"<{count}{size_code}", f"the shape of {what}")
        if any(size < 0 for size in shape):
            text = f"{what} has a negative dimension: shape {show_shape(shape)}"
            self.source.fail(at, f"{text}{self.hint}")
        return shape

    def shape(self, what: str) -> tuple[int, ...]:
        (count,) = self.take("<i", f"the number of dimensions of {what}")
        return self.dimensions(count, "q", what)

    def dtype(self, what: str) -> torch.dtype:
        (number,) = self.take("<i", f"the type of {what}")
        if number not in DTYPES:
            self.source.fail(self.offset - 4, f"{what} is of unknown type {number}{self.hint}")
        return DTYPES[number]

    def data(self, shape: tuple[int, ...], dtype: torch.dtype, what: str) -> Tensor:
        shape = self.source.check_shape(shape, dtype, self.offset, what)
        tensor = self.source.tensor(self.offset, shape, dtype, what)
        self.offset += math.prod(shape) * dtype.itemsize
        return tensor

    def array(self, what: str) -> Tensor | None:
        start = self.offset
        (first,) = self.take("<I", f"the version of {what}")
        storage = 0
        stored_shape: tuple[int, ...] = ()
        if first in (V2, V3):
            (storage,) = self.take("<i", f"the storage of {what}")
            if storage not in (0, ROW_SPARSE, CSR) or (first == V3 and storage):
                valid = "0 (dense)" if first == V3 else "0 (dense), 1 (row_sparse), 2 (csr)"
                self.source.fail(
                    self.offset - 4, f"{what} has unknown storage {storage}, valid: {valid}"
                )
            if storage:
                stored_shape = self.shape(f"the values of {what}")
            (count,) = self.take("<i", f"the number of dimensions of {what}")
            if count == (-1 if first == V3 else 0):
                return self._note_without_data(what, start)
            shape = self.dimensions(count, "q", what)
        elif first == V1:
            shape = self.shape(what)
        elif first <= MAX_DIMENSIONS:
            shape = self.dimensions(first, "I", what)
        else:
            self.source.fail(
                start,
                f"{what} begins with {first:#x}, valid are {V1:#x}, {V2:#x}, {V3:#x} "
                f"or, for the oldest files, its number of dimensions{self.hint}",
            )
        if not shape and first != V3:
            return self._note_without_data(what, start)
        self.take("<ii", f"the device of {what}")
        dtype = self.dtype(what)
        if storage:
            return self._sparse(storage, stored_shape, shape, dtype, what, start)
        return self.data(shape, dtype, what)

    def _note_without_data(self, what: str, start: int) -> Tensor | None:
        self.hint = (
            f" (at byte {start}, {what} has no dimensions: MXNet in its legacy mode writes those "
            "with data and reads them without, so that it cannot read such a file itself)"
        )
        return None

    def _sparse(
        self,
        storage: int,
        stored_shape: tuple[int, ...],
        shape: tuple[int, ...],
        dtype: torch.dtype,
        what: str,
        start: int,
    ) -> Tensor:
        self.source.check_shape(shape, dtype, start, what)
        heads = []
        for _ in range(storage):  # row_sparse has one index array, csr two
            index_dtype = self.dtype(f"an index array of {what}")
            heads.append((self.shape(f"an index array of {what}"), index_dtype))
        values = self.data(stored_shape, dtype, f"the values of {what}")
        indices = [self.data(*head, f"an index array of {what}") for head in heads]
        return dense(self.source, Sparse(storage, shape, values, tuple(indices), what, start))


def write(
    file: IO[bytes],
    names: Sequence[str],
    tensors: Sequence[Tensor],
    np_shape: bool,
    progress: Progress | None = None,
) -> None:
    """The file that MXNet 1.9.1 writes; `names` is empty for a list."""
    total, done = sum(tensor.numel() * tensor.element_size() for tensor in tensors), 0
    file.write(struct.pack("<QQQ", FILE_MAGIC, 0, len(tensors)))
    for tensor in tensors:
        shape = tuple(tensor.shape)
        file.write(struct.pack("<Ii", V3 if np_shape else V2, 0))
        file.write(struct.pack(f"<i{len(shape)}q", len(shape), *shape))
        file.write(struct.pack("<iii", 1, 0, DTYPE_NUMBERS[tensor.dtype]))
        raw = raw_bytes(tensor)
        for start in range(0, len(raw), CHUNK_BYTES):
            done += file.write(raw[start : start + CHUNK_BYTES])
            if progress:
                progress(done, total)
    file.write(struct.pack("<Q", len(names)))
    for name in names:
        encoded = name.encode()
        file.write(struct.pack("<Q", len(encoded)) + encoded)


def raw_bytes(tensor: Tensor) -> memoryview:
    """The elements in order, in place where they lie so already."""
    plain = tensor.detach().cpu().resolve_neg().contiguous()
    memory = (c_ubyte * (plain.numel() * plain.element_size())).from_address(plain.data_ptr())
    vars(memory)["owner"] = plain  # keeps the memory while the view lives
    return memoryview(memory).cast("B")


def check_writable(tensor: object, what: str, np_shape: bool) -> Tensor:
    """The tensor, if MXNet has a place for it."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{what} must be a torch.Tensor, got {type(tensor).__name__}")
    if tensor.layout is not torch.strided or tensor.device.type == "meta":
        raise TypeError(
            f"{what} must be a dense tensor with data, got {tensor.layout}, {tensor.device}"
        )
    if tensor.dtype not in DTYPE_NUMBERS:
        valid = ", ".join(name_of(dtype) for dtype in DTYPE_NUMBERS)
        raise TypeError(f"{what} must be of a type that MXNet has ({valid}), got {tensor.dtype}")
    if not tensor.dim() and not np_shape:
        raise ValueError(
            f"{what} must have dimensions, got {show_shape(tensor.shape)}: MXNet reads such an "
            "array only with np_shape=True (mx.util.set_np_shape there)"
        )
    return tensor
