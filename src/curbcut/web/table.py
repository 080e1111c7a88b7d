"""The rows of all runs as they stand, each with the number of the change that it came with."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curbcut.ledger.store import Ledger
    from curbcut.report.states import RunState

ALIVE = ("training",)
"""States that may change by time alone: who falls silent has crashed."""


@dataclass(frozen=True)
class Change:
    """What a look at the runs brought: where it stands now, and whose rows are new since."""

    cursor: str
    rows: list[dict[str, Any]]


@dataclass
class Table:
    """Rows by name. Written by one thread, read by many; readers get what is whole."""

    _states: dict[str, RunState] = field(default_factory=dict)
    _rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    _changes: dict[str, int] = field(default_factory=dict)
    _number: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _listeners: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = field(default_factory=set)
    _epoch: str = field(default_factory=lambda: secrets.token_hex(4))
    """Of this process: numbers of another one mean nothing here."""

    def refresh(self, ledger: Ledger, names: Collection[str]) -> bool:
        """Reads the rows of `names`, and of runs that may have died, anew; whether any is new."""
        from curbcut.report.states import plain, states

        alive = {name for name, state in self._states.items() if state.state in ALIVE}
        wanted = set(names) | alive
        if not wanted:
            return False
        everyone = not self._states
        found = states(ledger, time.time(), None if everyone else wanted)
        new = [one for one in found
               if one.name in names or _differ(self._states.get(one.name), one)]
        if not new:
            return False
        with self._lock:
            self._number += 1
            for one in new:
                self._states[one.name], self._rows[one.name] = one, plain(one)
                self._changes[one.name] = self._number
            listeners = list(self._listeners)
        for loop, event in listeners:
            # A loop that has just been closed listens no more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(event.set)
        return True

    def since(self, cursor: str = "") -> Change:
        """Rows that are new since `cursor`; all of them for none, or for one of another process."""
        at, names = self.names_since(cursor)
        now = time.time()
        rows = [_aged(self._rows[name], now) for name in names]
        return Change(at, sorted(rows, key=lambda row: -(row["updated"] or 0.0)))

    def names_since(self, cursor: str) -> tuple[str, tuple[str, ...]]:
        """The cursor now, and the runs of which anything is new since `cursor`."""
        after = self._read(cursor)
        with self._lock:
            return (f"{self._epoch}-{self._number}",
                    tuple(name for name, number in self._changes.items() if number > after))

    def row(self, name: str) -> dict[str, Any] | None:
        """The row of one run; None where there is no such run."""
        found = self._rows.get(name)
        return None if found is None else _aged(found, time.time())

    def names(self) -> list[str]:
        """All runs."""
        return list(self._rows)

    def change_of(self, name: str) -> int:
        """The number of the last change of a run; 0 for one that is not known."""
        return self._changes.get(name, 0)

    @contextlib.contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        """An event of the running loop that is set after each change, until the block ends."""
        listener = asyncio.get_running_loop(), asyncio.Event()
        with self._lock:
            self._listeners.add(listener)
        try:
            yield listener[1]
        finally:
            with self._lock:
                self._listeners.discard(listener)

    @property
    def watched(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners)

    def _read(self, cursor: str) -> int:
        epoch, _, number = cursor.partition("-")
        known = epoch == self._epoch and number.isdecimal() and len(number) < 16
        return int(number) if known else 0


def _aged(row: dict[str, Any], now: float) -> dict[str, Any]:
    """The row with its age now, not when it was read."""
    updated = row["updated"]
    return row | {"age_seconds": None if updated is None else max(0.0, now - updated)}


def _differ(before: RunState | None, now: RunState) -> bool:
    return before is None or before.state != now.state
