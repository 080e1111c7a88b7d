"""Guessed tokens, so that one step may give an answer several: checking them all costs little more
than one token does, as long as a step is bound by reading the weights.

Whoever guesses, an answer stays what it would have been (see `sampler`). A `Speculator` is the
`draft` of a `LocalEngine`: before each step it asks its drafter for as many guesses as bring most
tokens a second, by what steps with and without guesses took of late and by how many guesses were
right, and for none where none pay.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from curbcut.serve.engine.interface import StepRecord
from curbcut.serve.engine.request import Request

MOST = 8
"""Guesses for one request at once."""
FRESH = 256
"""Steps after which a measurement counts no more, and is taken anew: twice two steps of 256 that
may be slower than need be is what never being wrong for long costs."""
_TRIES = 2
"""Steps of one kind that must be measured before they are believed: the first may warm up."""
_STALL = 4.0
"""A step counts for so many usual ones at most, whatever held it up."""
_KEEP, _KEEP_ALL = 0.8, 0.98
"""Weight of a request's earlier guesses, and of all requests', at each new one."""
_FADE = 0.97
"""Weight of a request's guesses after each step in which none were asked for."""
_PRIOR = 0.5
"""Share of right guesses before there was one."""

_Kind = tuple[int, int, int]
"""Of a step: how many answers go on, how far was guessed, for how many of them (see `_size`)."""


class Drafter(Protocol):
    """Whatever guesses how answers go on. The engine's thread owns it."""

    def draft(self, requests: Sequence[Request], most: Sequence[int]) -> list[list[int] | None]:
        """For each request up to so many tokens that may follow its `tokens`; [] where nothing is
        likely, None where it is not known yet.
        """
        ...

    def forget(self, ticket: int) -> None:
        """That request is not drafted for any more; may be called for one never drafted for."""
        ...


@dataclass(slots=True)
class _Hits:
    """Of the guesses that were checked those that were right, the older the less."""

    right: float = 0.0
    checked: float = 0.0

    def note(self, right: int, checked: int, keep: float) -> None:
        self.right, self.checked = keep * self.right + right, keep * self.checked + checked

    def chance(self, prior: float) -> float:
        return (self.right + prior) / (self.checked + 1)


@dataclass(slots=True)
class _Record:
    """How well the guesses for one request go."""

    hits: _Hits = field(default_factory=_Hits)
    guessed: list[int] | None = None
    """The last ones, which followed `base` tokens; None where none were asked for."""
    base: int = 0


@dataclass(slots=True)
class _Pace:
    """Seconds that steps of one kind take, their drafting included."""

    seconds: float = 0.0
    count: int = 0
    newest: int = 0
    """Number of the newest such step."""

    def note(self, seconds: float, step: int) -> None:
        if step - self.newest > FRESH:
            self.count = 0
        self.newest, self.count = step, self.count + 1
        if self.count <= _TRIES:  # of the first ones, the better
            self.seconds = min(seconds, self.seconds) if self.count > 1 else seconds
        else:
            self.seconds += (min(seconds, _STALL * self.seconds) - self.seconds) / 8


