"""Choosing the engine's algorithm, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mxdeconv import _C

#: Every algorithm of the CPU engine, by name.
ALGORITHMS: tuple[str, ...] = tuple(_C.runs())


@contextmanager
def force_algorithm(name: str | None) -> Iterator[None]:
    """Calls of this process use the algorithm called ``name`` where it can do the problem.

    Elsewhere, and with None, they choose as always. Raises ValueError for other names.
    """
    _C.force_algorithm(name or "")
    try:
        yield
    finally:
        _C.force_algorithm("")


def runs() -> dict[str, int]:
    """How often each algorithm has run in this process."""
    return _C.runs()
