"""A small market that tests of backwards plans buy on: two accelerators in four counts."""

from __future__ import annotations

import functools

from curbcut.plan import machines
from curbcut.plan.backwards import build, family, fleets
from curbcut.plan.backwards.choices import Choices
from curbcut.plan.backwards.fleets import Fleet
from curbcut.plan.backwards.question import Question
from curbcut.spec.nouns import Machine, ModelShape, Place

RENTED = Place(tenure="rent", pue=1.25, zone="FRA")
COUNTS = (1, 4, 8, 16)
DAY = 86400.0


def machine(name: str) -> Machine:
    """A fleet of the facts."""
    return machines.build(machines.from_facts(name))


@functools.cache
def market() -> tuple[Fleet, ...]:
    """H100 and A100 in a few counts."""
    return tuple(fleets.fleet([machine(f"{count}x{name}") for count in COUNTS], RENTED)
                 for name in ("H100", "A100"))


@functools.cache
def shapes() -> tuple[ModelShape, ...]:
    """Every third shape up to 20 billion parameters."""
    return tuple(one for one in family.family() if one.parameters < 2e10)[::3]


@functools.cache
def _priced() -> Choices:
    return build.build(Question({"usd": 1e4, "seconds": 30 * DAY}), market(), shapes())


def choices(question: Question) -> Choices:
    """The market's choices under the question's limits; priced once for all tests."""
    return _priced().with_question(question)


def limited(**limits: float) -> Question:
    """A question of so many dollars, kWh, kg and seconds (a month where none is said)."""
    return Question({"seconds": 30 * DAY} | limits)
