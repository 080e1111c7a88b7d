"""Constants of the forecasts, each with an interval: power, buildings, servers, utilisation."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from curbcut.errors import UnknownName
from curbcut.facts import table

FILE = "constants"


@dataclass(frozen=True, kw_only=True)
class Constant:
    """A figure, the interval it lies in, and its source."""

    name: str
    value: float
    low: float
    high: float
    unit: str
    note: str
    source: str
    date: str


def constant(name: str) -> Constant:
    """The constant `name`; raises UnknownName with the nearest names."""
    return named(FILE, name)


def constants() -> list[Constant]:
    """All constants, in the order of the file."""
    return list(of_file(FILE).values())


def named(file: str, name: str, noun: str = "constant") -> Constant:
    """The constant `name` of a file of constants; raises UnknownName with the nearest names."""
    found = of_file(file)
    if name not in found:
        raise UnknownName(noun, name, found)
    return found[name]


def of_file(file: str) -> dict[str, Constant]:
    """All constants of a file that has name, value, low, high, unit, note, source and date."""
    return _by_name(file, table.overlay_folder())


@functools.cache
def _by_name(file: str, overlay: Path) -> dict[str, Constant]:
    found: dict[str, Constant] = {}
    for row in table.rows(file, ("name",)):
        value, low, high = row.interval()
        found[row.text("name")] = Constant(
            name=row.text("name"), value=value, low=low, high=high, unit=row.maybe_text("unit"),
            note=row.maybe_text("note"), source=row.text("source"), date=row.text("date"))
    return found
