"""A case priced in one unit, and what a change of it saves, with the interval of the difference.

Two cases of one run share nearly everything that is uncertain: the price of the machine, the grid,
how far the time model is off. What both have in common cancels in their ratio. What a lever
changes does not: a leaf of the sheet that differs is moved to its ends alone on either side, a
factor of the literature within its interval, and where the operations changed, the ratio of two
steps of one stack is believed as far as published pairs of runs bear it out. Effects add in
squares, as logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from curbcut.accounts import energy
from curbcut.accounts.sheet import Sheet
from curbcut.errors import InputError, UnknownName
from curbcut.facts import constants, currency
from curbcut.physics import power, power_cap, time
from curbcut.plan.levers.case import Case
from curbcut.plan.levers.result import Unit
from curbcut.spec.estimate import Z90, Estimate

SHARE, FLOOR = "lever_step_ratio_share", "lever_layout_floor"
"""Constants of the facts: standard deviation of log(measured / predicted ratio of two recipes'
steps), as a share of the predicted one, and of layouts at least."""
SAME_LAYOUT = ("precision", "compile", "optimiser", "learning_rate", "schedule", "power_limit",
               "checkpoint_every_steps", "evaluate_every_steps", "outer_steps")
"""Fields of a recipe that leave its layout as it is."""
ROUNDING = 1e-5
"""Shares below this are what whole steps and floats leave over."""
COMMON = ("step.", "seconds.data", "run.", "evaluation.", "start.", "faults.", "tokens", "flops",
          "mfu", "hfu", "loss", "memory", "development.", "machine.", "goodput")
"""Leaves that follow the step, its length or what the project runs beside it: their difference is
the lever's own, which is counted by its factors and by the ratio of the steps."""
OF_CHIP = ("power.",)
"""Leaves of one model of the accelerator: off alike for two recipes on it."""
OF_DISK = ("seconds.checkpoint",)
"""Leaves of the disk, which is the same for both: off alike however often it is written to."""
RENT = "rent."
_UNITS = {
    "usd": Unit("usd", "usd", ("usd.project", "usd.total")),
    "kwh": Unit("kwh", "kwh", ("kwh.project", "kwh.facility")),
    "kg": Unit("kg", "kgco2e", ("kgco2e.project", "kgco2e.total")),
    "hours": Unit("hours", "seconds", ("seconds.total",)),
    "litres": Unit("litres", "litres", ("litres.water",)),
}
_ALSO = {"money": "usd", "energy": "kwh", "carbon": "kg", "kgco2e": "kg", "time": "hours",
         "h": "hours", "hour": "hours", "water": "litres", "l": "litres"}


def unit(name: str) -> Unit:
    """The unit of a name or a currency; raises UnknownName with the nearest."""
    wanted = name.strip().casefold()
    wanted = _ALSO.get(wanted, wanted)
    if wanted in _UNITS:
        return _UNITS[wanted]
    try:
        code = currency.usd_per(wanted.upper()).code
    except UnknownName:
        codes = [one.casefold() for one in currency.codes()]
        raise UnknownName("unit", name, [*_UNITS, *_ALSO, *codes], where="--unit") from None
    usd = _UNITS["usd"]
    return Unit(code, usd.dimension, usd.keys, code)


@dataclass(frozen=True, eq=False)
class Priced:
    """A case, its sheet, and the whole in the unit."""

    case: Case
    sheet: Sheet
    unit: Unit

    @cached_property
    def key(self) -> str:
        """The figure that says the whole; "" where none is known."""
        return next((one for one in self.unit.keys
                     if one in self.sheet and self.sheet.value(one) is not None), "")

    @cached_property
    def value(self) -> float:
        """The whole; infinite where it is not known."""
        found = self.sheet.value(self.key) if self.key else None
        return math.inf if found is None else float(found)

    @cached_property
    def seconds(self) -> float:
        """The run's own time."""
        found = self.sheet.value("seconds.total")
        return math.inf if found is None else float(found)

    @cached_property
    def estimate(self) -> Estimate:
        """The whole with its interval."""
        return self.sheet.estimates()[self.key]

    @cached_property
    def pulls(self) -> Mapping[str, tuple[float, float]]:
        """By leaf: log of the whole at its ends over the whole."""
        return {name: (_log(low / self.value), _log(high / self.value))
                for name, low, high in self.sheet.influences(self.key)}


def priced(case: Case, chosen: Unit) -> Priced:
    """A case priced."""
    return Priced(case, case.sheet(), chosen)


def start(case: Case, chosen: Unit) -> Priced:
    """The run as it is; raises InputError where the unit is not known of it."""
    return start_of(priced(case, chosen))


def start_of(found: Priced, why: str = "") -> Priced:
    """What levers start from; raises InputError where the unit is not known of it."""
    if math.isinf(found.value):
        key = next((one for one in reversed(found.unit.keys) if one in found.sheet), "")
        why = found.sheet[key].estimate.source if key else why or "the plan has no such figure"
        raise InputError(f"the {found.unit.name} of this run is not known: {why}", where="--unit",
                         mend="choose another: usd, kwh, kg or hours")
    return found


def saved(before: Priced, after: Priced) -> Estimate:
    """What `after` takes less than `before`, in the unit, with the interval of the difference."""
    return of_whole(saved_share(before, after), before)


def of_whole(share: Estimate, before: Priced) -> Estimate:
    """A share of `before` in the unit; it may be negative."""
    assert share.value is not None and share.low is not None and share.high is not None
    whole = before.value
    return Estimate(share.value * whole, share.low * whole, share.high * whole, "modelled",
                    share.source)


