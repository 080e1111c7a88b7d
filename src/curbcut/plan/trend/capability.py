"""One capability at different times: what arithmetic costs and what algorithms need, kept apart.

Cost of a fixed capability = arithmetic it takes x price of arithmetic. Each falls at its own rate
with its own source; their product is no measurement, so records that were measured stand beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from curbcut.accounts import epoch
from curbcut.facts import capability
from curbcut.facts.capability import Record
from curbcut.plan.trend.line import Line, fit, year_of
from curbcut.spec.estimate import Estimate

LEAST_COMPUTE = 1e17
"""FLOPs below which a model of the facts is no yardstick of today."""


@dataclass(frozen=True)
class Factor:
    """How many times less one thing takes from year to year."""

    name: str
    yearly: Estimate
    """Above 1: it falls."""


@dataclass(frozen=True)
class Task:
    """All records of one task, oldest first."""

    records: tuple[Record, ...]
    line: Line | None

    @property
    def name(self) -> str:
        """The task."""
        return self.records[0].task

    @property
    def factor(self) -> float:
        """How many times less the last record took than the first."""
        return self.records[0].value / self.records[-1].value

    @property
    def years(self) -> float:
        """Between the first and the last record."""
        return year_of(self.records[-1].day) - year_of(self.records[0].day)

    @property
    def yearly(self) -> float:
        """The factor a year, from the first record to the last."""
        return float(self.factor ** (1 / self.years)) if self.years else 1.0


@dataclass(frozen=True)
class Again:
    """A published training and what the same arithmetic costs today."""

    name: str
    published: date
    parameters: float
    compute_flops: float
    owned_usd: float
    """Amortised hardware and energy then, dollars of December 2023."""
    rented_usd: float | None
    """Rent of the cloud then, dollars of December 2023."""
    now: Estimate
    """Rent today on the best-value machine."""

    @property
    def factor(self) -> float | None:
        """How many times less rent the same arithmetic takes today; None where one is not known."""
        if self.rented_usd is None or not self.now.value:
            return None
        return self.rented_usd / self.now.value


def factors(rent: Line | None, purchase: Line | None) -> tuple[Factor, ...]:
    """Price of arithmetic, rented and bought; algorithms; and the product of rent and algorithms.

    A line that the facts do not have is left out.
    """
    found = [Factor(f"{way} of 16-bit arithmetic", line.growth)
             for way, line in (("rent", rent), ("purchase", purchase)) if line is not None]
    published = capability.rate("gpu_price_performance_doubling")
    found.append(Factor("purchase, published", _yearly(
        published.value, published.low, published.high, 1.0,
        f"{published.source}; 95% interval")))
    halving = capability.rate("algorithmic_halving")
    algorithms = _yearly(halving.value, halving.low, halving.high, 12.0,
                         f"{halving.source}; 90% interval")
    found.append(Factor("algorithms", algorithms))
    if rent is not None:
        found.append(Factor("rent x algorithms", rent.growth.times(
            algorithms, "product of the two, taken as independent")))
    return tuple(found)


def algorithms(start: float, end: float) -> Estimate:
    """How many times less arithmetic a capability takes in year `end` than in `start`."""
    halving = capability.rate("algorithmic_halving")
    months = 12 * (end - start)
    ends = sorted(2 ** (months / each) for each in (halving.low, halving.high))
    return Estimate(2 ** (months / halving.value), ends[0], ends[1], "modelled", halving.source)


def _yearly(value: float, low: float, high: float, a_year: float, source: str) -> Estimate:
    """A halving or doubling time as a factor a year; the long end is the low factor."""
    return Estimate(2 ** (a_year / value), 2 ** (a_year / high), 2 ** (a_year / low), "default",
                    source)


def tasks() -> tuple[Task, ...]:
    """The measured records by task."""
    by_task: dict[str, list[Record]] = {}
    for one in capability.records():
        by_task.setdefault(one.task, []).append(one)
    return tuple(Task(tuple(found), fit([year_of(one.day) for one in found],
                                        [one.value for one in found]))
                 for found in by_task.values())


def yardsticks(found: tuple[epoch.Costs, ...]) -> list[epoch.Costs]:
    """Language models of which size, compute and cost are known, and whose cost is their own."""
    return sorted((one for one in found
                   if one.amortised and one.model.parameters and one.model.compute_flops
                   and one.model.compute_flops >= LEAST_COMPUTE and not one.model.base_model
                   and "Language" in one.model.domains),
                  key=lambda one: (one.model.published, one.model.name))
