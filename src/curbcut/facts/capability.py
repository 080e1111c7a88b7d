"""What reaching one fixed capability took at different times, and published rates of progress."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from curbcut.errors import InputError
from curbcut.facts import table
from curbcut.facts.constants import Constant, named
from curbcut.facts.table import Row

UNITS = ("usd", "seconds")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One way, at one time, of reaching a task's goal."""

    task: str
    what: str
    """The goal, the same in all records of a task."""
    day: date
    value: float
    """What it took, in `unit`."""
    unit: str
    """ "usd" or "seconds" (of the machine)."""
    machine: str
    included: str
    """What got better between the records."""
    source: str


def records() -> list[Record]:
    """All records, by task in the order of the file and then by day."""
    return list(_records(table.overlay_folder()))


def rate(name: str) -> Constant:
    """A published rate of progress; raises UnknownName with the nearest names."""
    return named("progress", name, "rate of progress")


@functools.cache
def _records(overlay: Path) -> tuple[Record, ...]:
    found = [_record(row) for row in table.rows("capability", ("task", "day"))]
    tasks = list(dict.fromkeys(one.task for one in found))
    return tuple(sorted(found, key=lambda one: (tasks.index(one.task), one.day)))


def _record(row: Row) -> Record:
    text = row.text("day")
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise InputError(f"day is {text!r}, which is no day", where=row.place,
                         mend="write it like 2024-03-21") from None
    value = row.number("value")
    if value <= 0:
        raise InputError(f"value is {value:g}", where=row.place, mend="give what it took, above 0")
    return Record(task=row.text("task"), what=row.text("what"), day=day, value=value,
                  unit=row.choice("unit", UNITS), machine=row.maybe_text("machine"),
                  included=row.text("included"), source=row.text("source"))
