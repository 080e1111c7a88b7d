"""Any OpenAI-compatible address as an `Engine`: its answers are streamed on a thread each.

What the other side says of itself is believed (counts of tokens), what it leaves out is estimated
and said so (`Delta.extra["estimated"]`). Redirects are not followed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from curbcut.errors import InputError, UnknownName
from curbcut.serve.engine import dialects
from curbcut.serve.engine.address import (
    CONNECT_SECONDS,
    ERRORS,
    Address,
    Failed,
    accepted,
    events,
    whole,
)
from curbcut.serve.engine.chunks import Reading
from curbcut.serve.engine.dialects import DIALECTS, Dialect
from curbcut.serve.engine.interface import Asked, Busy, Closed, Deliver, Delta, Finish, Stats, Unfit
from curbcut.serve.engine.text import Vocabulary

_log = logging.getLogger(__name__)
IDLE_SECONDS = 600.0
"""Longest silence of the other side within an answer."""
_UNKNOWN = 2**31


class _Live:
    """A request under way."""

    def __init__(self) -> None:
        self.socket: socket.socket | None = None
        self.cancelled = threading.Event()
        self.begun = time.perf_counter()
        self.first = self.newest = 0.0

    def stop(self) -> None:
        """Ends it: whoever reads from its connection hears the end of it."""
        self.cancelled.set()
        if self.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)


class RemoteEngine:
    """An `Engine` at `url`, for `model` ("": the first that it lists).

    With a `vocabulary` here prompts go as tokens; without one texts and messages go as they came.
    At most `most` requests are under way at once. Raises InputError for an address that does not
    answer or wants another key, UnknownName for a model that it does not have.
    """

    def __init__(self, url: str, model: str = "", *, key: str = "",
                 vocabulary: Vocabulary | None = None, dialect: str | Dialect = "",
                 context_tokens: int = 0, most: int = 256,
                 idle_seconds: float = IDLE_SECONDS) -> None:
        if isinstance(dialect, str) and dialect:
            if dialect not in DIALECTS:
                raise UnknownName("dialect", dialect, DIALECTS)
            dialect = DIALECTS[dialect]
        self._address, self._idle = Address.of(url, key), idle_seconds
        listed = _models(self._address, url)
        self.model = _chosen(model, listed)
        self.dialect = dialect if isinstance(dialect, Dialect) else dialects.tell(
            self._quietly, {"data": listed})
        self.vocabulary = vocabulary
        self.vocab = vocabulary.size if vocabulary is not None else _UNKNOWN
        self.context_tokens = context_tokens or _context(listed, self.model)
        self.adapters: Mapping[str, str] = {
            str(one["id"]): str(one.get("root", "")) for one in listed
            if one.get("parent") == self.model and one["id"] != self.model}
        self._most, self._open, self._free_again = most, True, 0.0
        self._lock = threading.Lock()
        self._live: dict[int, _Live] = {}
        self._threads: dict[int, threading.Thread] = {}
        self._stats, self._tickets = Stats(), 0

    def submit(self, asked: Asked, deliver: Deliver) -> int:
        """See `Engine.submit`."""
        if not asked.prompt:
            raise ValueError("an empty prompt")
        if asked.adapter and asked.adapter not in self.adapters:
            raise Unfit(f"there is no adapter {asked.adapter!r}")
        body = dialects.body(asked, self.model, self.dialect)
        if self.vocabulary is None:  # then nobody here could spell tokens that come as numbers
            body.pop("return_tokens_as_token_ids", None)
        path = "/v1/chat/completions" if dialects.kind_of(asked) == "messages" else \
            "/v1/completions"
        with self._lock:
            if not self._open:
                raise Closed("the engine is closed")
            if len(self._live) >= self._most or time.monotonic() < self._free_again:
                self._stats = replace(self._stats, refused=self._stats.refused + 1)
                raise Busy(f"{len(self._live)} requests are under way, or the server is busy")
            self._tickets += 1
            ticket, live = self._tickets, _Live()
            self._live[ticket] = live
            thread = self._threads[ticket] = threading.Thread(
                target=self._answer, args=(ticket, live, path, body, deliver),
                name=f"curbcut-remote-{ticket}", daemon=True)
        self._count(requests=1)
        thread.start()
        return ticket

    def cancel(self, ticket: int) -> None:
        """See `Engine.cancel`: closes the connection, from which the other side learns it."""
        with self._lock:
            live = self._live.get(ticket)
        if live is not None:
            live.stop()

    def embed(self, prompts: Sequence[tuple[int, ...]]) -> list[list[float]]:
        """See `Engine.embed`."""
        if not self._open:
            raise Closed("the engine is closed")
        body = {"model": self.model, "input": [list(prompt) for prompt in prompts]}
        try:
            told = self._address.ask("/v1/embeddings", body, self._idle)
            rows = sorted(told["data"], key=lambda one: int(one["index"]))
            found = [[float(value) for value in one["embedding"]] for one in rows]
        except Failed as error:
            raise (Unfit if error.status else Closed)(str(error)) from None
        except (KeyError, TypeError, ValueError):
            raise Unfit("the server behind this model gave no embeddings") from None
        lengths = [math.sqrt(sum(value * value for value in row)) or 1.0 for row in found]
        return [[value / length for value in row]
                for row, length in zip(found, lengths, strict=True)]

    def stats(self) -> Stats:
        """What was seen from here."""
        with self._lock:
            return replace(self._stats, running=len(self._live))

    def drain(self) -> None:
        """See `Engine.drain`."""
        with self._lock:
            self._open = False

    def close(self) -> None:
        """See `Engine.close`."""
        self.drain()
        with self._lock:
            live, threads = list(self._live.values()), list(self._threads.values())
        for one in live:
            one.stop()
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(CONNECT_SECONDS + 5)

    # -- below: the thread of one request ------------------------------------------------------

    def _answer(self, ticket: int, live: _Live, path: str, body: Mapping[str, Any],
                deliver: Deliver) -> None:
        reading = Reading(self.vocabulary, prompt_tokens=len(body.get("prompt", ()))
                          if isinstance(body.get("prompt"), list) else 0)
        finish: Finish | None = None
        why, status, code = "", 0, ""
        try:
            for chunk in self._chunks(live, path, body):
                delta = reading.take(chunk)
                if delta is not None:
                    self._time(live, reading.tokens)
                    deliver(delta)
            if reading.finish is None:
                why = "the server ended its answer in the middle"
        except Exception as error:  # whatever the other side says, its request must end
            known = isinstance(error, (Failed, *ERRORS))
            why = str(error) if known and str(error) else f"{type(error).__name__}: {error}"
            status, code = (error.status, error.code) if isinstance(error, Failed) else (0, "")
            if isinstance(error, Failed) and status in (429, 503):
                with self._lock:
                    self._free_again = time.monotonic() + error.again_seconds
        if live.cancelled.is_set():
            finish, why = "cancelled", ""
        elif why:
            finish = "failed"
            _log.warning("an answer of %s at %s failed: %s", self.model, self._address.host, why)
        self._end(ticket, live, reading.end(finish, why, status, code), deliver)

    def _chunks(self, live: _Live, path: str, body: Mapping[str, Any]
                ) -> Iterator[Mapping[str, Any]]:
        with contextlib.closing(self._address.connect(self._idle)) as connection:
            live.socket = connection.sock
            if live.cancelled.is_set():
                return
            connection.request("POST", self._address.root + path, json.dumps(body),
                               self._address.headers())
            response = accepted(connection.getresponse())
            if body["stream"]:
                yield from events(response)
            else:
                yield whole(response)

    def _time(self, live: _Live, tokens: int) -> None:
        live.newest = time.perf_counter()
        if not live.first:
            live.first = live.newest
            self._count(first_tokens=1, first_token_seconds=live.first - live.begun)

    def _end(self, ticket: int, live: _Live, last: Delta, deliver: Deliver) -> None:
        finish = str(last.finish)
        self._count(**{{"stop": "finished", "length": "finished"}.get(finish, finish): 1},
                    answer_tokens=last.tokens, cached_tokens=last.cached_tokens,
                    prompt_tokens=last.prompt_tokens if live.first else 0,
                    decode_tokens=max(last.tokens - 1, 0),
                    next_token_seconds=live.newest - live.first)
        with self._lock:
            self._live.pop(ticket, None)
            self._threads.pop(ticket, None)
        deliver(last)

    def _count(self, **more: Any) -> None:
        with self._lock:
            self._stats = replace(self._stats, **{
                name: getattr(self._stats, name) + value for name, value in more.items()})

    def _quietly(self, path: str) -> Mapping[str, Any] | None:
        try:
            return self._address.ask(path)
        except Failed:
            return None


def _models(address: Address, url: str) -> list[dict[str, Any]]:
    try:
        told = address.ask("/v1/models").get("data")
    except Failed as error:
        if error.status in (401, 403):
            raise InputError("this server does not accept the key", where=url,
                             mend="give the key that it knows") from None
        if error.status != 404:
            raise InputError(str(error), where=url,
                             mend="start the server, or mend the address") from None
        told = []
    return [one for one in told if isinstance(one, dict) and isinstance(one.get("id"), str)
            ] if isinstance(told, list) else []


def _chosen(model: str, listed: Sequence[Mapping[str, Any]]) -> str:
    names = [str(one["id"]) for one in listed]
    if not model and names:
        return names[0]
    if not model:
        raise InputError("this server lists no models", where="model", mend="name one")
    if names and model not in names:
        raise UnknownName("model", model, names)
    return model


def _context(listed: Sequence[Mapping[str, Any]], model: str) -> int:
    """Longest sequence, as vLLM, SGLang, Curbcut or llama.cpp tell it; very long where unknown."""
    for one in listed:
        if one["id"] == model:
            meta = one["meta"] if isinstance(one.get("meta"), dict) else {}
            told = [one.get("max_model_len"), meta.get("n_ctx"), meta.get("n_ctx_train")]
            return next((size for size in told if isinstance(size, int) and size > 0), _UNKNOWN)
    return _UNKNOWN
