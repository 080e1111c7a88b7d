"""What a dollar buys in arithmetic: bought accelerators by release, rented ones by the price's day.

Rates are peaks; rents count a chip and hour. Where one chip has several prices of one day, their
median counts once: many clouds with one price on one day are one point of time.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Literal, get_args

from curbcut.facts import accelerators, epoch, prices
from curbcut.plan.trend.line import Line, fit, year_of

Family = Literal["16-bit", "tf32", "fp32", "fp8"]
FAMILIES: tuple[Family, ...] = get_args(Family)
Way = Literal["purchase", "rent"]
_RATES: Mapping[Family, tuple[str, ...]] = {"16-bit": ("bf16", "fp16"), "tf32": ("tf32",),
                                            "fp32": ("fp32",), "fp8": ("fp8",)}
SECONDS_AN_HOUR = 3600.0


@dataclass(frozen=True)
class Offer:
    """What one accelerator gave for a dollar."""

    name: str
    day: date
    """Of release, for what is bought; of the price, for what is rented."""
    value: float
    """FLOP/s a dollar (purchase) or FLOP a dollar (rent)."""
    source: str


@dataclass(frozen=True)
class Pace:
    """One precision family, bought or rented, and the line through its offers."""

    family: Family
    way: Way
    offers: tuple[Offer, ...]
    line: Line | None

    @property
    def best(self) -> Offer | None:
        """The most for a dollar among offers of the newest two years."""
        newest = max((offer.day for offer in self.offers), default=None)
        if newest is None:
            return None
        return max((offer for offer in self.offers if (newest - offer.day).days <= 731),
                   key=lambda offer: offer.value)


def paces() -> tuple[Pace, ...]:
    """Every family that has a line or at least one offer, bought and rented."""
    found = [_pace(family, way) for way in get_args(Way) for family in FAMILIES]
    return tuple(pace for pace in found if pace.offers)


def pace(found: tuple[Pace, ...], family: Family, way: Way) -> Pace | None:
    """One of them, None where the facts have nothing of it."""
    return next((one for one in found if (one.family, one.way) == (family, way)), None)


def _pace(family: Family, way: Way) -> Pace:
    offers = tuple(sorted(_bought(family) if way == "purchase" else _rented(family),
                          key=lambda offer: (offer.day, offer.name)))
    return Pace(family, way, offers, fit([year_of(offer.day) for offer in offers],
                                         [offer.value for offer in offers]))


def _bought(family: Family) -> Iterator[Offer]:
    for one in accelerators.accelerators():
        rate = _rate(one.peak_flops, family)
        if rate and one.purchase_usd and one.release_date:
            yield Offer(one.name, day_of(one.release_date), rate / one.purchase_usd,
                        f"{one.source}; {one.purchase_kind} price of {one.purchase_date}")


def _rented(family: Family) -> Iterator[Offer]:
    seen: dict[tuple[str, date], list[tuple[float, str]]] = {}
    for name, rate, day, usd, source in _rents(family):
        seen.setdefault((name, day), []).append((rate * SECONDS_AN_HOUR / usd, source))
    for (name, day), found in seen.items():
        yield Offer(name, day, statistics.median(value for value, _ in found), found[0][1])


def _rents(family: Family) -> Iterator[tuple[str, float, date, float, str]]:
    """(chip, peak, day, US dollars an hour, source) of every on-demand rent that is known."""
    for one in accelerators.accelerators():
        rate = _rate(one.peak_flops, family)
        for rent in prices.rents(one.id, "on-demand") if rate else ():
            if rate:
                yield one.name, rate, day_of(rent.date), rent.usd_per_hour, rent.source
    chips = {chip.name: chip for chip in epoch.chips()}
    for point in prices.history():
        chip = chips.get(point.hardware)
        rate = _chip_rate(chip, family) if chip else None
        if rate and point.usd_per_hour_on_demand:
            yield (point.hardware, rate, day_of(point.date), point.usd_per_hour_on_demand,
                   point.source)


def _rate(peaks: Mapping[str, float], family: Family) -> float | None:
    return max((peaks[name] for name in _RATES[family] if name in peaks), default=None)


def _chip_rate(chip: epoch.Chip, family: Family) -> float | None:
    if family == "16-bit":
        # A GPU's fp16 without tensor cores is no rate that a network is trained at.
        return chip.fp16_tensor_flops or (chip.fp16_flops if chip.kind == "tpu" else None)
    return {"tf32": chip.tf32_flops, "fp32": chip.fp32_flops}.get(family)


def day_of(text: str) -> date:
    """An ISO day, or the first of a month or year where no more is known."""
    year, month, day = [*(int(part) for part in text.split("-")), 1, 1][:3]
    return date(year, month, day)
