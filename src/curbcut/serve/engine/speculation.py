"""Guessed tokens, so that one step may give an answer several: checking them all costs little more
than one token does, as long as a step is bound by reading the weights.

Whoever guesses, an answer stays what it would have been (see `sampler`). A `Speculator` is the
`draft` of a `LocalEngine`: before each step it asks its drafter for so many guesses as have lately
been right, and for none where they were wrong or where the step is full.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from curbcut.serve.engine.request import Request

ROWS = 16
"""Rows that a step may have before drafts are left out: up to there a CPU's step of bf16 rows is
bound by reading weights."""
MOST = 8
"""Guesses for one request at once."""
_REST, _LONGEST_REST = 4, 128
"""Steps without drafts after guesses that were all wrong; each further time twice as many."""


class Drafter(Protocol):
    """Whatever guesses how answers go on. The engine's thread owns it."""

    def draft(self, requests: Sequence[Request], most: Sequence[int]) -> list[list[int]]:
        """For each request up to so many tokens that may follow its `tokens`, maybe none."""
        ...

    def forget(self, ticket: int) -> None:
        """That request is not drafted for any more; may be called for one never drafted for."""
        ...


@dataclass(slots=True)
class _Record:
    """How well the guesses for one request went."""

    length: int
    """Guesses of the next step."""
    guessed: list[int]
    """The last ones; they followed `base` tokens."""
    base: int = 0
    rest: int = 0
    """Steps to go without drafts."""
    failures: int = 0
    """Times in a row that not one guess was right."""


class Speculator:
    """Decides for whom and how far is guessed; see `LocalEngine(draft=...)`."""

    def __init__(self, drafter: Drafter, *, rows: int = ROWS, most: int = MOST) -> None:
        self.drafter, self.rows, self.most = drafter, rows, most
        self._records: dict[int, _Record] = {}

    def __call__(self, requests: Sequence[Request]) -> None:
        """Fills `drafts` of the requests, all of whose answers go on and have no drafts."""
        for ticket in self._records.keys() - {request.ticket for request in requests}:
            del self._records[ticket]
            self.drafter.forget(ticket)
        asked: list[Request] = []
        for request in requests:
            record = self._records.setdefault(request.ticket, _Record(2, []))
            self._learn(record, request)
            if record.rest:
                record.rest -= 1
            else:
                asked.append(request)
        spare = self.rows - len(requests)
        if spare < len(asked):  # a guess for some only would slow the others down
            return
        most = [min(self._records[request.ticket].length, spare // max(1, len(asked)),
                    request.sampling.max_tokens - request.answered - 1) for request in asked]
        wanted = [(request, count) for request, count in zip(asked, most, strict=True) if count > 0]
        if not wanted:
            return
        found = self.drafter.draft([one for one, _ in wanted], [count for _, count in wanted])
        for (request, count), guessed in zip(wanted, found, strict=True):
            request.drafts[:] = guessed[:count]
            record = self._records[request.ticket]
            record.guessed, record.base = guessed[:count], len(request.tokens)

    def _learn(self, record: _Record, request: Request) -> None:
        """All right: twice as many next; some: so many and one more; none: a rest."""
        came = request.tokens[record.base:]
        checked = min(len(came), len(record.guessed))
        if not checked:
            return
        right = 0
        while right < checked and came[right] == record.guessed[right]:
            right += 1
        if right == len(record.guessed):
            record.length = min(self.most, 2 * right)
        elif right or checked > 1:
            record.length = min(self.most, right + 1)
        record.failures = 0 if right else record.failures + 1
        if not right:
            record.length = 1
            if record.failures > 1:
                record.rest = min(_LONGEST_REST, _REST * 2 ** min(record.failures - 2, 8))
        record.guessed = []


class Lookup:
    """Guesses that the answer goes on as the text did after its last words, where these stand in
    prompt or answer already (Saxena 2023, "prompt lookup decoding").

    The longest such run of `least` to `longest` tokens counts, the newest of equals; a text that
    repeats itself is guessed to go on doing so.
    """

    def __init__(self, least: int = 2, longest: int = 8, window: int = 32_768) -> None:
        self.least, self.longest, self.window = least, longest, window
        self._texts: dict[int, tuple[np.ndarray, int]] = {}

    def draft(self, requests: Sequence[Request], most: Sequence[int]) -> list[list[int]]:
        """See `Drafter`."""
        return [self._guess(self._text(request), count)
                for request, count in zip(requests, most, strict=True)]

    def forget(self, ticket: int) -> None:
        """See `Drafter`."""
        self._texts.pop(ticket, None)

    def _text(self, request: Request) -> np.ndarray:
        """Its newest tokens, as an array that grows with it."""
        end = len(request.tokens)
        held, filled = self._texts.get(request.ticket, (np.empty(0, np.int64), 0))
        if end > len(held):
            held = np.concatenate((held[:filled], np.empty(2 * end - filled, np.int64)))
        held[filled:end] = request.tokens[filled:]
        self._texts[request.ticket] = held, end
        return held[max(0, end - self.window): end]

    def _guess(self, text: np.ndarray, most: int) -> list[int]:
        """What followed the last tokens of `text` [t] where they stood before."""
        end = len(text)
        after = np.flatnonzero(text[: end - 1] == text[-1]) + 1
        length = 1
        while length < self.longest and len(after):
            near = after[after > length]
            near = near[text[near - length - 1] == text[end - length - 1]] if (
                length < end) else near[:0]
            if not len(near):
                break
            after, length = near, length + 1
        if length < self.least or not len(after):
            return []
        start = int(after[-1])
        return [int(text[start + place % (end - start)]) for place in range(most)]
