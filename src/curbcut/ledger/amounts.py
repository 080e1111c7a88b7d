"""What is held and charged, in whole numbers: tokens, nanodollars, millijoules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, overload

Unit = Literal["tokens", "nanousd", "millijoules"]
UNITS: tuple[Unit, ...] = ("tokens", "nanousd", "millijoules")
NAMES: Mapping[Unit, str] = {"tokens": "tokens", "nanousd": "usd", "millijoules": "kwh"}
"""What people call what they count in."""
NANO = 1_000_000_000
MILLIJOULES_PER_KWH = 3_600_000_000
MOST = 2**62
"""Below it is what a budget may be: balances still fit a column."""


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


@overload
def usd(nanousd: int) -> float: ...
@overload
def usd(nanousd: int | None) -> float | None: ...
def usd(nanousd: int | None) -> float | None:
    """Nanodollars as dollars; what is not known stays None."""
    return None if nanousd is None else nanousd / NANO


@overload
def kwh(millijoules: int) -> float: ...
@overload
def kwh(millijoules: int | None) -> float | None: ...
def kwh(millijoules: int | None) -> float | None:
    """Millijoules as kWh; what is not known stays None."""
    return None if millijoules is None else millijoules / MILLIJOULES_PER_KWH
