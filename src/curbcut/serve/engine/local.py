"""The engine that runs a model in this process, on one thread that owns model and cache.

Between any two steps messages (new requests, cancellations, prompts to embed) are read; a step
takes all running requests one token further, or as many as were guessed right, and fills up with
pieces of prompts. What a step found is handed out at its end.

Others change a request's answer by rounding at most: prompts are cut up as these leave room, and a
CPU adds up one row of a wide matrix in another order than several. Log-probabilities move by some
1e-6 in fp32 and 0.01 in bf16; greedy answers are the same but for ties nearer than that.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from curbcut.serve.engine import chooser, sampler
from curbcut.serve.engine.answers import delta_of, say
from curbcut.serve.engine.counts import Counts
from curbcut.serve.engine.embedding import Embedding, gathered
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
    Unfit,
)
from curbcut.serve.engine.pages import Pages
from curbcut.serve.engine.request import Piece, Request
from curbcut.serve.engine.runner import Runner
from curbcut.serve.engine.scheduler import Scheduler
from curbcut.serve.engine.text import TextStream, Vocabulary

_log = logging.getLogger(__name__)
STEP_TOKENS = {"cpu": 256, "cuda": 2048}
"""New tokens of a step at most, by device: enough for matmuls at full rate, and no more, so that
answers go on while a long prompt is read."""
Draft = Callable[[Sequence[Request], StepRecord], None]
"""Fills `drafts` of requests whose answers go on; called after each step, with its record."""


class LocalEngine:
    """An `Engine` on a `Runner`. `max_batch` requests run; `max_waiting` may queue; a step has
    `step_tokens` new tokens at most (0: as suits the device).
    """

    def __init__(self, runner: Runner, vocabulary: Vocabulary, *, max_batch: int = 8,
                 max_waiting: int = 64, step_tokens: int = 0,
                 adapters: Mapping[str, str] | None = None, draft: Draft | None = None,
                 on_step: OnStep | None = None) -> None:
        self.context_tokens = min(runner.context_tokens, runner.pages * runner.page_tokens)
        self.vocab = runner.vocab
        self.vocabulary: Vocabulary | None = vocabulary
        self.adapters: Mapping[str, str] = adapters or {}
        self._words, self._runner = vocabulary, runner
        self._room, self._on_step, self._draft = max_batch + max_waiting, on_step, draft
        self._pages = Pages(runner.pages, runner.page_tokens)
        usual = STEP_TOKENS["cuda" if torch.cuda.is_available() else "cpu"]
        self._scheduler = Scheduler(self._pages, max_batch, max(step_tokens or usual, max_batch),
                                    runner.shares_pages, runner.forget)
        self._live: dict[int, Request] = {}
        self._news: list[tuple[Request, Delta]] = []
        """What the requests' listeners are told at the end of the step."""
        self._embedding = Embedding(runner)
        self._inbox: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        """What other threads want done on the engine's thread, before the next step."""
        self._counts = Counts()
        self._shown: Mapping[str, Any] = self._counts.copy()
        self._closing = False
        self._lock = threading.Lock()   # guards the four names below
        self._open, self._pending, self._requests, self._refused = True, 0, 0, 0
        self._thread = threading.Thread(target=self._run, name="curbcut-engine", daemon=True)
        self._thread.start()

    def submit(self, asked: Asked, deliver: Deliver) -> int:
        """See `Engine.submit`. Raises ValueError for a prompt that is none, and for one that does
        not fit with its answer.
        """
        sampling = asked.sampling
        if not asked.prompt or not isinstance(asked.prompt[0], int) or (
                not 0 < sampling.max_tokens <= self.context_tokens - len(asked.prompt)):
            raise ValueError("not a prompt of tokens that fits with its answer")
        if asked.adapter and asked.adapter not in self.adapters:
            raise Unfit(f"there is no adapter {asked.adapter[:100]!r}")
        tokens: list[int] = list(asked.prompt)  # type: ignore[arg-type]
        text = TextStream(self._words, sampling.stop, include_stop=sampling.include_stop,
                          special=sampling.special_text)
        request = Request(ticket=0, asked=asked, deliver=deliver, tokens=tokens, text=text,
                          prompt_tokens=len(tokens), sampling=sampling,
                          newest_seconds=time.perf_counter())
        chooser.begin(request, self._words, self.vocab)
        with self._lock:
            self._take_in()
            self._requests += 1
            request.ticket = self._requests
            self._inbox.put(partial(self._begin, request))
        return request.ticket

    def cancel(self, ticket: int) -> None:
        """See `Engine.cancel`; a ticket that has ended is no error."""
        self._inbox.put(partial(self._cancel, ticket))

    def embed(self, prompts: Sequence[tuple[int, ...]]) -> list[list[float]]:
        """See `Engine.embed`. Answers go on between any two prompts. Raises ValueError for a
        prompt that is empty or longer than the context, Busy where too much waits.
        """
        if not all(0 < len(prompt) <= self.context_tokens for prompt in prompts):
            raise ValueError("an empty prompt, or one longer than the context")
        with self._lock:
            self._take_in()
            found = self._embedding.add(prompts)
        self._inbox.put(_wake)
        try:
            return gathered(found)
        finally:
            with self._lock:
                self._pending -= 1

    def stats(self) -> Stats:
        """Counts up to the newest step; waits for nobody."""
        pages, runner = self._pages, self._runner
        running = len(self._scheduler.running)
        return Stats(**self._shown, requests=self._requests, refused=self._refused,
                     running=running, waiting=max(0, self._pending - running),
                     preempted=self._scheduler.preempted, weights_bytes=runner.weights_bytes,
                     cache_bytes=runner.cache_bytes, pages=pages.count, used_pages=pages.used,
                     remembered_pages=pages.remembered)

    def drain(self) -> None:
        """See `Engine.drain`."""
        with self._lock:
            self._open = False

    def close(self) -> None:
        """See `Engine.close`."""
        self.drain()
        self._inbox.put(self._stop)
        self._thread.join()

    def _take_in(self) -> None:
        if not self._open:
            raise Closed("the engine is closed")
        if self._pending >= self._room:
            self._refused += 1
            raise Busy(f"{self._pending} requests run or wait")
        self._pending += 1

    # -- below: the engine's thread only ------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._read_inbox():
                self._embedding.next()
                pieces: Sequence[Piece] = ()
                try:
                    pieces = self._scheduler.next_step()
                    if pieces:
                        self._step(pieces)
                except Exception:  # whatever a step dies of, the requests in it must hear of it
                    self._fail([piece.request for piece in pieces] or [*self._scheduler.running])
                    self._tell()
        finally:
            self.drain()
            self._close_down()

    def _read_inbox(self) -> bool:
        """Does what was asked for, waiting for it when idle; False when asked to close."""
        idle = self._scheduler.idle and not self._embedding
        while not self._closing and (idle or not self._inbox.empty()):
            self._inbox.get()()
            idle = False
        if self._news:
            self._tell()
        return not self._closing

    def _begin(self, request: Request) -> None:
        self._live[request.ticket] = request
        self._scheduler.add(request)

    def _cancel(self, ticket: int) -> None:
        request = self._live.get(ticket)
        if request is not None:
            self._end(request, "", "cancelled")

    def _stop(self) -> None:
        self._closing = True

    def _step(self, pieces: Sequence[Piece]) -> None:
        start = time.perf_counter()
        prefill: dict[int, int] = {}
        decode: dict[int, int] = {}
        for part, logits in self._computed(pieces):
            chosen = iter(sampler.take(logits, part))
            now = time.perf_counter()
            for piece in part:
                request, before = piece.request, piece.request.answered
                going = request.missing == 1
                self._apply(piece, next(chosen) if piece.wanted else ())
                gave = request.answered - before
                if going:
                    decode[request.ticket] = gave
                else:
                    prefill[request.ticket] = piece.count
                self._counts.piece(piece, going, gave, now)
        record = StepRecord(time.perf_counter() - start, prefill, decode, self._pages.used)
        self._counts.step(record, sum(piece.count for piece in pieces))
        if self._on_step is not None:  # before the news: who hears of an end finds it metered
            self._hook(self._on_step, record)
        self._tell()
        if self._draft is not None:
            requests = [one for one in self._scheduler.running if one.missing == 1]
            self._hook(self._draft, requests, record)

    def _computed(self, pieces: Sequence[Piece]) -> Iterator[tuple[Sequence[Piece], Tensor]]:
        """The pieces with the runner's logits. Those that fail together are tried again in two
        halves: what one request breaks harms no other, and what is too large for the memory at
        once gets on. What is computed twice is the same.
        """
        half = len(pieces) // 2
        try:
            parts = [(pieces, self._runner.run(pieces))]
        except Exception:
            for piece in pieces:
                self._runner.forget(piece.request)  # what it keeps may be half done
            if not half:
                self._fail([pieces[0].request])
                return
            parts = []
        yield from parts or chain(self._computed(pieces[:half]), self._computed(pieces[half:]))

    @staticmethod
    def _hook(hook: Callable[..., None], *told: object) -> None:
        try:
            hook(*told)
        except Exception:  # who watches or guesses harms no answer
            _log.exception("a hook of the step failed")

    def _apply(self, piece: Piece, taken: Sequence[sampler.Taken]) -> None:
        """Gives a request what its piece has brought, and ends it where it ends."""
        request = piece.request
        text, stopped_by = "", None
        finish: Finish | None = "failed" if piece.last and not taken else None
        for one in taken:
            request.tokens.append(one.token)
            if one.odds is not None:
                request.odds.append(one.odds)
            said, finish, stopped_by = say(request, one.token, self._words.end_tokens)
            text += said
            if finish:
                break
        self._scheduler.done(piece)
        request.drafts.clear()
        if finish:
            self._end(request, text, finish, stopped_by)
        elif text:
            self._news.append((request, delta_of(request, text)))

    def _end(self, request: Request, text: str, finish: Finish,
             stopped_by: str | int | None = None) -> None:
        """Ends a request: its pages are free at once, its listener hears with the step's news."""
        self._scheduler.drop(request)
        del self._live[request.ticket]
        with self._lock:
            self._pending -= 1
        self._counts.end(finish)
        self._news.append((request, delta_of(request, text, finish, stopped_by)))

    def _fail(self, requests: Sequence[Request]) -> None:
        _log.exception("a step failed; %d of its requests end", len(requests))
        for request in requests:
            if request.ticket in self._live:
                self._end(request, "", "failed")

    def _tell(self) -> None:
        """Shows the counts, then hands all news out: who hears of an end finds it counted."""
        self._shown = self._counts.copy()
        news, self._news = self._news, []
        for request, delta in news:
            try:
                request.deliver(delta)
            except Exception:  # one listener's fault is not the others'
                _log.exception("a listener failed; its request ends")
                self.cancel(request.ticket)

    def _close_down(self) -> None:
        while not self._inbox.empty():
            with contextlib.suppress(Exception):  # the others must hear of the end all the same
                self._inbox.get()()
        self._embedding.refuse(Closed("the engine is closed"))
        for request in list(self._live.values()):
            self._end(request, "", "cancelled")
        self._tell()


def _wake() -> None:
    """A message that only ends the wait for one."""
