"""What storing weights or keys and values in fewer bits costs in quality: measured rows, each the
rise in bits a byte on held-out text of one model, its own weights rounded after training.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from curbcut.facts import table

FILE = "serving_quality"
PARTS = ("weights", "cache")


@dataclass(frozen=True, kw_only=True)
class Loss:
    """One measured row."""

    part: str
    """What is stored so: "weights" or "cache"."""
    kind: str
    """How: a name of `ServeJob.weight_precision` or `cache_precision`."""
    model: str
    parameters: float
    bits_per_byte: float
    """Of the model as it was trained, on the same text."""
    share: float
    """Rise of bits a byte, as a share of them."""
    low: float
    high: float
    source: str
    date: str


def rows(part: str, kind: str) -> tuple[Loss, ...]:
    """The measured rows of one way of storing, smallest model first; empty where there is none."""
    return tuple(sorted((row for row in _rows(table.overlay_folder())
                         if (row.part, row.kind) == (part, kind)), key=lambda row: row.parameters))


@functools.cache
def _rows(overlay: Path) -> tuple[Loss, ...]:
    return tuple(_row(row) for row in table.rows(FILE, ("part", "kind", "model", "source")))


def _row(row: table.Row) -> Loss:
    share, low, high = row.interval("share")
    return Loss(part=row.choice("part", PARTS), kind=row.text("kind"), model=row.text("model"),
                parameters=row.number("parameters"), bits_per_byte=row.number("bits_per_byte"),
                share=share, low=low, high=high, source=row.text("source"), date=row.text("date"))
