"""All trends and the barrier map together: what `curbcut trend` shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from curbcut.accounts.epoch import Costs
from curbcut.errors import InputError
from curbcut.plan.trend import barrier, capability, frontier, hardware
from curbcut.plan.trend.barrier import Reach
from curbcut.plan.trend.capability import Again, Factor, Task
from curbcut.plan.trend.frontier import Frontier
from curbcut.plan.trend.hardware import Pace
from curbcut.plan.trend.ladder import Ladder, ladder
from curbcut.spec.estimate import given

YEARS_AWAY = (-6, -4, -2, 2, 4)
"""Years past and ahead of the newest price that the map shows."""
FIRST_YEAR, LAST_YEAR = 2010, 2050
"""Years that a trend may be asked about at all."""


@dataclass(frozen=True)
class Outlook:
    """Everything at once; figures in US dollars."""

    frontier: tuple[Frontier, ...]
    paces: tuple[Pace, ...]
    factors: tuple[Factor, ...]
    tasks: tuple[Task, ...]
    again: tuple[Again, ...]
    """Published language models at today's price of their arithmetic, oldest first."""
    ladder: Ladder
    year: float
    """That `reaches` are of."""
    reaches: tuple[Reach, ...]
    """One a budget."""
    by_year: tuple[tuple[Reach, ...], ...]
    """The same budgets in other years, a tuple a year, `year` among them."""
    curves: tuple[tuple[Reach, ...], ...]
    """All powers of ten in `year`, today, and in the first and the last of those: a picture's."""
    asked: bool
    """Whether `reaches` are of budgets that somebody named."""


def outlook(budgets_usd: Sequence[float] = (), year: float | None = None) -> Outlook:
    """Every trend of the facts; the map for some budgets (all powers of ten from 100 to 10^9) in a
    year (that of the newest price). Raises InputError for a year far outside or a budget of none.
    """
    if year is not None and not FIRST_YEAR <= year <= LAST_YEAR:
        raise InputError(f"{year:g} is too far for a trend of prices", where="--year",
                         mend=f"nearest: {min(max(year, FIRST_YEAR), LAST_YEAR):g}")
    for usd in budgets_usd:
        if not (math.isfinite(usd) and usd > 0):
            raise InputError(f"a budget of {usd:g} buys nothing", where="--budget",
                             mend='give an amount above 0, like "500 EUR"')
    costs = frontier.costs()
    paces = hardware.paces()
    rented, bought = (hardware.pace(paces, "16-bit", way) for way in ("rent", "purchase"))
    rent = rented.line if rented else None
    today = ladder()
    wanted = today.year if year is None or int(year) == int(today.year) else year
    budgets = tuple(budgets_usd) or barrier.BUDGETS_USD

    def row(when: float, budgets: Sequence[float] = budgets) -> tuple[Reach, ...]:
        progress = (given(1.0, "today's algorithms") if when == today.year
                    else capability.algorithms(today.year, when))
        return tuple(barrier.reach(today, usd, when, rent, progress) for usd in budgets)

    shown = {wanted, today.year} | (
        {math.floor(today.year) + away for away in YEARS_AWAY} if rent else set())
    by_year = {when: row(float(when)) for when in sorted(shown)}
    curves = (row(float(when), barrier.BUDGETS_USD) for when in dict.fromkeys(
        (wanted, today.year, min(shown), max(shown))))
    return Outlook(
        frontier=frontier.frontier(costs), paces=paces,
        factors=capability.factors(rent, bought.line if bought else None),
        tasks=capability.tasks(), again=tuple(_again(costs, today)), ladder=today,
        year=float(wanted), reaches=by_year[wanted], by_year=tuple(by_year.values()),
        curves=tuple(curves), asked=bool(budgets_usd))


def _again(costs: Sequence[Costs], today: Ladder) -> list[Again]:
    found = []
    for one in capability.yardsticks(tuple(costs)):
        model, way = one.model, one.amortised
        assert way and model.parameters and model.compute_flops
        now = today.usd(model.compute_flops)
        found.append(Again(model.name, model.published, model.parameters, model.compute_flops,
                           way.usd_2023, one.cloud.usd_2023 if one.cloud else None,
                           replace(now, source=f"{now.source}, its arithmetic at the price of a "
                                   "training-optimal model's")))
    return found
