"""One request from its acceptance to its end, whichever way it ends.

A request is one or more questions to an engine, all taken in or none. Their deltas come on the
engine's thread and cross to the event loop together: one wake-up for all that a step gave, not one
for each token.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

from starlette.types import Receive

from curbcut.ledger.access import Caller
from curbcut.ledger.holds import Taken
from curbcut.serve.api.uses import OnUse, Use
from curbcut.serve.engine.interface import Asked, Busy, Closed, Delta, Engine, Unfit
from curbcut.serve.gateway.gate import Pass, Spent
from curbcut.serve.gateway.refusal import Refused
from curbcut.serve.gateway.shortage import not_recorded

Deltas = list[tuple[int, Delta]]
"""Deltas that came together, each with which of the request's questions it answers."""


_BY_HARM = ("stop", "length", "cancelled", "failed")


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
    """Who asks for what, for the record, and how."""

    caller: Caller | None
    model: str
    adapter: str = ""
    stream: bool = False
    """Whether the answer goes out as it comes."""
    each: int = 1
    """So many questions are of every prompt."""
    still: Callable[[], Awaitable[None]] | None = None
    """Raises Refused once whoever asked may ask no longer."""


class Flow:
    """An accepted request: its deltas as they come, and its use told once, however it ends.

    `asked` are the questions, those of one prompt together. `let_in` (None without keys) is
    covered before a streamed delta is handed out, and settled before the last one is.
    """

    def __init__(self, engine: Engine, tell: OnUse, asker: Asker, asked: Sequence[Asked],
                 let_in: Pass | None = None) -> None:
        self._engine, self._tell, self._asker, self._asked = engine, tell, asker, asked
        self._let_in = let_in
        self._first_seconds: float | None = None
        self._each, self._lock = asker.each, threading.Lock()
        self._tickets: list[int] = []
        self._pending: Deltas = []
        self._waiting: asyncio.Future[None] | None = None
        self._ended: list[Delta | None] = [None] * len(asked)
        self._withdrawn = False
        self._left = False
        """Whether it was ended from here: the client is gone, or may ask no longer."""
        self._told = [0] * len(asked)
        """Tokens of each answer that were handed out."""
        self._settled: Future[None] | None = None
        self.tokens = [0] * len(asked)
        """Tokens of each answer so far."""
        self.prompt_tokens = [len(a.prompt) if isinstance(a.prompt, tuple) else 0
                              for a in asked[::asker.each]]
        self.cached_tokens = [0] * len(self.prompt_tokens)

    async def start(self, crossing: Crossing, gone: asyncio.Task[None]) -> None:
        """Hands all questions to the engine; `gone` ends when the client has left.

        Raises Refused (400, 429, 503) if the engine does not take all of them.
        """
        self._started = time.perf_counter()
        if any(asked.sampling.grammar is not None for asked in self._asked):
            await asyncio.to_thread(self._submit, crossing)  # a grammar is read: it may take long
        else:
            self._submit(crossing)
        if self._let_in is not None and self._asker.stream:
            self._let_in.begin_cover(sum(self.prompt_tokens))
        self._watch = gone
        gone.add_done_callback(self._watched)

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
                if self._asker.still is not None:
                    await self._asker.still()
                pending, self._pending = self._pending, []
                left -= sum(delta.finish is not None for _, delta in pending)
                if self._let_in is not None:
                    await self._account(self._let_in, pending, left)
                yield pending
        finally:
            self._watch.cancel()
            if left:
                self._leave()

    async def _account(self, let_in: Pass, pending: Deltas, left: int) -> None:
        """Returns when `pending` may be handed out; raises Refused (503)."""
        for index, delta in pending:
            self._told[index] = delta.tokens
        if left and self._asker.stream and self._settled is None:
            try:
                await let_in.cover(sum(self.prompt_tokens), sum(self._told))
                return
            except Refused:
                if self._settled is None:
                    raise
                # meanwhile the engine has come to the end, and all of it is charged
        if self._settled is not None and (self._asker.stream or not left):
            try:
                await asyncio.shield(asyncio.wrap_future(self._settled))
            except Exception:
                raise not_recorded() from None

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
        spent = Spent(
            prompt_tokens=sum(d.prompt_tokens or n for d, n in zip(firsts, lengths, strict=True)),
            cached_tokens=sum(d.cached_tokens for d in firsts),
            output_tokens=sum(d.tokens for d in ended),
            finish=max((str(d.finish) for d in ended), key=_BY_HARM.index),
            seconds=time.perf_counter() - self._started)
        caller = self._asker.caller
        self._tell(Use(
            key=caller.key if caller else None, caller=caller, taken=self._charge(spent),
            model=self._asker.model, adapter=self._asker.adapter, prompt_tokens=spent.prompt_tokens,
            cached_tokens=spent.cached_tokens, output_tokens=spent.output_tokens,
            finish=spent.finish, seconds=spent.seconds, ttft_seconds=self._first_seconds))

    def _charge(self, spent: Spent) -> Taken | None:
        """Settles what was answered. Of what broke off by no doing of the client's, only that
        which it was sent is charged.
        """
        if self._let_in is None:
            return None
        handed_out = sum(self._told) if self._asker.stream else 0
        if spent.finish == "failed" or (spent.finish == "cancelled" and not self._left):
            if not handed_out:
                self._let_in.release()
                return None
            spent = replace(spent, output_tokens=handed_out)
        taken, self._settled = self._let_in.settle(spent, self._tickets,
                                                   delivered=handed_out > 0)
        return taken

    def _withdraw(self) -> None:
        """All or nothing: those that were taken in go again, and nothing is told of them."""
        with self._lock:
            self._withdrawn = True
        self._cancel()
        if self._let_in is not None:
            self._let_in.release()

    def _watched(self, watch: asyncio.Task[None]) -> None:
        if not watch.cancelled():
            self._leave()

    def _leave(self) -> None:
        """Ends the answers: nobody waits for them any more."""
        self._left = True
        self._cancel()

    def _cancel(self) -> None:
        for ticket in self._tickets:
            self._engine.cancel(ticket)


async def gone(receive: Receive) -> None:
    """Returns when the client has closed the connection (its body has been read)."""
    while (await receive())["type"] != "http.disconnect":
        pass
