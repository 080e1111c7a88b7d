"""What POST /v1/embeddings asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from curbcut.serve.gateway.completion import PROMPTS, Prompt
from curbcut.serve.gateway.fields import ROUTING
from curbcut.serve.gateway.limits import Limits
from curbcut.serve.gateway.table import Field, flag, take, whole, wrong


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """Texts to be made vectors of."""

    model: str | None
    inputs: tuple[Prompt, ...]
    base64: bool = False
    """Whether a vector is written as the base64 of its 32-bit floats."""
    dimensions: int | None = None
    """What the vectors must have; they are not cut."""
    add_special: bool = True


def _format(value: Any, name: str, _limits: Limits) -> bool:
    if value not in ("float", "base64"):
        raise wrong(name, "it must be float or base64")
    return bool(value == "base64")


TABLE: Mapping[str, Field] = {
    **ROUTING,
    "input": PROMPTS,
    "encoding_format": Field(_format, {"enum": ["float", "base64"]}, False),
    "dimensions": whole(1, 2**31 - 1),
    "add_special_tokens": flag(True),
}


def embeddings(body: Mapping[str, Any], limits: Limits) -> Embeddings:
    """Reads the body; raises Refused (400) naming the field."""
    taken = take(TABLE, body, limits)
    if not all(taken["input"]):
        raise wrong("input", "a text must have at least one character", "empty_prompt")
    return Embeddings(model=taken["model"], inputs=taken["input"], base64=taken["encoding_format"],
                      dimensions=taken["dimensions"], add_special=taken["add_special_tokens"])
