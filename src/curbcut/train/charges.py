"""What a run has used so far of money, energy and carbon: by the same accounts as its plan.

Both are linear in seconds and in kWh, so two prices of each say all, and a limit can be held
against them at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from curbcut.accounts.carbon import carbon
from curbcut.accounts.energy import JOULES_PER_KWH, energy
from curbcut.accounts.money import money
from curbcut.physics import power
from curbcut.spec import Account, Estimate, Run, measured
from curbcut.train.session import Session

HOUR = 3600.0
Lines = Callable[[Estimate, Estimate], Mapping[str, Estimate]]


@dataclass(frozen=True)
class Line:
    """The price of a second and of a kWh at the facility, of one line of an account."""

    a_second: float
    a_kwh: float

    def of(self, seconds: float, kwh: float) -> float:
        """The line for so much of both."""
        return self.a_second * seconds + self.a_kwh * kwh


@dataclass(frozen=True)
class Prices:
    """What seconds and kWh of one run cost; None where the accounts cannot know it."""

    usd: Line | None
    kgco2e: Line | None
    facility_watts: float | None
    """Modelled, at the facility."""


_last: list[tuple[Run, Prices]] = []


def prices(run: Run) -> Prices:
    """The prices of `run`, from its accounts at one hour and at one kWh; kept for the last run."""
    if not _last or _last[0][0] is not run:
        _last[:] = [(run, _prices(run))]
    return _last[0][1]


def _prices(run: Run) -> Prices:
    modelled = modelled_kwh(run, measured(HOUR, "an hour"))["facility"].value
    return Prices(
        _line(lambda s, k: money(run.machine, run.place, s, k)),
        _line(lambda s, k: carbon(run.machine, run.place, s, k)),
        None if modelled is None else modelled * JOULES_PER_KWH / HOUR)


def modelled_kwh(run: Run, seconds: Estimate) -> Mapping[str, Estimate]:
    """kWh by boundary of `seconds` on the run's machine, as the plan models them."""
    return energy(run.machine, run.place, seconds, run.recipe, power.of_run(run))


def _line(lines: Lines) -> Line | None:
    hours = lines(measured(HOUR, ""), measured(0.0, "")).get("total")
    kwh = lines(measured(0.0, ""), measured(1.0, "")).get("total")
    if hours is None or kwh is None or hours.value is None or kwh.value is None:
        return None
    return Line(hours.value / HOUR, kwh.value)


def charged_seconds(session: Session) -> float:
    """Seconds that are paid for: what is rented also while it is down, what is owned is not busy
    then.
    """
    rented = session.run.place.tenure == "rent"
    return session.total_seconds - (0.0 if rented else session.seconds.get("down", 0.0))


def kwh(session: Session) -> float | None:
    """kWh at the facility so far: what sensors counted times PUE, or what is modelled if more;
    sensors see the devices only.
    """
    watts = prices(session.run).facility_watts
    modelled = None if watts is None else watts * charged_seconds(session) / JOULES_PER_KWH
    if session.joules is None:
        return modelled
    counted = session.joules / JOULES_PER_KWH * session.run.place.pue
    return max(counted, modelled or 0.0)


def usd(session: Session) -> float | None:
    """US dollars so far; None where no price is known."""
    return _used(session, prices(session.run).usd)


def kgco2e(session: Session) -> float | None:
    """Carbon so far, operational and embodied; None where it is not known."""
    return _used(session, prices(session.run).kgco2e)


def _used(session: Session, line: Line | None) -> float | None:
    used = kwh(session)
    if line is None or (used is None and line.a_kwh):
        return None
    return line.of(charged_seconds(session), used or 0.0)


def a_second(session: Session) -> dict[str, float | None]:
    """What the next second will take, by limit: "money", "energy", "carbon" and "time"."""
    known = prices(session.run)
    drawn = (known.facility_watts or 0.0) / JOULES_PER_KWH
    if session.total_seconds > 0 and (used := kwh(session)) is not None:
        drawn = max(drawn, used / session.total_seconds)
    return {"time": 1.0, "energy": drawn,
            "money": known.usd.of(1.0, drawn) if known.usd else None,
            "carbon": known.kgco2e.of(1.0, drawn) if known.kgco2e else None}


def promised(forecast: Account, section: str, kind: str) -> float | None:
    """A figure of the forecast, where it has one."""
    found = forecast.get(section, kind)
    return found.value if found else None
