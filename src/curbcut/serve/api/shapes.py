"""The JSON of OpenAI's answers, from plain values."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, Literal

from curbcut.serve.engine.models import Served

Kind = Literal["completion", "chat"]
_chance = random.Random()
"""Names of answers need only differ: the system's own randomness takes a call that lets another
thread run first."""


@dataclass(frozen=True)
class Head:
    """What all parts of one answer share."""

    kind: Kind
    model: str
    fingerprint: str
    """Changes with what could change answers: model, engine, version."""
    created: int = field(default_factory=lambda: int(time.time()))
    """Seconds since 1970."""
    tag: str = field(default_factory=lambda: f"{_chance.getrandbits(128):032x}")

    @property
    def id(self) -> str:
        """The name of the answer."""
        return f"{'cmpl' if self.kind == 'completion' else 'chatcmpl'}-{self.tag}"

    def part(self, choices: Sequence[Mapping[str, Any]], *, chunk: bool) -> dict[str, Any]:
        """An answer or a chunk of one, around its choices."""
        name = "text_completion" if self.kind == "completion" else \
            "chat.completion.chunk" if chunk else "chat.completion"
        return {"id": self.id, "object": name, "created": self.created, "model": self.model,
                "system_fingerprint": self.fingerprint, "choices": list(choices)}


def usage(prompt_tokens: int, answer_tokens: int, cached_tokens: int = 0) -> dict[str, Any]:
    """The counts of one request."""
    return {"prompt_tokens": prompt_tokens, "completion_tokens": answer_tokens,
            "total_tokens": prompt_tokens + answer_tokens,
            "prompt_tokens_details": {"cached_tokens": cached_tokens}}


def completion_choice(index: int, text: str, finish: str | None,
                      logprobs: Mapping[str, Any] | None) -> dict[str, Any]:
    """One answer of a completion, or a piece of it."""
    return {"index": index, "text": text, "finish_reason": finish, "logprobs": logprobs}


def chat_choice(index: int, message: Mapping[str, Any], finish: str,
                logprobs: Mapping[str, Any] | None) -> dict[str, Any]:
    """One answer of a chat."""
    return {"index": index, "message": dict(message), "finish_reason": finish,
            "logprobs": logprobs}


def chat_piece(index: int, delta: Mapping[str, Any], finish: str | None = None,
               logprobs: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A piece of an answer of a chat."""
    return {"index": index, "delta": dict(delta), "finish_reason": finish, "logprobs": logprobs}


def message(text: str | None, calls: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the assistant said."""
    said: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    return said | {"tool_calls": list(calls)} if calls else said


class Events:
    """Server-sent events of one answer. The common one, text and nothing else, is put together
    from pieces that were written once.
    """

    def __init__(self, head: Head, include_usage: bool) -> None:
        self._head = head
        self._rest: dict[str, Any] = {"usage": None} if include_usage else {}
        around = event(head.part([{"here": 0}], chunk=True) | self._rest)
        before, after = around.split('{"here":0}')
        name = '"text":' if head.kind == "completion" else '"delta":{"content":'
        self._before = (before + '{"index":', "," + name)
        self._after = ("" if head.kind == "completion" else "}") + \
            ',"finish_reason":null,"logprobs":null}' + after

    def text(self, index: int, text: str) -> str:
        """Some text, without log-probabilities."""
        return f"{self._before[0]}{index}{self._before[1]}{quoted(text)}{self._after}"

    def choice(self, choice: Mapping[str, Any], counts: Mapping[str, Any] | None = None,
               **more: Any) -> str:
        """Any other piece."""
        running = {"usage": counts} if counts is not None else self._rest
        return event(self._head.part([choice], chunk=True) | running | more)

    def counts(self, counts: Mapping[str, Any]) -> str:
        """The event after the text that has the counts, for those who asked for it."""
        return event(self._head.part([], chunk=True) | {"usage": dict(counts)})


def event(content: Mapping[str, Any] | str, name: str = "") -> str:
    """One server-sent event. Written in ASCII: some clients break lines at U+2028."""
    data = content if isinstance(content, str) else json.dumps(content, separators=(",", ":"))
    return f"event: {name}\ndata: {data}\n\n" if name else f"data: {data}\n\n"


def model_card(served: Served) -> dict[str, Any]:
    """One line of /v1/models."""
    return {"id": served.name, "object": "model", "created": served.created,
            "owned_by": "curbcut", "max_model_len": served.context_tokens,
            "root": served.parent or served.name, "parent": served.parent or None}
