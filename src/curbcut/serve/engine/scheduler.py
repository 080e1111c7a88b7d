"""Who takes part in the next step, and with how many tokens.

One invariant: each request catches `computed` up with its tokens (see `Request`). There is no phase
of reading prompts and none of decoding: a step first serves all that need one token, then their
drafts, then fills up with pieces of prompts, to `step_tokens` in all. So no prompt, however long,
keeps an answer waiting for more than a step of that size. Who runs out of pages takes them from
whoever came last, which starts over later (and finds most of its own pages remembered); who came
first is never robbed, and fits alone, so that in each step some request gets on.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from curbcut.serve.engine.pages import Key, Pages
from curbcut.serve.engine.request import Piece, Request

_place = attrgetter("place")
_missing = attrgetter("missing")


@dataclass
class Scheduler:
    """First come, first served, by priority. Not safe for threads: one thread owns it."""

    pages: Pages
    max_running: int
    step_tokens: int
    """New tokens that a step takes at most; at least `max_running`."""
    remembers: bool = True
    """Whether prompts are remembered."""
    forget: Callable[[Request], None] = lambda request: None
    """Told of each request that gives its pages up."""
    waiting: list[Request] = field(default_factory=list)
    running: list[Request] = field(default_factory=list)
    """In the order of `Request.place`."""
    preempted: int = 0
    _refused: tuple[int, int] | None = None
    """Ticket of the one that found no room, and `pages.returns` at that time."""

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
        """The pieces of the next step, those of one token first; empty where nobody runs or
        waits.
        """
        going = [request for request in self.running if request.missing == 1]
        pieces: list[Piece] = []
        before = self.preempted
        left = self.step_tokens - len(going)
        behind = len(going) < len(self.running) or bool(self.waiting)
        spare = left // 2 if behind else left  # drafts leave half to prompts
        for request in going:
            drafts = 0
            if request.running and request.drafts:
                drafts = self._drafts(request, spare)
                spare, left = spare - drafts, left - drafts
            self._continue(request, 1 + drafts, pieces)
        reading = [request for request in self.running if request.missing > 1]
        if self.waiting and len(self.running) < self.max_running:
            self._admit(reading)
        self._read(reading, left, pieces)
        if self.preempted > before:
            pieces = [piece for piece in pieces if piece.request.running]
        pieces.sort(key=_is_long)
        return pieces

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

    def _read(self, reading: Sequence[Request], left: int, pieces: list[Piece]) -> None:
        """Pieces of prompts: half of what is left for who came first, the rest for those who have
        least to go, so that a short prompt does not wait for all of a long one.
        """
        if len(reading) > 1:
            first = min(reading, key=_place)
            half = min(first.missing, -(-left // 2))
            others = sorted((one for one in reading if one is not first), key=_missing)
            shares = []
            for request in others:
                share = min(request.missing, left - half)
                left -= share
                shares.append((request, share))
            self._continue(first, min(first.missing, left), pieces)
            for request, share in shares:
                self._continue(request, share, pieces)
        elif reading:
            self._continue(reading[0], min(reading[0].missing, left), pieces)

    def _admit(self, reading: list[Request]) -> None:
        """Gives seats to those who wait, in their order, while there is room for what they have.

        Who would compute a page that another one is about to compute keeps its seat free, and
        waits for that page instead.
        """
        coming: set[Key] = {self._next_key(one, one.known, one.link) for one in reading}
        promised = sum(self._pages_for(len(one.tokens)) - len(one.pages) for one in reading)
        seats = self.max_running - len(self.running)
        for request in list(self.waiting):
            if seats < 1 or self._refused == (request.ticket, self.pages.returns):
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
                self._refused = request.ticket, self.pages.returns
                return
            self._seat(request, found, link)
            promised += need
            reading.append(request)
            coming.add(self._next_key(request, request.known, link))

    def _seat(self, request: Request, found: list[int], link: Hashable) -> None:
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
        while not self._grow(request, end):
            last = self.running[-1]
            if last is request:  # it waits, with what it has, until one before it needs that
                return
            self._preempt(last)
        wanted = max(0, end - len(request.tokens) + 1)
        if _tells_prompt(request):
            wanted = count
        pieces.append(Piece(request, request.computed, count, wanted))

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
        self._stop(request)
        request.drafts.clear()
        if not request.answered:
            request.prompt_odds.clear()
        self.add(request)
        self.preempted += 1

    def _stop(self, request: Request) -> None:
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
        return -(-positions // self.pages.page_tokens)


def _tells_prompt(request: Request) -> bool:
    """Whether each of its prompt's tokens must be computed, to tell how likely it was."""
    return request.sampling.prompt_logprobs is not None and not request.answered


def _is_long(piece: Piece) -> bool:
    return piece.count > 1
