"""Watts of an accelerator from what its operations keep busy.

What an accelerator draws beside its idle power is what its multipliers, its memory and its links
move: each a share of its peak, averaged over time, times the share of the rated power that the
whole of it would draw. The sum bends towards the most that power management lets through:

    P = TDP (idle + x / (1 + (x / room)^k)^(1/k)),  x = c compute + m memory + l link

Polymorphic (see `numbers`). Constants stand in `facts/power.csv`: general, by accelerator family,
and without each model that they were fitted to.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path

from curbcut.facts import physics, table
from curbcut.physics import constants as training
from curbcut.physics import flops, rates, step, time
from curbcut.physics.numbers import Number, larger, smaller, where
from curbcut.physics.serving_work import Work
from curbcut.spec.nouns import Machine, ModelShape, Recipe, Run

FILE = "power"


@dataclass(frozen=True)
class Busy:
    """Shares of its peaks at which an accelerator works, averaged over time. All are numbers or
    columns, 0 to 1.
    """

    compute: Number
    """FLOP/s executed, of the peak of their precision."""
    memory: Number
    """Bytes a second moved, of the memory's bandwidth."""
    link: Number
    """Bytes a second sent to others, of the link's bandwidth one way."""
    serving: bool = False
    """Whether it is a server's work, to which the level of the power model was fitted."""

    def over(self, share: Number) -> Busy:
        """The same work done in a `share` of the time, averaged over all of it."""
        return dataclasses.replace(self, compute=self.compute * share,
                                   memory=self.memory * share, link=self.link * share)


@dataclass(frozen=True)
class PowerConstants:
    """Shares of the rated power, and how they add up. All are numbers or columns."""

    idle: Number
    """Drawn by an accelerator that is ready and does nothing."""
    compute: Number
    """That its multipliers would add at their peak, if nothing held them back."""
    memory: Number
    """The same of its memory."""
    link: Number
    """The same of its links."""
    top: Number
    """The most that power management lets through, of the rated power or the cap."""
    knee: Number
    """How sharply power bends to `top`."""


NAMES = tuple(field.name for field in dataclasses.fields(PowerConstants))


def power_constants(accelerator: str = "", without: str = "") -> PowerConstants:
    """The constants of an accelerator's family (`constants.family`), general ones for others; with
    `without` naming a model (a preset), those fitted with all its rows left out.
    """
    return _constants(training.family(accelerator), without, table.overlay_folder())


@functools.lru_cache(maxsize=1024)
def _constants(accelerator: str, without: str, overlay: Path) -> PowerConstants:
    return PowerConstants(**{name: physics.constant(FILE, name, accelerator, without).value
                             for name in NAMES})


def log_spread() -> float:
    """Standard deviation of log(measured / predicted) of watts, for a model never seen."""
    return physics.constant(FILE, "spread").value


def accelerator_watts(busy: Busy, tdp_watts: Number, constants: PowerConstants,
                      cap_watts: Number = 0.0) -> Number:
    """Watts of one accelerator: never below idle, never above its rated power nor above a cap
    (0: none).
    """
    bound = where(cap_watts > 0, smaller(cap_watts, tdp_watts), tdp_watts)
    idle = smaller(constants.idle * tdp_watts, bound)
    asked = tdp_watts * (constants.compute * busy.compute + constants.memory * busy.memory
                         + constants.link * busy.link)
    room = larger(bound * constants.top - idle, 1e-9)
    drawn = asked / (1 + (asked / room) ** constants.knee) ** (1 / constants.knee)
    return smaller(idle + drawn, bound)


def of_work(work: Work, chip: Number, seconds: Number) -> Busy:
    """What such work of one rank keeps busy when it takes `seconds` (see `serving_work`)."""
    return Busy(compute=smaller(work.peak_seconds / seconds, 1.0),
                memory=smaller(work.bytes_ / chip.bytes_per_second / seconds, 1.0),
                link=smaller(work.sent / chip.link_bytes_per_second / seconds, 1.0), serving=True)


def of_run(run: Run) -> Busy | None:
    """What a training step of a run keeps busy; None where no matmul rate is known, and for what
    is no GPU.
    """
    if run.machine.kind != "gpu":
        return None
    parts = time.step_parts(run.model, run.recipe, run.machine)
    return None if parts is None else of_step(parts, run.model, run.recipe, run.machine)


def of_step(parts: step.Parts, shape: ModelShape, recipe: Recipe, machine: Machine) -> Busy | None:
    """What a training step keeps busy; None where no matmul rate is known.

    Multipliers: executed FLOPs over the peak. Memory: what the time of matmuls, head, elementwise
    work and the optimiser leaves when multiplying is taken away moves bytes at the bandwidth that
    streaming reaches. Links: the time of all collectives, hidden ones too, at the share of the
    link that they reach.
    """
    chip = rates.chip(machine, recipe.precision)
    if chip is None:
        return None
    return of_parts(parts, shape, recipe, chip, training.of(machine, recipe))


def of_parts(parts: step.Parts, shape: Number, recipe: Number, chip: rates.Chip,
             values: training.TrainingConstants) -> Busy:
    """`of_step` on a known chip, for one recipe of all of a machine's ranks or for columns."""
    peak = where((recipe.precision == "fp8") | (recipe.precision == "mxfp8")
                 | (recipe.precision == "nvfp4"), chip.low_flops, chip.flops)
    executed = flops.hardware_flops_per_token(shape, recipe) * recipe.step_tokens / recipe.ranks
    compute = executed / peak / parts.total
    multiplying = executed / (peak * values.matmul)
    matmuls = parts.matmul + parts.head + parts.attention
    moving = larger(matmuls - multiplying, 0.0) + parts.elementwise + parts.optimiser
    moved = step.flow(shape, recipe, chip, values)
    sending = moved.tensor + moved.experts + moved.context + moved.stages + moved.data + moved.tied
    return Busy(compute=smaller(compute, 1.0),
                memory=smaller(moving * values.bandwidth / parts.total, 1.0),
                link=smaller(sending * values.link_share / parts.total, 1.0))
