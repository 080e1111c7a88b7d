"""A sheet of named figures: what is known, what follows from it, and how far each may be off.

A figure is a leaf (an `Estimate` from the facts, the physics, a person or a sensor) or a formula of
figures written before it. Formulas are polymorphic (`physics.numbers`): evaluated once on plain
floats they give the values, on arrays a Monte Carlo. Intervals of a plan that must be there at once
are first-order, one leaf at a time to its ends; `sampled` draws every leaf from its stated
distribution instead. Tests hold the two together.

A leaf with 0 < low <= value <= high is log-normal on either side of its value, so that 5% of draws
lie below `low` and 5% above `high`; any other is normal in the same way. Draws of one key are the
same in every sheet of a seed: two accounts that differ in one method differ by that method alone.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from curbcut.errors import UnknownName
from curbcut.physics.numbers import Number
from curbcut.spec.account import UNIT_OF, Account
from curbcut.spec.estimate import Z90, Basis, Estimate, unknown, weaker

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SAMPLES = 10_000
MOST_KEPT = 4096
"""Draws of a leaf that are kept for the next sheet that has it; more would take too much room."""


@dataclass(frozen=True)
class Figure:
    """One line of a sheet."""

    key: str
    unit: str
    """Dimension for `units.show`; "" for a plain number."""
    formula: str
    """How it is computed, as people write it; "" for a leaf."""
    inputs: tuple[str, ...]
    function: Callable[..., Number] | None
    estimate: Estimate
    """A leaf's own; of a formula only basis and source count."""

    @property
    def leaf(self) -> bool:
        """Whether nothing stands below it."""
        return self.function is None

    @property
    def distribution(self) -> str:
        """How a leaf is drawn, in words."""
        low, high = self.estimate.low, self.estimate.high
        if low is None or low == high:
            return "exact"
        return "log-normal" if low > 0 else "normal"


