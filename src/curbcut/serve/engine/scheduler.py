"""Who takes part in the next step, and with how many tokens.

One invariant: each request catches `computed` up with its tokens (see `Request`). There is no phase
of reading prompts and none of decoding: a step first serves all that need one token, then fills up
with pieces of prompts, to `step_tokens` in all. Who runs out of pages takes them from whoever came
last, which starts over later (and finds most of its own pages remembered).
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field

from curbcut.serve.engine.pages import Pages
from curbcut.serve.engine.request import Piece, Request


@dataclass
class Scheduler:
    """First come, first served, by priority. Not safe for threads: one thread owns it."""

    pages: Pages
    max_running: int
    step_tokens: int
    """New tokens that a step takes at most."""
    remembers: bool = True
    """Whether prompts are remembered."""
    waiting: list[Request] = field(default_factory=list)
    running: list[Request] = field(default_factory=list)
    preempted: int = 0

    def add(self, request: Request) -> None:
        """Puts a request behind its equals."""
        insort(self.waiting, request, key=_order)

    def drop(self, request: Request) -> None:
        """Takes a request out, wherever it is, and frees what it holds."""
        if request in self.running:
            self.running.remove(request)
        elif request in self.waiting:
            self.waiting.remove(request)
        self._let_go(request)

    def next_step(self) -> list[Piece]:
        """The pieces of the next step; empty where nobody runs or waits."""
        left = self.step_tokens
        pieces: list[Piece] = []
        for request in sorted(self.running, key=lambda one: _missing(one) > 1):
            if request in self.running:  # it may have been preempted by one before it
                left -= self._continue(request, left, pieces)
        while left > 0 and self.waiting and len(self.running) < self.max_running:
            request = self.waiting[0]
            if not self._admit(request):
                break
            left -= self._continue(request, left, pieces)
        return [piece for piece in pieces if piece.request in self.running]

    def done(self, piece: Piece) -> None:
        """A piece was computed: its keys and values lie in the request's pages."""
        request = piece.request
        request.computed = piece.start + piece.count
        if self.remembers:
            known = min(request.computed, len(request.tokens))
            self.pages.know(request.pages, request.tokens[:known], _root(request))

    @property
    def idle(self) -> bool:
        """Whether nobody runs or waits."""
        return not self.running and not self.waiting

    def _admit(self, request: Request) -> bool:
        if self.remembers:
            # The last token is always computed: its logits are what is asked for.
            request.pages = self.pages.hold_known(request.tokens[:-1], _root(request))
            request.computed = len(request.pages) * self.pages.page_tokens
        need = self._pages_for(len(request.tokens)) - len(request.pages)
        if need > self.pages.free and self.running:
            self._let_go(request)
            return False
        self.waiting.pop(0)
        self.running.append(request)
        if not request.answered:
            request.cached = request.computed
        return True

    def _continue(self, request: Request, left: int, pieces: list[Piece]) -> int:
        """Adds the request's piece of at most `left` tokens; returns how many it takes."""
        count = min(_missing(request) + len(request.drafts), left)
        if count < 1:
            return 0
        while not self._grow(request, request.computed + count):
            last = max(self.running, key=_order)
            self._preempt(last)
            if last is request:
                return 0
        end = request.computed + count
        wanted = max(0, end - len(request.tokens) + 1)
        if request.sampling.prompt_logprobs is not None and not request.answered:
            wanted = count
        pieces.append(Piece(request, request.computed, count, wanted))
        return count

    def _grow(self, request: Request, positions: int) -> bool:
        need = self._pages_for(positions) - len(request.pages)
        if need <= 0:
            return True
        taken = self.pages.take(need)
        if taken is None:
            return False
        request.pages += taken
        return True

    def _preempt(self, request: Request) -> None:
        self.running.remove(request)
        self._let_go(request)
        request.drafts.clear()
        self.add(request)
        self.preempted += 1

    def _let_go(self, request: Request) -> None:
        self.pages.release(request.pages)
        request.pages, request.computed = [], 0

    def _pages_for(self, positions: int) -> int:
        return -(-positions // self.pages.page_tokens)


def _missing(request: Request) -> int:
    return len(request.tokens) - request.computed


def _order(request: Request) -> tuple[int, int]:
    return request.asked.priority, request.ticket


def _root(request: Request) -> tuple[str, str]:
    return request.asked.salt, request.asked.adapter
