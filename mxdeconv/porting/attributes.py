"""The attributes of one symbol.json node: text that is read as MXNet reads it.

Whoever reads an attribute says its type and default. What nobody read is unknown to the operator
and an error, as it is in MXNet, so that nothing a file says is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch

from mxdeconv import spec

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "uint8": torch.uint8,
    "int8": torch.int8,
    "int32": torch.int32,
    "int64": torch.int64,
    "bool": torch.bool,
}

#: Attributes of any node that speak of placement, not of what is computed.
PLACEMENT = frozenset(
    ("ctx_group", "force_mirroring", "mirror_stage", "profiler_scope", "lr_mult", "wd_mult")
)


class _Required:
    pass


_REQUIRED = _Required()
_T = TypeVar("_T")


class Attributes:
    """Reads the attributes of a node; `count` is the number of the node's inputs.

    Raises ValueError naming the attribute for a missing or malformed one.
    """

    def __init__(self, given: Mapping[str, str], count: int) -> None:
        self.given = given
        self.count = count
        self._unread = {
            key
            for key in given
            if not (key.startswith("__") and key.endswith("__")) and key not in PLACEMENT
        }

    def unread(self) -> list[str]:
        return sorted(self._unread)

    def has(self, name: str) -> bool:
        return name in self.given

    def _text(self, name: str) -> str | None:
        self._unread.discard(name)
        return self.given.get(name)

    def ignore(self, *names: str) -> None:
        """Attributes that do not change what is computed (cudnn_tune, workspace, ...)."""
        self._unread.difference_update(names)

    def ignore_all(self) -> None:
        """For operators that have no attributes; MXNet lets such nodes carry any."""
        self._unread.clear()

    def ints(self, name: str, default: tuple[int, ...] | _Required = _REQUIRED) -> tuple[int, ...]:
        text = self._text(name)
        value = None if text is None else _tuple(name, text)
        return self._or_default(name, value, default)

    def optional_ints(self, name: str) -> tuple[int, ...] | None:
        """None where it is absent or "None"."""
        text = self._text(name)
        return None if text is None else _tuple(name, text)

    def ints_with_gaps(self, name: str) -> tuple[int | None, ...]:
        """A tuple whose entries may be None: the begin, end and step of `slice`."""
        text = self._text(name)
        if text is None:
            return ()
        inner = text.strip()
        if inner == "None":
            return ()
        if inner[:1] + inner[-1:] not in ("()", "[]"):
            number = spec.parse_tuple(name, text)
            return () if number is None else number
        entries = [entry.strip() for entry in inner[1:-1].split(",")]
        if entries[-1] == "":
            entries.pop()
        values: list[int | None] = []
        for entry in entries:
            value = None if entry == "None" else spec.parse_tuple(name, f"({entry},)")
            values.append(None if value is None else value[0])
        return tuple(values)

    def integer(
        self,
        name: str,
        default: int | _Required = _REQUIRED,
        minimum: int = -spec.INT64_MAX,
    ) -> int:
        text = self._text(name)
        value = None
        if text is not None:
            value = spec.parse_int(name, text, minimum, spec.INT64_MAX)
        return self._or_default(name, value, default)

    def optional_integer(self, name: str, default: int | None = None) -> int | None:
        text = self._text(name)
        if text is None:
            return default
        if text == "None":
            return None
        return spec.parse_int(name, text, -spec.INT64_MAX, spec.INT64_MAX)

    def flag(self, name: str, default: bool) -> bool:
        text = self._text(name)
        if text is None or text == "None":  # dmlc::optional<bool>
            return default
        return spec.parse_bool(name, text)

    def number(self, name: str, default: float | _Required = _REQUIRED) -> float:
        text = self._text(name)
        return self._or_default(name, None if text is None else _number(name, text), default)

    def optional_number(self, name: str, default: float | None = None) -> float | None:
        text = self._text(name)
        if text is None:
            return default
        return None if text == "None" else _number(name, text)

    def choice(
        self, name: str, choices: Sequence[str], default: str | _Required = _REQUIRED
    ) -> str:
        text = self._text(name)
        if text is not None and text not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {spec.show(text)}")
        return self._or_default(name, text, default)

    def dtype(self, name: str, default: str | None) -> torch.dtype | None:
        text = self._text(name)
        if text is None or text == "None":
            text = default
        if text is None:
            return None
        if text not in DTYPES:
            raise ValueError(f"{name} must be one of {', '.join(DTYPES)}, got {spec.show(text)}")
        return DTYPES[text]

    def need_inputs(self, *counts: int) -> None:
        if self.count not in counts:
            wanted = " or ".join(str(count) for count in counts)
            raise ValueError(f"it must have {wanted} inputs, got {self.count}")

    def _or_default(self, name: str, value: _T | None, default: _T | _Required) -> _T:
        if value is not None:
            return value
        if isinstance(default, _Required):
            raise ValueError(f"{name} must be given")
        return default


def _tuple(name: str, text: str) -> tuple[int, ...] | None:
    # a bare number may be negative where it is an axis
    return spec.parse_tuple(name, f"({text},)" if text.strip()[:1] in ("-", "+") else text)


def _number(name: str, text: str) -> float:
    try:
        if "_" in text:  # float() would take 1_0
            raise ValueError
        return float(text)
    except ValueError:
        raise ValueError(f"{name} must be a number, got {spec.show(text)}") from None
