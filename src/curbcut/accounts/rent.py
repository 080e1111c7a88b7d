"""What a machine rents for an hour, by contract: on demand, bound for years, or as spot.

From the place's own rate, the dated price book, or, where the book has no price of that contract,
the on-demand price at the discount that is usual. Spot capacity is taken away at any time: work
since the last checkpoint is done again, and every restart costs; that time is paid for too.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from curbcut.accounts.convert import known
from curbcut.accounts.sheet import Sheet
from curbcut.errors import InputError, UnknownName
from curbcut.facts import constants, epoch, prices, table
from curbcut.facts.prices import RentPrice
from curbcut.physics.goodput import goodput
from curbcut.physics.numbers import Number
from curbcut.spec.estimate import Estimate, given, unknown
from curbcut.spec.nouns import Machine, Place

CONTRACTS = ("on-demand", "reserved-1y", "reserved-3y", "spot")
"""As a place names them, in the order of tables."""
YEAR_DAYS = 365
"""A reserved price that is older than the on-demand price by more days is not used."""
VENDORS = ("aws", "google", "azure", "lambda")


def once(sheet: Sheet, key: str, estimate: Estimate, unit: str = "") -> str:
    """Writes a leaf unless it stands on the sheet already; returns its key."""
    return key if key in sheet else sheet.leaf(key, estimate, unit)


def rent_price(machine: Machine, place: Place, contract: str = "") -> Estimate:
    """US dollars an accelerator and hour under `contract` (the place's own where empty).

    The place's own rate where it is for that contract, else the book's. No value where the book
    has no price for the accelerator.
    """
    contract = contract or place.contract
    if place.usd_per_accelerator_hour and contract == place.contract:
        return given(place.usd_per_accelerator_hour, "the place's own rate")
    return _book(machine.accelerator, contract, table.overlay_folder())


@functools.cache
def _book(accelerator: str, contract: str, overlay: Path) -> Estimate:
    """The price book's estimate: median, least and most of what it has."""
    kind, _, years = contract.partition("-") if contract.startswith("res") else (contract, "", "")
    rents = _rents(accelerator, "on-demand")
    if contract != "on-demand":
        term = int(years.rstrip("y")) if years else 0
        own = [one for one in _rents(accelerator, kind) if one.term_years == term]
        if own and not _stale(own, rents):
            return _middle(own, contract)
        if rents:
            note = (f"newest {contract} price is of {_newest(own)}, older than a year: "
                    if own else f"the book has no {contract} price: ")
            return _discounted(_middle(rents, "on-demand"), contract, note, overlay)
    if not rents:
        return unknown(f"the price book has no rent for {accelerator}; "
                       "set place.usd_per_accelerator_hour", "default")
    return _middle(rents, contract)


def _rents(accelerator: str, kind: str) -> list[RentPrice]:
    try:
        return prices.rents(accelerator, kind)
    except UnknownName:
        return []


def _newest(rents: Sequence[RentPrice]) -> str:
    return max(one.date for one in rents)


def _stale(own: Sequence[RentPrice], rents: Sequence[RentPrice]) -> bool:
    if not rents:
        return False
    return (day(_newest(rents)) - day(_newest(own))).days > YEAR_DAYS


def _middle(rents: Sequence[RentPrice], contract: str) -> Estimate:
    amounts = sorted(one.usd_per_hour for one in rents)
    if amounts[0] == amounts[-1]:
        return alone(amounts[0], f"the one {contract} price, of {_newest(rents)}")
    what = f"median of {len(rents)} {contract} prices, newest of"
    return Estimate(statistics.median(amounts), amounts[0], amounts[-1], "default",
                    f"{what} {_newest(rents)}")


def alone(usd: float, source: str) -> Estimate:
    """A price that stands alone, with the spread that prices of other accelerators have."""
    low, high = _usual_spread(table.overlay_folder())
    return Estimate(usd, usd * low, usd * high, "default",
                    f"{source}; others ask {low:.2f} to {high:.2f} x, as of accelerators with "
                    "several prices")


@functools.cache
def _usual_spread(overlay: Path) -> tuple[float, float]:
    """Least and most over the median of on-demand prices: medians over the accelerators of the
    book that have several.
    """
    asked: dict[str, list[float]] = {}
    for one in prices.book():
        if one.kind == "on-demand":
            asked.setdefault(one.accelerator, []).append(one.usd_per_hour)
    several = [sorted(usd) for usd in asked.values() if min(usd) < max(usd)]
    if not several:
        return 1.0, 1.0
    return (statistics.median(usd[0] / statistics.median(usd) for usd in several),
            statistics.median(usd[-1] / statistics.median(usd) for usd in several))


def _discounted(rent: Estimate, contract: str, note: str, overlay: Path) -> Estimate:
    share, source = (_spot_share(overlay) if contract == "spot"
                     else _bound_share(contract.removeprefix("reserved-")))
    return rent.times(share, f"{note}{rent.source} x {share.value:.2f} ({source})")


def _bound_share(term: str) -> tuple[Estimate, str]:
    """What is left of an on-demand price for who binds himself, over the large clouds."""
    left = sorted(1 - epoch.constant(f"discount_{term}_{one}").value for one in VENDORS)
    return Estimate(statistics.median(left), left[0], left[-1], "default"), (
        "discounts of four clouds, Epoch AI v1.0.0")


@functools.cache
def _spot_share(overlay: Path) -> tuple[Estimate, str]:
    """Spot over on-demand price of the same instance, over those of the book."""
    asked: dict[tuple[str, str, str], dict[str, float]] = {}
    for one in prices.book():
        key = one.accelerator, one.provider, one.instance
        asked.setdefault(key, {})[one.kind] = one.usd_per_hour
    shares = sorted(both["spot"] / both["on-demand"] for both in asked.values()
                    if "spot" in both and "on-demand" in both)
    return Estimate(statistics.median(shares), shares[0], shares[-1], "default"), (
        f"spot over on-demand price of {len(shares)} instances of the book")


def day(text: str) -> date:
    """The first day that a date of the facts may mean: "2026-11" is 2026-11-01.

    Raises InputError for what is no date.
    """
    try:
        return date.fromisoformat((text + "-01-01")[:10] if len(text) == 4 else
                                  (text + "-01")[:10] if len(text) == 7 else text)
    except ValueError:
        raise InputError(f"{text!r} is no date", where="price book",
                         mend="write it like 2026-11-22 or 2026-11") from None


def newest_day(machine: Machine, contract: str) -> date | None:
    """Day of the newest row of the book that prices the machine under `contract`."""
    kind = "reserved" if contract.startswith("reserved") else contract
    rents = _rents(machine.accelerator, "on-demand")
    own = [one for one in _rents(machine.accelerator, kind)
           if kind != "reserved" or contract == f"reserved-{one.term_years}y"]
    used = own if own and not _stale(own, rents) else rents
    return max((day(one.date) for one in used), default=None)


def spot_interruption_seconds(machine: Machine) -> Estimate:
    """Mean time between interruptions of the whole machine, where it is rented as spot.

    A node lasts `spot_interruption_hours`; most interruptions meet all nodes of one type and zone
    together (`spot_shared_interruptions`), the others each its own.
    """
    hours, shared = known("spot_interruption_hours"), known("spot_shared_interruptions")
    assert hours.value and hours.low and hours.high
    assert shared.value and shared.low and shared.high

    def of(each: float, together: float) -> float:
        return 3600 * each / (together + (1 - together) * machine.nodes)

    return Estimate(of(hours.value, shared.value), of(hours.low, shared.low),
                    of(hours.high, shared.high), "default", hours.source)


def write_spot(sheet: Sheet, machine: Machine) -> str:
    """Writes spot.time_ratio: paid time over the time without interruptions; returns its key."""
    key = "spot.time_ratio"
    if key in sheet:
        return key
    inputs = (
        once(sheet, "spot.checkpoint_seconds", known("checkpoint_save_seconds"), "seconds"),
        once(sheet, "spot.restart_seconds", known("restart_seconds"), "seconds"),
        once(sheet, "spot.interruption_seconds", spot_interruption_seconds(machine), "seconds"))
    return sheet.formula(key, "1 / goodput of a checkpoint as often as Daly says, a restart and "
                         "half the work between checkpoints an interruption", inputs,
                         lambda save, restart, apart: 1 / goodput(
                             save, 1, None, restart, apart).productive)


def write_hours(sheet: Sheet, machine: Machine) -> str:
    """Writes machine.accelerator_hours; returns its key."""
    key = "machine.accelerator_hours"
    if key not in sheet:
        count = once(sheet, "machine.accelerators", given(
            machine.accelerators, f"{machine.accelerators} x {machine.accelerator}"), "count")
        sheet.formula(key, "accelerators x seconds / 3600", (count, "seconds.total"),
                      lambda many, seconds: many * seconds / 3600.0)
    return key


def write_rent(sheet: Sheet, machine: Machine, place: Place, contract: str, key: str) -> str:
    """Writes `key`, what the machine's time costs under `contract`; returns it."""
    price = rent_price(machine, place, contract)
    name = f"rent.{contract.replace('-', '_')}_usd_per_accelerator_hour"
    inputs = [once(sheet, name, price, "usd"), write_hours(sheet, machine)]
    if contract != "spot":
        return sheet.formula(key, "accelerator-hours x rent", inputs, _product, "usd",
                             source=price.source)
    inputs.append(write_spot(sheet, machine))
    return sheet.formula(key, "accelerator-hours x spot rent x time that interruptions add",
                         inputs, _product, "usd",
                         source=f"{price.source}; interruptions at {_apart(machine)}")


def _apart(machine: Machine) -> str:
    hours = spot_interruption_seconds(machine).value
    assert hours is not None
    return f"one in {hours / 3600:.3g} h"


def _product(price: Number, hours: Number, ratio: Number = 1.0) -> Number:
    return price * hours * ratio


def hours_a_year() -> float:
    """Hours of a year."""
    return constants.constant("hours_per_year").value
