"""`Site`: what all pages stand on: the folder of runs, the ledger, and what is new in both.

One thread takes in what processes write and keeps the table of runs; requests read. While nobody
looks, it rests.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from curbcut.errors import CurbcutError, UnknownName
from curbcut.ledger import FILE_NAME, open_ledger
from curbcut.web.columns import Columns, Recorded
from curbcut.web.inboxes import Inboxes
from curbcut.web.table import Table
from curbcut.web.watch import Watch

if TYPE_CHECKING:
    from curbcut.ledger.store import Ledger

LOOK_SECONDS = 0.5
"""Between two looks while somebody watches."""
REST_SECONDS = 20.0
"""After the last request, with no page open, nobody is taken to watch."""
FIRST_SECONDS = 1.0
"""How long a request waits at most for what came in while nobody looked."""
WARM_RUNS, WARM_SECONDS = 50, 5.0
"""So many runs are read before anybody asks for them, within so long."""
FOREVER_SECONDS = 1e6
SHOW_SECONDS = 1.0
"""A long import is shown as far as it is, so often."""


@dataclass
class Site:
    """What the pages show. `ledger_at`: a path or URL; "" is the ledger of the folder `runs`."""

    runs: Path
    ledger_at: str = ""
    fault: str = ""
    """Why the ledger cannot be read or written now; "" when it can."""
    table: Table = field(default_factory=Table)
    columns: Columns = field(default_factory=Columns)
    watch: Watch = field(default_factory=Watch)
    inboxes: Inboxes = field(init=False)
    _ledger: Ledger | None = None
    _asked: float = 0.0
    _looked: float = 0.0
    _charted: bool = False
    """Whether a request asked for columns: what else it may ask for is not guessed any more."""
    _wake: threading.Event = field(default_factory=threading.Event)
    _over: threading.Event = field(default_factory=threading.Event)
    _opening: threading.Lock = field(default_factory=threading.Lock)
    _turn: threading.Condition = field(default_factory=threading.Condition)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Nothing is opened yet."""
        self.inboxes = Inboxes(self.runs)

    def ledger(self) -> Ledger | None:
        """The ledger; None while there is none. Raises CurbcutError for one that cannot be used."""
        with self._opening:
            if self._ledger is None:
                where = self.ledger_at or self.runs / FILE_NAME
                there = "://" in str(where) or Path(where).exists()
                if there or self.inboxes.filled():
                    self._ledger = open_ledger(where, create=True)
            return self._ledger

    def folder(self, name: str) -> Path:
        """The folder of a run, found by its name among those that are there; UnknownName else."""
        known = self.inboxes.folders()
        if name not in known:
            raise UnknownName("run", name, known, where=str(self.runs))
        return known[name]

    def look(self) -> None:
        """Takes in what is new now, and brings the table up to date."""
        ledger = self.ledger()
        if ledger is None:
            return
        shown = time.monotonic()
        for _ in self.inboxes.take(ledger):
            if time.monotonic() - shown > SHOW_SECONDS:
                self.table.refresh(ledger, self.watch.changed(ledger))
                self._seen()
                shown = time.monotonic()
        self.table.refresh(ledger, self.watch.changed(ledger))

    def asked(self) -> None:
        """A request came: where nobody had watched, looks first. Not for the event loop."""
        rested = time.monotonic() - self._looked > 2 * LOOK_SECONDS
        self.wake()
        if rested and self._threads:
            self.wait(FIRST_SECONDS)

    def wait(self, seconds: float) -> None:
        """Until the next look has ended, or for so long."""
        with self._turn:
            before = self._looked
            self._turn.wait_for(lambda: self._looked > before or self.closing, seconds)

    def recorded(self, runs: Iterable[str]) -> dict[str, Recorded]:
        """What these runs recorded; none where there is no ledger."""
        self._charted, ledger = True, self.ledger()
        return {run: self.columns.of(ledger, run, self.table.change_of(run))
                for run in runs} if ledger else {}

    def wake(self) -> None:
        """Somebody watches from now on."""
        self._asked = time.monotonic()
        self._wake.set()

    def start(self) -> None:
        """Begins to look, on a thread, and to read what is likely asked for, on another."""
        self._threads = [threading.Thread(target=work, name=work.__name__, daemon=True)
                         for work in (self._go, self._warm)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Nothing new is shown from now on; open streams end."""
        self._over.set()
        self._wake.set()
        self._seen()

    def close(self) -> None:
        """Ends the threads and lets go of the ledger."""
        self.end()
        for thread in self._threads:
            thread.join()
        if self._ledger is not None:
            self._ledger.close()

    @property
    def closing(self) -> bool:
        """Whether the pages are about to end."""
        return self._over.is_set()

    def _go(self) -> None:
        while not self._over.is_set():
            try:
                self.look()
                self.fault = ""
            except CurbcutError as error:
                self.fault = str(error).partition("\n")[0]
            self._seen()
            if self.table.watched or self._looked - self._asked < REST_SECONDS:
                self._over.wait(LOOK_SECONDS)
            else:
                self._wake.wait()
            self._wake.clear()

    def _warm(self) -> None:
        """Reads the newest runs' columns: a chart of many runs is then there at once."""
        self.wait(FOREVER_SECONDS)
        until, ledger = time.monotonic() + WARM_SECONDS, self._ledger
        for row in self.table.since().rows[:WARM_RUNS] if ledger else ():
            if ledger is None or self.closing or self._charted or self.columns.half_full \
                    or time.monotonic() > until:
                return
            with contextlib.suppress(CurbcutError):
                self.columns.of(ledger, row["name"], self.table.change_of(row["name"]))

    def _seen(self) -> None:
        with self._turn:
            self._looked = time.monotonic()
            self._turn.notify_all()
