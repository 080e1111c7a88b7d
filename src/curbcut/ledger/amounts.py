"""What is held and charged, in whole numbers: tokens, nanodollars, millijoules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Unit = Literal["tokens", "nanousd", "millijoules"]
UNITS: tuple[Unit, ...] = ("tokens", "nanousd", "millijoules")
NANO = 1_000_000_000
MILLIJOULES_PER_KWH = 3_600_000_000


@dataclass(frozen=True, kw_only=True)
class Amount:
    """Some of each unit; none of them negative."""

    tokens: int = 0
    nanousd: int = 0
    millijoules: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for a negative amount: nobody is given anything back twice."""
        if min(self.tokens, self.nanousd, self.millijoules) < 0:
            raise ValueError(f"a negative amount: {self}")

    def of(self, unit: Unit) -> int:
        """How much of one unit."""
        return int(getattr(self, unit))

    def plus(self, other: Amount) -> Amount:
        """Both together."""
        return Amount(**{unit: self.of(unit) + other.of(unit) for unit in UNITS})

    def at_most(self, other: Amount) -> Amount:
        """The smaller of each unit."""
        return Amount(**{unit: min(self.of(unit), other.of(unit)) for unit in UNITS})


def usd(nanousd: int) -> float:
    """Nanodollars as dollars."""
    return nanousd / NANO


def kwh(millijoules: int) -> float:
    """Millijoules as kWh."""
    return millijoules / MILLIJOULES_PER_KWH
