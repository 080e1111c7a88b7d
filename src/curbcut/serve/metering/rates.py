"""What a machine's seconds and joules are in money and carbon, where it stands."""

from __future__ import annotations

from dataclasses import dataclass, replace

from curbcut.accounts.carbon import intensity
from curbcut.accounts.energy import JOULES_PER_KWH, host_watts, pue
from curbcut.accounts.money import electricity_price, money
from curbcut.ledger.amounts import NANO
from curbcut.spec.estimate import given
from curbcut.spec.nouns import Machine, Place

_HOUR = 3600.0


@dataclass(frozen=True)
class Rates:
    """Of one machine at one place. Joules are those of its devices: accelerators, or a CPU's cores
    and memory; host and building are added here.
    """

    usd_per_second: float | None
    """Rent, or loss of value and room; None where not known."""
    usd_per_kwh: float
    """Of the facility's energy; 0 where it is in the rent."""
    kgco2e_per_kwh: float
    host_watts: float
    pue: float
    source: str
    """How all this is known, in words."""

    def facility_kwh(self, joules: float, seconds: float) -> float:
        """With the host's draw over so many seconds, and the building's."""
        return (joules + self.host_watts * seconds) * self.pue / JOULES_PER_KWH

    def nanousd(self, joules: float | None, seconds: float) -> int | None:
        """Money of a share of the machine; None where a part of it is not known."""
        if self.usd_per_second is None:
            return None
        usd = self.usd_per_second * seconds
        if self.usd_per_kwh:
            if joules is None:
                return None
            usd += self.usd_per_kwh * self.facility_kwh(joules, seconds)
        return round(usd * NANO)

    def kgco2e(self, joules: float | None, seconds: float) -> float | None:
        """Operational carbon of a share of the machine, by the grid of the place."""
        return None if joules is None else self.kgco2e_per_kwh * self.facility_kwh(joules, seconds)


def of(machine: Machine, place: Place) -> Rates:
    """The rates of a machine; people's pay is left out. Raises UnknownName for the zone."""
    lines = money(machine, replace(place, staff_fte=0.0), given(_HOUR, "an hour"),
                  given(0.0, "energy apart"))
    total, grid, building = lines["total"], intensity(place), pue(place)
    price = 0.0 if place.tenure == "rent" else electricity_price(place).value or 0.0
    host = host_watts(machine).value or 0.0
    assert grid.value is not None and building.value is not None
    parts = [f"money: {total.source}"]
    parts += [f"${price:g}/kWh"] if price else []
    parts += [f"host {host:.0f} W (modelled)"] if host else []
    parts += [f"PUE {building.value:g}", f"grid {grid.source}"]
    return Rates(None if total.value is None else total.value / _HOUR, price, grid.value, host,
                 building.value, "; ".join(parts))
