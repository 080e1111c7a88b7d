"""What a run costs in US dollars, by line, for who rents, who owns and who was granted; and the
same run in every other way of paying, side by side.

Rent: by contract (`accounts.rent`); energy is in the rent. Own: the machine's loss of value and its
room (`accounts.ownership`), and energy at the facility. Academic: the marginal energy only, for a
grant has paid the rest. Epoch's three approaches: `accounts.epoch_run`. People: `accounts.staff`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date

from curbcut.accounts import epoch_run, staff
from curbcut.accounts.convert import known
from curbcut.accounts.ownership import write_ownership
from curbcut.accounts.rent import (
    CONTRACTS,
    YEAR_DAYS,
    day,
    newest_day,
    once,
    spot_interruption_seconds,
    write_rent,
)
from curbcut.accounts.sheet import Sheet
from curbcut.errors import UnknownName
from curbcut.facts import accelerators, currency, electricity
from curbcut.spec.estimate import Estimate, given, unknown
from curbcut.spec.nouns import Machine, Place
from curbcut.units import Money

__all__ = ["money", "price_age_days", "price_warning", "spot_interruption_seconds", "to_usd",
           "write", "write_with_staff"]


def to_usd(money: Money) -> float:
    """An amount in US dollars, at the rate of the facts; raises UnknownName for the currency."""
    return money.amount * currency.usd_per(money.currency).value


def money(machine: Machine, place: Place, seconds: Estimate,
          kwh_facility: Estimate) -> Mapping[str, Estimate]:
    """The lines that apply to the place's tenure and contract, `staff` and `total`."""
    sheet = Sheet()
    sheet.leaf("seconds.total", seconds, "seconds")
    sheet.leaf("kwh.facility", kwh_facility, "kwh")
    _write_lines(sheet, machine, place)
    found = sheet.estimates()
    return {key.removeprefix("usd."): estimate for key, estimate in found.items()
            if key.startswith("usd.")}


def write(sheet: Sheet, machine: Machine, place: Place, today: date | None = None, *,
          ways: bool = True) -> None:
    """Writes usd.{rent, energy, ownership, staff, total} as tenure and contract ask, and with
    `ways` every usd_ways but with_staff. Needs seconds.total and kwh.facility.

    `today` is the day that Epoch's approaches take for the start; the newest of the prices where
    none is given.
    """
    _write_lines(sheet, machine, place)
    if not ways:
        return
    for contract in CONTRACTS:
        write_rent(sheet, machine, place, contract, f"usd_ways.{contract.replace('-', '_')}")
    energy = _write_energy(sheet, place, "usd_ways.academic")
    own = write_ownership(sheet, machine, place, "own.usd")
    sheet.formula("usd_ways.own", "energy + loss of value + room", (energy, own),
                  lambda power, rest: power + rest, "usd", basis="modelled",
                  source=_source(sheet, own))
    epoch_run.write(sheet, machine, today)


def write_with_staff(sheet: Sheet) -> None:
    """Writes usd_ways.with_staff: all runs of the project, and the people. Needs usd.project
    (after `development.write`); not known where the number of people is not.
    """
    if "usd.project" not in sheet:
        sheet.leaf("usd_ways.with_staff", unknown(_source(sheet, "usd.total"), "default"), "usd")
        return
    inputs = ["usd.project", "usd.staff"]
    if "usd.staff" in sheet["usd.total"].inputs:
        sheet.formula("usd_ways.with_staff", "the project, people among its lines", inputs,
                      lambda project, people: project, "usd",
                      source=sheet["usd.project"].estimate.source)
        return
    sheet.formula("usd_ways.with_staff", "the project + people", inputs,
                  lambda project, people: project + people, "usd",
                  source=sheet["usd.project"].estimate.source)


def _write_lines(sheet: Sheet, machine: Machine, place: Place) -> None:
    staff.write(sheet, place)
    match place.tenure:
        case "rent":
            lines = [write_rent(sheet, machine, place, place.contract, "usd.rent")]
        case "academic":
            lines = [_write_energy(sheet, place, "usd.energy")]
        case _:
            lines = [_write_energy(sheet, place, "usd.energy"),
                     write_ownership(sheet, machine, place, "usd.ownership")]
    paid = [key for key in lines if sheet.value(key) is not None] or lines
    names = [key.removeprefix("usd.") for key in paid]
    missing = "".join(f"; {key.removeprefix('usd.')} not known" for key in lines
                      if key not in paid)
    if place.tenure != "academic" and sheet.value("usd.staff") is not None:
        paid.append("usd.staff")
        names.append("staff")
        people = ""
    else:
        people = f"; {staff.WITHOUT}"
    label = " + ".join(names)
    source = f"{label}{people}{missing}" if sheet.value(lines[0]) is not None else _source(
        sheet, lines[0])
    sheet.formula("usd.total", label, paid, lambda *usd: sum(usd), "usd", source=source)


def _source(sheet: Sheet, key: str) -> str:
    return sheet[key].estimate.source


def _write_energy(sheet: Sheet, place: Place, key: str) -> str:
    price = once(sheet, "place.usd_per_kwh", electricity_price(place), "usd")
    return sheet.formula(key, "facility energy x price of electricity", ("kwh.facility", price),
                         lambda kwh, usd: kwh * usd, "usd",
                         source=f"facility energy at ${place.usd_per_kwh:g}/kWh")


def electricity_price(place: Place) -> Estimate:
    """US dollars a kWh: the place's own; where it is the zone's of the facts, with that interval;
    where it is what a place has unless stated, from what industry pays in the United States to
    the dearest households of the EU.
    """
    usd = place.usd_per_kwh
    zone = electricity.price(place.zone)
    if zone is not None and math.isclose(usd, round(zone.usd, 4)):
        return Estimate(usd, min(usd, zone.low), max(usd, zone.high), "default",
                        f"${usd:g}/kWh in {zone.zone}, {zone.year}: {zone.source}")
    if usd != Place().usd_per_kwh:
        return given(usd, "the place's own")
    least, most = known("usd_per_kwh_retail_us"), known("eur_per_kwh_household_eu")
    assert least.low is not None and most.high is not None
    return Estimate(usd, min(usd, least.low), max(usd, most.high * currency.usd_per("EUR").value),
                    "default", f"${usd:g}/kWh unless stated; interval: industry in the US to "
                    "households in Germany (usd_per_kwh_retail_us, eur_per_kwh_household_eu)")


def price_age_days(machine: Machine, place: Place, today: date) -> int | None:
    """Days since the newest price that `money` uses; None where none is of the facts."""
    if place.tenure == "academic" or (place.usd_per_accelerator_hour and place.tenure == "rent"):
        return None
    if place.tenure == "rent":
        seen = newest_day(machine, place.contract)
    else:
        try:
            found = accelerators.accelerator(machine.accelerator)
        except UnknownName:
            return None
        seen = day(found.purchase_date) if found.purchase_usd and found.purchase_date else None
    return None if seen is None else max(0, (today - seen).days)


def price_warning(machine: Machine, place: Place, today: date) -> str:
    """What to say about prices that are older than a year; "" where they are not."""
    age = price_age_days(machine, place, today)
    if age is None or age <= YEAR_DAYS:
        return ""
    what, mend = (("rent", "set place.usd_per_accelerator_hour, or add a row to rent_prices.csv")
                  if place.tenure == "rent" else
                  ("purchase price", "add a row to accelerators.csv of your own facts"))
    return (f"the newest {what} of {machine.accelerator} is {age} days old: {mend}")