class Speculator:
    """Decides for whom and how far is guessed; see `LocalEngine(draft=...)`. `clock` tells
    seconds.
    """

    def __init__(self, drafter: Drafter, *, most: int = MOST,
                 clock: Callable[[], float] = time.perf_counter) -> None:
        self.drafter, self.most = drafter, most
        self._lengths = [1 << place for place in range(most.bit_length()) if 1 << place < most]
        self._lengths.append(most)
        self._clock = clock
        self._records: dict[int, _Record] = {}
        self._all = _Hits()
        self._paces: dict[_Kind, _Pace] = {}
        self._steps = 0
        self._last: tuple[_Kind, float] | None = None
        """What the running step is: its kind, and the seconds of its drafting."""

    def __call__(self, requests: Sequence[Request], record: StepRecord) -> None:
        """Fills `drafts` of the requests, all of whose answers go on and have no drafts; `record`
        is of the step before.
        """
        start = self._clock()
        self._steps += 1
        self._time(record)
        for ticket in self._records.keys() - {request.ticket for request in requests}:
            del self._records[ticket]
            self.drafter.forget(ticket)
        for request in requests:
            self._learn(self._records.setdefault(request.ticket, _Record()), request)
        self._last = None
        if requests:
            length, asked = self._choose(requests)
            self._ask(asked, length)
            kind = _size(len(requests)), length, _size(len(asked))
            self._last = kind, self._clock() - start

    def _time(self, record: StepRecord) -> None:
        """Notes what the step before took, unless a prompt was read in it."""
        if self._last is not None and not record.prefill:
            kind, drafting = self._last
            self._paces.setdefault(kind, _Pace()).note(drafting + record.seconds, self._steps)

    def _choose(self, requests: Sequence[Request]) -> tuple[int, Sequence[Request]]:
        """How far to guess, and for whom: whatever gives most tokens a second."""
        count = len(requests)
        plain = self._known((_size(count), 0, 0))
        if plain is None:
            return 0, ()
        prior = self._all.chance(_PRIOR)
        chances = {one.ticket: self._records[one.ticket].hits.chance(prior) for one in requests}
        likely = sorted(requests, key=lambda one: -chances[one.ticket])
        best, chosen = float(count), (0, 0)
        for (length, asked), share in self._shares(count, plain).items():
            gain = sum(_gain(chances[one.ticket], length) for one in likely[:asked])
            if (count + gain) / share > best:
                best, chosen = (count + gain) / share, (length, asked)
        return chosen[0], likely[: chosen[1]]

    def _shares(self, count: int, plain: float) -> dict[tuple[int, int], float]:
        """What steps with guesses take, in plain steps, by how far and for how many is guessed.

        What is not known is taken to cost in proportion to what is, of as many answers or else of
        any number; while nothing is, one guess each is taken to cost nothing. So whatever might
        pay is tried.
        """
        some = [1 << place for place in range(_size(count)) if 1 << place < count]
        kinds = [(length, asked) for asked in [*some, count] for length in self._lengths]
        known = {kind: seconds / plain for kind in kinds if (seconds := self._known(
            (_size(count), kind[0], _size(kind[1])))) is not None}
        if not known:
            return {(self._lengths[0], count): 1.0}
        own: dict[int, float] = {}
        for (length, asked), share in known.items():
            rise = max(0.0, share - 1) / length
            own[asked] = min(rise, own.get(asked, rise))
        least = min(rise / asked for asked, rise in own.items())
        return {(length, asked): known.get(
            (length, asked), 1 + length * own.get(asked, asked * least)) for length, asked in kinds}

    def _known(self, kind: _Kind) -> float | None:
        """Seconds of such a step, where enough of them were measured of late."""
        pace = self._paces.get(kind)
        if pace is None or pace.count < _TRIES or self._steps - pace.newest > FRESH:
            return None
        return pace.seconds

    def _ask(self, requests: Sequence[Request], length: int) -> None:
        """Has guesses made for the requests, up to so many for each."""
        most = [min(length, request.sampling.max_tokens - request.answered - 1)
                for request in requests]
        wanted = [(request, count) for request, count in zip(requests, most, strict=True)
                  if count > 0]
        if not wanted:
            return
        found = self.drafter.draft([one for one, _ in wanted], [count for _, count in wanted])
        for (request, count), guessed in zip(wanted, found, strict=True):
            record = self._records[request.ticket]
            record.guessed, record.base = guessed, len(request.tokens)
            if guessed is not None:
                request.drafts[:] = record.guessed = guessed[:count]

    def _learn(self, record: _Record, request: Request) -> None:
        """Notes which of the last guesses were right; no guess counts as a wrong one."""
        guessed, hits = record.guessed, record.hits
        if guessed is None:
            hits.note(0, 0, _FADE)
            return
        came = request.tokens[record.base:]
        if not came:  # it was preempted
            return
        right, most = 0, min(len(came), len(guessed))
        while right < most and came[right] == guessed[right]:
            right += 1
        checked = max(1, min(right + 1, most))
        hits.note(right, checked, _KEEP)
        self._all.note(right, checked, _KEEP_ALL)
        record.guessed = None


def _size(count: int) -> int:
    """Counts that are near each other have one size, from 0: powers of two."""
    return count.bit_length()


def _gain(chance: float, length: int) -> float:
    """Tokens that guesses bring on average, where each is right with one chance, given those
    before it (Leviathan et al. 2022, arXiv:2211.17192, equation 1, less the token that comes
    anyhow).
    """
    if chance > 0.999:
        return float(length)
    return float(chance * (1 - chance ** length) / (1 - chance))


class Lookup:
    """Guesses that the answer goes on as the text did after its last words, where these stand in
    prompt or answer already (Saxena 2023, "prompt lookup decoding").

    The longest such run of `least` (at least 2) to `longest` tokens counts, the newest of equals;
    a text that repeats itself is guessed to go on doing so. Of places where the last two tokens
    stood the newest `looks` are looked at.
    """

    def __init__(self, least: int = 2, longest: int = 8, looks: int = 64) -> None:
        self.least, self.longest, self.looks = least, longest, looks
        self._places: dict[int, _Places] = {}

    def draft(self, requests: Sequence[Request], most: Sequence[int]) -> list[list[int] | None]:
        """See `Drafter`."""
        return [self._guess(request, count) for request, count in zip(requests, most, strict=True)]

    def forget(self, ticket: int) -> None:
        """See `Drafter`."""
        self._places.pop(ticket, None)

    def _guess(self, request: Request, most: int) -> list[int]:
        """What followed the last tokens where they stood before."""
        text, end = request.tokens, len(request.tokens)
        places = self._places.setdefault(request.ticket, _Places())
        places.read(text)
        best, start = self.least - 1, 0
        place = places.newest.get((text[-2], text[-1]), 0) if end > 1 else 0
        for _ in range(self.looks):
            if not place or best == self.longest:
                break
            length, longest = 2, min(self.longest, place)
            while length < longest and text[place - length - 1] == text[end - length - 1]:
                length += 1
            if length > best:
                best, start = length, place
            place = places.before[place]
        if not start:
            return []
        return [text[start + ahead % (end - start)] for ahead in range(most)]


class _Places:
    """Where each pair of tokens stood: the places of what followed it."""

    def __init__(self) -> None:
        self.newest: dict[tuple[int, int], int] = {}
        self.before = [0, 0]
        """For each place the one before it of the same pair, 0 for none."""

    def read(self, text: Sequence[int]) -> None:
        """Takes in what was added to `text`, which only grows."""
        for place in range(len(self.before), len(text)):
            pair = text[place - 2], text[place - 1]
            self.before.append(self.newest.get(pair, 0))
            self.newest[pair] = place
