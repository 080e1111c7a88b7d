"""Ordinary least squares of a logarithm on time, with intervals of Student's t."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from statistics import NormalDist

import numpy as np

from curbcut.spec.estimate import Estimate

CONFIDENCE = 0.95
"""Of every line here: arXiv:2405.21015 states its growth so."""
LEAST_POINTS = 5
"""Fewer are no trend."""
DAYS_A_YEAR = 365.25


def year_of(day: date) -> float:
    """A day as a decimal year: 2024-07-01 is 2024.5."""
    start = date(day.year, 1, 1)
    return day.year + (day - start).days / (date(day.year + 1, 1, 1) - start).days


@dataclass(frozen=True)
class Line:
    """log10 of a figure = intercept + slope x (year - origin)."""

    points: int
    slope: float
    """Orders of magnitude a year."""
    low: float
    high: float
    """Interval of the slope at `CONFIDENCE`."""
    intercept: float
    origin: float
    """Mean year of the points."""
    r_squared: float
    residual: float
    """Standard deviation of the points around the line, in log10."""
    quantile: float
    """Of Student's t, for half-widths."""
    spread: float
    """Sum of squares of the years around their mean."""
    first: float
    last: float
    """First and last year with a point: beyond them the line is extrapolated."""

    @property
    def growth(self) -> Estimate:
        """The factor a year."""
        return Estimate(10 ** self.slope, 10 ** self.low, 10 ** self.high, "modelled",
                        f"least squares of log10 on {self.points} points, "
                        f"{CONFIDENCE:.0%} interval, R2 {self.r_squared:.2f}")

    @property
    def doubling_years(self) -> float:
        """Years in which the figure doubles; negative where it falls, infinite where neither."""
        return math.log10(2) / self.slope if self.slope else math.inf

    def at(self, year: float) -> Estimate:
        """The line's own value in a year, with its interval (not that of a single point)."""
        middle = self.intercept + self.slope * (year - self.origin)
        half = self.quantile * self.residual * math.sqrt(
            1 / self.points + (year - self.origin) ** 2 / self.spread)
        return Estimate(10 ** middle, 10 ** (middle - half), 10 ** (middle + half), "modelled",
                        "extrapolated" if self.extrapolates(year) else "line")

    def extrapolates(self, year: float) -> bool:
        """Whether no point is that early or that late."""
        return not self.first <= year <= self.last

    def factor(self, start: float, end: float) -> Estimate:
        """By how much the figure grows from one year to another."""
        ends = sorted(10 ** (slope * (end - start)) for slope in (self.low, self.high))
        return Estimate(10 ** (self.slope * (end - start)), ends[0], ends[1], "modelled",
                        self.growth.source)


def fit(years: Sequence[float], values: Sequence[float],
        confidence: float = CONFIDENCE) -> Line | None:
    """The line through log10 of `values`, all above 0; None for too few points or years."""
    x, y = np.asarray(years, np.float64), np.log10(np.asarray(values, np.float64))
    if len(x) < LEAST_POINTS or np.ptp(x) == 0:
        return None
    origin, spread = float(x.mean()), float(np.sum((x - x.mean()) ** 2))
    slope = float(np.sum((x - origin) * y) / spread)
    intercept = float(y.mean())
    left = y - intercept - slope * (x - origin)
    freedom = len(x) - 2
    residual = math.sqrt(float(left @ left) / freedom)
    quantile = student(0.5 + confidence / 2, freedom)
    half = quantile * residual / math.sqrt(spread)
    total = float(np.sum((y - intercept) ** 2))
    return Line(points=len(x), slope=slope, low=slope - half, high=slope + half,
                intercept=intercept, origin=origin, residual=residual, quantile=quantile,
                r_squared=1 - float(left @ left) / total if total else 1.0, spread=spread,
                first=float(x.min()), last=float(x.max()))


def student(share: float, freedom: int) -> float:
    """Quantile of Student's t (Abramowitz and Stegun, 26.7.5; within 0.3% from 3 degrees on)."""
    z = NormalDist().inv_cdf(share)
    terms = ((z ** 3 + z) / 4, (5 * z ** 5 + 16 * z ** 3 + 3 * z) / 96,
             (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / 384,
             (79 * z ** 9 + 776 * z ** 7 + 1482 * z ** 5 - 1920 * z ** 3 - 945 * z) / 92160)
    return float(z + sum(term / freedom ** (i + 1) for i, term in enumerate(terms)))
