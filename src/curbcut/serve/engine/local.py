"""The engine that runs a model in this process, on one thread that owns model and cache.

Between any two steps messages (new requests, cancellations, prompts to embed) are read; a step
takes all running requests one token further, or as many as were guessed right, and fills up with
pieces of prompts. What a step found is handed out at its end.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from curbcut.serve.engine import sampler
from curbcut.serve.engine.answers import delta_of, say
from curbcut.serve.engine.counts import Counts
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
Draft = Callable[[Sequence[Request]], None]
"""Fills `drafts` of requests whose answers go on; called before each step."""


@dataclass(frozen=True)
class _Cancel:
    ticket: int


@dataclass(frozen=True)
class _Embed:
    prompt: tuple[int, ...]
    found: Future[list[float]]


class LocalEngine:
    """An `Engine` on a `Runner`. `max_batch` requests run; `max_waiting` may queue; a step has
    `step_tokens` new tokens at most (0: as suits the device). `careful` checks all books of the
    cache whenever nothing runs.
    """

    def __init__(self, runner: Runner, vocabulary: Vocabulary, *, max_batch: int = 8,
                 max_waiting: int = 64, step_tokens: int = 0,
                 adapters: Mapping[str, str] | None = None, draft: Draft | None = None,
                 on_step: OnStep | None = None, careful: bool = False) -> None:
        self.context_tokens = min(runner.context_tokens, runner.pages * runner.page_tokens)
        self.vocab = runner.vocab
        self.vocabulary: Vocabulary | None = vocabulary
        self.adapters: Mapping[str, str] = adapters or {}
        self._words = vocabulary
        self._room, self._on_step, self._draft = max_batch + max_waiting, on_step, draft
        self._runner, self._careful = runner, careful
        self._pages = Pages(runner.pages, runner.page_tokens)
        usual = STEP_TOKENS["cuda" if torch.cuda.is_available() else "cpu"]
        self._scheduler = Scheduler(self._pages, max_batch, max(step_tokens or usual, max_batch),
                                    runner.shares_pages, runner.forget)
        self._live: dict[int, Request] = {}
        self._news: list[tuple[Request, Delta]] = []
        """What the requests' listeners are told at the end of the step."""
        self._prompts: deque[_Embed] = deque()
        self._inbox: queue.SimpleQueue[Request | _Cancel | _Embed | None] = queue.SimpleQueue()
        self._counts = Counts()
        self._shown: Mapping[str, Any] = self._counts.copy()
        self._lock = threading.Lock()   # guards the five names below
        self._open, self._pending, self._tickets = True, 0, 0
        self._requests, self._refused = 0, 0
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
        request.sampler = sampler.begin(request, self._words, self.vocab)
        with self._lock:
            self._take_in()
            self._requests += 1
            self._tickets += 1
            request.ticket = self._tickets
            self._inbox.put(request)
        return request.ticket

    def cancel(self, ticket: int) -> None:
        """See `Engine.cancel`; a ticket that has ended is no error."""
        self._inbox.put(_Cancel(ticket))

    def embed(self, prompts: Sequence[tuple[int, ...]]) -> list[list[float]]:
        """See `Engine.embed`. Answers go on between any two prompts. Raises ValueError for a
        prompt that is empty or longer than the context, Busy where too much waits.
        """
        if not all(0 < len(prompt) <= self.context_tokens for prompt in prompts):
            raise ValueError("an empty prompt, or one longer than the context")
        asked = [_Embed(prompt, Future()) for prompt in prompts]
        with self._lock:
            self._take_in()
            for one in asked:
                self._inbox.put(one)
        try:
            return [one.found.result() for one in asked]
        finally:
            for one in asked:
                one.found.cancel()
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
        self._inbox.put(None)
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
                if self._prompts:
                    self._embed(self._prompts.popleft())
                pieces: Sequence[Piece] = ()
                try:
                    pieces = self._scheduler.next_step()
                    if pieces:
                        self._step(pieces)
                except Exception:  # whatever a step dies of, the requests in it must hear of it
                    _log.exception("a step failed; the requests in it end")
                    self._fail([piece.request for piece in pieces] or [*self._scheduler.running])
        finally:
            self.drain()
            self._close_down()

    def _read_inbox(self) -> bool:
        """Takes all messages in, waiting for one when idle; False when asked to close."""
        idle = self._scheduler.idle and not self._prompts
        if idle:
            self._check()
        while idle or not self._inbox.empty():
            message = self._inbox.get()
            idle = False
            if message is None:
                return False
            if isinstance(message, Request):
                self._live[message.ticket] = message
                self._scheduler.add(message)
            elif isinstance(message, _Embed):
                self._prompts.append(message)
            elif (request := self._live.get(message.ticket)) is not None:
                self._end(request, "", "cancelled")
        if self._news:
            self._tell()
        return True

    def _step(self, pieces: Sequence[Piece]) -> None:
        start = time.perf_counter()
        logits = self._logits(pieces)
        chosen = iter(sampler.take(logits, pieces))
        prefill: dict[int, int] = {}
        decode: dict[int, int] = {}
        now = time.perf_counter()
        for piece in pieces:
            taken = next(chosen) if piece.wanted else ()
            going, before = piece.request.missing == 1, piece.request.answered
            self._apply(piece, taken)
            gave = piece.request.answered - before
            if going:
                decode[piece.request.ticket] = gave
                self._counts.drafted_tokens += piece.count - 1
                self._counts.accepted_tokens += max(0, gave - 1)
            else:
                prefill[piece.request.ticket] = piece.count
            if gave:
                self._counts.answered(piece.request, gave, now)
        record = StepRecord(time.perf_counter() - start, prefill, decode, self._pages.used)
        self._counts.step(record, sum(piece.count for piece in pieces))
        self._tell()
        self._hooks(record)

    def _hooks(self, record: StepRecord) -> None:
        try:
            if self._draft is not None:
                self._draft([one for one in self._scheduler.running if one.missing == 1])
            if self._on_step is not None:
                self._on_step(record)
        except Exception:  # who watches or guesses harms no answer
            _log.exception("a hook of the step failed")

    def _logits(self, pieces: Sequence[Piece]) -> Tensor:
        """The runner's logits; a step that does not fit into memory is taken in two halves, which
        changes nothing: what is computed twice is the same.
        """
        try:
            return self._runner.run(pieces)
        except (MemoryError, RuntimeError) as error:
            if len(pieces) < 2 or not _is_memory(error):
                raise
        half = len(pieces) // 2
        return torch.cat([self._logits(pieces[:half]), self._logits(pieces[half:])])

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
        if request.drafts:
            request.drafts.clear()
        if finish:
            self._end(request, text, finish, stopped_by)
        elif text:
            self._news.append((request, delta_of(request, text)))

    def _end(self, request: Request, text: str, finish: Finish,
             stopped_by: str | int | None = None) -> None:
        """Ends a request: its pages are free at once, its listener hears with the step's news."""
        request.ended = True
        self._scheduler.drop(request)
        del self._live[request.ticket]
        with self._lock:
            self._pending -= 1
        self._counts.end(finish)
        self._news.append((request, delta_of(request, text, finish, stopped_by)))

    def _fail(self, requests: Sequence[Request]) -> None:
        for request in requests:
            if not request.ended:
                self._end(request, "", "failed")
        self._tell()

    def _tell(self) -> None:
        """Shows the counts, then hands all news out: who hears of an end finds it counted."""
        self._shown = self._counts.copy()
        news, self._news = self._news, []
        for request, delta in news:
            try:
                request.deliver(delta)
            except Exception:  # one listener's fault is not the others'
                _log.exception("a listener failed; its request ends")
                if not request.ended:
                    self._inbox.put(_Cancel(request.ticket))

    def _embed(self, message: _Embed) -> None:
        if not message.found.set_running_or_notify_cancel():
            return
        try:
            message.found.set_result(self._runner.embed(message.prompt).tolist())
        except NotImplementedError:
            message.found.set_exception(Unfit("this engine has no embeddings"))
        except Exception as error:  # it is the asker's, whatever it is
            message.found.set_exception(error)

    def _check(self) -> None:
        """While nothing runs, nothing is held."""
        if self._careful:
            self._pages.check()
        if self._pages.used:
            _log.error("%d pages of the cache were lost; it starts anew", self._pages.used)
            assert not self._careful, "pages are held while nothing runs"
            self._pages = Pages(self._pages.count, self._pages.page_tokens)
            self._scheduler.pages = self._pages

    def _close_down(self) -> None:
        while not self._inbox.empty():
            message = self._inbox.get()
            if isinstance(message, Request):
                self._live[message.ticket] = message
            elif isinstance(message, _Embed):
                self._prompts.append(message)
        for prompt in self._prompts:
            if prompt.found.set_running_or_notify_cancel():
                prompt.found.set_exception(Closed("the engine is closed"))
        for request in list(self._live.values()):
            self._end(request, "", "cancelled")
        self._tell()


def _is_memory(error: Exception) -> bool:
    """Whether the device or the machine had no memory left."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate" in str(error)
