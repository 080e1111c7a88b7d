"""Where every second of a process went: each belongs to one kind, so the kinds add up to all.

A block inside a block takes its time from the outer one. What happens between blocks goes to
`rest`. Durations come from the steady clock alone; the date is never subtracted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from curbcut.meter.clock import Clock


class Stopwatch:
    """Books seconds by kind through `book(kind, seconds)`; for one thread."""

    def __init__(self, clock: Clock, book: Callable[[str, float], None],
                 rest: str = "start") -> None:
        self._clock, self._book, self._kinds = clock, book, [rest]
        self._mark = clock.seconds()

    @property
    def kind(self) -> str:
        """What is being timed now: where a process that hangs is."""
        return self._kinds[-1]

    @contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """Books the wall clock of a block under `kind`, without what blocks inside it take."""
        self.lap()
        self._kinds.append(kind)
        try:
            yield
        finally:
            self.lap(even=True)
            self._kinds.pop()

    def lap(self, *, even: bool = False) -> None:
        """Books what has passed since the last lap (`even` nothing, so that the kind is there)."""
        now = self._clock.seconds()
        if even or now > self._mark:
            self._book(self._kinds[-1], now - self._mark)
        self._mark = now

    def since(self, began: float) -> None:
        """What passed from `began` on the clock belongs to it too; before the first lap."""
        self._mark = min(began, self._mark)

    def rest(self, kind: str) -> None:
        """What is between blocks from now on is of `kind`."""
        self.lap()
        self._kinds[0] = kind
