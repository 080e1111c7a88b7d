"""Answers as they come: gathered whole, or streamed as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from curbcut.serve.api import shapes
from curbcut.serve.api.flow import Flow
from curbcut.serve.engine.address import refuses
from curbcut.serve.engine.calls import CallPiece
from curbcut.serve.engine.interface import Delta, TokenOdds
from curbcut.serve.gateway.refusal import Refused

WRITE_SECONDS = 30.0
"""How long a client may let a written piece wait before it counts as gone."""


@dataclass
class Gathered:
    """One answer, or what came of it so far."""

    texts: list[str] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    odds: list[TokenOdds] = field(default_factory=list)
    prompt_odds: tuple[TokenOdds | None, ...] = ()
    finish: str | None = None
    stopped_by: str | int | None = None
    calls: list[CallPiece] = field(default_factory=list)
    """Calls of tools that an engine elsewhere has read itself."""
    spelt: list[Mapping[str, Any]] = field(default_factory=list)
    """Log-probabilities of tokens that such an engine has spelt itself."""

    def add(self, delta: Delta) -> None:
        """Takes one more delta in; raises Refused (500, 503) for an end that is none."""
        check_end(delta)
        if delta.text:
            self.texts.append(delta.text)
        self.ids += delta.ids
        self.odds += delta.odds
        self.calls += pieces_of(delta)
        self.spelt += delta.extra.get("logprobs") or ()
        self.prompt_odds = self.prompt_odds or delta.prompt_odds
        self.finish, self.stopped_by = delta.finish, delta.stopped_by

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self.texts)

    @property
    def mean_logprob(self) -> float:
        """By which the best answers are chosen."""
        return sum(odds.logprob for odds in self.odds) / max(1, len(self.odds))


async def gathered(flow: Flow, count: int) -> list[Gathered]:
    """All answers, when they have ended; raises Refused (500, 503)."""
    answers = [Gathered() for _ in range(count)]
    async with aclosing(flow.deltas()) as batches:
        async for deltas in batches:
            for index, delta in deltas:
                answers[index].add(delta)
    return answers


def check_end(delta: Delta) -> None:
    """Raises Refused for an answer that was not ended by its model."""
    if delta.finish == "failed":
        why, status = delta.extra.get("reason"), delta.extra.get("status", 0)
        if (why and refuses(status)) or status == 429:  # an engine elsewhere does not take it
            raise Refused(429 if status == 429 else 400, f"The engine refuses it: {why}",
                          code=delta.extra.get("code") or "engine_refused",
                          retry_after_seconds=1 if status == 429 else None)
        raise Refused(500, "The engine failed on this request.", code="engine_failed")
    if delta.finish == "cancelled":
        raise Refused(503, "The server is shutting down.", code="shutting_down")


def counted(flow: Flow, hidden: bool = False) -> dict[str, object]:
    """The counts of a request; `hidden` answers are not counted."""
    return shapes.usage(sum(flow.prompt_tokens), 0 if hidden else sum(flow.tokens),
                        sum(flow.cached_tokens))


def pieces_of(delta: Delta) -> list[CallPiece]:
    """Calls that an engine elsewhere has read itself."""
    return [CallPiece(int(call.get("index", place)), call.get("function", {}).get("arguments", ""),
                      call.get("id") or "", call.get("function", {}).get("name") or "")
            for place, call in enumerate(delta.extra.get("tool_calls") or ())]


class EventStream(Response):
    """Sends events as they come, several in one piece where they came together."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[str, None], close: Callable[[], Awaitable[None]],
                 headers: dict[str, str]) -> None:
        super().__init__(headers={"Cache-Control": "no-cache",
                                  "X-Accel-Buffering": "no", **headers})
        del self.headers["content-length"]
        self._events, self._close = events, close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends until the events end; a client that goes ends them."""
        try:
            await send({"type": "http.response.start", "status": 200,
                        "headers": self.raw_headers})
            async with aclosing(self._events) as events:
                async for text in events:
                    async with asyncio.timeout(WRITE_SECONDS):
                        await send({"type": "http.response.body", "body": text.encode(),
                                    "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (OSError, TimeoutError):  # gone, or as good as; closing the events frees its slots
            pass
        finally:
            await self._events.aclose()
            await self._close()


async def begun(events: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    """The events, once the first of them is there. An engine elsewhere may refuse until then:
    that is raised here, where the status line is not sent yet.
    """
    first = await anext(events, "")

    async def all_of_them() -> AsyncGenerator[str, None]:
        async with aclosing(events) as rest:
            yield first
            async for text in rest:
                yield text
    return all_of_them()


async def guarded(events: AsyncGenerator[str, None],
                  as_event: Callable[[Refused], str]) -> AsyncGenerator[str, None]:
    """The events, and a refusal as the last of them: the status line is long sent."""
    try:
        async with aclosing(events) as inner:
            async for text in inner:
                yield text
    except Refused as refused:
        yield as_event(refused)
