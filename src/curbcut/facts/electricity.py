"""What a kilowatt-hour costs who is no household, by grid zone: countries and US states."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from curbcut.errors import UnknownName
from curbcut.facts import currency, grid, table


@dataclass(frozen=True, kw_only=True)
class ElectricityPrice:
    """US dollars a kWh in one zone, at the rate of the facts."""

    zone: str
    usd: float
    low: float
    """What large consumers pay."""
    high: float
    """What the smallest pay."""
    year: int
    note: str
    source: str
    date: str


def price(zone: str) -> ElectricityPrice | None:
    """The price of a zone, else of the country that it lies in; None where neither is known.

    Raises UnknownName for a zone that nobody knows.
    """
    found = _by_zone(table.overlay_folder())
    return next((found[code] for code in grid.within(zone) if code in found), None)


def prices() -> list[ElectricityPrice]:
    """All of them, in the order of the file."""
    return list(_by_zone(table.overlay_folder()).values())


@functools.cache
def _by_zone(overlay: Path) -> dict[str, ElectricityPrice]:
    found: dict[str, ElectricityPrice] = {}
    for row in table.rows("electricity", ("zone",)):
        try:
            code = grid.figures(row.text("zone"), where=row.place)[0].zone
            usd = currency.usd_per(row.text("currency")).value
        except UnknownName as error:
            error.where = error.where or row.place
            raise
        value, low, high = row.interval("price")
        found[code] = ElectricityPrice(
            zone=code, usd=value * usd, low=low * usd, high=high * usd, year=row.whole("year"),
            note=row.maybe_text("note"), source=row.text("source"), date=row.text("date"))
    return found
