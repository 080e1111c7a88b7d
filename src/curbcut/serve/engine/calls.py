"""Calls of tools, read from a model's text as it comes.

    hermes    <tool_call>{"name": "f", "arguments": {...}}</tool_call>, any number of them
    llama     {"name": "f", "parameters": {...}} as the whole answer; several parted by ';'
    mistral   [TOOL_CALLS] [{"name": "f", "arguments": {...}}], or [TOOL_CALLS]f{...}

What looks like a call and is none (no JSON, no such tool) is handed out as the text that it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import uuid4

from curbcut.serve.engine.chat import CallKind

_DECODER = json.JSONDecoder()
_OPEN, _CLOSE, _CALLS, _PYTHON = "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<|python_tag|>"


@dataclass(frozen=True)
class CallPiece:
    """A part of a call: its beginning has a name, what follows has arguments only."""

    index: int
    """Which call of the answer."""
    arguments: str
    """JSON, or a part of it."""
    id: str = ""
    name: str = ""


Pieces = Iterator[str | CallPiece]


class Reader(Protocol):
    """Reads one answer."""

    def add(self, text: str) -> Pieces:
        """Text and calls that are certain after some more text."""
        ...

    def finish(self) -> Pieces:
        """What was held back."""
        ...


def reader_for(kind: CallKind, names: Sequence[str]) -> Reader:
    """A reader of answers that may hold calls of the functions `names`."""
    new: Mapping[CallKind, Callable[[Sequence[str]], Reader]] = {
        "hermes": Hermes, "llama": Llama, "mistral": Mistral}
    return new[kind](names)


def new_id(short: bool = False) -> str:
    """A name for a call; Mistral's templates want nine letters or digits."""
    return uuid4().hex[:9] if short else f"call_{uuid4().hex[:24]}"


def held(text: str, marks: Sequence[str]) -> int:
    """Length of the longest end of `text` with which one of `marks` begins."""
    return max((length for mark in marks for length in range(1, min(len(mark), len(text) + 1))
                if text.endswith(mark[:length])), default=0)


def call_of(content: Any, names: Sequence[str]) -> tuple[str, str] | None:
    """Name and arguments of a call of one of `names`, from parsed JSON."""
    if not isinstance(content, dict) or content.get("name") not in names:
        return None
    arguments = content.get("arguments", content.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return None
    return (content["name"], json.dumps(arguments, ensure_ascii=False)) \
        if isinstance(arguments, dict) else None


class _Counted:
    short_ids = False

    def __init__(self, names: Sequence[str]) -> None:
        self._names, self._text, self._count = names, "", 0

    def _whole(self, calls: Sequence[tuple[str, str]]) -> Pieces:
        for name, arguments in calls:
            yield CallPiece(self._count, arguments, new_id(self.short_ids), name)
            self._count += 1


class Hermes(_Counted):
    """Calls between tags."""

    def add(self, text: str) -> Pieces:
        """See `Reader.add`."""
        self._text += text
        while (start := self._text.find(_OPEN)) >= 0:
            if (end := self._text.find(_CLOSE, start)) < 0:
                break
            yield from self._outside(self._text[:start])
            yield from self._inside(self._text[start:end + len(_CLOSE)])
            self._text = self._text[end + len(_CLOSE):]
        cut = start if start >= 0 else len(self._text) - held(self._text, (_OPEN,))
        if self._text[:cut].strip() or not self._count:
            yield from self._outside(self._text[:cut])
            self._text = self._text[cut:]

    def finish(self) -> Pieces:
        """See `Reader.finish`."""
        rest, self._text = self._text, ""
        start = rest.find(_OPEN)
        yield from self._outside(rest[:start] if start >= 0 else rest)
        if start >= 0:
            yield from self._inside(rest[start:])

    def _outside(self, text: str) -> Pieces:
        if text.strip() or (text and not self._count):  # line breaks between calls are no text
            yield text

    def _inside(self, text: str) -> Pieces:
        call = call_of(_json(text.removeprefix(_OPEN).removesuffix(_CLOSE)), self._names)
        yield from self._whole([call]) if call else iter([text])


class Llama(_Counted):
    """An answer that is calls from its beginning to its end, or none."""

    _is_text = False

    def add(self, text: str) -> Pieces:
        """See `Reader.add`."""
        self._text += text
        begun = self._text.lstrip()
        if not self._is_text and begun and not begun.startswith("{") \
                and not begun.startswith(_PYTHON[:len(begun)]):
            self._is_text = True
        if self._is_text:
            yield self._text
            self._text = ""

    def finish(self) -> Pieces:
        """See `Reader.finish`."""
        text, self._text = self._text, ""
        found = [call_of(content, self._names)
                 for content in _several(text.strip().removeprefix(_PYTHON))]
        calls = [call for call in found if call]
        if calls and len(calls) == len(found):
            yield from self._whole(calls)
        elif text:
            yield text.replace(_PYTHON, "")


class Mistral(_Counted):
    """Calls behind a mark, to the end of the answer."""

    short_ids = True
    _NAMED = re.compile(r"\s*([A-Za-z0-9_.-]+)\s*(?:\[ARGS\])?\s*(?=\{)")

    def add(self, text: str) -> Pieces:
        """See `Reader.add`."""
        self._text += text
        start = self._text.find(_CALLS)
        cut = start if start >= 0 else len(self._text) - held(self._text, (_CALLS,))
        if cut:
            yield self._text[:cut]
            self._text = self._text[cut:]

    def finish(self) -> Pieces:
        """See `Reader.finish`."""
        text, self._text = self._text, ""
        calls = [call for part in text.split(_CALLS)[1:] for call in self._calls(part)]
        if calls:
            yield from self._whole(calls)
        elif text:
            yield text

    def _calls(self, part: str) -> list[tuple[str, str]]:
        named = self._NAMED.match(part)
        content = {"name": named[1], "arguments": _json(part[named.end():])} if named \
            else _json(part)
        found = [call_of(one, self._names)
                 for one in (content if isinstance(content, list) else [content])]
        return [call for call in found if call]


class Arguments:
    """The arguments of a function that was named: the whole answer, handed out as it comes."""

    def __init__(self, name: str) -> None:
        self._name, self._begun = name, False

    def add(self, text: str) -> Pieces:
        """See `Reader.add`."""
        if not self._begun:
            self._begun = True
            yield CallPiece(0, text, new_id(), self._name)
        elif text:
            yield CallPiece(0, text)

    def finish(self) -> Pieces:
        """See `Reader.finish`."""
        if not self._begun:
            yield from self.add("")


class Listed(_Counted):
    """A JSON list of calls, each handed out when it is complete."""

    def add(self, text: str) -> Pieces:
        """See `Reader.add`."""
        self._text += text
        while "}" in text:
            rest = self._text.lstrip("[, \n\t\r")
            try:
                content, end = _DECODER.raw_decode(rest)
            except (ValueError, RecursionError):
                return
            self._text = rest[end:]
            call = call_of(content, self._names)
            if call:
                yield from self._whole([call])

    def finish(self) -> Pieces:
        """See `Reader.finish`: a call that was cut off is no call."""
        yield from ()


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _several(text: str) -> list[Any]:
    """JSON values parted by semicolons or spaces; a None for what is no JSON."""
    found: list[Any] = []
    while text := text.strip("; \n\t\r"):
        try:
            content, end = _DECODER.raw_decode(text)
        except (ValueError, RecursionError):
            return [*found, None]
        found.append(content)
        text = text[end:]
    return found
