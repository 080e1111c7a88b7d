"""Constants around the scaling laws: repetition, small runs, experts, optimisers, tokenizers."""

from __future__ import annotations

import functools
from pathlib import Path

from curbcut.errors import UnknownName
from curbcut.facts import table
from curbcut.facts.constants import Constant


def constant(name: str) -> Constant:
    """The constant `name`; raises UnknownName with the nearest names."""
    found = _by_name(table.overlay_folder())
    if name not in found:
        raise UnknownName("constant of the loss laws", name, found)
    return found[name]


def value(name: str) -> float:
    """Its middle alone."""
    return constant(name).value


def constants() -> list[Constant]:
    """All constants, in the order of the file."""
    return list(_by_name(table.overlay_folder()).values())


@functools.cache
def _by_name(overlay: Path) -> dict[str, Constant]:
    found: dict[str, Constant] = {}
    for row in table.rows("loss_constants", ("name",)):
        middle, low, high = row.interval()
        found[row.text("name")] = Constant(
            name=row.text("name"), value=middle, low=low, high=high,
            unit=row.maybe_text("unit"), note=row.maybe_text("note"), source=row.text("source"),
            date=row.text("date"))
    return found
