"""Carbon of making hardware. Sources differ up to fortyfold, so ranges, never a bare point."""

from __future__ import annotations

import functools
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from curbcut.errors import UnknownName
from curbcut.facts import table
from curbcut.facts.accelerators import accelerator


@dataclass(frozen=True, kw_only=True)
class Embodied:
    """One published figure for one item."""

    category: str
    item: str
    accelerators: tuple[str, ...]
    """Ids of the accelerators that it is a figure for."""
    scope: str
    """ "whole" item, the bare "die", or a server "without accelerators"."""
    count: float | None
    """Cores of a CPU, GB of a memory module, accelerators of a server; None for one of its unit."""
    value: float
    low: float
    high: float
    unit: str
    note: str
    source: str
    date: str


class EmbodiedRange(NamedTuple):
    """Kilograms of CO2e to make one of something."""

    low: float
    mid: float
    high: float
    source: str


def embodied(category: str, item: str | None = None) -> list[Embodied]:
    """All figures of a category ("accelerator", "server", "cpu", "dram", "ssd", ...).

    With `item`, those whose item contains it. Raises UnknownName for an unknown category.
    """
    everything = _all(table.overlay_folder())
    known = {one.category for one in everything}
    if category not in known:
        raise UnknownName("category", category, known)
    return [one for one in everything if one.category == category
            and (item is None or item.casefold() in one.item.casefold())]


def accelerator_range(name: str) -> EmbodiedRange:
    """The span of published figures for an accelerator (id or alias); mid is the median.

    A bare die counts for the low end only. With fewer than two figures for this accelerator the
    span is that of all accelerators, and the source says so: one figure is no range. Raises
    UnknownName for an unknown accelerator.
    """
    return _accelerator_range(accelerator(name).id, table.overlay_folder())


@functools.cache
def _accelerator_range(wanted: str, overlay: Path) -> EmbodiedRange:
    figures = [one for one in _all(overlay) if one.category == "accelerator"]
    every = [one for one in figures if one.scope == "whole"]
    own = [one for one in every if wanted in one.accelerators]
    span = [one for one in figures if wanted in one.accelerators]
    note = ""
    if len(own) < 2:
        span += every
        note = f"{'one figure' if own else 'no figure'} for {wanted}: span of all accelerators; "
    return EmbodiedRange(
        low=min(one.low for one in span), mid=statistics.median(one.value for one in own or every),
        high=max(one.high for one in span),
        source=note + _sources(span))


def server_range() -> EmbodiedRange:
    """The span of published servers a place for an accelerator, without the accelerators.

    From a server that has them in it, the figure of the same source for them is taken off.
    """
    return _server_range(table.overlay_folder())


@functools.cache
def _server_range(overlay: Path) -> EmbodiedRange:
    found = []
    for one in (row for row in _all(overlay) if row.category == "server"):
        inside = _inside(one, overlay)
        if one.count is not None and inside is not None:
            found.append((one, [max(0.0, kg / one.count - inside)
                                for kg in (one.low, one.value, one.high)]))
    return EmbodiedRange(
        low=min(kg[0] for _, kg in found), mid=statistics.median(kg[1] for _, kg in found),
        high=max(kg[2] for _, kg in found), source=_sources([one for one, _ in found]))


def _inside(server: Embodied, overlay: Path) -> float | None:
    """Kg of each accelerator that a server's figure contains; None where nobody says."""
    if server.scope == "without accelerators":
        return 0.0
    for one in _all(overlay):
        same = one.category == "accelerator" and one.source == server.source
        if same and set(one.accelerators) & set(server.accelerators):
            return one.value
    return None


def each_range(category: str) -> EmbodiedRange:
    """The span of published figures a core ("cpu") or a GB ("dram"); mid is the median.

    Raises UnknownName for an unknown category.
    """
    found = [(one, one.count or 1.0) for one in embodied(category)]
    return EmbodiedRange(
        low=min(one.low / count for one, count in found),
        mid=statistics.median(one.value / count for one, count in found),
        high=max(one.high / count for one, count in found),
        source=_sources([one for one, _ in found]))


def _sources(figures: list[Embodied]) -> str:
    return "; ".join(dict.fromkeys(one.source for one in figures))


@functools.cache
def _all(overlay: Path) -> tuple[Embodied, ...]:
    found = []
    for row in table.rows("embodied", ("category", "item", "source")):
        value, low, high = row.interval()
        found.append(Embodied(
            category=row.text("category"), item=row.text("item"),
            accelerators=row.many("accelerators"), scope=row.maybe_text("scope") or "whole",
            count=row.maybe_number("count"), value=value, low=low, high=high,
            unit=row.text("unit"), note=row.maybe_text("note"), source=row.text("source"),
            date=row.text("date")))
    return tuple(found)