class Sheet:
    """Figures in the order they were written; a formula may use what stands above it."""

    def __init__(self) -> None:
        self._figures: dict[str, Figure] = {}
        self._values: dict[str, Number] = {}

    def leaf(self, key: str, estimate: Estimate, unit: str = "") -> str:
        """Writes a figure that is known from elsewhere; returns its key."""
        self._write(Figure(key, unit, "", (), None, estimate), estimate.value)
        return key

    def formula(self, key: str, formula: str, inputs: Sequence[str],
                function: Callable[..., Number], unit: str = "", *, source: str = "",
                basis: Basis | None = None) -> str:
        """Writes a figure that follows from `inputs`, in the order of the function's arguments.

        It is not known where an input is not. `basis` is else the weakest of the inputs'. Raises
        UnknownName for an input that is not on the sheet.
        """
        parts = [self[name] for name in inputs]
        missing = next((part for part in parts if self._values[part.key] is None), None)
        if missing is not None:
            self._write(Figure(key, unit, formula, tuple(inputs), function,
                               unknown(missing.estimate.source, missing.estimate.basis)), None)
            return key
        value: Number = function(*(self._values[name] for name in inputs))
        found: Basis = basis or "measured"
        if basis is None:
            for part in parts:
                found = weaker(found, part.estimate.basis)
        stated = Estimate(float(value), basis=found, source=source or formula)
        self._write(Figure(key, unit, formula, tuple(inputs), function, stated), stated.value)
        return key

    def _write(self, figure: Figure, value: Number | None) -> None:
        if figure.key in self._figures:
            raise ValueError(f"{figure.key} stands on the sheet already")
        self._figures[figure.key] = figure
        self._values[figure.key] = value

    def __getitem__(self, key: str) -> Figure:
        """The figure of a key; raises UnknownName with the nearest keys."""
        if key not in self._figures:
            raise UnknownName("figure", key, self._figures)
        return self._figures[key]

    def __contains__(self, key: str) -> bool:
        return key in self._figures

    @property
    def figures(self) -> tuple[Figure, ...]:
        """All, in their order."""
        return tuple(self._figures.values())

    def value(self, key: str) -> float | None:
        """The middle of one figure; None where it is not known."""
        found: float | None = self._values[self[key].key]
        return found

    def leaves(self, key: str) -> tuple[Figure, ...]:
        """The leaves that a figure follows from, in the sheet's order; itself if it is one."""
        needed = self._needed(key)
        return tuple(figure for figure in self.figures if figure.leaf and figure.key in needed)

    def _needed(self, key: str) -> set[str]:
        """The key and all below it."""
        wanted, found = [self[key].key], set[str]()
        while wanted:
            one = wanted.pop()
            if one not in found:
                found.add(one)
                wanted += self._figures[one].inputs
        return found

    def estimates(self) -> Mapping[str, Estimate]:
        """Every figure with its first-order interval: each leaf moved to its ends alone, and the
        effects added in squares (as logarithms where all is positive).
        """
        moved = [(self._with(figure.key, figure.estimate.low), self._with(
            figure.key, figure.estimate.high)) for figure in self.figures
            if figure.leaf and figure.distribution != "exact"]
        return {figure.key: self._first_order(figure, moved) for figure in self.figures}

    def middles(self) -> Mapping[str, Estimate]:
        """Every figure without its interval: a tenth of the work."""
        return {figure.key: figure.estimate for figure in self.figures}

    def _with(self, key: str, value: float | None) -> dict[str, Number]:
        """All values with one leaf moved; figures above and beside it are as they were."""
        found = dict(self._values)
        found[key] = value
        changed = {key}
        for figure in self._figures.values():
            if figure.function is not None and found[figure.key] is not None \
                    and not changed.isdisjoint(figure.inputs):
                found[figure.key] = figure.function(*(found[name] for name in figure.inputs))
                changed.add(figure.key)
        return found

    def _first_order(self, figure: Figure,
                     moved: list[tuple[dict[str, Number], dict[str, Number]]]
                     ) -> Estimate:
        middle = self._values[figure.key]
        if figure.leaf or middle is None:
            return figure.estimate
        ends = [(low[figure.key], high[figure.key]) for low, high in moved]
        steps = [(float(end[0]), float(end[1])) for end in ends if end[0] != middle
                 or end[1] != middle]
        logs = middle > 0 and all(min(pair) > 0 for pair in steps)
        down = up = 0.0
        for pair in steps:
            for end in pair:
                step = math.log(end / middle) if logs else end - middle
                down, up = (math.hypot(down, step), up) if step < 0 else (
                    down, math.hypot(up, step))
        low, high = ((middle * math.exp(-down), middle * math.exp(up)) if logs
                     else (middle - down, middle + up))
        return Estimate(middle, low, high, figure.estimate.basis, figure.estimate.source)

    def influences(self, key: str) -> list[tuple[str, float, float]]:
        """(leaf, value of `key` with the leaf at its low end, at its high end), widest first."""
        found = []
        for figure in self.leaves(key):
            if figure.distribution == "exact" or figure.key == key:
                continue
            low = self._with(figure.key, figure.estimate.low)[key]
            high = self._with(figure.key, figure.estimate.high)[key]
            if low is not None and high is not None:
                found.append((figure.key, float(low), float(high)))
        return sorted(found, key=lambda one: -abs(one[2] - one[1]))

    def sampled(self, samples: int = SAMPLES, seed: int = 0) -> Mapping[str, NDArray[np.float64]]:
        """Draws of every known figure, each of [samples]; the same seed gives the same draws."""
        import numpy as np

        found: dict[str, Number] = {}
        for figure in self.figures:
            if self._values[figure.key] is None:
                continue
            if figure.function is None:
                found[figure.key] = draws(figure.key, figure.estimate, samples, seed)
            else:
                found[figure.key] = figure.function(*(found[name] for name in figure.inputs))
        return {key: np.broadcast_to(np.asarray(value, np.float64), (samples,))
                for key, value in found.items()}

    def sampled_estimates(self, samples: int = SAMPLES, seed: int = 0) -> Mapping[str, Estimate]:
        """Every figure with the 5% and 95% quantiles of its draws around its value."""
        import numpy as np

        drawn = self.sampled(samples, seed)
        found: dict[str, Estimate] = {}
        for figure in self.figures:
            value = self._values[figure.key]
            if figure.leaf or value is None:
                found[figure.key] = figure.estimate
                continue
            low, high = np.quantile(drawn[figure.key], (0.05, 0.95))
            found[figure.key] = Estimate(value, min(float(low), value), max(float(high), value),
                                         figure.estimate.basis, figure.estimate.source)
        return found

    def account(self, found: Mapping[str, Estimate] | None = None) -> Account:
        """The figures whose key is "section.kind" of an account; `found` are their estimates."""
        found = self.estimates() if found is None else found
        sections: dict[str, dict[str, Estimate]] = {}
        for key, estimate in found.items():
            section, _, kind = key.partition(".")
            if section in UNIT_OF and kind:
                sections.setdefault(section, {})[kind] = estimate
        return Account(**sections)


def draws(key: str, estimate: Estimate, samples: int, seed: int) -> Number:
    """Draws of one leaf, [samples]; its value alone where it is exact."""
    import numpy as np

    assert estimate.value is not None and estimate.low is not None and estimate.high is not None
    if estimate.low == estimate.high:
        return estimate.value
    normal = (_normal if samples <= MOST_KEPT else _normal.__wrapped__)(key, samples, seed)
    if estimate.low > 0:
        down = math.log(estimate.value / estimate.low)
        up = math.log(estimate.high / estimate.value)
        return estimate.value * np.exp(np.where(normal < 0, down, up) * normal / Z90)
    width = np.where(normal < 0, estimate.value - estimate.low, estimate.high - estimate.value)
    return estimate.value + width * normal / Z90


@functools.lru_cache(maxsize=64)
def _normal(key: str, samples: int, seed: int) -> NDArray[np.float64]:
    """The same of a key, a seed and a count: points of one front share most of their leaves."""
    import numpy as np

    found = np.random.default_rng([seed, zlib.crc32(key.encode())]).standard_normal(samples)
    found.flags.writeable = False
    return found
