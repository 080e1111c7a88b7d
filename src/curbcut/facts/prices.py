"""What accelerators rent for, and what they rented and sold for in earlier years."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from curbcut.facts import table
from curbcut.facts.accelerators import accelerator

KINDS = ("on-demand", "spot", "reserved")
_KEY = ("accelerator", "provider", "instance", "region", "kind", "term_years")


@dataclass(frozen=True, kw_only=True)
class RentPrice:
    """The price of one accelerator for one hour, its share of the host included."""

    accelerator: str
    """Id of the accelerator."""
    usd_per_hour: float
    kind: str
    """ "on-demand", "spot" or "reserved"."""
    term_years: int
    """Years that a reserved price binds for; 0 otherwise."""
    provider: str
    instance: str
    region: str
    note: str
    date: str
    source: str


@dataclass(frozen=True, kw_only=True)
class PricePoint:
    """One price seen on one day: a rent a chip and hour, or a purchase a chip; None: not stated."""

    hardware: str
    date: str
    vendor: str
    location: str
    usd_per_hour_on_demand: float | None
    usd_per_hour_reserved_1y: float | None
    usd_per_hour_reserved_3y: float | None
    purchase_usd: float | None
    note: str
    """Says whether a purchase price is of a single unit or a share of a DGX."""
    source: str


def rents(name: str, kind: str | None = None) -> list[RentPrice]:
    """Rents of the accelerator `name` (id or alias), cheapest first; of one `kind` if given.

    Empty where no price is known. Raises UnknownName for an unknown accelerator.
    """
    wanted = accelerator(name).id
    return [price for price in book()
            if price.accelerator == wanted and kind in (None, price.kind)]


def book() -> list[RentPrice]:
    """Every rent, cheapest first."""
    return list(_rents(table.overlay_folder()))


def history(hardware: str | None = None) -> list[PricePoint]:
    """Prices by date, oldest first; of the hardware whose name contains `hardware`, if given."""
    return [point for point in _history(table.overlay_folder())
            if hardware is None or hardware.casefold() in point.hardware.casefold()]


@functools.cache
def _rents(overlay: Path) -> tuple[RentPrice, ...]:
    found = [
        RentPrice(
            accelerator=accelerator(row.text("accelerator"), where=row.place).id,
            usd_per_hour=row.number("usd_per_hour"), kind=row.choice("kind", KINDS),
            term_years=int(row.maybe_number("term_years") or 0),
            provider=row.maybe_text("provider"), instance=row.maybe_text("instance"),
            region=row.maybe_text("region"), note=row.maybe_text("note"),
            date=row.text("date"), source=row.text("source"))
        for row in table.rows("rent_prices", _KEY)
    ]
    return tuple(sorted(found, key=lambda price: price.usd_per_hour))


@functools.cache
def _history(overlay: Path) -> tuple[PricePoint, ...]:
    found = [
        PricePoint(
            hardware=row.text("hardware"), date=row.text("date"), vendor=row.maybe_text("vendor"),
            location=row.maybe_text("location"),
            usd_per_hour_on_demand=row.maybe_number("usd_per_hour_on_demand"),
            usd_per_hour_reserved_1y=row.maybe_number("usd_per_hour_reserved_1y"),
            usd_per_hour_reserved_3y=row.maybe_number("usd_per_hour_reserved_3y"),
            purchase_usd=row.maybe_number("purchase_usd"), note=row.maybe_text("note"),
            source=row.text("source"))
        for row in table.rows("epoch/hardware_prices", ())
    ]
    return tuple(sorted(found, key=lambda point: point.date))
