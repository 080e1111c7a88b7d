"""What a meter tells: a request's share, and where everything went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from curbcut.ledger.meterings import MeteringKind

Known = Literal["measured", "modelled", ""]
_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True)
class Share:
    """What a request took of the machine; None where nothing is known of it."""

    millijoules: int | None = None
    """Of the devices: accelerators, or a CPU's cores and memory."""
    basis: Known = ""
    """Whether the joules are a counter's or a model's."""
    cost_nanousd: int | None = None
    """Machine's time, and energy of the facility where it is not in the rent."""
    engine_seconds: float | None = None
    """Its shares of the steps that it was in."""


@dataclass(frozen=True)
class Sum:
    """Some of everything, in whole units; None where not known."""

    millijoules: int | None
    nanousd: int | None
    kgco2e: float | None
    seconds: float

    def less(self, other: Sum) -> Sum:
        """The difference."""
        return Sum(_less(self.millijoules, other.millijoules), _less(self.nanousd, other.nanousd),
                   _less(self.kgco2e, other.kgco2e), self.seconds - other.seconds)

    def plus(self, other: Sum) -> Sum:
        """Both together."""
        return self.less(Sum(0, 0, 0.0, 0.0).less(other))


@dataclass(frozen=True)
class Where:
    """Where all of it went, since the start."""

    sums: Mapping[tuple[str, MeteringKind], Sum]
    """By model ("" for rest and correction) and kind."""
    counted: Sum
    """All of it, done with: the sums and what is under way."""
    under_way: Sum
    basis: Known


def _less(one: _Number | None, other: _Number | None) -> _Number | None:
    return None if one is None or other is None else one - other