def end_of(first: Priced, last: Priced) -> Estimate:
    """The whole of `last` with all that is uncertain of it: its own leaves, and the literature's
    factors that `first` has not.
    """
    own = last.estimate
    assert own.value is not None and own.low is not None and own.high is not None
    down, up = _squares([(_log(own.low / own.value), _log(own.high / own.value)),
                         *_factors(first, last)])
    return replace(own, low=own.value * math.exp(-down), high=own.value * math.exp(up))


def saved_share(before: Priced, after: Priced) -> Estimate:
    """The same as a share of `before`: 1 - after / before."""
    ratio = after.value / before.value
    down, up = _spread(before, after)
    ends = (1 - ratio * math.exp(up), 1 - ratio, 1 - ratio * math.exp(-down))
    low, value, high = (0.0 if abs(one) < ROUNDING else one for one in ends)
    return Estimate(value, low, high, "modelled", "re-priced; what both have in common cancels")


def _spread(before: Priced, after: Priced) -> tuple[float, float]:
    """Half-widths of log(after / before), down and up."""
    down, up = _squares([*_leaves(before, after), *_factors(before, after),
                         *_caps(before, after)])
    step = _step_ratio(before, after)
    return math.hypot(down, step), math.hypot(up, step)


def _squares(effects: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """Half-widths, down and up, of effects that add in squares."""
    down = up = 0.0
    for low, high in effects:
        for end in (low, high):
            if end < 0:
                down = math.hypot(down, end)
            else:
                up = math.hypot(up, end)
    return down, up


def _leaves(before: Priced, after: Priced) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    same_chip = before.case.run.machine.accelerator == after.case.run.machine.accelerator
    paired = _paired(before, after) if same_chip else {}
    for old_name, new_name in paired.items():
        one, other = before.pulls[old_name], after.pulls[new_name]
        found.append((other[0] - one[0], other[1] - one[1]))
    for name in {**before.pulls, **after.pulls}:
        if name.startswith(COMMON) or name in paired or name in paired.values():
            continue
        old, new = before.pulls.get(name), after.pulls.get(name)
        alike = old and new and (
            before.sheet[name].estimate == after.sheet[name].estimate
            or name.startswith(OF_DISK) or (same_chip and name.startswith(OF_CHIP)))
        if alike and old and new:
            found.append((new[0] - old[0], new[1] - old[1]))
        else:
            found += [(-old[1], -old[0])] if old else []
            found += [new] if new else []
    return found


def _paired(before: Priced, after: Priced) -> dict[str, str]:
    """Prices of one chip by two contracts: who is dear for the one is dear for the other."""
    old = [name for name in before.pulls if name.startswith(RENT) and name not in after.pulls]
    new = [name for name in after.pulls if name.startswith(RENT) and name not in before.pulls]
    return dict(zip(old, new, strict=False))


def _factors(before: Priced, after: Priced) -> list[tuple[float, float]]:
    """What each factor that only one side has does to the ratio at its ends."""
    found = []
    for side, other, sign in ((after, before, 1.0), (before, after, -1.0)):
        known = set(other.case.factors)
        for one in side.case.factors:
            if one not in known and one.low != one.high:
                low, high = (sign * _log(_at(side, {one.key: end}) / side.value)
                             for end in (one.low, one.high))
                found.append((low, high))
    return found


def _caps(before: Priced, after: Priced) -> list[tuple[float, float]]:
    """How far the time that a power limit adds may be off, where only one side has that limit."""
    limits = [side.case.run.recipe.power_limit for side in (before, after)]
    if limits[0] == limits[1]:
        return []
    found = []
    for side, sign in ((after, 1.0), (before, -1.0)):
        run = side.case.run
        if run.recipe.power_limit < 1.0:
            plain = Estimate(1.0, 1.0, 1.0, "modelled", "")
            slower = power_cap.stretched(plain, run.recipe, run.machine,
                                         energy.drawn_share(run.machine, power.of_run(run)))
            assert slower.value and slower.low and slower.high
            found.append((sign * _log(slower.low / slower.value),
                          sign * _log(slower.high / slower.value)))
    return found


def _at(found: Priced, moved: Mapping[str, float]) -> float:
    value = found.case.sheet(moved).value(found.key)
    return found.value if value is None else float(value)


def _step_ratio(before: Priced, after: Priced) -> float:
    """What the ratio of two steps may be off, as a logarithm to the 90% quantile."""
    old, new = before.case.run, after.case.run
    if old.serve != new.serve or (old.model != new.model and "seconds.steps" not in after.sheet):
        return _believed(_log(after.seconds / before.seconds))
    if (old.model, old.recipe, old.machine) == (new.model, new.recipe, new.machine):
        return 0.0
    steps = [time.step_seconds(run.model, run.recipe, run.machine) for run in (old, new)]
    if any(one.value is None for one in steps):
        return 0.0
    if old.machine.accelerator != new.machine.accelerator:
        own = [math.log(one.high / one.value) for one in steps if one.high and one.value]
        return math.hypot(*own)
    assert steps[0].value is not None and steps[1].value is not None
    each = [one.value * run.steps for one, run in zip(steps, (old, new), strict=True)
            if one.value is not None]
    kept = {name: getattr(old.recipe, name) for name in SAME_LAYOUT}
    moved = old.model != new.model or old.recipe != replace(new.recipe, **kept)
    return _believed(_log(each[1] / each[0]), moved)


def _believed(ratio: float, moved: bool = False) -> float:
    """Half of the 90% interval of a predicted log ratio of two steps; `moved` if layouts differ."""
    share, floor = (constants.constant(name).value for name in (SHARE, FLOOR))
    return Z90 * math.hypot(share * ratio, floor if moved else 0.0)


def _log(ratio: float) -> float:
    return math.log(ratio) if ratio > 0 else -50.0
