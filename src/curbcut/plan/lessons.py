"""What a few measured runs teach of named constants, at first order around the facts.

log(measured / predicted) of a run is the sum over constants of (slope of log(predicted) by the
constant's logarithm) x (logarithm of the constant's factor), plus what no constant says of its
methods, plus noise. Factors are normal around 1, noise is Student-t: Bayesian linear regression,
solved in the space of the runs (Rasmussen and Williams 2006, section 2.1.2), for they are few. By
what no constant is believed to be off, runs are off as a whole: that moves every recipe alike.
This is one step of the descent of `fit`, whose tables of hundreds of rows want more of them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FREEDOM = 4.0
"""Degrees of freedom of the noise: a sick run bends little."""
MOST = math.log(2.0)
"""How far the middle of the runs' logarithms may be off for constants to explain it."""
NOISE_WORTH = 2.0
"""Runs that the belief about noise is worth."""
ROUNDS = 8
FEW = 10
FEW_REACH, REACH = 2.5, 1.645
"""Standard deviations either way of a 90% interval, with fewer runs than `FEW` and with more."""


@dataclass(frozen=True)
class Belief:
    """What is thought of one measured figure before any run: standard deviations of logarithms."""

    spreads: Mapping[str, float]
    """Of the factor of each constant."""
    noise: float
    """Between runs of one recipe on a shared machine."""
    apart: float
    """Of what runs by one set of methods are off by, that others' are not."""


@dataclass(frozen=True)
class Measured:
    """One measured run."""

    log_ratio: float
    """log(measured / predicted)."""
    slopes: Mapping[str, float]
    """By constant: how log(predicted) moves with the constant's logarithm."""
    methods: Any
    """Runs with the same share what no constant explains."""


@dataclass(frozen=True)
class Factor:
    """A factor and the ends of its 90% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Lesson:
    """What runs of one kind taught together."""

    runs: Sequence[Measured]
    belief: Belief
    noise: float
    """As these runs show it."""
    inverse: Sequence[Sequence[float]]
    """Of the runs' covariance, noise included."""
    beyond: float
    """Logarithm of the factor by which all runs are off as a whole."""

    def of(self, slopes: Mapping[str, float], methods: Any) -> Factor:
        """The factor on the prediction of a recipe, with what one more run of it may be off by."""
        asked = Measured(0.0, slopes, methods)
        shared = [_alike(asked, one, self.belief) for one in self.runs]
        own = self._factor(shared, _alike(asked, asked, self.belief) + self.noise ** 2)
        all_ = math.exp(self.beyond)
        return Factor(all_ * own.value, all_ * own.low, all_ * own.high)

    def constant(self, name: str) -> Factor:
        """The factor of one constant."""
        square = self.belief.spreads[name] ** 2
        return self._factor([square * one.slopes.get(name, 0.0) for one in self.runs], square)

    def _factor(self, shared: Sequence[float], before: float) -> Factor:
        pulls = [_dot(row, shared) for row in self.inverse]
        middle = _dot(pulls, [one.log_ratio - self.beyond for one in self.runs])
        width = math.sqrt(max(0.0, before - _dot(pulls, shared)))
        reach = (FEW_REACH if len(self.runs) < FEW else REACH) * width
        return Factor(*(math.exp(at) for at in (middle, middle - reach, middle + reach)))


def learn(runs: Sequence[Measured], belief: Belief) -> Lesson | None:
    """What `runs` teach around a belief; None without any.

    Noise and each run's weight are found together, by expectation and maximisation.
    """
    if not runs:
        return None
    prior = [[_alike(one, other, belief) for other in runs] for one in runs]
    middle = statistics.median(one.log_ratio for one in runs)
    beyond = math.copysign(max(0.0, abs(middle) - MOST), middle)
    ratios = [one.log_ratio - beyond for one in runs]
    noise, weights = belief.noise, [1.0] * len(runs)
    for _ in range(ROUNDS):
        inverse = _inverse(prior, [noise ** 2 / weight for weight in weights])
        off = [noise ** 2 / weight * _dot(row, ratios)
               for row, weight in zip(inverse, weights, strict=True)]
        weights = [(FREEDOM + 1) / (FREEDOM + (each / noise) ** 2) for each in off]
        seen = sum(weight * each ** 2 for weight, each in zip(weights, off, strict=True))
        noise = math.sqrt((NOISE_WORTH * belief.noise ** 2 + seen) / (NOISE_WORTH + len(runs)))
    inverse = _inverse(prior, [noise ** 2 / weight for weight in weights])
    return Lesson(tuple(runs), belief, noise, inverse, beyond)


def _alike(one: Measured, other: Measured, belief: Belief) -> float:
    """Covariance of what the predictions of two recipes are off by."""
    found = sum(spread ** 2 * one.slopes.get(name, 0.0) * other.slopes.get(name, 0.0)
                for name, spread in belief.spreads.items())
    return found + (belief.apart ** 2 if one.methods == other.methods else 0.0)


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


def _inverse(matrix: Sequence[Sequence[float]], more: Sequence[float]) -> list[list[float]]:
    """Of a positive definite matrix with `more` on its diagonal, by elimination."""
    size = len(matrix)
    rows = [[*row, *(float(i == j) for j in range(size))] for i, row in enumerate(matrix)]
    for i in range(size):
        rows[i][i] += more[i]
    for i in range(size):
        pivot = rows[i][i]
        rows[i] = [each / pivot for each in rows[i]]
        for j in range(size):
            if j != i and (by := rows[j][i]):
                rows[j] = [a - by * b for a, b in zip(rows[j], rows[i], strict=True)]
    return [row[size:] for row in rows]
