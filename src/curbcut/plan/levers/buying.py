"""Buying and place: contracts, providers, grids, buildings, hours."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from curbcut.accounts import hours
from curbcut.accounts.development import multiplier
from curbcut.errors import CurbcutError, UnknownName
from curbcut.facts import constants, grid, prices
from curbcut.plan.levers.case import Aim, Case, Refusal, step_seconds
from curbcut.plan.machines import is_here
from curbcut.spec.nouns import Machine

Contract = Literal["spot", "reserved-1y", "reserved-3y"]
CLEAN_HOURS = 8
"""Hours of each day that the lever `clean-hours` runs in."""
SINGLE_HOSTS = frozenset({"vast"})
"""Market places of the price book whose offers are single hosts of many owners."""


def spot(case: Case, _: Aim) -> Case | Refusal:
    """Interruptible machines: the price of spot, and the time of its interruptions."""
    return _contract(case, "spot")


def reserved(case: Case, aim: Aim) -> Case | Refusal:
    """Bound for one year or three: a lever where the project is as long as that."""
    if case.run.place.contract.startswith("reserved"):
        return Refusal("already on")
    first = _contract(case, "reserved-1y")
    if isinstance(first, Refusal):
        return first
    whole = multiplier(case.run.train.development, case.taught.project).value or 1.0
    hours = step_seconds(case.run) * case.run.steps / 3600 * whole
    terms: dict[Contract, float] = {"reserved-1y": 1.0, "reserved-3y": 3.0}
    year = constants.constant("hours_per_year").value
    able = [one for one, years in terms.items() if years * year <= hours]
    if not able:
        return Refusal(f"binds for {year:,.0f} h at least, and the project needs {hours:,.0f}")
    found = aim.best([case.with_place(contract=one) for one in able])
    return found or Refusal("no reserved price of it is known")


def _contract(case: Case, contract: Contract) -> Case | Refusal:
    place = case.run.place
    if place.tenure != "rent":
        return Refusal(f"the machine is not rented (tenure {place.tenure})")
    if place.contract == contract:
        return Refusal("already on")
    if place.usd_per_accelerator_hour:
        return Refusal("the place has a rate of its own (place.usd_per_accelerator_hour)")
    return case.with_place(contract=contract)


def _rents(machine: Machine, kind: str) -> list[prices.RentPrice]:
    try:
        return prices.rents(machine.accelerator, kind)
    except UnknownName:
        return []


def _offers(machine: Machine) -> list[prices.RentPrice]:
    """On-demand prices of the accelerator, cheapest first, at providers that have such a machine:
    several nodes are not rented where single hosts are, without a network between them.
    """
    return [one for one in _rents(machine, "on-demand")
            if machine.nodes == 1 or one.provider not in SINGLE_HOSTS]


def cheapest_rent(machine: Machine) -> float | None:
    """US dollars an accelerator and hour at the cheapest on-demand provider; None: not known."""
    found = _offers(machine)
    return found[0].usd_per_hour if found else None


def cheapest_provider(case: Case, _: Aim) -> Case | Refusal:
    """The same accelerator where the price book has it cheapest."""
    place = case.run.place
    if place.tenure != "rent":
        return Refusal(f"the machine is not rented (tenure {place.tenure})")
    if place.contract != "on-demand":
        return Refusal(f"bought by contract ({place.contract})")
    if place.usd_per_accelerator_hour:
        return Refusal("the place has a rate of its own (place.usd_per_accelerator_hour)")
    found = _offers(case.run.machine)
    if len(found) < 2:
        return Refusal(f"the price book has {len(found)} price of {case.run.machine.accelerator}")
    changed = case.with_place(usd_per_accelerator_hour=found[0].usd_per_hour)
    return _said(changed, f"at {found[0].provider}, {found[0].date}")


def _said(case: Case, what: str) -> Case:
    return replace(case, changed=(*case.changed, what))


def place(case: Case, _: Aim) -> Case | Refusal:
    """The cloud region with the cleanest grid."""
    if case.run.place.tenure == "own" and is_here(case.run.machine.name):
        return Refusal("the machine stands where it stands")
    regions = [one for one in grid.zones() if one.kind == "cloud region"]
    mine = grid.intensity(case.run.place.zone).gco2e_per_kwh
    if not regions:
        return Refusal("no cloud region is in the facts")
    best = min(regions, key=lambda one: (one.gco2e_per_kwh, one.zone))
    if best.gco2e_per_kwh >= mine:
        return Refusal(f"already on: no cleaner region than {case.run.place.zone}")
    return _said(case.with_place(zone=best.zone),
                 f"{mine:.0f} -> {best.gco2e_per_kwh:.0f} gCO2e/kWh")


def better_building(case: Case, _: Aim) -> Case | Refusal:
    """A hyperscaler's PUE, where the machine can be put elsewhere."""
    if is_here(case.run.machine.name):
        return Refusal("the machine stands where it stands")
    wanted = constants.constant("pue_hyperscaler").value
    if case.run.place.pue <= wanted:
        return Refusal(f"already on: a PUE of {case.run.place.pue:g}")
    return case.with_place(pue=wanted)


def clean_hours(case: Case, _: Aim) -> Case | Refusal:
    """The cleanest eight hours of the day: three times as long by the calendar, which the plan's
    hours of computing do not count.
    """
    if case.run.place.hours:
        return Refusal(f"already on: {case.run.place.hours}")
    try:
        found = hours.best_window(case.run.place, CLEAN_HOURS)
    except CurbcutError as error:
        return Refusal(error.what)
    if found is None:
        return Refusal(f"no hour profile of {case.run.place.zone} is in the facts "
                       "(grid_hours.csv)")
    return case.with_place(hours=found.hours)
