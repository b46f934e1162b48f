"""The .npz files of MXNet 2 and numpy, read without numpy.

A zip archive of .npy members. A sparse array is a folder of members: `data`, `indices`, `shape`,
`format` and, for csr, `indptr`. Members are stored (then arrays are views of the file, or copies
where unaligned) or deflated.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
import zlib
from typing import IO, cast

import torch
from torch import Tensor

from mxdeconv.porting.source import CHUNK_BYTES, MAX_DIMENSIONS, Progress, Source
from mxdeconv.porting.sparse import CSR, ROW_SPARSE, Sparse, dense

_HEADER = re.compile(
    r"\{'descr': (.{1,40}?), 'fortran_order': (True|False), 'shape': \(([0-9, ]*)\),? *\} *\n?"
)
_DTYPES = {
    "'<f4'": torch.float32,
    "'<f8'": torch.float64,
    "'<f2'": torch.float16,
    "'|u1'": torch.uint8,
    "'|i1'": torch.int8,
    "'|b1'": torch.bool,
    "'<i2'": torch.int16,
    "'<i4'": torch.int32,
    "'<i8'": torch.int64,
    "'<u2'": torch.uint16,
    "'<u4'": torch.uint32,
    "'<u8'": torch.uint64,
    "[('bfloat16', '<u2')]": torch.bfloat16,
}
_HEADER_LIMIT_BYTES = 10_000  # as numpy's
_ROW_SPARSE_MEMBERS = {"data", "indices", "shape", "format"}
_CSR_MEMBERS = {*_ROW_SPARSE_MEMBERS, "indptr"}


def read(source: Source, progress: Progress | None = None) -> dict[str, Tensor]:
    """Every array of the archive under its member's name, in the archive's order."""
    members = _members(source)
    folders: dict[str, set[str]] = {}
    for name in members:
        folder, _, last = name.rpartition("/")
        folders.setdefault(folder, set()).add(last)
    arrays: dict[str, Tensor] = {}
    for name, info in members.items():
        folder, _, last = name.rpartition("/")
        if folder and folders[folder] in (_ROW_SPARSE_MEMBERS, _CSR_MEMBERS):
            if last == "data":
                arrays[folder] = _read_sparse(source, members, folder)
        else:
            arrays[name] = _read_member(source, info, name)
        if progress:
            progress(info.header_offset + info.compress_size, source.size)
    return arrays


def _members(source: Source) -> dict[str, zipfile.ZipInfo]:
    """Members by name without `.npy`; no two of them share bytes or a name."""
    try:
        with zipfile.ZipFile(cast("IO[bytes]", _File(source))) as archive:
            infos = archive.infolist()
    except Exception as error:  # zipfile raises half a dozen types for broken archives
        source.fail(0, f"not a readable .npz (zip) file: {error}")
    members: dict[str, zipfile.ZipInfo] = {}
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < 0:
            source.fail(0, f"member {info.filename!r} begins before the file does")
        if info.header_offset < end:
            source.fail(info.header_offset, f"member {info.filename!r} overlaps the one before it")
        source.need(info.header_offset, info.compress_size, f"member {info.filename!r}")
        end = info.header_offset + info.compress_size
    for info in infos:
        if not info.filename.endswith(".npy"):
            source.fail(info.header_offset, f"member {info.filename!r} is not an .npy array")
        name = info.filename.removesuffix(".npy")
        if name in members:
            source.fail(info.header_offset, f"has two members named {info.filename!r}")
        members[name] = info
    return members


def _read_sparse(source: Source, members: dict[str, zipfile.ZipInfo], folder: str) -> Tensor:
    def member(name: str) -> Tensor:
        return _read_member(source, members[f"{folder}/{name}"], f"{folder}/{name}")

    values, size = member("data"), member("shape")
    offset = members[f"{folder}/data"].header_offset
    what = f"array {folder!r}"
    if size.dtype != torch.int64 or size.dim() != 1 or size.numel() > MAX_DIMENSIONS:
        source.fail(offset, f"{what} has a shape that is not a list of int64")
    shape = source.check_shape(size.tolist(), values.dtype, offset, what)
    if f"{folder}/indptr" in members:
        indices = (member("indptr"), member("indices"))
        return dense(source, Sparse(CSR, shape, values, indices, what, offset))
    return dense(source, Sparse(ROW_SPARSE, shape, values, (member("indices"),), what, offset))


def _read_member(source: Source, info: zipfile.ZipInfo, name: str) -> Tensor:
    start, at = _data_offset(source, info), info.header_offset
    what = f"array {name!r}"
    if info.flag_bits & 0x1:
        source.fail(at, f"{what} is encrypted")
    source.need(start, info.compress_size, what)
    if info.compress_type == zipfile.ZIP_STORED:
        if info.compress_size != info.file_size:
            source.fail(at, f"{what} is stored as {info.compress_size} of {info.file_size} bytes")
        buffer, limit = source.buffer, start + info.file_size
    elif info.compress_type == zipfile.ZIP_DEFLATED:
        source.grant(info.file_size, at, f"{what}, inflated,")
        buffer, start, limit = _inflate(source, info, start, what), 0, info.file_size
    else:
        source.fail(
            at, f"{what} is compressed in way {info.compress_type}, valid: stored, deflated"
        )
    with memoryview(buffer) as view, view[start:limit] as piece:
        if zlib.crc32(piece) != info.CRC:
            source.fail(at, f"{what} does not have the checksum that the archive states")
        head = bytes(piece[: _HEADER_LIMIT_BYTES + 12])
    dtype, fortran, shape, head_bytes = _parse_header(source, head, at, what)
    source.check_shape(shape, dtype, at, what)
    if head_bytes + math.prod(shape) * dtype.itemsize != info.file_size:
        source.fail(at, f"{what} of shape {shape} does not fill its {info.file_size} bytes")
    first = start + head_bytes
    if not fortran:
        return source.view(buffer, first, shape, dtype, what, at)
    turned = source.view(buffer, first, shape[::-1], dtype, what, at)
    return turned.permute(*range(len(shape) - 1, -1, -1)).contiguous()


def _inflate(source: Source, info: zipfile.ZipInfo, start: int, what: str) -> bytearray:
    """The member's bytes, never more than it states."""
    inflater = zlib.decompressobj(-15)
    data, done = bytearray(info.file_size), 0
    with memoryview(source.buffer) as view, view[start : start + info.compress_size] as piece:
        rest: bytes | memoryview = piece
        try:
            while chunk := inflater.decompress(rest, CHUNK_BYTES):
                if done + len(chunk) > len(data):
                    break
                data[done : done + len(chunk)] = chunk
                done += len(chunk)
                rest = inflater.unconsumed_tail
        except zlib.error as error:
            source.fail(start, f"{what} cannot be inflated: {error}")
    if done != len(data) or not inflater.eof:
        source.fail(start, f"{what} does not inflate to the {info.file_size} bytes that it states")
    return data


