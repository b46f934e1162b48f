"""MXNet names as Python identifiers, and back.

A letter, digit or `_` stays. Everything else becomes `_u<code>_` with the character's code in
hexadecimal: `stage1.conv-a` is `stage1_u2e_conv_u2d_a`. So does a leading digit, the first
letter of a keyword or of a name that is `reserved`, and a `_` that would read as such an escape.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Container

_ESCAPE = re.compile(r"_u([0-9a-f]+)_")
_EMPTY = "_u_"
_LOOKS_ESCAPED = re.compile(r"_u[0-9a-f]")


def to_identifier(name: str, reserved: Container[str] = ()) -> str:
    """An identifier that `from_identifier` turns back into `name`."""
    if not name:
        return _EMPTY
    parts = []
    for position, character in enumerate(name):
        plain = character.isascii() and (character.isalnum() or character == "_")
        if position == 0 and (character.isdigit() or keyword.iskeyword(name) or name in reserved):
            plain = False
        if _LOOKS_ESCAPED.match(name, position) or name == _EMPTY:
            plain = False
        parts.append(character if plain else f"_u{ord(character):x}_")
    return "".join(parts)


def from_identifier(identifier: str) -> str:
    """The name of which `to_identifier` made `identifier`."""
    if identifier == _EMPTY:
        return ""
    return _ESCAPE.sub(lambda match: chr(int(match.group(1), 16)), identifier)
