"""kgCO2e of a run: operational (energy x grid, by place and by contract) and embodied.

Location-based: what the grid of the zone emits, of the year and the hours that the place says.
Market-based: what the electricity contract says, beside it and never in the total.
"""

from __future__ import annotations

from collections.abc import Mapping

from curbcut.accounts import embodied, hours, water
from curbcut.accounts.sheet import Sheet
from curbcut.facts import grid
from curbcut.facts.grid import GridIntensity
from curbcut.physics.numbers import Number
from curbcut.spec.estimate import Estimate, given, unknown
from curbcut.spec.nouns import Machine, Place

GRID_SPREAD = 1.3
"""Least factor either way of a mean intensity: two published sets differ by 26% for one country
(France in EcoLogits against CodeCarbon), and years differ too."""


def intensity(place: Place) -> Estimate:
    """kgCO2e a kWh of the place's grid, location-based; raises UnknownName for the zone.

    The mean of its hours where a profile of the zone is known. The interval spans all sources and
    years that the facts hold of the zone, and at least `GRID_SPREAD` either way.
    """
    chosen = grid.intensity(place.zone, place.year)
    window = hours.window(place)
    value = (chosen.gco2e_per_kwh if window is None else window.gco2e_per_kwh) / 1000
    scale = value / chosen.gco2e_per_kwh if chosen.gco2e_per_kwh else 0.0
    spread = [one.gco2e_per_kwh * scale for one in grid.figures(place.zone)]
    if window is None:
        source = f"{_said(chosen, place)}, yearly mean{_no_profile(place)}"
    else:
        source = f"{chosen.name}: {value * 1000:g} g/kWh, mean of hours {window.hours}"
    return Estimate(value, min(value / GRID_SPREAD, *spread), max(value * GRID_SPREAD, *spread),
                    "default", source)


def _said(chosen: GridIntensity, place: Place) -> str:
    """The figure with its year, and whether that is the year that was asked."""
    text = f"{chosen.name} {chosen.year or ''}".rstrip() + f": {chosen.gco2e_per_kwh:g} g/kWh"
    return text if place.year in (0, chosen.year) else f"{text}, nearest known to {place.year}"


def _no_profile(place: Place) -> str:
    return f" (no profile of hours for {place.zone})" if place.hours else ""


def market(place: Place) -> Estimate:
    """kgCO2e a kWh of the place's electricity contract; not known where there is none."""
    if place.market_gco2e_per_kwh is None:
        return unknown("no electricity contract: set place.market_gco2e_per_kwh", "default")
    return given(place.market_gco2e_per_kwh / 1000,
                 f"contract of {place.market_gco2e_per_kwh:g} g/kWh")


def write(sheet: Sheet, machine: Machine, place: Place) -> None:
    """Writes kgco2e.operational, market, embodied and total, and litres.water.

    Needs seconds.total and kwh.facility. The total is operational (location-based) + embodied,
    or operational alone where embodied is not known. Raises UnknownName for the zone.
    """
    _operational(sheet, "operational", "grid.kgco2e_per_kwh", intensity(place), "the grid's mean")
    _operational(sheet, "market", "contract.kgco2e_per_kwh", market(place), "the contract's figure")
    embodied.write(sheet, machine)
    parts = ["kgco2e.operational", "kgco2e.embodied"]
    if sheet.value("kgco2e.embodied") is None:
        missing = f"operational only: {sheet['kgco2e.embodied'].estimate.source}"
        sheet.formula("kgco2e.total", missing, parts[:1], lambda used: used, "kgco2e")
    else:
        sheet.formula("kgco2e.total", "operational + embodied", parts, _sum, "kgco2e")
    water.write(sheet, place)


def _operational(sheet: Sheet, kind: str, leaf: str, each: Estimate, what: str) -> None:
    if leaf not in sheet:
        sheet.leaf(leaf, each, "kgco2e")
    sheet.formula(f"kgco2e.{kind}", f"facility energy x {what}", ["kwh.facility", leaf], _product,
                  "kgco2e", source=each.source)


def _product(one: Number, other: Number) -> Number:
    return one * other


def _sum(one: Number, other: Number) -> Number:
    return one + other


def carbon(machine: Machine, place: Place, seconds: Estimate,
           kwh_facility: Estimate) -> Mapping[str, Estimate]:
    """Lines operational, market, embodied and total of `write`, from two estimates."""
    sheet = Sheet()
    sheet.leaf("seconds.total", seconds, "seconds")
    sheet.leaf("kwh.facility", kwh_facility, "kwh")
    write(sheet, machine, place)
    return sheet.account().kgco2e
