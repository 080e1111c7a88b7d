"""Takes in what processes of runs have written since the last look, run by run.

A look costs a `stat` a file; only files that have grown are opened. Names of runs come from the
folder of runs itself, never from a request.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from curbcut.errors import CurbcutError
from curbcut.ledger.inbox import FOLDER, import_folder

if TYPE_CHECKING:
    from curbcut.ledger.store import Ledger

QUIET_SECONDS = 600.0
"""A run that nobody wrote to for so long is looked at in every `QUIET_TURNS`-th turn only."""
QUIET_TURNS = 10

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

Sizes = dict[str, int]
"""Bytes of each file of a run's inbox."""


@dataclass
class Inboxes:
    """The inboxes of all runs in one folder, and what of them was taken in."""

    runs: Path
    faults: dict[str, str] = field(default_factory=dict)
    """By run, why its record could not be taken in."""
    _taken: dict[str, Sizes] = field(default_factory=dict)
    _wrote: dict[str, float] = field(default_factory=dict)
    """When any process wrote last, by run: seconds since 1970."""
    _turn: int = 0

    def folders(self) -> dict[str, Path]:
        """The folder of each run, by name; none where there is no folder of runs."""
        try:
            with os.scandir(self.runs) as found:
                return {entry.name: Path(entry.path) for entry in found
                        if _NAME.fullmatch(entry.name) and entry.is_dir()}
        except OSError:
            return {}

    def filled(self) -> bool:
        """Whether any run has a record to take in."""
        return any((path / FOLDER).is_dir() for path in self.folders().values())

    def take(self, ledger: Ledger) -> Iterator[str]:
        """Takes in all that is new, and gives the name of each run that had something new."""
        self._turn += 1
        now = time.time()
        for name, folder in self.folders().items():
            quiet = now - self._wrote.get(name, now) > QUIET_SECONDS
            if quiet and self._turn % QUIET_TURNS:
                continue
            sizes, self._wrote[name] = _sizes(folder, now)
            if sizes == self._taken.get(name, {}):
                continue
            try:
                new = import_folder(ledger, folder).lines
                self.faults.pop(name, None)
            except CurbcutError as error:
                new, self.faults[name] = 0, str(error).partition("\n")[0]
            # What was written during the import makes the sizes differ at the next look.
            self._taken[name] = sizes
            if new:
                yield name


def _sizes(folder: Path, now: float) -> tuple[Sizes, float]:
    """Of each file of an inbox, and when the newest was written; now, where there is none yet."""
    try:
        with os.scandir(folder / FOLDER) as found:
            files = {entry.name: entry.stat() for entry in found if entry.name.endswith(".jsonl")}
    except OSError:
        return {}, now
    sizes = {name: file.st_size for name, file in files.items()}
    return sizes, max((file.st_mtime for file in files.values()), default=now)
