"""What POST /tokenize and /detokenize ask for, in the words of two servers that have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from curbcut.serve.engine.chat import Conversation
from curbcut.serve.gateway.chat import PROMPT, conversation
from curbcut.serve.gateway.completion import check_length
from curbcut.serve.gateway.fields import MODEL
from curbcut.serve.gateway.limits import Limits
from curbcut.serve.gateway.table import Field, flag, take, wrong
from curbcut.serve.gateway.tools import TABLE as TOOLS


@dataclass(frozen=True, kw_only=True)
class Tokenise:
    """A text, or a chat, to be made tokens of."""

    model: str | None
    prompt: str | Conversation
    add_special: bool = True
    with_texts: bool = False
    """Whether the text of each token is told too."""
    pieces: bool = False
    """Whether `with_texts` asks for a list of {"id", "piece"}."""


@dataclass(frozen=True, kw_only=True)
class Detokenise:
    """Tokens to be made a text of."""

    model: str | None
    tokens: tuple[int, ...]


def _text(value: Any, name: str, limits: Limits) -> str:
    if not isinstance(value, str):
        raise wrong(name, "it must be text")
    check_length(len(value), limits, name)
    return value


def _tokens(value: Any, name: str, limits: Limits) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(token) is int for token in value):
        raise wrong(name, "it must be a list of tokens")
    check_length(len(value), limits, name)
    return tuple(value)


_TEXT = Field(_text, {"type": "string"})
TOKENISE: Mapping[str, Field] = {
    "model": MODEL, "prompt": _TEXT, "content": _TEXT, **PROMPT, "tools": TOOLS["tools"],
    "messages": Field(PROMPT["messages"].read, PROMPT["messages"].schema),
    "add_special_tokens": Field(flag().read, {"type": "boolean"}),
    "add_special": Field(flag().read, {"type": "boolean"}),
    "return_token_strs": flag(), "with_pieces": flag(),
}
DETOKENISE: Mapping[str, Field] = {"model": MODEL, "tokens": Field(
    _tokens, {"type": "array", "items": {"type": "integer", "minimum": 0}}, required=True)}


def tokenise(body: Mapping[str, Any], limits: Limits) -> Tokenise:
    """Reads the body; raises Refused (400) naming the field."""
    taken = take(TOKENISE, body, limits)
    given = [name for name in ("prompt", "content", "messages") if taken[name] is not None]
    if len(given) != 1:
        raise wrong((given or ["prompt"])[-1], "give one of prompt, content and messages")
    special = taken["add_special_tokens"]
    if special is None:  # each of the three by its own server's default
        special = taken["add_special"] if taken["add_special"] is not None else given == ["prompt"]
    return Tokenise(
        model=taken["model"], add_special=special, pieces=taken["with_pieces"],
        with_texts=taken["return_token_strs"] or taken["with_pieces"],
        prompt=conversation(taken, taken["tools"]) if given == ["messages"] else taken[given[0]])


def detokenise(body: Mapping[str, Any], limits: Limits) -> Detokenise:
    """Reads the body; raises Refused (400) naming the field."""
    taken = take(DETOKENISE, body, limits)
    return Detokenise(model=taken["model"], tokens=taken["tokens"])
