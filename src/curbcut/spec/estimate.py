"""`Estimate`: the only way a figure reaches a person."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

Basis = Literal["measured", "modelled", "default", "given"]
Z90 = 1.6448536269514722
"""Standard deviations from the middle to the 5% and 95% quantiles of a normal distribution."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval, how it was come by, and the source.

    `value` is None when it is not known ("not measured" is never 0); `low` and `high` bound a
    90% interval unless `source` says otherwise.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    basis: Basis = "modelled"
    source: str = ""

    def __post_init__(self) -> None:
        """Fill a missing interval with the value itself, and hold low <= value <= high."""
        if self.value is None:
            return
        object.__setattr__(self, "low", self.value if self.low is None else self.low)
        object.__setattr__(self, "high", self.value if self.high is None else self.high)
        assert self.low is not None and self.high is not None
        if math.isfinite(self.value) and not self.low <= self.value <= self.high:
            raise ValueError(f"interval [{self.low}, {self.high}] does not hold {self.value}")

    @property
    def known(self) -> bool:
        """Whether there is a figure at all."""
        return self.value is not None

    def contains(self, value: float) -> bool:
        """Whether `value` lies in the interval; False when nothing is known."""
        return self.low is not None and self.high is not None and self.low <= value <= self.high

    def scaled(self, factor: float, source: str = "") -> Estimate:
        """This estimate times an exact non-negative `factor`."""
        if self.value is None:
            return self
        assert self.low is not None and self.high is not None
        return replace(self, value=self.value * factor, low=self.low * factor,
                       high=self.high * factor, source=source or self.source)

    def times(self, other: Estimate, source: str = "") -> Estimate:
        """Product with an independent estimate; log-widths add in quadrature."""
        return _combined(self, other, lambda a, b: a * b, lambda a, b: math.hypot(a, b), source)

    def plus(self, other: Estimate, source: str = "") -> Estimate:
        """Sum with another estimate; intervals add (no independence assumed)."""
        if self.value is None or other.value is None:
            return unknown(source or self.source or other.source)
        assert self.low is not None and self.high is not None
        assert other.low is not None and other.high is not None
        return Estimate(self.value + other.value, self.low + other.low, self.high + other.high,
                        weaker(self.basis, other.basis), source or self.source)


def measured(value: float, source: str) -> Estimate:
    """A figure read from a sensor, a clock or a counter."""
    return Estimate(value, value, value, "measured", source)


def modelled(value: float, spread: float, source: str) -> Estimate:
    """A computed figure, believed to a factor of `spread` (>= 1) either way."""
    return Estimate(value, value / spread, value * spread, "modelled", source)


def given(value: float, source: str) -> Estimate:
    """A figure that the person stated."""
    return Estimate(value, value, value, "given", source)


def unknown(source: str, basis: Basis = "measured") -> Estimate:
    """Not known: the source says why."""
    return Estimate(None, None, None, basis, source)


def weaker(a: Basis, b: Basis) -> Basis:
    """The basis of a combination: as weak as its weakest part."""
    order: tuple[Basis, ...] = ("measured", "given", "modelled", "default")
    return max(a, b, key=order.index)


def _combined(a: Estimate, b: Estimate, value: Callable[[float, float], float],
              spread: Callable[[float, float], float], source: str) -> Estimate:
    if a.value is None or b.value is None:
        return unknown(source or a.source or b.source)
    assert a.low is not None and a.high is not None and b.low is not None and b.high is not None
    middle = value(a.value, b.value)
    if min(a.low, b.low) <= 0 or a.value <= 0 or b.value <= 0:
        return Estimate(middle, value(a.low, b.low), value(a.high, b.high),
                        weaker(a.basis, b.basis), source or a.source)
    down = spread(math.log(a.value / a.low), math.log(b.value / b.low))
    up = spread(math.log(a.high / a.value), math.log(b.high / b.value))
    return Estimate(middle, middle * math.exp(-down), middle * math.exp(up),
                    weaker(a.basis, b.basis), source or a.source)
