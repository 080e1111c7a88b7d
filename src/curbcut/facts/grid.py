"""Carbon intensity of electricity by grid zone: countries, states, provinces, cloud regions.

A zone may have several figures: of different years, and of different sources for one year. A
person's own row adds a year; without a year it stands in place of all of ours.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from curbcut.errors import InputError, UnknownName
from curbcut.facts import table

HOURS_A_DAY = 24


@dataclass(frozen=True, kw_only=True)
class GridIntensity:
    """Mean emissions of a zone's electricity (location-based)."""

    zone: str
    name: str
    kind: str
    """ "world", "country", "state", "province", "bidding zone" or "cloud region"."""
    gco2e_per_kwh: float
    year: int | None
    """Year that the figure is of; None where its source does not state one."""
    note: str
    licence: str
    source: str
    date: str

    @property
    def dated(self) -> int:
        """Its year, else the year of its source."""
        return self.year or int(self.date[:4])


def intensity(zone: str, year: int = 0, *, where: str = "") -> GridIntensity:
    """The zone of a code ("FRA", "fr", "US-CA", "SE3", "aws:eu-west-3", "eu-west-3") or a name.

    Capitals, accents, blanks and underscores do not matter; a country goes before a state of the
    same name. Of `year`, or of the nearest one (the newer of two); 0 takes the newest. Of several
    sources of a year it is the last one, so a person's own. Raises UnknownName with the nearest
    zones.
    """
    known = figures(zone, where=where)
    if not year:
        return max(enumerate(known), key=lambda one: (one[1].dated, one[0]))[1]
    nearest = min(abs(one.dated - year) for one in known)
    near = [(one.dated, i, one) for i, one in enumerate(known) if abs(one.dated - year) == nearest]
    return max(near, key=lambda one: one[:2])[2]


def figures(zone: str, *, where: str = "") -> list[GridIntensity]:
    """All figures of one zone, of any year and source, in the order of the file; at least one.

    Raises UnknownName with the nearest zones.
    """
    found = _by_name(table.overlay_folder())
    wanted = _folded(zone)
    if wanted not in found:
        known = {name for one in zones() for name in (one.zone, one.name)}
        raise UnknownName("grid zone", zone, known, where=where)
    return list(_by_zone(table.overlay_folder())[found[wanted]])


def zones() -> list[GridIntensity]:
    """All figures of all zones, in the order of the file."""
    return [one for one, _ in _all(table.overlay_folder())]


def within(zone: str) -> list[str]:
    """Codes of a zone and of the country it lies in, where that can be told, the zone first.

    "US-CA" and "SE3" begin with their country, a region's name ends with it ("Paris France"), an
    American region of AWS says "us". Raises UnknownName for the zone.
    """
    one = figures(zone)[0]
    found = _by_name(table.overlay_folder())
    words = one.name.split()
    hints = [one.zone[:2]] if one.kind in ("state", "province", "bidding zone") else []
    if one.kind == "cloud region":
        hints = [one.zone.partition(":")[2].partition("-")[0]] if one.zone.startswith("aws:us-") \
            else [" ".join(words[-2:]), words[-1]]
    named = (found.get(_folded(hint)) for hint in hints)
    countries = [code for code in named if code and figures(code)[0].kind == "country"]
    return [one.zone, *countries][:2]


def hours(zone: str) -> Mapping[int, float]:
    """g CO2e a kWh of a zone by hour of the day, 0 to 23; empty where no profile is known.

    Raises UnknownName for the zone, InputError for a profile that lacks an hour.
    """
    code = figures(zone)[0].zone
    found = _profiles(table.overlay_folder()).get(_folded(code), {})
    missing = [hour for hour in range(HOURS_A_DAY) if hour not in found]
    if found and missing:
        raise InputError(f"the profile of {code} has no hour {missing[0]}", where="grid_hours.csv",
                         mend="give each hour from 0 to 23")
    return found


def _folded(name: str) -> str:
    letters = unicodedata.normalize("NFKD", name.strip().casefold())
    plain = "".join(character for character in letters if not unicodedata.combining(character))
    return re.sub(r"[\s_:]+", "-", plain)


@functools.cache
def _profiles(overlay: Path) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for row in table.rows("grid_hours", ("zone", "hour")):
        hour = row.whole("hour")
        if hour >= HOURS_A_DAY:
            raise InputError(f"hour is {hour}", where=row.place, mend="write 0 to 23")
        found.setdefault(_folded(row.text("zone")), {})[hour] = row.number("gco2e_per_kwh")
    return found


@functools.cache
def _by_name(overlay: Path) -> dict[str, str]:
    """Zone by each folded code, alias and name."""
    names: dict[str, str] = {}
    entries = _all(overlay)
    for one, _ in entries:
        names.setdefault(_folded(one.zone), one.zone)
    for one, aliases in entries:
        for name in (*aliases, one.name):
            names.setdefault(_folded(name), one.zone)
    return names


@functools.cache
def _by_zone(overlay: Path) -> dict[str, list[GridIntensity]]:
    found: dict[str, list[GridIntensity]] = {}
    for one, _ in _all(overlay):
        found.setdefault(one.zone, []).append(one)
    return found


@functools.cache
def _all(overlay: Path) -> tuple[tuple[GridIntensity, tuple[str, ...]], ...]:
    """All figures; a person's own without a year stands in place of ours of its zone."""
    found = []
    for row in table.rows("grid", ("zone", "year", "source")):
        year = row.maybe_number("year")
        zone = GridIntensity(
            zone=row.text("zone"), name=row.maybe_text("name"),
            kind=row.maybe_text("kind"), gco2e_per_kwh=row.number("gco2e_per_kwh"),
            year=None if year is None else int(year), note=row.maybe_text("note"),
            licence=row.maybe_text("licence"), source=row.text("source"), date=row.text("date"))
        own = row.place.startswith(str(overlay)) and year is None
        found.append((zone, row.many("aliases"), own))
    settled = {_folded(zone.zone) for zone, _, own in found if own}
    named = _named([(zone, aliases) for zone, aliases, _ in found])
    return tuple(one for one, (zone, _, own) in zip(named, found, strict=True)
                 if own or _folded(zone.zone) not in settled)


def _named(found: list[tuple[GridIntensity, tuple[str, ...]]]
           ) -> list[tuple[GridIntensity, tuple[str, ...]]]:
    """Each figure with its zone's spelling, name and kind, which only one of them need state."""
    first: dict[str, GridIntensity] = {}
    for one, _ in found:
        kept = first.setdefault(_folded(one.zone), one)
        if not kept.name or not kept.kind:
            first[_folded(one.zone)] = replace(kept, name=kept.name or one.name,
                                               kind=kept.kind or one.kind)
    return [(replace(one, zone=kept.zone, name=kept.name or kept.zone, kind=kept.kind), aliases)
            for one, aliases in found for kept in (first[_folded(one.zone)],)]
