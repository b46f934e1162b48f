"""The switch of minimal filtering (Winograd, Toom-Cook)."""

from __future__ import annotations

from mxdeconv import _C


def minimal_filtering_enabled() -> bool:
    """Whether calls may use minimal filtering; `explain` says which do."""
    return _C.minimal_filtering()


class set_minimal_filtering:
    """Let calls of this process use minimal filtering where it is faster, or not.

    Takes effect at once, for all threads; as a context manager it is undone at the end. Minimal
    filtering needs about half the products of the direct sum. Its rounding errors are relative to
    the largest products nearby instead of to a result's own: see docs/numerics.md. On a GPU it is a
    candidate of the timed modes of cudnn_tune only. It is on unless
    the environment variable MXDECONV_MINIMAL_FILTERING is 0.
    """

    def __init__(self, enabled: bool) -> None:
        if not isinstance(enabled, bool):
            raise TypeError(f"enabled must be a bool, got {enabled!r}")
        self._before = _C.minimal_filtering()
        _C.set_minimal_filtering(enabled)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        _C.set_minimal_filtering(self._before)
