"""Whose request goes next where more ask than an engine answers at once.

Shares are weighted and remembered: at each of organisation, project and key, whoever has used
least for its weight goes first, and what was used counts half as much after each `HALF_LIFE`. So
of two that always wait with weights 1 and 3 the second gets three quarters, and who was idle is
not owed a backlog. Requests of one key go by their priority, then in the order in which they came.

The queue is bounded, and who finds it full hears so at once. A burst may fill it. Where more comes
than goes for longer than that, waiting would help nobody: only so many wait then as keep the engine
busy, and the others are told when to come again while they could still ask elsewhere. Room in the
queue goes by weight too, so that nobody's crowd keeps others from standing in it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import count

from curbcut.ledger.access import Allowance, Caller
from curbcut.serve.engine.interface import Stats
from curbcut.serve.gateway.refusal import Refused

HALF_LIFE = 60.0
"""Seconds after which what was used counts half."""
EXPECTED_TOKENS = 512
"""Of an answer that may be longer, what is counted until its length is known."""
PATIENCE = 0.5
"""Where more comes than goes, one waits so long at most, in times of what a request lasts."""
BURST_SECONDS = 0.5
"""What stands in the queue for longer than this came as no burst."""
_PLAIN = Allowance()
_ROUNDING = 1e-9


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
    inside: bool = True
    """Whether it waits, or has its turn."""
    ready: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop()
                                        .create_future())


@dataclass
class _Line:
    """One model's slots, and who waits for them."""

    free: int
    slots: int
    enough: int
    """So many may always wait."""
    coming: set[Turn] = field(default_factory=set)
    """Those who have a place in the queue, and do not ask for their turn yet."""
    waiting: list[Turn] = field(default_factory=list)
    callers: dict[str, tuple[Caller, int]] = field(default_factory=dict)
    """Whose requests wait or are answered, and how many, by key."""
    crowded: float | None = None
    """Since when more wait than should; None where nobody has waited since."""
    shares: dict[str, _Share] = field(default_factory=dict)
    seconds: float = 1.0
    """How long a request lasts, the latest ones counting most."""
    refused: int = 0

    @property
    def backlog(self) -> int:
        """Requests that have to wait; below zero where some need not."""
        return len(self.waiting) + len(self.coming) - self.spare

    @property
    def spare(self) -> int:
        """Slots that nobody waits for."""
        return 0 if self.waiting else self.free


