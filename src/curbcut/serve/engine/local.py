"""The engine that runs a model in this process, on one thread that owns model and cache.

Between any two steps messages (new requests, cancellations) are read; a step takes all running
requests one token further and fills up with pieces of prompts.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from curbcut.serve.engine.interface import (
    Asked,
    Busy,
    Closed,
    Deliver,
    Delta,
    Finish,
    OnStep,
    Stats,
    StepRecord,
)
from curbcut.serve.engine.pages import Pages
from curbcut.serve.engine.request import Request
from curbcut.serve.engine.runner import Runner
from curbcut.serve.engine.sampler import choose, generator
from curbcut.serve.engine.scheduler import Scheduler
from curbcut.serve.engine.text import TextStream, Vocabulary

_log = logging.getLogger(__name__)
STEP_TOKENS = 256
"""New tokens of a step at most: a long prompt is read in pieces, so that answers go on."""


@dataclass(frozen=True)
class _Cancel:
    ticket: int


class LocalEngine:
    """An `Engine` on a `Runner`. `max_batch` requests run; `max_waiting` may queue."""

    def __init__(self, runner: Runner, vocabulary: Vocabulary, *, max_batch: int = 8,
                 max_waiting: int = 64, step_tokens: int = STEP_TOKENS,
                 on_step: OnStep | None = None) -> None:
        self.context_tokens = min(runner.context_tokens, runner.pages * runner.page_tokens)
        self.vocab = runner.vocab
        self.vocabulary: Vocabulary | None = vocabulary
        self.adapters: Mapping[str, str] = {}
        self._room, self._on_step = max_batch + max_waiting, on_step
        self._runner = runner
        self._pages = Pages(runner.pages, runner.page_tokens)
        self._scheduler = Scheduler(self._pages, max_batch, max(step_tokens, max_batch),
                                    runner.shares_pages)
        self._live: dict[int, Request] = {}
        self._inbox: queue.SimpleQueue[Request | _Cancel | None] = queue.SimpleQueue()
        self._lock = threading.Lock()   # guards the four names below
        self._stats = Stats(weights_bytes=runner.weights_bytes, cache_bytes=runner.cache_bytes,
                            pages=runner.pages)
        self._pending, self._tickets, self._open = 0, 0, True
        self._thread = threading.Thread(target=self._run, name="curbcut-engine", daemon=True)
        self._thread.start()

    def submit(self, asked: Asked, deliver: Deliver) -> int:
        """See `Engine.submit`."""
        prompt, sampling = asked.prompt, asked.sampling
        if not prompt or not 0 < sampling.max_tokens <= self.context_tokens - len(prompt):
            raise ValueError("an empty prompt, or one that does not fit with its answer")
        assert self.vocabulary is not None
        tokens: list[int] = list(prompt)  # type: ignore[arg-type]
        with self._lock:
            if not self._open:
                raise Closed("the engine is closed")
            if self._pending >= self._room:
                self._stats = replace(self._stats, refused=self._stats.refused + 1)
                raise Busy(f"{self._pending} requests run or wait")
            self._pending += 1
            self._tickets += 1
            ticket = self._tickets
            self._inbox.put(Request(ticket, asked, deliver, tokens, len(tokens),
                                    TextStream(self.vocabulary, sampling.stop),
                                    generator(sampling)))
        self._count(requests=1)
        return ticket

    def cancel(self, ticket: int) -> None:
        """See `Engine.cancel`; a ticket that has ended is no error."""
        self._inbox.put(_Cancel(ticket))

    def embed(self, prompts: Sequence[tuple[int, ...]]) -> list[list[float]]:
        """See `Engine.embed`."""
        raise NotImplementedError

    def stats(self) -> Stats:
        """Counts so far."""
        with self._lock:
            running = len(self._scheduler.running)
            return replace(self._stats, running=running, waiting=self._pending - running,
                           preempted=self._scheduler.preempted,
                           used_pages=self._pages.count - self._pages.free,
                           remembered_pages=self._pages.remembered)

    def drain(self) -> None:
        """See `Engine.drain`."""
        with self._lock:
            self._open = False

    def close(self) -> None:
        """See `Engine.close`."""
        self.drain()
        self._inbox.put(None)
        self._thread.join()

    # -- below: the engine's thread only ------------------------------------------------------

    def _run(self) -> None:
        while self._read_inbox():
            try:
                self._step()
            except Exception:  # whatever a step dies of, the requests in it must hear of it
                _log.exception("a step failed; the requests in it end")
                self._end_all("failed")
        self._end_all("cancelled")

    def _read_inbox(self) -> bool:
        """Takes all messages in, waiting for one when idle; False when asked to close."""
        while True:
            try:
                message = self._inbox.get(block=self._scheduler.idle)
            except queue.Empty:
                return True
            if message is None:
                return False
            if isinstance(message, Request):
                self._live[message.ticket] = message
                self._scheduler.add(message)
            elif (request := self._live.get(message.ticket)) is not None:
                self._end(request, "", "cancelled")

    def _step(self) -> None:
        start = time.perf_counter()
        pieces = self._scheduler.next_step()
        pieces = sorted(pieces, key=lambda piece: piece.count > 1)
        if not pieces:
            return
        logits = self._runner.run(pieces)
        prefill: dict[int, int] = {}
        decode: dict[int, int] = {}
        row = 0
        for piece in pieces:
            request = piece.request
            self._scheduler.done(piece)
            if request.answered:
                decode[request.ticket] = 1
            else:
                prefill[request.ticket] = piece.count
            rows, row = logits[row: row + piece.wanted], row + piece.wanted
            if piece.wanted:
                self._take(request, choose(rows[-1:], [request.sampling], [request.source])[0])
        seconds = time.perf_counter() - start
        read, gave = sum(prefill.values()), len(decode)
        self._count(steps=1, decode_steps=int(gave > 0),
                    prefill_seconds=seconds * read / (read + gave),
                    decode_seconds=seconds * gave / (read + gave))
        if self._on_step is not None:
            self._on_step(StepRecord(seconds, prefill, decode,
                                     self._pages.count - self._pages.free))

    def _take(self, request: Request, token: int) -> None:
        """Gives a request its next token, and ends it where it ends."""
        request.tokens.append(token)
        now = time.perf_counter()
        waited, request.newest_seconds = now - request.newest_seconds, now
        if request.answered == 1:
            self._count(prompt_tokens=request.prompt_tokens, cached_tokens=request.cached,
                        answer_tokens=1, first_tokens=1, first_token_seconds=waited)
        else:
            self._count(answer_tokens=1, decode_tokens=1, next_token_seconds=waited)
        assert self.vocabulary is not None
        if token in self.vocabulary.end_tokens and not request.sampling.ignore_end:
            self._end(request, request.text.finish(), "stop")
            return
        text = request.text.add(token)
        if request.text.stopped:
            self._end(request, text, "stop")
        elif request.answered == request.sampling.max_tokens:
            text += request.text.finish()
            self._end(request, text, "stop" if request.text.stopped else "length")
        elif text:
            request.deliver(self._delta(request, text))

    def _delta(self, request: Request, text: str, finish: Finish | None = None) -> Delta:
        ids = tuple(request.tokens[request.prompt_tokens + request.told:])
        request.told = request.answered
        return Delta(text, request.answered, finish, ids=ids, cached_tokens=request.cached,
                     prompt_tokens=request.prompt_tokens)

    def _end(self, request: Request, text: str, finish: Finish) -> None:
        request.finish = finish
        self._scheduler.drop(request)
        self._runner.forget(request)
        del self._live[request.ticket]
        with self._lock:
            self._pending -= 1
        self._count(**{{"stop": "finished", "length": "finished"}.get(finish, finish): 1})
        request.deliver(self._delta(request, text, finish))

    def _end_all(self, finish: Finish) -> None:
        if finish != "failed":
            while not self._inbox.empty():
                message = self._inbox.get()
                if isinstance(message, Request):
                    self._live[message.ticket] = message
        for request in list(self._live.values()):
            if finish != "failed" or request in self._scheduler.running:
                self._end(request, "", finish)

    def _count(self, **more: Any) -> None:
        with self._lock:
            self._stats = replace(self._stats, **{
                name: getattr(self._stats, name) + value for name, value in more.items()})

