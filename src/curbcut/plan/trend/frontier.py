"""What the largest trainings cost, by publication (arXiv:2405.21015)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal, get_args

from curbcut.accounts import epoch
from curbcut.plan.trend.line import Line, fit, year_of

Approach = Literal["amortised", "acquisition", "cloud"]
APPROACHES: tuple[Approach, ...] = get_args(Approach)


@dataclass(frozen=True)
class Point:
    """One model's cost by one approach."""

    name: str
    published: date
    usd: float
    """In dollars of December 2023."""
    usd_nominal: float
    basis: str

    @property
    def year(self) -> float:
        """Day of publication as a decimal year."""
        return year_of(self.published)


@dataclass(frozen=True)
class Frontier:
    """All models to which an approach gives a cost, oldest first, and the line through them."""

    approach: Approach
    points: tuple[Point, ...]
    line: Line | None
    without: int
    """Models to which it gives none."""


def costs() -> tuple[epoch.Costs, ...]:
    """Every model of Epoch's table by the three approaches."""
    return tuple(epoch.three(one) for one in epoch.models())


def frontier(found: tuple[epoch.Costs, ...]) -> tuple[Frontier, ...]:
    """The trend by each approach; the headline is the first."""
    return tuple(_by(approach, found) for approach in APPROACHES)


def _by(approach: Approach, found: tuple[epoch.Costs, ...]) -> Frontier:
    points = []
    for one in found:
        way: epoch.Way | None = getattr(one, approach)
        if way is not None:
            points.append(Point(one.model.name, one.model.published, way.usd_2023, way.usd,
                                way.basis))
    points.sort(key=lambda point: (point.published, point.name))
    return Frontier(approach, tuple(points),
                    fit([point.year for point in points], [point.usd for point in points]),
                    len(found) - len(points))
