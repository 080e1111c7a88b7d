"""One request from its acceptance to its end, whichever way it ends.

A request is one or more questions to an engine, all taken in or none. Their deltas come on the
engine's thread and cross to the event loop together: one wake-up for all that a step gave, not one
for each token.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from starlette.types import Receive

from curbcut.serve.engine.interface import Asked, Busy, Closed, Delta, Engine, Unfit
from curbcut.serve.gateway.refusal import Refused

_log = logging.getLogger(__name__)
Deltas = list[tuple[int, Delta]]
"""Deltas that came together, each with which of the request's questions it answers."""


@dataclass(frozen=True, kw_only=True)
class Use:
    """What one request took, told once at its end."""

    key: str | None
    """Name of the key that asked; None where no keys are needed."""
    model: str
    prompt_tokens: int
    output_tokens: int
    seconds: float
    """From acceptance to the end."""
    finish: str
    """stop, length, cancelled or failed: of several answers, the worst."""
    cached_tokens: int = 0
    """Of the prompt's tokens, those that were remembered."""
    adapter: str = ""
    """The LoRA adapter that answered, "" for none."""
    ttft_seconds: float | None = None
    """From acceptance to the first token of any of its answers; None where there was none."""


OnUse = Callable[[Use], None]
_BY_HARM = ("stop", "length", "cancelled", "failed")


class Uses:
    """Hands uses to `on_use` one after another on a thread of their own, so no answer waits."""

    def __init__(self, on_use: OnUse | None) -> None:
        self._on_use = on_use
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="curbcut-uses")

    def tell(self, use: Use) -> None:
        """Returns at once."""
        if self._on_use is not None:
            self._thread.submit(self._call, use)

    def close(self) -> None:
        """Returns when all uses are told."""
        self._thread.shutdown(wait=True)

    def _call(self, use: Use) -> None:
        assert self._on_use is not None
        try:
            self._on_use(use)
        except Exception:  # a ledger that cannot be written must not end the server
            _log.exception("a use was not recorded: %s", use)


class Crossing:
    """Carries deltas from engines' threads to the event loop on which it was made."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._deltas: deque[tuple[Flow, int, Delta]] = deque()
        self._called = False

    def put(self, flow: Flow, index: int, delta: Delta) -> None:
        """On an engine's thread."""
        self._deltas.append((flow, index, delta))
        if not self._called:  # else what was called will find this one too
            self._called = True
            with contextlib.suppress(RuntimeError):  # the loop is gone: nobody listens any more
                self._loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        self._called = False
        while self._deltas:
            flow, index, delta = self._deltas.popleft()
            flow.take(index, delta)


@dataclass(frozen=True)
class Asker:
    """Who asks for what, for the record."""

    key: str | None
    model: str
    adapter: str = ""


