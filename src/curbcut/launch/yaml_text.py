"""Plain data as YAML that people read: blocks for tables and lists, JSON for everything inside."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_WORDS = ("true", "false", "yes", "no", "on", "off", "null", "y", "n")
"""Plain words that YAML 1.1 does not read as text."""


def dumps(value: Any, comment: str = "") -> str:
    """One document; each line of `comment` stands before it behind a #."""
    head = "".join(f"# {line}".rstrip() + "\n" for line in comment.splitlines())
    return head + "\n".join(_lines(value)) + "\n"


def _lines(value: Any) -> list[str]:
    if isinstance(value, Mapping) and value:
        return [line for key, inner in value.items() for line in _entry(f"{_scalar(key)}:", inner)]
    if _is_list(value) and value:
        return [line for inner in value for line in _item(inner)]
    return [_scalar(value)]


def _entry(head: str, inner: Any) -> list[str]:
    if (isinstance(inner, Mapping) or _is_list(inner)) and inner:
        return [head, *(f"  {line}" for line in _lines(inner))]
    return [f"{head} {_scalar(inner)}"]


def _item(inner: Any) -> list[str]:
    first, *rest = _lines(inner)
    return [f"- {first}", *(f"  {line}" for line in rest)]


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _scalar(value: Any) -> str:
    """A scalar, or an empty table or list; text in quotes unless it can be nothing else."""
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and value.casefold() not in _WORDS:
            return value
        return '"' + "".join(map(_letter, value)) + '"'
    said = json.dumps(value)
    # 1e+16 is text to YAML 1.1, 1.0e+16 a number
    return said.replace("e", ".0e") if isinstance(value, float) and "." not in said else said


def _letter(letter: str) -> str:
    """A character inside double quotes."""
    if letter in '"\\':
        return "\\" + letter
    return letter if letter.isprintable() else f"\\U{ord(letter):08X}"
