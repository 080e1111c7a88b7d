"""Who takes part in the next step, and with how many tokens.

One invariant: each request catches `computed` up with its tokens (see `Request`). There is no phase
of reading prompts and none of decoding: a step first serves all that need one token, then their
drafts, then fills up with pieces of prompts, to `step_tokens` in all. So no prompt, however long,
keeps an answer, or a short prompt, waiting for more than a step of that size. Who runs out of pages
takes them from whoever came last, which starts over later (and finds most of its own pages
remembered); who came first is never robbed, and fits alone, so that in each step some request gets
on.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from operator import attrgetter

from curbcut.serve.engine.pages import Key, Pages
from curbcut.serve.engine.request import Piece, Request

_place, _missing = attrgetter("place"), attrgetter("missing")


@dataclass
class Scheduler:
    """First come, first served, by priority. Not safe for threads: one thread owns it."""

    pages: Pages
    max_running: int
    step_tokens: int
    """New tokens that a step takes at most; at least `max_running`."""
    remembers: bool = True
    """Whether pages are shared by equal beginnings."""
    forget: Callable[[Request], None] = lambda request: None
    """Told of each request that gives its pages up."""
    waiting: list[Request] = field(default_factory=list)
    running: list[Request] = field(default_factory=list)
    """In the order of `Request.place`."""
    preempted: int = 0

    def add(self, request: Request) -> None:
        """Puts a request behind its equals."""
        insort(self.waiting, request, key=_place)

    def drop(self, request: Request) -> None:
        """Takes a request out, wherever it is, and frees what it holds."""
        if request.running:
            self._stop(request)
        elif request in self.waiting:
            self.waiting.remove(request)

    def next_step(self) -> list[Piece]:
        """The pieces of the next step; empty where nobody runs or waits."""
        going = [request for request in self.running if request.missing == 1]
        pieces: list[Piece] = []
        left = self.step_tokens - len(going)
        spare = self.step_tokens - self.max_running  # drafts leave a token to each seat
        for request in going:
            drafts = self._drafts(request, spare) if request.drafts else 0
            spare, left = spare - drafts, left - drafts
            self._continue(request, 1 + drafts, pieces)
        reading = [request for request in self.running if request.missing > 1]
        if self.waiting and len(self.running) < self.max_running:
            self._admit(reading)
        # Even shares; what a short prompt does not need is left to the longer ones.
        for place, request in enumerate(sorted(reading, key=_missing)):
            count = min(request.missing, left // (len(reading) - place))
            left -= count
            self._continue(request, count, pieces)
        return [piece for piece in pieces if piece.request.running]

    def done(self, piece: Piece) -> None:
        """A piece was computed and its next tokens were appended: its keys and values lie in the
        request's pages, those of rejected drafts not counted.
        """
        request, size = piece.request, self.pages.page_tokens
        request.computed = min(piece.start + piece.count, len(request.tokens) - 1)
        if self.remembers:
            for place in range(request.known, request.computed // size):
                tokens = tuple(request.tokens[place * size: (place + 1) * size])
                request.link = self.pages.know(request.pages, place, tokens, request.link)
                request.known = place + 1

    @property
    def idle(self) -> bool:
        """Whether nobody runs or waits."""
        return not self.running and not self.waiting

    def _admit(self, reading: list[Request]) -> None:
        """Gives seats to those who wait, in their order, while there is room for what they have.

        Who would compute a page that another one is about to compute keeps its seat free, and
        waits for that page instead.
        """
        coming: set[Key] = {self._next_key(one, one.known, one.link) for one in reading}
        promised = sum(self._pages_for(len(one.tokens)) - len(one.pages) for one in reading)
        seats = self.max_running - len(self.running)
        for request in list(self.waiting):
            if seats < 1:
                return
            seats -= 1
            found: list[int] = []
            link = request.root
            if self.remembers and not _tells_prompt(request):
                # The last token is always computed: its logits are what is asked for.
                found, link = self.pages.find(request.tokens[:-1], link)
                if self._next_key(request, len(found), link) in coming:
                    continue
            need = self._pages_for(len(request.tokens)) - len(found)
            if need + promised + self.pages.unheld(found) > self.pages.free and self.running:
                return
            self._seat(request, found, link)
            promised += need
            reading.append(request)
            coming.add(self._next_key(request, request.known, link))

    def _seat(self, request: Request, found: list[int], link: Hashable) -> None:
        """Lets a request run that begins with what `found` pages remember."""
        self.pages.hold(found)
        self.waiting.remove(request)
        insort(self.running, request, key=_place)
        request.running, request.pages = True, found
        request.known, request.link = len(found), link
        request.computed = len(found) * self.pages.page_tokens
        if not request.answered:
            request.cached = request.computed

    def _drafts(self, request: Request, spare: int) -> int:
        """How many of its drafts are checked: within its answer, the step and the free pages."""
        most = min(len(request.drafts), spare, request.sampling.max_tokens - request.answered - 1)
        room = (len(request.pages) + self.pages.free) * self.pages.page_tokens
        most = max(0, min(most, room - request.computed - 1))
        del request.drafts[most:]
        return most

    def _continue(self, request: Request, count: int, pieces: list[Piece]) -> None:
        """Adds the request's piece of `count` tokens, unless it has to give way."""
        if not request.running or count < 1:
            return
        end = request.computed + count
        while (need := self._pages_for(end) - len(request.pages)) > 0:
            if (taken := self.pages.take(need)) is not None:
                request.pages += taken
                break
            last = self.running[-1]
            if last is request:  # it waits, with what it has, until one before it needs that
                return
            self._stop(last)
            last.drafts.clear()
            self.add(last)
            self.preempted += 1
        wanted = max(0, end - len(request.tokens) + 1)
        if _tells_prompt(request):
            wanted = count
        pieces.append(Piece(request, request.computed, count, wanted))

    def _stop(self, request: Request) -> None:
        """Takes its pages from a request that runs."""
        self.running.remove(request)
        request.running = False
        self.pages.release(request.pages)
        request.pages, request.computed, request.known, request.link = [], 0, 0, None
        self.forget(request)

    def _next_key(self, request: Request, known: int, link: Hashable) -> Key:
        """What the first page that is not known will be known by."""
        size = self.pages.page_tokens
        tokens = tuple(request.tokens[known * size: (known + 1) * size])
        return link, tokens if len(tokens) == size else (-request.ticket,)

    def _pages_for(self, positions: int) -> int:
        """How many pages have room for so many positions."""
        return -(-positions // self.pages.page_tokens)


def _tells_prompt(request: Request) -> bool:
    """Whether each of its prompt's tokens must be computed, to tell how likely it was."""
    return request.sampling.prompt_logprobs is not None and not request.answered
