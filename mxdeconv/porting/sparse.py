"""MXNet's row_sparse and csr arrays, made dense."""

from __future__ import annotations

import math
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor

from mxdeconv.porting.source import Source, show_shape

ROW_SPARSE, CSR = 1, 2
STORAGE_NAMES = {ROW_SPARSE: "row_sparse", CSR: "csr"}


class Sparse(NamedTuple):
    """What a file stores of a sparse array, and where, for messages."""

    kind: int
    shape: tuple[int, ...]
    values: Tensor
    indices: tuple[Tensor, ...]  # row_sparse: rows; csr: row pointers, columns
    what: str
    offset: int


def dense(source: Source, sparse: Sparse) -> Tensor:
    """The dense array, once its indices are found to be sorted, unique and within the shape."""
    for index in sparse.indices:
        if index.dtype.is_floating_point or index.dtype == torch.bool:
            _refuse(source, sparse, f"indices of type {index.dtype}")
        if index.dim() != 1:
            _refuse(source, sparse, f"indices of shape {show_shape(index.shape)}")
        if index.dtype == torch.uint64 and index.numel() and int(index.view(torch.int64).min()) < 0:
            _refuse(source, sparse, "an index beyond 2**63")
    indices = tuple(index.to(torch.int64) for index in sparse.indices)
    check = _check_row_sparse if sparse.kind == ROW_SPARSE else _check_csr
    where = check(source, sparse, indices)
    size_bytes = math.prod(sparse.shape) * sparse.values.element_size()
    name = f"{sparse.what}, {STORAGE_NAMES[sparse.kind]} of shape {show_shape(sparse.shape)},"
    source.grant(size_bytes, sparse.offset, name)
    result = torch.zeros(sparse.shape, dtype=sparse.values.dtype)
    if sparse.values.numel():
        # Bytes are moved, not numbers: index_put knows no unsigned types beyond uint8.
        carrier = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
        bits = carrier[sparse.values.element_size()]
        result.view(bits)[where] = sparse.values.view(bits)
    return result


def _refuse(source: Source, sparse: Sparse, reason: str) -> NoReturn:
    source.fail(sparse.offset, f"{sparse.what} ({STORAGE_NAMES[sparse.kind]}) has {reason}")


def _check_row_sparse(
    source: Source, sparse: Sparse, indices: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    (rows,) = indices
    if not sparse.shape:
        _refuse(source, sparse, "no dimensions")
    if not rows.numel() and not sparse.values.numel():
        return (rows,)
    if tuple(sparse.values.shape) != (rows.numel(), *sparse.shape[1:]):
        _refuse(
            source,
            sparse,
            f"values of shape {show_shape(sparse.values.shape)} for {rows.numel()} rows of "
            f"shape {show_shape(sparse.shape[1:])}",
        )
    _check_indices(source, sparse, rows, sparse.shape[0], "row")
    if bool((rows[1:] <= rows[:-1]).any()):
        _refuse(source, sparse, "row indices that do not ascend")
    return (rows,)


def _check_csr(source: Source, sparse: Sparse, indices: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    pointers, columns = indices
    if len(sparse.shape) != 2:
        _refuse(source, sparse, f"shape {show_shape(sparse.shape)}, not two dimensions")
    if tuple(sparse.values.shape) != tuple(columns.shape):
        _refuse(
            source,
            sparse,
            f"values of shape {show_shape(sparse.values.shape)} for {columns.numel()} columns",
        )
    if not pointers.numel() and not columns.numel():  # as MXNet stores zeros
        return (columns, columns)
    row_count, column_count = sparse.shape
    if pointers.numel() != row_count + 1:
        _refuse(source, sparse, f"{pointers.numel()} row pointers for {row_count} rows")
    counts = pointers.diff()
    if int(pointers[0]) != 0 or int(pointers[-1]) != columns.numel() or bool((counts < 0).any()):
        _refuse(source, sparse, f"row pointers that do not ascend from 0 to {columns.numel()}")
    _check_indices(source, sparse, columns, column_count, "column")
    rows = torch.repeat_interleave(torch.arange(row_count), counts)
    same_row = rows[1:] == rows[:-1]
    if bool(((columns[1:] <= columns[:-1]) & same_row).any()):
        _refuse(source, sparse, "column indices that do not ascend within a row")
    return rows, columns


def _check_indices(source: Source, sparse: Sparse, indices: Tensor, size: int, axis: str) -> None:
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < size:
        low, high = int(indices.min()), int(indices.max())
        _refuse(source, sparse, f"{axis} indices {low} to {high} for {size} {axis}s")
