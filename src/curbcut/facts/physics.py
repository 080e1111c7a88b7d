"""Named constants of the physics: what machines and stacks achieve, each with interval and source.

One row a value: `name`, for which `accelerator`, `stack` and `version` (empty for any), and
`without` (a stack: the prior fitted with that stack's rows left out). `rows` and `sources` count
what a fitted value stands on; a value that stands on fewer than ten rows of two sources is marked
unsupported in its note.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from curbcut.facts import table

FILES = ("physics_training", "physics_memory", "physics_serving", "power", "power_caps",
         "energy_series")
_KEY = ("name", "accelerator", "stack", "version", "without")


@dataclass(frozen=True)
class PhysicsConstant:
    """One value of one named constant, and for what it holds."""

    name: str
    accelerator: str
    stack: str
    version: str
    without: str
    value: float
    low: float
    high: float
    unit: str
    rows: int
    """Measured rows that it was fitted on; 0 for a value that was read."""
    sources: int
    """Sources that those rows come from."""
    note: str
    source: str
    date: str


def constants(file: str) -> tuple[PhysicsConstant, ...]:
    """All values in one of `FILES`, ours under the user's own."""
    return _constants(file, table.overlay_folder())


def constant(file: str, name: str, accelerator: str = "", without: str = "") -> PhysicsConstant:
    """The value of a file whose values hold for a family of accelerators: the family's own, else
    the general one; with `without`, each as it was fitted with that left out, where it was.

    Raises KeyError for a name that the file does not have.
    """
    found = _by_key(file, table.overlay_folder())
    for key in ((name, accelerator, without), (name, accelerator, ""), (name, "", without)):
        if key in found:
            return found[key]
    return found[name, "", ""]


def families(file: str) -> tuple[str, ...]:
    """Families of accelerators that a file has values of their own for."""
    return tuple(sorted({one.accelerator for one in constants(file) if one.accelerator}))


@functools.cache
def _by_key(file: str, overlay: Path) -> dict[tuple[str, str, str], PhysicsConstant]:
    return {(one.name, one.accelerator, one.without): one for one in constants(file)}


@functools.cache
def _constants(file: str, overlay: Path) -> tuple[PhysicsConstant, ...]:
    """Kept for each folder of a user's own facts, which may change while a process runs."""
    return tuple(_constant(row) for row in table.rows(file, _KEY))


def _constant(row: table.Row) -> PhysicsConstant:
    value, low, high = row.interval()
    words = {name: row.maybe_text(name) for name in (*_KEY, "unit", "note")}
    return PhysicsConstant(**words, value=value, low=low, high=high, rows=row.whole("rows"),
                           sources=row.whole("sources"), source=row.text("source"),
                           date=row.text("date"))