def _data_offset(source: Source, info: zipfile.ZipInfo) -> int:
    """Where the member's bytes begin: behind its local header, whose length it alone states."""
    at = info.header_offset
    what = f"the local header of {info.filename!r}"
    source.need(at, 30, what)
    if bytes(source.buffer[at : at + 4]) != b"PK\3\4":
        source.fail(at, f"{what} is not there")
    name_length, extra_length = source.unpack("<HH", at + 26, what)
    return at + 30 + name_length + extra_length


def _parse_header(
    source: Source, head: bytes, offset: int, what: str
) -> tuple[torch.dtype, bool, tuple[int, ...], int]:
    """(dtype, Fortran order, shape, bytes before the data) of an .npy array."""
    if head[:6] != b"\x93NUMPY" or len(head) < 12 or head[6] not in (1, 2, 3):
        source.fail(offset, f"{what} is not an .npy array of version 1 to 3")
    form, begin = ("<H", 10) if head[6] == 1 else ("<I", 12)
    (length,) = struct.unpack_from(form, head, 8)
    text = head[begin : begin + length].decode("latin-1")
    match = _HEADER.fullmatch(text) if length <= _HEADER_LIMIT_BYTES else None
    if match is None or len(text) != length:
        source.fail(offset, f"{what} has an unreadable header {text[:100]!r}")
    dtype = _DTYPES.get(match[1])
    if dtype is None:
        source.fail(offset, f"{what} is of type {match[1]}, valid: {', '.join(_DTYPES)}")
    sizes = [entry.strip() for entry in match[3].split(",")]
    if sizes[-1] == "":
        sizes.pop()
    if not all(size.isdigit() and len(size) < 20 for size in sizes) or len(sizes) > MAX_DIMENSIONS:
        source.fail(offset, f"{what} has an unreadable shape ({match[3][:100]})")
    return dtype, match[2] == "True", tuple(int(size) for size in sizes), begin + length


class _File(io.RawIOBase):
    """The bytes of a Source as the file that zipfile wants."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.position = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = 0) -> int:
        base = (0, self.position, self.source.size)[whence]
        if base + offset < 0:
            raise ValueError(f"a position of {base + offset}")
        self.position = base + offset
        return self.position

    def read(self, count: int | None = -1) -> bytes:
        end = self.source.size if count is None or count < 0 else self.position + count
        data = bytes(self.source.buffer[self.position : end])
        self.position += len(data)
        return data
