"""What all trainings of a folder of runs took, the failed and stopped ones too.

Read, like `pairs`, with Python's own sqlite3: a plan asks before it says a word. A session that was
killed left no account; its events still tell from when to when it worked.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curbcut.errors import DamagedFile
from curbcut.ledger.pairs import read_only

ACCOUNTS = """
SELECT runs.id, runs.name, runs.resolved, accounts.finished, MAX(figures.value)
FROM runs JOIN accounts ON accounts.run = runs.id
          JOIN figures ON figures.account = accounts.id
WHERE accounts.step = 'train' AND accounts.kind = 'measured'
  AND figures.section = 'seconds' AND figures.figure = 'total'
GROUP BY runs.id, runs.name, runs.resolved, accounts.finished
"""
SESSIONS = """
SELECT started.run, started.process,
       (SELECT time FROM events AS e WHERE e.run = started.run AND e.process = started.process
        ORDER BY e.sequence DESC LIMIT 1)
       - (SELECT time FROM events AS e WHERE e.run = started.run AND e.process = started.process
          ORDER BY e.sequence LIMIT 1)
FROM (SELECT DISTINCT name FROM runs) AS named CROSS JOIN events AS started
WHERE started.run = named.name AND started.kind = 'start'
GROUP BY started.run, started.process
"""
"""First and last event of each process by its place in the index; the cross join makes SQLite look
up each run's starts: a long record is not walked.
"""
NAMES = "SELECT name, resolved FROM runs WHERE resolved IS NOT NULL ORDER BY recorded, id"


@dataclass(frozen=True)
class Training:
    """All attempts of one run together."""

    run: str
    finished: bool
    """Whether it came to its end."""
    kept_seconds: float
    """Wall-clock seconds of the work that led to its end, x accelerators; 0 if it has none."""
    all_seconds: float
    """Seconds x accelerators of all its sessions, lost work too; never less than `kept_seconds`."""


def kept_trainings(path: Path) -> list[Training]:
    """The trainings in the SQLite ledger at `path`, by run; none where there is no ledger.

    Nothing is written. Raises DamagedFile for a file that is no ledger.
    """
    if not path.is_file():
        return []
    try:
        accounts, sessions, names = (read_only(path, query, {})
                                     for query in (ACCOUNTS, SESSIONS, NAMES))
        return _gathered(accounts, sessions, names)
    except sqlite3.DatabaseError as error:
        raise DamagedFile(f"the ledger cannot be read ({error})", where=str(path),
                          mend="restore it from a copy, or move it aside") from None


def _gathered(accounts: Sequence[Sequence[Any]], sessions: Sequence[Sequence[Any]],
              names: Sequence[Sequence[Any]]) -> list[Training]:
    """One training a name: several resolved runs of a name are attempts at one thing."""
    size = {name: _accelerators(resolved) for name, resolved in names}
    worked: dict[str, float] = {}
    for name, _, seconds in sessions:
        worked[name] = worked.get(name, 0.0) + float(seconds)
    kept: dict[str, float] = {}
    stopped: dict[str, float] = {}
    for _, name, _, finished, seconds in accounts:
        if seconds is not None:
            found = kept if finished else stopped
            found[name] = found.get(name, 0.0) + float(seconds)
    trainings = []
    for name, accelerators in size.items():
        # An account adds up all attempts that a checkpoint led on from; events also those it lost.
        known = max(kept.get(name, 0.0), stopped.get(name, 0.0), worked.get(name, 0.0))
        if known:
            trainings.append(Training(name, name in kept, kept.get(name, 0.0) * accelerators,
                                      known * accelerators))
    return trainings


def _accelerators(resolved: str) -> int:
    machine = json.loads(resolved).get("machine", {})
    return int(machine.get("nodes", 1)) * int(machine.get("accelerators_per_node", 1))
