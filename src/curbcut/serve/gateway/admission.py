"""Whose request goes next where more ask than an engine answers at once.

Shares are weighted and remembered: at each of organisation, project and key, whoever has used
least for its weight goes first, and what was used counts half as much after each `HALF_LIFE`. So
of two that always wait with weights 1 and 3 the second gets three quarters, and who was idle is
not owed a backlog. Requests of one key go by their priority, then in the order in which they came.

The queue is bounded: who finds it full hears so at once.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count

from curbcut.ledger.access import Allowance, Caller
from curbcut.serve.engine.interface import Stats
from curbcut.serve.gateway.refusal import Refused

HALF_LIFE = 60.0
"""Seconds after which what was used counts half."""
EXPECTED_TOKENS = 512
"""Of an answer that may be longer, what is counted until its length is known."""
_PLAIN = Allowance()


@dataclass
class _Share:
    """What one scope has used of an engine, decayed up to `when`."""

    used: float = 0.0
    when: float = 0.0

    def at(self, now: float) -> float:
        """Decays up to now."""
        if now > self.when:
            self.used *= 0.5 ** ((now - self.when) / HALF_LIFE)
            self.when = now
        return self.used


@dataclass(eq=False)
class Turn:
    """One request that waits for its turn, has it, or has left."""

    caller: Caller
    model: str
    slots: int
    tokens: int
    """What it is counted at until it ends."""
    order: tuple[int, int]
    ready: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop()
                                        .create_future())


@dataclass
class _Line:
    """One model's slots, and who waits for them."""

    free: int
    slots: int
    waiting: list[Turn] = field(default_factory=list)
    shares: dict[str, _Share] = field(default_factory=dict)
    seconds: float = 1.0
    """How long a request lasts, the latest ones counting most."""
    refused: int = 0


class Admission:
    """Lets requests to engines, `slots(model)` answers at a time; at most `queue` wait. For one
    event loop.
    """

    def __init__(self, slots: Callable[[str], int], queue: int,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._slots, self._queue, self._clock = slots, queue, clock
        self._lines: dict[str, _Line] = {}
        self._count = count()

    def check_room(self, model: str) -> None:
        """Raises Refused (429) where the queue of a model is full."""
        line = self._line(model)
        if len(line.waiting) >= self._queue and (line.waiting or line.free <= 0):
            line.refused += 1
            wait = math.ceil(line.seconds * (len(line.waiting) + 1) / line.slots)
            raise Refused(429, f"The server is busy ({len(line.waiting)} requests wait): come "
                               "again in a moment.", code="queue_full",
                          retry_after_seconds=min(60, max(1, wait)))

    async def enter(self, caller: Caller, model: str, *, answers: int, prompt_tokens: int,
                    answer_tokens: int, priority: int = 0) -> Turn:
        """Waits for a turn; `leave` it. Raises Refused (429) at once where the queue is full."""
        self.check_room(model)
        line = self._line(model)
        expected = min(answer_tokens, answers * EXPECTED_TOKENS)
        turn = Turn(caller, model, min(answers, line.slots), prompt_tokens + expected,
                    (priority, next(self._count)))
        line.waiting.append(turn)
        self._go_on(line)
        try:
            await turn.ready
        except asyncio.CancelledError:
            if turn in line.waiting:
                line.waiting.remove(turn)
                self._go_on(line)  # a large one that left may have been in the way
            else:
                self.leave(turn, 0)
            raise
        return turn

    def leave(self, turn: Turn, used_tokens: int, seconds: float | None = None) -> None:
        """A request has ended that took `used_tokens`, `seconds` after its turn came."""
        line = self._line(turn.model)
        line.free += turn.slots
        self._count_in(line, turn.caller, used_tokens - turn.tokens)
        if seconds is not None:
            line.seconds += (seconds - line.seconds) / 16
        self._go_on(line)

    def seen(self, model: str, stats: Stats) -> Stats:
        """An engine's counts with those that wait, or were refused, before it."""
        line = self._line(model)
        return replace(stats, waiting=stats.waiting + len(line.waiting),
                       refused=stats.refused + line.refused)

    def _line(self, model: str) -> _Line:
        """A model shares its line with its adapters ("model:adapter"): one engine answers all."""
        base = model.partition(":")[0]
        line = self._lines.get(base)
        if line is None:
            slots = max(1, self._slots(base))
            line = self._lines[base] = _Line(slots, slots)
        return line

    def _go_on(self, line: _Line) -> None:
        """Gives turns as long as the next one fits; a large one is waited for, not passed."""
        while line.waiting:
            turn = self._next(line)
            if turn.slots > line.free:
                return
            line.waiting.remove(turn)
            line.free -= turn.slots
            self._count_in(line, turn.caller, turn.tokens)
            if not turn.ready.done():
                turn.ready.set_result(None)

    def _next(self, line: _Line) -> Turn:
        """Down from the organisations to a key: at each the one that has used least."""
        found, now = line.waiting, self._clock()
        for level in range(3):
            names = {turn.caller.scopes[level]: turn.caller for turn in found}
            if len(names) > 1:
                name = min(names, key=lambda one: self._used(line, one, names[one], now))
                found = [turn for turn in found if turn.caller.scopes[level] == name]
        return min(found, key=lambda turn: turn.order)

    def _used(self, line: _Line, scope: str, caller: Caller, now: float) -> float:
        share = line.shares.get(scope)
        weight = caller.allowances.get(scope, _PLAIN).weight
        return share.at(now) / weight if share else 0.0

    def _count_in(self, line: _Line, caller: Caller, tokens: float) -> None:
        now = self._clock()
        for scope in caller.scopes:
            share = line.shares.setdefault(scope, _Share(when=now))
            share.used = max(0.0, share.at(now) + tokens)


