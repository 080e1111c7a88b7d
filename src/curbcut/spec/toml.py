"""A resolved run as TOML: every value, and who set it, one line each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from curbcut.spec import codec
from curbcut.spec.draft import Resolved, flatten, nest

_ORIGIN_COLUMN = 44


def dumps(resolved: Resolved) -> str:
    """`resolved` as TOML text that `draft.load` reads back to the same run."""
    values = flatten(codec.plain(resolved.run))
    nested = nest(values)
    lines = ["# A resolved run: every value, and who set it. Curbcut wrote this file."]
    for key, value in nested.items():
        if not isinstance(value, dict):
            lines += _line(key, value, resolved.origins.get(key, ""))
    for table, content in nested.items():
        if isinstance(content, dict):
            lines += ["", f"[{table}]"]
            for key, value in content.items():
                lines += _line(key, value, resolved.origins.get(f"{table}.{key}", ""))
    return "\n".join(lines) + "\n"


def _line(key: str, value: Any, origin: str) -> list[str]:
    if value is None:
        return []
    text = f"{key} = {_value(value)}"
    origin = "".join(one if one.isprintable() else " " for one in origin)
    return [f"{text:<{_ORIGIN_COLUMN}} # {origin}" if origin else text]


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return repr(value)
        case str():
            return _quoted(value)
        case Mapping():
            inner = ", ".join(f"{_quoted(k)} = {_value(v)}" for k, v in value.items())
            return "{ " + inner + " }" if inner else "{}"
        case list() | tuple():
            return "[" + ", ".join(_value(v) for v in value) + "]"
    raise TypeError(f"no TOML for {type(value).__name__}")


def _quoted(text: str) -> str:
    # JSON leaves the one control character as it is that TOML does not take.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