class Flow:
    """An accepted request: its deltas as they come, and its use told once, however it ends.

    `asked` are the questions, `each` of them of every prompt, one prompt after the other. `still`
    raises Refused once whoever asked may ask no longer.
    """

    def __init__(self, engine: Engine, tell: OnUse, asker: Asker, asked: Sequence[Asked],
                 each: int = 1, still: Callable[[], Awaitable[None]] | None = None) -> None:
        self._engine, self._tell, self._asker, self._asked = engine, tell, asker, asked
        self._first_seconds: float | None = None
        self._still = still
        self._each, self._lock = each, threading.Lock()
        self._tickets: list[int] = []
        self._pending: Deltas = []
        self._waiting: asyncio.Future[None] | None = None
        self._ended: list[Delta | None] = [None] * len(asked)
        self._withdrawn = False
        self.tokens = [0] * len(asked)
        """Tokens of each answer so far."""
        self.prompt_tokens = [len(a.prompt) if isinstance(a.prompt, tuple) else 0
                              for a in asked[::each]]
        self.cached_tokens = [0] * len(self.prompt_tokens)

    async def start(self, crossing: Crossing, receive: Receive) -> None:
        """Hands all questions to the engine, and watches whether the client stays.

        Raises Refused (400, 429, 503) if the engine does not take all of them.
        """
        self._started = time.perf_counter()
        if any(asked.sampling.grammar is not None for asked in self._asked):
            await asyncio.to_thread(self._submit, crossing)  # a grammar is read: it may take long
        else:
            self._submit(crossing)
        self._watch = asyncio.create_task(self._cancel_when_gone(receive))

    def _submit(self, crossing: Crossing) -> None:
        try:
            for index, asked in enumerate(self._asked):
                self._tickets.append(self._engine.submit(asked, self._deliver(crossing, index)))
        except Busy as busy:
            self._withdraw()
            raise Refused(429, f"The server is busy ({busy}): come again in a moment.",
                          code="queue_full", retry_after_seconds=1) from None
        except Closed:
            self._withdraw()
            raise Refused(503, "The server is shutting down.", code="shutting_down") from None
        except (Unfit, ValueError) as unfit:
            self._withdraw()
            raise Refused(400, f"The engine does not take this request: {unfit}",
                          code="invalid_value") from None
        except BaseException:
            self._withdraw()
            raise

    async def deltas(self) -> AsyncGenerator[Deltas, None]:
        """What came together, up to the end of all answers; leaving early frees the slots.

        Raises Refused (401) in place of what comes after the key is no longer good.
        """
        left = len(self._asked)
        try:
            while left:
                if not self._pending:
                    self._waiting = asyncio.get_running_loop().create_future()
                    await self._waiting
                if self._still is not None:
                    await self._still()
                pending, self._pending = self._pending, []
                left -= sum(delta.finish is not None for _, delta in pending)
                yield pending
        finally:
            self._watch.cancel()
            if left:
                self._cancel()

    def take(self, index: int, delta: Delta) -> None:
        """On the event loop, as each delta comes."""
        self.tokens[index] = delta.tokens
        if delta.prompt_tokens:
            self.prompt_tokens[index // self._each] = delta.prompt_tokens
        if index % self._each == 0 and delta.cached_tokens:
            self.cached_tokens[index // self._each] = delta.cached_tokens
        self._pending.append((index, delta))
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _deliver(self, crossing: Crossing, index: int) -> Callable[[Delta], None]:
        def deliver(delta: Delta) -> None:  # on the engine's thread
            if self._first_seconds is None and delta.tokens:
                self._first_seconds = time.perf_counter() - self._started
            if delta.finish:
                self._end(index, delta)
            crossing.put(self, index, delta)
        return deliver

    def _end(self, index: int, delta: Delta) -> None:
        """Tells the use with the last answer; on the engine's thread, so that it is told even
        when the event loop is gone.
        """
        with self._lock:
            self._ended[index] = delta
            ended = [delta for delta in self._ended if delta is not None]
            if self._withdrawn or len(ended) < len(self._asked):
                return
        firsts = ended[::self._each]
        lengths = [len(a.prompt) if isinstance(a.prompt, tuple) else 0
                   for a in self._asked[::self._each]]
        self._tell(Use(
            key=self._asker.key, model=self._asker.model, adapter=self._asker.adapter,
            prompt_tokens=sum(d.prompt_tokens or n for d, n in zip(firsts, lengths, strict=True)),
            cached_tokens=sum(d.cached_tokens for d in firsts),
            output_tokens=sum(d.tokens for d in ended),
            finish=max((str(d.finish) for d in ended), key=_BY_HARM.index),
            seconds=time.perf_counter() - self._started, ttft_seconds=self._first_seconds))

    def _withdraw(self) -> None:
        """All or nothing: those that were taken in go again, and nothing is told of them."""
        with self._lock:
            self._withdrawn = True
        self._cancel()

    def _cancel(self) -> None:
        for ticket in self._tickets:
            self._engine.cancel(ticket)

    async def _cancel_when_gone(self, receive: Receive) -> None:
        """Ends the answers when the client closes the connection (its body has been read)."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._cancel()
