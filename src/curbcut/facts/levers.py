"""What was published or measured of each lever: factors with baseline, year, scale and regime.

Several rows of one lever stand side by side where the literature and an end-to-end measurement
differ. A row with `prices` is the one that a plan prices the lever by, where no operation of the
physics can tell; all others are shown as evidence only.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from curbcut.errors import UnknownName
from curbcut.facts import table

KINDS = ("end-to-end", "throughput", "memory", "traffic", "price", "energy", "claim", "derived",
         "what-if", "text")
"""How a figure was come by: the whole run to a target; speed alone; a share of one resource; a
claim of an abstract without its conditions; computed from published figures; an open assumption;
words without a figure."""
RESOURCES = ("tokens", "seconds", "compute", "memory", "traffic", "search", "price", "energy",
             "carbon", "")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One published or measured gain."""

    lever: str
    """Name of the method."""
    resource: str
    """What there is less of."""
    factor: float | None
    """How many times less; None where only words were published."""
    low: float | None
    high: float | None
    quote: str
    """The figure as it was stated, with its conditions."""
    baseline: str
    year: str
    scale: str
    regime: str
    kind: str
    prices: bool
    """Whether plans price the lever by this row."""
    source: str
    date: str


def evidence(lever: str) -> tuple[Evidence, ...]:
    """All rows of one lever, in the file's order; empty where nothing is known."""
    return _by_lever(table.overlay_folder()).get(lever, ())


def rows() -> tuple[Evidence, ...]:
    """All rows, in the file's order."""
    return tuple(row for found in _by_lever(table.overlay_folder()).values() for row in found)


def pricing(lever: str) -> Evidence:
    """The row that prices a lever; raises UnknownName where none does."""
    for row in reversed(evidence(lever)):  # a user's own row, read last, goes first
        if row.prices:
            return row
    raise UnknownName("priced lever", lever, [row.lever for row in rows() if row.prices],
                      where="levers.csv")


@functools.cache
def _by_lever(overlay: Path) -> dict[str, tuple[Evidence, ...]]:
    found: dict[str, tuple[Evidence, ...]] = {}
    for row in table.rows("levers", ("lever", "source", "quote")):
        factor, low, high = (row.interval("factor") if row.maybe_text("factor")
                             else (None, None, None))
        one = Evidence(
            lever=row.text("lever"), resource=row.maybe_text("resource"), factor=factor, low=low,
            high=high, quote=row.text("quote"), baseline=row.maybe_text("baseline"),
            year=row.maybe_text("year"), scale=row.maybe_text("scale"),
            regime=row.maybe_text("regime"), kind=row.choice("kind", KINDS),
            prices=row.flag("prices"), source=row.text("source"), date=row.text("date"))
        found[one.lever] = (*found.get(one.lever, ()), one)
    return found
