"""Litres of water a run consumes: evaporated by power plants, and by the building's cooling."""

from __future__ import annotations

from collections.abc import Mapping

from curbcut.accounts.sheet import Sheet
from curbcut.facts import water
from curbcut.facts.water import Water
from curbcut.physics.numbers import Number
from curbcut.spec.estimate import Estimate, unknown
from curbcut.spec.nouns import Place

REFERENCE_ZONE = "USA"
"""The zone of which several sources are known: its spread, as factors, is lent to the others."""


def grid_litres(place: Place) -> Estimate:
    """Litres that the power plants of the zone consume a kWh; not known where no source says."""
    found = water.of_grid(place.zone)
    if found is None:
        return unknown(f"no source for the water of {place.zone}'s electricity", "default")
    down, up = _spread(found)
    return Estimate(found.value, found.value * down, found.value * up, "default",
                    f"{found.zone}: {found.value:g} litres/kWh, {found.source}")


def _spread(found: Water) -> tuple[float, float]:
    """Ends of the interval over the value: its own, else those of the reference zone."""
    reference = water.of_grid(REFERENCE_ZONE)
    wide = found if found.low < found.high or reference is None else reference
    return wide.low / wide.value, wide.high / wide.value


def site_litres(place: Place) -> Estimate:
    """Litres that cooling evaporates a kWh of the computers: a data centre's where PUE is above 1,
    none at a desk.
    """
    found = water.of_site(cooled=place.pue > 1)
    return Estimate(found.value, found.low, found.high, "default",
                    f"{found.value:g} litres/kWh of {found.source}")


def write(sheet: Sheet, place: Place) -> None:
    """Writes litres.water from kwh.facility: facility energy x grid + its computers' x site."""
    sheet.leaf("water.grid_litres_per_kwh", grid_litres(place))
    sheet.leaf("water.site_litres_per_kwh", site_litres(place))
    pue = max(1.0, place.pue)

    def consumed(kwh: Number, plants: Number, cooling: Number) -> Number:
        return kwh * (plants + cooling / pue)

    sheet.formula("litres.water", f"facility energy x (power plants + cooling / PUE {pue:g})",
                  ["kwh.facility", "water.grid_litres_per_kwh", "water.site_litres_per_kwh"],
                  consumed, "litres",
                  source=f"{sheet['water.grid_litres_per_kwh'].estimate.source}; "
                         f"{sheet['water.site_litres_per_kwh'].estimate.source}")


def litres(place: Place, kwh_facility: Estimate) -> Mapping[str, Estimate]:
    """The line water of `write`, from the facility's energy."""
    sheet = Sheet()
    sheet.leaf("kwh.facility", kwh_facility, "kwh")
    write(sheet, place)
    return sheet.account().litres
