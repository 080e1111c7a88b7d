"""What the levers of a run came to: one line a lever, and those taken as a waterfall."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from curbcut.facts.levers import Evidence
from curbcut.spec.estimate import Estimate

Status = Literal["taken", "on", "left", "costs", "no change", "not here", "does not fit",
                 "instead", "what-if"]
"""taken: in the best order; on: the run has it already, and its saving is against the run without
it; left: saves alone, but nothing after the others, or a sibling that excludes it was taken;
instead: another question than this run, priced alone; what-if: stands on an open assumption; the
rest do not save."""
Scope = Literal["training", "serving"]
Group = Literal[
    "supercomputing optimisation", "data reduction", "model partitioning", "training algorithms",
    "data formats", "efficient hardware", "competitive accelerators", "buying and place",
    "development", "instead of training", "serving", "revolutionary"]
"""The seven evolutionary levers of arXiv:2404.08811 by name, then what it does not group."""
EVOLUTIONARY: tuple[Group, ...] = (
    "supercomputing optimisation", "data reduction", "model partitioning", "training algorithms",
    "data formats", "efficient hardware", "competitive accelerators")


@dataclass(frozen=True)
class Unit:
    """What a waterfall counts in."""

    name: str
    """As it is asked for: "usd", "EUR", "kwh", "kg", "hours", "litres"."""
    dimension: str
    """For `units.show`: "usd", "kwh", "kgco2e", "seconds", "litres". Figures are in its inner unit;
    money always in US dollars."""
    keys: tuple[str, ...]
    """Figures of the sheet that say it, the first known one counts."""
    currency: str = "USD"
    """That people read money in."""


@dataclass(frozen=True)
class LeverResult:
    """What one lever does to one run."""

    name: str
    """Its method in `spec.methods.CATALOGUE`."""
    group: Group
    what: str
    status: Status
    reason: str = ""
    """Why it does not apply, or what it rests on."""
    alone: Estimate | None = None
    """Saved of the whole by this lever alone, in the unit (negative: it costs)."""
    alone_share: Estimate | None = None
    """The same as a share of the start (of an `on` lever: of the run without it)."""
    order: int | None = None
    """Place in the best order, from 1; None where it was not taken."""
    marginal: Estimate | None = None
    """Saved after all taken before it, in the unit."""
    before: float | None = None
    after: float | None = None
    """The whole before and after this step of the order."""
    changed: tuple[str, ...] = ()
    """What it sets, like "recipe.precision: bf16 -> fp8"."""
    uncertain: bool = False
    """Whether the interval of what it saves holds nothing: it may save nothing at all."""
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True)
class Waterfall:
    """All levers of a run, in one unit."""

    run: str
    scope: Scope
    of: str
    """The run, in words."""
    what: str
    """What the whole is, in words."""
    unit: Unit
    start: Estimate
    end: Estimate
    """The whole after all levers taken."""
    share: Estimate
    """Saved by all levers taken together, as a share of the start: of their difference, so that
    what both have in common cancels."""
    results: tuple[LeverResult, ...]
    """Those taken in their order, then the others by status, what saves most first."""

    @property
    def steps(self) -> tuple[LeverResult, ...]:
        """Levers taken, in their order."""
        return tuple(one for one in self.results if one.order is not None)

    @property
    def factor(self) -> float:
        """How many times less the end is than the start."""
        assert self.start.value is not None and self.end.value is not None
        return self.start.value / self.end.value if self.end.value else float("inf")

    @property
    def factor_ends(self) -> tuple[float, float]:
        """Low and high of the factor."""
        assert self.share.low is not None and self.share.high is not None
        low, high = (1 / (1 - one) if one < 1 else float("inf")
                     for one in (self.share.low, self.share.high))
        return low, high

    def bars(self) -> Iterator[tuple[str, float, float]]:
        """(lever, whole before, whole after), for a picture."""
        for one in self.steps:
            assert one.before is not None and one.after is not None
            yield one.name, one.before, one.after
