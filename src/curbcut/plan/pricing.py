"""What a recipe takes on one machine: the physics behind the search, for one and for a block."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from curbcut.physics import activations, constants, memory, power_cap, rates, time
from curbcut.physics.numbers import Columns, Number, larger
from curbcut.plan.space import FREE_NAMES, Block, Floats
from curbcut.spec.estimate import Estimate, modelled
from curbcut.spec.nouns import Machine, ModelShape, Recipe

AGAIN = ("matmul", "attention", "elementwise", "launch")
"""Parts of a step that recompute lengthens."""


@dataclass(frozen=True)
class Pricer:
    """Prices recipes of one shape on one machine."""

    shape: ModelShape
    machine: Machine
    memory_factor: float = 1.0
    """Learned from measured runs."""
    memo: dict[int, tuple[Floats, Floats]] | None = field(default=None, compare=False, repr=False)
    """By block, what was priced already: for who asks the same blocks under another factor. They
    must live as long as it does."""

    @property
    def room_bytes(self) -> float:
        """Bytes that an accelerator may be planned to hold."""
        return memory.available(self.machine)

    def block(self, block: Block) -> tuple[Floats, Floats]:
        """Seconds of a step and peak bytes, each of the block's shape; infinite for what does not
        count.
        """
        if self.memo is not None and id(block) in self.memo:
            seconds, bytes_ = self.memo[id(block)]
        else:
            seconds, bytes_ = self._seconds(block), self._bytes(block.recipes, block)
            if self.memo is not None:
                self.memo[id(block)] = seconds, bytes_
        peak = spread(np.asarray(self.memory_factor * bytes_, np.float64), block)
        return seconds, block.shut(peak)

    def _seconds(self, block: Block) -> Floats:
        recipes = block.recipes
        seconds = time.step_columns(self.shape, recipes, self._chip(block),
                                    constants.of(self.machine, block.base))
        # A power limit stretches all recipes alike: draws of this machine are taken as usual.
        capped = float(power_cap.seconds_factor(block.base, self.machine))
        return block.shut(spread(capped * seconds, block))

    def _chip(self, block: Block) -> rates.Chip:
        """The chip at each of the block's precisions, along their axis."""
        found = [rates.chip(self.machine, name) for name in block.free["precision"]]
        if len(found) == 1 and found[0] is not None:
            return found[0]
        sizes = [1] * (len(FREE_NAMES) + 1)
        sizes[FREE_NAMES.index("precision")] = len(found)
        columns = {field.name: _along([getattr(one, field.name) for one in found], sizes)
                   for field in dataclasses.fields(rates.Chip)}
        return rates.Chip(**columns)

    def _bytes(self, recipes: Columns, block: Block) -> Floats:
        """The fuller of the first and the last stage: `memory.training` without its parts and
        without what was learned.

        Precisions of the same width hold the same bytes: each width is priced once.
        """
        names = block.free["precision"]
        widths = [(activations.half(one), activations.eighth(one))
                  for one in (Columns(precision=name) for name in names)]
        firsts = [widths.index(width) for width in widths]
        if len(set(firsts)) < len(names):
            recipes = recipes.with_columns(
                precision=block.axis("precision", tuple(names[i] for i in sorted(set(firsts)))))
        first, last = (memory.stage(self.shape, recipes, self.machine.kind, end)["peak"]
                       for end in (False, True))
        peak = np.asarray(larger(first, last), np.float64)
        if 1 < len(set(firsts)) < len(names):
            peak = peak[[sorted(set(firsts)).index(i) for i in firsts]]
        return peak

    def groups(self, recipe: Recipe) -> Mapping[str, float]:
        """Seconds of a step by part, what recompute and a power limit add apart; they add up to the
        step. Empty where no rate is known.
        """
        parts = self._parts(recipe)
        slower = float(power_cap.seconds_factor(recipe, self.machine)) - 1
        capped = {"power limit": slower * sum(parts.values())} if slower > 0 else {}
        if recipe.recompute == "none" or not parts:
            return parts | capped
        without = self._parts(replace(recipe, recompute="none"))
        again = sum(parts[name] - without[name] for name in AGAIN)
        return parts | {name: without[name] for name in AGAIN} | {
            "recompute": again} | capped

    def _parts(self, recipe: Recipe) -> dict[str, float]:
        found = time.step_parts(self.shape, recipe, self.machine)
        if found is None:
            return {}
        return {field.name: float(getattr(found, field.name))
                for field in dataclasses.fields(found)}

    def step(self, recipe: Recipe) -> Estimate:
        """Seconds of a step."""
        return power_cap.stretched(time.step_seconds(self.shape, recipe, self.machine), recipe,
                                   self.machine)

    def peak(self, recipe: Recipe) -> Estimate:
        """Bytes that the fullest rank holds."""
        value = memory.training(self.shape, recipe, self.machine.kind)["peak"]
        wide = memory.MEMORY_SPREAD.get(self.machine.kind, memory.MEMORY_SPREAD["gpu"])
        return modelled(self.memory_factor * value, wide, "sum of the kinds")


def spread(values: Number, block: Block) -> Floats:
    """`values` at every place of the block."""
    return np.broadcast_to(np.asarray(values, np.float64), block.shape)


def _along(values: list[float], sizes: list[int]) -> Number:
    """One number where all are the same, else an array along an axis."""
    if all(value == values[0] for value in values):
        return values[0]
    return np.array(values, np.float64).reshape(sizes)
