"""Machines where they stand, recipes with their price, and what a search found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from curbcut.accounts import energy
from curbcut.accounts.money import money
from curbcut.accounts.sheet import Sheet
from curbcut.plan.pricing import Pricer
from curbcut.plan.space import Space
from curbcut.spec.estimate import Estimate, given
from curbcut.spec.nouns import Machine, Place, Recipe

Objective = Literal["time", "money", "energy", "memory"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)


@dataclass(frozen=True, eq=False)
class Offer:
    """A machine with what a second of it costs where it stands."""

    space: Space
    pricer: Pricer
    usd: Estimate
    """US dollars a second."""
    kwh: Estimate
    """At the facility, a second."""

    @property
    def machine(self) -> Machine:
        """The machine."""
        return self.space.machine

    def rate(self, objective: Objective) -> float:
        """What a second counts towards the objective; infinite where that is not known."""
        found = {"money": self.usd.value, "energy": self.kwh.value}.get(objective, 1.0)
        return float("inf") if found is None else found


@dataclass(frozen=True, eq=False)
class Priced:
    """One recipe on one machine, and what a step of it takes."""

    offer: Offer
    recipe: Recipe
    seconds: Estimate
    peak_bytes: Estimate
    groups: Mapping[str, float]
    """Seconds by group: their sum is `seconds`."""

    @property
    def over_bytes(self) -> float:
        """Bytes beyond what the machine can be planned to hold; 0 where it fits."""
        assert self.peak_bytes.value is not None
        return max(0.0, self.peak_bytes.value - self.offer.pricer.room_bytes)

    def usd(self, steps: float = 1.0) -> Estimate:
        """Money of `steps` steps."""
        return self.offer.usd.times(self.seconds, self.offer.usd.source).scaled(steps)

    def kwh(self, steps: float = 1.0) -> Estimate:
        """Energy at the facility of `steps` steps."""
        return self.offer.kwh.times(self.seconds, self.offer.kwh.source).scaled(steps)


@dataclass(frozen=True)
class RunnerUp:
    """The best recipe that differs from the best of all in one respect."""

    differs: str
    """The field, or "machine"; "memory" for the fastest that does not fit."""
    priced: Priced

    def lost_by(self, best: Priced) -> dict[str, float]:
        """Seconds a step by group that it takes more than `best` (less: negative), most first."""
        groups = {*self.priced.groups, *best.groups}
        more = {group: self.priced.groups.get(group, 0.0) - best.groups.get(group, 0.0)
                for group in sorted(groups)}
        return dict(sorted(more.items(), key=lambda item: -abs(item[1])))


@dataclass(frozen=True)
class Found:
    """What a search found."""

    objective: Objective
    priced: int
    """Recipes that were priced."""
    fit: int
    """Of those, how many fit."""
    best: Priced
    runners_up: tuple[RunnerUp, ...]
    front: tuple[Priced, ...]
    """Recipes that no other beats in time, money, energy and memory together; fastest first."""
    left_out: tuple[tuple[str, str], ...] = ()
    """Machines without any valid recipe, and why."""


def second(machine: Machine, place: Place, recipe: Recipe) -> tuple[Estimate, Estimate]:
    """US dollars, and kWh at the facility, of a second of training there under the recipe's power
    limit, by the place's contract.
    """
    sheet = Sheet()
    sheet.leaf("seconds.total", given(1.0, "a second"), "seconds")
    energy.write(sheet, machine, place, recipe)
    kwh = sheet.estimates()["kwh.facility"]
    return money(machine, place, given(1.0, "a second"), kwh)["total"], kwh


def offer(space: Space, place: Place, memory_factor: float = 1.0) -> Offer:
    """The machine of a space at a place."""
    usd, kwh = second(space.machine, place, space.base)
    return Offer(space, Pricer(space.shape, space.machine, memory_factor), usd, kwh)
