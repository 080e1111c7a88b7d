"""A request's body as JSON, read more strictly than `json` does.

`json.loads` takes NaN, reads 1e999 as infinity, keeps the last of two equal keys, and lets half a
surrogate pair through, of which no tokenizer can make anything. All of these are refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from curbcut.serve.gateway.refusal import Refused

DEPTH = 64
"""Lists and objects inside one another; a JSON schema rarely has more than ten."""


def read_json(body: bytes) -> Mapping[str, Any]:
    """The body as a JSON object; raises Refused (400)."""
    try:
        content = json.loads(body.decode(), parse_constant=_no_constant, parse_float=_number,
                             object_pairs_hook=_object)
        if b"\\u" in body:  # raw UTF-8 holds no surrogates, an escape may
            json.dumps(content, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Refused(400, f"The body is not valid JSON ({reason[:200]}).",
                      code="invalid_json") from None
    if not isinstance(content, dict):
        raise Refused(400, "The body must be a JSON object.", code="invalid_json")
    if body.count(b"[") + body.count(b"{") > DEPTH:
        _check_depth(content)
    return content


def _check_depth(content: Any) -> None:
    level, depth = [content], 0
    while level:
        depth += 1
        if depth > DEPTH:
            raise Refused(400, f"The body is nested more than {DEPTH} deep.", code="invalid_json")
        level = [inner for outer in level
                 for inner in (outer.values() if isinstance(outer, dict) else outer)
                 if isinstance(inner, dict | list)]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:100]!r} is there twice")
    return content


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is beyond any number here")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
