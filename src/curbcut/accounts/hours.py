"""Hours of the day: which of them a run keeps to, what their electricity emits, which are best."""

from __future__ import annotations

import re
from dataclasses import dataclass

from curbcut.errors import InputError
from curbcut.facts import grid
from curbcut.facts.grid import HOURS_A_DAY
from curbcut.spec.nouns import Place

_HOURS = re.compile(r"\s*(\d{1,2})\s*-\s*(\d{1,2})\s*")


@dataclass(frozen=True)
class Window:
    """Some hours of each day, and what running only in them saves and costs."""

    hours: str
    """As `Place.hours` has it, like "22-6"."""
    gco2e_per_kwh: float
    day_gco2e_per_kwh: float
    """Mean of the whole day."""
    stretch: float
    """Wall time over that of running around the clock: 24 over the window's hours."""

    @property
    def saving(self) -> float:
        """Share of the operational carbon that it saves."""
        return 1 - self.gco2e_per_kwh / self.day_gco2e_per_kwh if self.day_gco2e_per_kwh else 0.0


def of_day(hours: str, where: str = "place.hours") -> list[int]:
    """The hours that "22-6" means: 22, 23, 0, ... 5; all for "". Raises InputError otherwise."""
    if not hours.strip():
        return list(range(HOURS_A_DAY))
    match = _HOURS.fullmatch(hours)
    ends = [int(end) for end in match.groups()] if match else []
    if not ends or max(ends) > HOURS_A_DAY:
        raise InputError(f"{hours!r} are no hours of a day", where=where,
                         mend='write two hours from 0 to 24, like "22-6"')
    first, last = ends
    count = (last - first - 1) % HOURS_A_DAY + 1
    return [(first + i) % HOURS_A_DAY for i in range(count)]


def stretch(place: Place) -> float:
    """Wall time over that of running around the clock, for who runs only in `place.hours`."""
    return HOURS_A_DAY / len(of_day(place.hours))


def window(place: Place) -> Window | None:
    """The place's own hours (the whole day where it says none); None without a profile.

    Raises UnknownName for the zone, InputError for the hours or an incomplete profile.
    """
    chosen, profile = of_day(place.hours), grid.hours(place.zone)
    return _window(list(profile.values()), chosen) if profile else None


def best_window(place: Place, count: int) -> Window | None:
    """The `count` hours (1 to 24) in a row with the cleanest mean; the earliest of equals.

    None where the facts have no profile of the zone: `grid_hours.csv` of one's own gives it.
    """
    if not 1 <= count <= HOURS_A_DAY:
        raise InputError(f"a window of {count} hours", where="place.hours", mend="choose 1 to 24")
    profile = grid.hours(place.zone)
    if not profile:
        return None
    values = [profile[hour] for hour in range(HOURS_A_DAY)]
    found = [_window(values, [(start + i) % HOURS_A_DAY for i in range(count)])
             for start in range(HOURS_A_DAY)]
    return min(found, key=lambda one: one.gco2e_per_kwh)


def _window(values: list[float], chosen: list[int]) -> Window:
    mean = sum(values[hour] for hour in chosen) / len(chosen)
    return Window(f"{chosen[0]}-{(chosen[-1] + 1) % HOURS_A_DAY}", mean,
                  sum(values) / HOURS_A_DAY, HOURS_A_DAY / len(chosen))
