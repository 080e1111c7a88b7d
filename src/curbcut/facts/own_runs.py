"""Runs of this project whose loss was measured: what a plan knows of a text before any ledger."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from curbcut.facts import table


@dataclass(frozen=True, kw_only=True)
class OwnRun:
    """One run to the end of its schedule."""

    run: str
    text: str
    optimiser: str
    parameters: float
    vocab: int
    tokens: float
    """Of its own tokenizer, repeats counted."""
    bits_per_byte: float
    """On held-out text."""
    note: str
    source: str
    date: str


def runs(text: str, optimiser: str) -> tuple[OwnRun, ...]:
    """Those of a text with an optimiser, in the order of the file."""
    return tuple(one for one in _all(table.overlay_folder())
                 if one.text == text and one.optimiser == optimiser)


@functools.cache
def _all(overlay: Path) -> tuple[OwnRun, ...]:
    return tuple(
        OwnRun(run=row.text("run"), text=row.text("text"), optimiser=row.text("optimiser"),
               parameters=row.number("parameters"), vocab=row.whole("vocab"),
               tokens=row.number("tokens"), bits_per_byte=row.number("bits_per_byte"),
               note=row.maybe_text("note"), source=row.text("source"), date=row.text("date"))
        for row in table.rows("own_runs", ("run",)))
