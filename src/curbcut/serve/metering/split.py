"""Joules and seconds of a machine, shared out among requests, rest, and what is left over.

Time is cut into stretches, each closed by a reading of the energy counter. What a step draws is
modelled at first; when all steps of a stretch are known, its joules are scaled so that they are the
counter's. A request that is settled before that gets the modelled share at the scale of late: the
difference is the *correction*. So at any time, to the millijoule,

    counter = requests settled + requests under way + idle + lost + correction

Counters of GPUs move only ten times a second, so a single step could never be read from them.
Without a counter the model stands in its place, and all is called modelled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Who = tuple[str, int]
"""A model and a ticket of its engine."""
LATE_SECONDS = 3.0
"""A step is told of within so long after a reading that came while it ran."""
_KEEP_SECONDS = 10.0
"""How long what was learned of the counter against the model weighs."""
_WILD = 4.0
"""A stretch's scale is at most so many times the usual one, or its inverse: the rest is noise of
stretches with hardly a step in them, and goes to the correction."""


@dataclass(slots=True)
class Part:
    """Some joules and seconds of the machine."""

    joules: float = 0.0
    seconds: float = 0.0

    def add(self, joules: float, seconds: float) -> None:
        """Adds some."""
        self.joules += joules
        self.seconds += seconds


@dataclass(slots=True)
class Live:
    """What is known of a request that is not settled."""

    done: Part = field(default_factory=Part)
    """Its part of the stretches that are done with."""
    engine_seconds: float = 0.0
    newest: float = 0.0
    """When its newest step ended."""
    seen: int = 0
    """Its tokens so far."""
    measured: bool = True
    """Whether all its joules stand on a counter."""


@dataclass
class _Stretch:
    start: float
    end: float | None = None
    counted: float | None = None
    parts: dict[Who, Part] = field(default_factory=dict)
    """Modelled joules and steps' seconds of those that are not settled."""
    gone: Part = field(default_factory=Part)
    """The same of those that are, and `given` what they were given for it."""
    given: Part = field(default_factory=Part)
    spans: list[tuple[float, float]] = field(default_factory=list)

    def busy_seconds(self) -> float:
        """Time within it in which some step ran."""
        total, reached = 0.0, self.start
        for start, end in sorted(self.spans):
            total += max(0.0, end - max(start, reached))
            reached = max(reached, end)
        return total