class Admission:
    """Lets requests to engines, `slots(model)` answers at a time; at most `queue` wait. For one
    event loop.
    """

    def __init__(self, slots: Callable[[str], int], queue: int,
                 clock: Callable[[], float] = time.monotonic, patience: float = PATIENCE) -> None:
        self._slots, self._queue, self._clock = slots, queue, clock
        self._patience = patience
        self._lines: dict[str, _Line] = {}
        self._count = count()

    def check_room(self, caller: Caller, models: Iterable[str]) -> None:
        """Raises Refused (429) where the queues of all `models` are full: then it need not be known
        which one is asked.
        """
        lines = [self._line(model) for model in models]
        if lines and all(self._full(line, caller) for line in lines):
            raise self._refusal(lines[0])

    def come(self, caller: Caller, model: str, *, answers: int, prompt_tokens: int,
             answer_tokens: int, priority: int = 0) -> Turn:
        """A place in the queue; `wait` for its turn, or `leave` it. Raises Refused (429) where the
        queue is full.
        """
        line = self._line(model)
        if self._full(line, caller):
            raise self._refusal(line)
        expected = min(answer_tokens, answers * EXPECTED_TOKENS)
        turn = Turn(caller, model, min(answers, line.slots), prompt_tokens + expected,
                    (priority, next(self._count)))
        line.coming.add(turn)
        key = caller.scopes[-1]
        line.callers[key] = caller, line.callers.get(key, (caller, 0))[1] + 1
        self._look(line)
        return turn

    async def wait(self, turn: Turn) -> None:
        """Returns when the turn of one that came has come; whoever is cancelled leaves."""
        line = self._line(turn.model)
        line.coming.discard(turn)
        line.waiting.append(turn)
        self._go_on(line)
        try:
            await turn.ready
        except asyncio.CancelledError:
            self.leave(turn, 0)
            raise

    def leave(self, turn: Turn, used_tokens: int, seconds: float | None = None) -> None:
        """A request has ended that took `used_tokens`, `seconds` after its turn came; or it goes
        before its turn. Once is enough.
        """
        line = self._line(turn.model)
        if not turn.inside:
            return
        turn.inside, key = False, turn.caller.scopes[-1]
        _, others = line.callers.pop(key)
        if others > 1:
            line.callers[key] = turn.caller, others - 1
        if turn in line.coming:
            line.coming.remove(turn)
        elif turn in line.waiting:
            line.waiting.remove(turn)
        else:
            line.free += turn.slots
            self._count_in(line, turn.caller, used_tokens - turn.tokens)
            if seconds is not None:
                line.seconds += (seconds - line.seconds) / 16
        self._go_on(line)  # also a large one that waited may have been in the way

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
            line = self._lines[base] = _Line(
                slots, slots, max(1, round(self._patience * slots)))
        return line

    def _full(self, line: _Line, caller: Caller) -> bool:
        """Whether a caller's request finds no place. Half the queue is anybody's; beyond it, each
        has what its weight gives it of the queue, and one place at least.
        """
        if line.backlog >= self._queue:
            return True
        short = line.crowded is not None and self._clock() - line.crowded >= BURST_SECONDS
        room = min(self._queue, line.enough) if short else self._queue
        if line.backlog < room / 2:
            return False
        own = sum(turn.caller.scopes == caller.scopes
                  for turns in (line.coming, line.waiting) for turn in turns) - line.spare
        return own + 1 > max(1.0, room * self._part(line, caller) + _ROUNDING)

    def _part(self, line: _Line, caller: Caller) -> float:
        """What the weights give a caller beside those whose requests are here."""
        part, scopes = 1.0, caller.scopes
        here = [one for one, _ in line.callers.values()]
        for level, scope in enumerate(scopes):
            weights = {one.scopes[level]: _weight(one, level) for one in here
                       if one.scopes[:level] == scopes[:level]}
            own = weights.setdefault(scope, _weight(caller, level))
            part *= own / sum(weights.values())
        return part

    def _refusal(self, line: _Line) -> Refused:
        line.refused += 1
        wait = math.ceil(line.seconds * (line.backlog + 1) / line.slots)
        return Refused(429, f"The server is busy ({line.backlog} requests wait): come again in a "
                            "moment.", code="queue_full", retry_after_seconds=min(60, max(1, wait)))

    def _look(self, line: _Line) -> None:
        """Notes since when more wait than should; until nobody waits."""
        if line.backlog <= 0:
            line.crowded = None
        elif line.crowded is None and line.backlog > line.enough:
            line.crowded = self._clock()

    def _go_on(self, line: _Line) -> None:
        """Gives turns as long as the next one fits; a large one is waited for, not passed."""
        self._give(line)
        self._look(line)

    def _give(self, line: _Line) -> None:
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
                name = min(names, key=lambda one: self._used(line, names[one], level, now))
                found = [turn for turn in found if turn.caller.scopes[level] == name]
        return min(found, key=lambda turn: turn.order)

    def _used(self, line: _Line, caller: Caller, level: int, now: float) -> float:
        share = line.shares.get(caller.scopes[level])
        return share.at(now) / _weight(caller, level) if share else 0.0

    def _count_in(self, line: _Line, caller: Caller, tokens: float) -> None:
        now = self._clock()
        for scope in caller.scopes:
            share = line.shares.setdefault(scope, _Share(when=now))
            share.used = max(0.0, share.at(now) + tokens)


def _weight(caller: Caller, level: int) -> float:
    """Of its organisation (0), its project, its key."""
    return caller.allowances.get(caller.scopes[level], _PLAIN).weight
