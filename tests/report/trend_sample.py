"""A small outlook made by hand: tests of its tables and its picture need no market."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from types import SimpleNamespace

from curbcut.facts.capability import Record
from curbcut.plan.trend.barrier import Reach
from curbcut.plan.trend.capability import Again, Factor, Task
from curbcut.plan.trend.frontier import Frontier, Point
from curbcut.plan.trend.hardware import Offer, Pace
from curbcut.plan.trend.line import fit
from curbcut.plan.trend.outlook import Outlook
from curbcut.spec import Estimate, modelled, unknown
from tiny import tiny_run

YEAR = 2026.75
RUN = tiny_run()
RUNG = SimpleNamespace(machine=RUN.machine, shape=RUN.model, tokens=20.0 * RUN.model.parameters)
LINE = fit([2020.0, 2021.0, 2022.0, 2023.0, 2024.0, 2025.0],
           [1e6, 2.1e6, 3.9e6, 8.3e6, 15e6, 33e6])


def point(i: int) -> Point:
    return Point(f"Model {i}", date(2019 + i, 6, 1), 1e6 * 2**i, 0.9e6 * 2**i, "prices")


def reach(budget: float, year: float = YEAR, **changes) -> Reach:
    plain = {"budget_usd": budget, "year": year, "parameters": modelled(1e6 * budget, 1.5, "map"),
             "rung": RUNG, "rule_of_thumb": 0.8e6 * budget,
             "bits_per_byte": modelled(1.0, 1.2, "law"),
             "as_good_as": modelled(2e6 * budget, 3.0, "algorithms"), "basis": "today's prices",
             "seconds": 3600.0}
    return Reach(**(plain | changes))


NOTHING = reach(1e-4, parameters=unknown("too little for the smallest"), rung=None,
                rule_of_thumb=None, bits_per_byte=unknown("nothing is trained"),
                as_good_as=unknown("nothing is trained"), seconds=None)


def record(day: date, value: float, unit: str = "usd") -> Record:
    return Record(task="a grade", what="score 0.25", day=day, value=value, unit=unit,
                  machine="8 x H100", included="everything", source="a log")


def outlook(**changes) -> Outlook:
    """Seven models, two records, three budgets in three years."""
    points = tuple(point(i) for i in range(7))
    budgets = (100.0, 1000.0)
    today = (NOTHING, *(reach(one) for one in budgets))
    again = tuple(Again(f"Model {i}", date(2010 + i, 1, 1), 1e9, 1e20, 1e5,
                        None if i == 11 else 2e5, Estimate(1e3 * (i + 1), 500.0, 5e4))
                  for i in range(12))
    by_year = (tuple(replace(one, year=2023.0, basis="interpolated") for one in today), today,
               tuple(replace(one, year=2030.0, basis="extrapolated") for one in today))
    plain = {
        "frontier": (Frontier("amortised", points, LINE, 2),
                     Frontier("acquisition", points[:4], None, 5), Frontier("cloud", (), None, 9)),
        "paces": (Pace("16-bit", "rent", (Offer("H100", date(2026, 1, 1), 1e18, "book"),), LINE),
                  Pace("fp8", "purchase", (), None)),
        "factors": (Factor("arithmetic", Estimate(1.4, 1.2, 1.7, "modelled", "a survey")),),
        "tasks": (Task((record(date(2019, 2, 14), 43_000.0), record(date(2026, 1, 29), 73.0)),
                       None),),
        "again": again, "ladder": SimpleNamespace(year=YEAR), "year": YEAR, "reaches": today,
        "by_year": by_year,
        "curves": (today[1:], by_year[0][1:], by_year[2][1:]), "asked": False}
    return Outlook(**(plain | changes))