class Split:
    """The state of the shares; no clock, no thread. Times are seconds of one clock.

    `idle_watts` None: nothing is known of the machine's power, and without a counter no joules are.
    """

    def __init__(self, start: float, idle_watts: float | None = None) -> None:
        # Of a machine of unknown power, a counter may tell what it draws at rest.
        self._idle_watts = 1.0 if idle_watts is None else idle_watts
        self._stretches = [_Stretch(start)]
        self.live: dict[Who, Live] = {}
        self.scale: float | None = None
        """Counter over model of steps, of late; None before it is known."""
        self._idle_scale, self._overlap = (0.0 if idle_watts is None else 1.0), 1.0
        self._rested = False
        self.counted, self.idle = Part(), Part()
        """All that is done with, and of it rest."""
        self.uncounted = 0
        """Stretches that had no counter."""

    @property
    def newest(self) -> float:
        """When the counter was last read."""
        return self._stretches[-1].start

    def step(self, model: str, shares: Mapping[int, float], end: float, seconds: float,
             watts: float) -> None:
        """A step that ended at `end` and took `seconds`, with who had which share of it."""
        start = end - seconds
        for ticket, share in shares.items():
            live = self.live.setdefault((model, ticket), Live())
            live.engine_seconds += seconds * share
            live.newest = end
        for place, stretch in enumerate(self._stretches):
            low = start if place == 0 else max(start, stretch.start)
            high = end if stretch.end is None else min(end, stretch.end)
            if high <= low:
                continue
            stretch.spans.append((max(low, stretch.start), high))
            for ticket, share in shares.items():
                part = stretch.parts.setdefault((model, ticket), Part())
                part.add(watts * (high - low) * share, (high - low) * share)

    def reading(self, now: float, joules: float | None) -> None:
        """The counter's difference since the last reading; None where it was not read."""
        newest = self._stretches[-1]
        if now <= newest.start:
            return
        newest.end, newest.counted = now, joules
        self._stretches.append(_Stretch(now))
        while (end := self._stretches[0].end) is not None and end <= now - LATE_SECONDS:
            self._finish(self._stretches.pop(0))

    def finish(self, now: float, joules: float | None) -> None:
        """The last reading: no step is told any more."""
        self.reading(now, joules)
        while self._stretches[0].end is not None:
            self._finish(self._stretches.pop(0))

    def take(self, who: Who) -> tuple[Live, Part] | None:
        """Ends a request: what is known of it, and its joules and seconds of the machine; None
        where no step of it was told.
        """
        live = self.live.pop(who, None)
        if live is None:
            return None
        found = Part(live.done.joules, live.done.seconds)
        scale = 1.0 if self.scale is None else self.scale
        for stretch in self._stretches:
            part = stretch.parts.pop(who, None)
            if part is not None:
                more = Part(scale * part.joules, self._overlap * part.seconds)
                stretch.gone.add(part.joules, part.seconds)
                stretch.given.add(more.joules, more.seconds)
                found.add(more.joules, more.seconds)
                live.measured = live.measured and self.scale is not None
        return live, found

    def old(self, before: float) -> list[Who]:
        """Requests without a step since then."""
        return [who for who, live in self.live.items() if live.newest < before]

    def under_way(self) -> Part:
        """What of `counted` is of requests not settled, less what was given beyond it to settled
        ones for stretches that are not done with.
        """
        found = _sum(live.done for live in self.live.values())
        ahead = _sum(stretch.given for stretch in self._stretches)
        return Part(found.joules - ahead.joules, found.seconds - ahead.seconds)

    def _finish(self, stretch: _Stretch) -> None:
        assert stretch.end is not None
        whole = stretch.end - stretch.start
        busy = min(whole, stretch.busy_seconds())
        modelled = _sum([*stretch.parts.values(), stretch.gone])
        rest = self._idle_scale * self._idle_watts * (whole - busy)
        counted = stretch.counted
        if counted is None:
            self.uncounted += 1
            total = rest + modelled.joules * (1.0 if self.scale is None else self.scale)
        else:
            total = counted
            rest = min(rest, total) if modelled.joules else total
            self._learn(counted, rest, modelled.joules, whole, busy)
        factor = (total - rest) / modelled.joules if modelled.joules else 1.0
        if self.scale is not None:
            factor = min(max(factor, self.scale / _WILD), self.scale * _WILD)
        overlap = busy / modelled.seconds if modelled.seconds else 1.0
        self._overlap = overlap if modelled.seconds else self._overlap
        for who, part in stretch.parts.items():
            live = self.live[who]
            live.done.add(factor * part.joules, overlap * part.seconds)
            live.measured = live.measured and counted is not None
        self.counted.add(total, whole)
        self.idle.add(rest, whole - busy)

    def _learn(self, counted: float, rest: float, modelled: float, whole: float,
               busy: float) -> None:
        """How the counter stands to the model, at work and at rest."""
        if modelled and busy > 0.1 * whole and counted > rest:
            found, weight = (counted - rest) / modelled, min(1.0, busy / _KEEP_SECONDS)
            self.scale = found if self.scale is None else (
                self.scale + (found - self.scale) * weight)
        elif not busy and self._idle_watts:
            # Rest is the least that is drawn: what is done besides steps (loading) teaches little.
            found = counted / (self._idle_watts * whole)
            weight = min(1.0, whole / _KEEP_SECONDS)
            weight = weight if self._rested and found > self._idle_scale else 1.0
            self._rested = True
            self._idle_scale += (found - self._idle_scale) * weight


def _sum(parts: Iterable[Part]) -> Part:
    total = Part()
    for part in parts:
        total.add(part.joules, part.seconds)
    return total
