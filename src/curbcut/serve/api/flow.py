"""One request from its acceptance to its end, whichever way it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from starlette.requests import Request

from curbcut.serve.engine.interface import Asked, Busy, Closed, Delta, Engine, Sampling
from curbcut.serve.gateway.refusal import Refused

_log = logging.getLogger(__name__)


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
    """stop, length, cancelled or failed."""


OnUse = Callable[[Use], None]


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


@dataclass
class Flow:
    """An accepted request: its deltas as they come, and its use told once, however it ends."""

    engine: Engine
    uses: Uses
    key: str | None
    model: str
    prompt: Sequence[int]
    sampling: Sampling
    tokens: int = 0
    """Tokens of the answer so far."""

    def start(self, request: Request) -> None:
        """Hands the request to the engine, and watches whether the client stays.

        Raises Refused (429, 503) if the engine does not take it.
        """
        loop, started = asyncio.get_running_loop(), time.perf_counter()
        self._deltas: asyncio.Queue[Delta] = asyncio.Queue()

        def deliver(delta: Delta) -> None:  # on the engine's thread
            if delta.finish:
                self.uses.tell(Use(key=self.key, model=self.model, finish=delta.finish,
                                   prompt_tokens=len(self.prompt), output_tokens=delta.tokens,
                                   seconds=time.perf_counter() - started))
            with contextlib.suppress(RuntimeError):  # the loop is gone: nobody listens any more
                loop.call_soon_threadsafe(self._deltas.put_nowait, delta)

        try:
            self._ticket = self.engine.submit(
                Asked(prompt=tuple(self.prompt), sampling=self.sampling), deliver)
        except Busy as busy:
            raise Refused(429, f"The server is busy ({busy}): come again in a moment.",
                          code="queue_full", retry_after_seconds=1) from None
        except Closed:
            raise Refused(503, "The server is shutting down.", code="shutting_down") from None
        self._watch = asyncio.create_task(self._cancel_when_gone(request))

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        """The deltas of the answer up to the one with a finish; leaving early frees the slot."""
        try:
            finish = None
            while finish is None:
                delta = await self._deltas.get()
                self.tokens, finish = delta.tokens, delta.finish
                yield delta
        finally:
            self._watch.cancel()
            self.engine.cancel(self._ticket)

    async def _cancel_when_gone(self, request: Request) -> None:
        """Ends the answer when the client closes the connection (its body has been read)."""
        while (await request.receive())["type"] != "http.disconnect":
            pass
        self.engine.cancel(self._ticket)
