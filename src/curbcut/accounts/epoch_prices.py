"""Which price of a chip Epoch's approaches take: bought, and rented (arXiv:2405.21015, v1.0.0).

Both look through the dated price history. A purchase price is the first of a DGX (whose price has
the server in it), else the earliest, to which the server is added; TPUs, which nobody sells, have
an equivalent price. A rent is sought by contract, then by vendor, then by the chip's own name and
the names of its family.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from curbcut.facts import epoch, prices
from curbcut.facts.epoch import Chip
from curbcut.facts.prices import PricePoint

FAMILIES = ("A100", "V100", "H100", "P100", "P40", "K80", "K40", "Titan X")
"""Chips whose prices stand for each other where a purchase price is sought."""
RENTED_FAMILIES = ("V100", "A100", "H100")
"""Families in which a rent of another chip is taken."""
VENDORS = {"aws": "Amazon Web Services", "azure": "Microsoft Azure", "google": "Google Cloud",
           "lambda": "Lambda Labs"}
CONTRACTS = ("3y", "1y", "on-demand")


@dataclass(frozen=True, kw_only=True)
class Purchase:
    """What a chip cost when it could first be bought."""

    usd: float
    """A chip, its share of the server included."""
    server_ratio: float
    """Server price over chip price: the chip alone is `usd` over this."""
    available: date
    """First day on which it could be used."""
    note: str


@dataclass(frozen=True, kw_only=True)
class Rent:
    """What a chip and hour cost, bound for three years."""

    usd_per_hour: float
    date: date
    vendor: str
    note: str


def family(name: str, families: Iterable[str] = FAMILIES) -> str:
    """The family of a chip's name; "" for none."""
    return next((one for one in families if one in name), "")


def server_ratio(name: str) -> float:
    """Price of a server over that of its chips."""
    own = family(name, ("A100", "V100", "P100")) or "other"
    return epoch.constant(f"server_price_{own}").value


def purchase(chip: Chip) -> Purchase | None:
    """The price at which `chip` could first be bought; None where the history has none."""
    ratio = server_ratio(chip.name)
    if chip.kind == "tpu":
        version = chip.name.removeprefix("Google TPU ")
        if version not in ("v1", "v2", "v3", "v4"):
            return None
        alone = epoch.constant(f"tpu_price_{version}").value
        return Purchase(usd=alone * ratio, server_ratio=ratio, available=chip.released,
                        note=f"equivalent price of a TPU {version}, server added")
    points = _sold(family(chip.name))
    if not points:
        return None
    first = next((one for one in points if "DGX" in one.note), points[0])
    assert first.purchase_usd is not None
    single = "Single-unit" in first.note
    shipped = chip.released + timedelta(days=epoch.constant("shipping_days").value)
    return Purchase(usd=first.purchase_usd * (ratio if single else 1.0), server_ratio=ratio,
                    available=max(date.fromisoformat(first.date), shipped),
                    note=f"{first.hardware} of {first.date}: {first.note.partition('. ')[0]}")


def _sold(alias: str) -> list[PricePoint]:
    """Purchase prices of a family by date; on one day the lowest first, as in the authors' run."""
    found = [one for one in prices.history(alias) if one.purchase_usd] if alias else []
    return sorted(found, key=lambda one: (one.date, one.purchase_usd or 0.0))


def vendors(organisations: Sequence[str], kind: str) -> tuple[str, ...]:
    """Vendors in the order in which they are asked: the organisation's own first."""
    if kind == "tpu":
        return ("google",)
    who = " ".join(organisations).casefold()
    if "google" in who or "deepmind" in who:
        first = "google"
    elif "microsoft" in who or "openai" in who:
        first = "azure"
    else:
        first = "aws"
    return (first, *(one for one in VENDORS if one != first))


def rent(chip: Chip, day: date, order: Sequence[str]) -> Rent | None:
    """The rent of `chip` on `day`, bound for three years, from the vendors in `order`.

    A price for another term is made one for three years by the vendor's discounts. None where no
    vendor has any price.
    """
    for contract in CONTRACTS:
        for vendor in order:
            point = _nearest(chip, vendor, day)
            price = _price(point, contract) if point else None
            if point and price:
                bound = 1 - epoch.constant(f"discount_3y_{vendor}").value
                own = (0.0 if contract == "on-demand"
                       else epoch.constant(f"discount_{contract}_{vendor}").value)
                return Rent(usd_per_hour=price if contract == "3y" else price * (bound / (1 - own)),
                            date=date.fromisoformat(point.date), vendor=VENDORS[vendor],
                            note=f"{point.hardware}, {contract}, {VENDORS[vendor]}, {point.date}")
    return None


def _price(point: PricePoint, contract: str) -> float | None:
    if contract == "3y":
        return point.usd_per_hour_reserved_3y
    return point.usd_per_hour_reserved_1y if contract == "1y" else point.usd_per_hour_on_demand


def _nearest(chip: Chip, vendor: str, day: date) -> PricePoint | None:
    """The vendor's newest row that is not later than `day`, else its first later one; of the
    chip itself, else of the first chip of its family that the vendor has.
    """
    alias = family(chip.name, RENTED_FAMILIES)
    names = [chip.name, *(one.name for one in epoch.chips() if alias and alias in one.name)]
    points = [one for one in prices.history() if one.vendor == VENDORS[vendor]]
    for name in names:
        own = [one for one in points if one.hardware == name]
        if own:
            before = [one for one in own if one.date <= day.isoformat()]
            newest = max((one.date for one in before), default=own[0].date)
            return next(one for one in own if one.date == newest)
    return None
