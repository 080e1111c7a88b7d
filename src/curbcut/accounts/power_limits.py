"""What a power cap saves and costs: energy falls, but time is rent.

An hour of work without a cap, on one accelerator and its share of the host, costs its rent and its
energy; under a cap both are paid for as long as the cap makes it (`physics.power_cap`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from curbcut.physics.power_cap import cap_constants, capped

LIMITS = tuple(percent / 100 for percent in range(40, 101))
"""Caps that are looked at, as shares of the rated power; makers let few cards go lower."""


@dataclass(frozen=True, kw_only=True)
class Hour:
    """What an accelerator-hour of work costs, whoever pays it. Rates are for one accelerator."""

    usd_per_hour: float
    """What goes by time: rent, or depreciation where owned; 0 for energy alone."""
    usd_per_kwh: float
    """Price of electricity that the payer bears (0 where rent includes it), a price of its carbon
    added."""
    rated_watts: float
    """Rated power of the accelerator."""
    draw: float
    """Mean draw without a cap, of the rated power."""
    host_watts: float = 0.0
    """The host's share, which a cap does not lower."""
    pue: float = 1.0
    """Facility over node energy."""
    accelerator: str = ""
    """Whose caps: one that was measured, else caps in general."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """The same work under one cap."""

    limit: float
    """Of the rated power; 1 for no cap."""
    seconds: float
    """Time over that without a cap."""
    kwh: float
    """Facility energy of what is an hour's work without a cap."""
    usd: float
    """Cost of it."""


def point(hour: Hour, limit: float) -> Point:
    """Time, energy and money of an hour's work under `limit`."""
    found = capped(limit, hour.draw, cap_constants(hour.accelerator))
    watts = hour.rated_watts * hour.draw * found.watts + hour.host_watts
    kwh = float(hour.pue * watts * found.seconds / 1000)
    usd = float(hour.usd_per_hour * found.seconds + hour.usd_per_kwh * kwh)
    return Point(limit=limit, seconds=float(found.seconds), kwh=kwh, usd=usd)


def curve(hour: Hour, limits: Sequence[float] = LIMITS) -> list[Point]:
    """Points in the order of `limits`."""
    return [point(hour, limit) for limit in limits]


def best_limit(hour: Hour, limits: Sequence[float] = LIMITS) -> Point:
    """The cheapest of the points; the highest limit among equals: 1.0 where a cap does not pay."""
    return min(curve(hour, limits), key=lambda one: (one.usd, -one.limit))


def least_energy(hour: Hour, limits: Sequence[float] = LIMITS) -> Point:
    """The point of least energy; the highest limit among equals."""
    return min(curve(hour, limits), key=lambda one: (one.kwh, -one.limit))


def rent_that_forbids(hour: Hour, limits: Sequence[float] = LIMITS) -> float:
    """US dollars an accelerator-hour from which no cap saves money: what the best one saves in
    energy over the hours that it adds. Infinite where a cap saves and takes no longer.
    """
    free = point(hour, 1.0)
    best = 0.0
    for one in curve(hour, limits):
        saved = (free.kwh - one.kwh) * hour.usd_per_kwh
        added = one.seconds - 1
        if saved > 0:
            best = max(best, saved / added if added > 0 else float("inf"))
    return best
