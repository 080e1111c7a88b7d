"""Litres of water consumed a kWh: by the power plants of a zone, and by a building's cooling.

Consumption (evaporated, not returned), not withdrawal. The figures of the grid allot a reservoir's
whole evaporation to its electricity; sources that allot none are at the low end.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from curbcut.facts import grid, table


@dataclass(frozen=True, kw_only=True)
class Water:
    """Litres a kWh, with the interval that sources span; the value itself where there is one."""

    scope: str
    """ "grid" (a kWh that the building draws) or "site" (a kWh of its computers)."""
    zone: str
    """Grid zone; of a site "cooled" (a data centre) or "desk"."""
    value: float
    low: float
    high: float
    note: str
    source: str
    date: str


def of_grid(zone: str) -> Water | None:
    """What the power plants of a zone consume: its own figure, else its country's.

    None where no source says. Raises UnknownName for the zone.
    """
    found = {one.zone: one for one in _all(table.overlay_folder()) if one.scope == "grid"}
    for code in grid.within(zone):
        if code in found:
            return found[code]
    return None


def of_site(cooled: bool) -> Water:
    """What a building's cooling consumes a kWh of its computers: a data centre's, or a desk's."""
    wanted = "cooled" if cooled else "desk"
    return next(one for one in _all(table.overlay_folder())
                if one.scope == "site" and one.zone == wanted)


@functools.cache
def _all(overlay: Path) -> tuple[Water, ...]:
    found = []
    for row in table.rows("water", ("scope", "zone")):
        value, low, high = row.interval("litres_per_kwh")
        found.append(Water(
            scope=row.choice("scope", ("grid", "site")), zone=row.text("zone"), value=value,
            low=low, high=high, note=row.maybe_text("note"), source=row.text("source"),
            date=row.text("date")))
    return tuple(found)
