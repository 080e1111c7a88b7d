"""What measured runs teach the next plan: factors of the physics' named constants on one machine.

The ledger keeps forecast and measurement of each run; constants are not kept beside them but
fitted anew from its newest runs whenever a plan asks, so that they can never disagree with the
record. Runs of one machine, accelerator and precision under one stack and version are rows; each
constant that a row's prediction hangs on gets a factor with an interval (`lessons`), and a recipe's
step moves as far as it hangs on those constants itself. So a run by another method teaches what
both share: a step of large matmuls says little of one that launches small operations, a compiled
one little of what launching takes. What no constant explains stays with runs by the same methods.

This corrects one machine from few runs of its own. `curbcut calibrate` fits tables of rows for
everybody with that software (`fit`), and writes them to the user's facts: around those.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from curbcut.errors import CurbcutError
from curbcut.physics import constants, memory, rates, step, time
from curbcut.physics.memory_constants import memory_constants
from curbcut.plan import lessons, rules
from curbcut.plan.lessons import Belief, Factor, Lesson
from curbcut.spec import codec
from curbcut.spec.account import Account
from curbcut.spec.estimate import Estimate
from curbcut.spec.nouns import Machine, ModelShape, Recipe, Run

Pair = tuple[Mapping[str, Any], Account, Account]
"""A run as a plain dict, what was promised, what was measured."""

METHODS = ("compile", "recompute", "offload", "attention", "chunked_loss", "optimiser", "pp", "tp",
           "cp", "ep", "dp_replicate", "dp_shard")
"""Fields of a recipe by which runs share what no constant explains."""
MOST_RUNS = 30
"""Newest runs looked at; the ledger gives them newest first."""
TEACHING_RUNS = 12
"""Newest of those that teach: more would say little new, and a plan is to be quick."""
TIME = Belief({
    "matmul": 0.3, "feed_flops_per_byte": 0.3, "bandwidth": 0.3, "attention": 0.3,
    "score_rate": 0.4, "score_bytes": 0.3, "elementwise": 0.4, "logit_bytes": 0.3,
    "moe_bytes": 0.4, "launch_seconds": 0.5, "local_operations": 0.4, "kernel_seconds": 0.4,
    "compiled_launches": 0.4, "compiled_elementwise": 0.3, "optimiser_bytes": 0.4,
    "step_seconds": 0.6, "link_share": 0.4, "link_latency": 0.5, "network_share": 0.4,
    "network_latency": 0.5, "collective_host": 0.5, "bubble": 0.3, "host_link": 0.4,
}, noise=0.08, apart=0.25)
"""Together about the 1.6 either way by which a step at probed rates is off on a machine that was
never measured (`physics.time.PROBED_SPREAD`): assumptions, as wide as that."""
MEMORY = Belief({"context_bytes": 0.12, "slack": 0.5, "logit_bytes": 0.2, "end_copies": 0.3,
                 "gated_copies": 0.1}, noise=0.03, apart=0.05)
"""As `physics.memory.MEMORY_SPREAD`."""
NUDGE = 0.03
"""Step of the numeric derivative, in the logarithm of a constant."""
LEAST_SPREAD = {"time": 1.08, "memory": 1.05}
"""Factor either way that is always left."""
LEAST_MOVE = 0.01
"""Constants that moved less were told nothing."""


@dataclass(frozen=True)
class Correction:
    """What was learned of a machine; nothing where nothing was measured."""

    of_time: Lesson | None = None
    of_memory: Lesson | None = None
    newest: Run | None = None
    """The newest run behind the lesson of memory."""

    def of_step(self, shape: ModelShape, recipe: Recipe, machine: Machine) -> Estimate | None:
        """The factor on the seconds of a step of this recipe; None where nothing was learned."""
        if self.of_time is None:  # slopes are two dozen prices of a step, asked a hundred times
            return None
        return _estimate("time", self.of_time, time_slopes(shape, recipe, machine), recipe)

    def of_peak(self, shape: ModelShape, recipe: Recipe, kind: str) -> Estimate | None:
        """The factor on its peak of memory; None where nothing was learned."""
        if self.of_memory is None:
            return None
        return _estimate("memory", self.of_memory, memory_slopes(shape, recipe, kind), recipe)

    @property
    def usual_memory(self) -> Estimate | None:
        """The factor on the peak of the newest run, where many recipes share one."""
        run = self.newest
        return None if run is None else self.of_peak(run.model, run.recipe, run.machine.kind)

    @property
    def memory_factor(self) -> float:
        """The middle of `usual_memory`; 1 where nothing was learned."""
        usual = self.usual_memory
        return usual.value if usual and usual.value else 1.0

    def constants(self) -> dict[str, Factor]:
        """The factors of the named constants that runs moved, those that moved most first."""
        found = {name: lesson.constant(name) for lesson in (self.of_time, self.of_memory)
                 if lesson is not None for name in lesson.belief.spreads}
        moved = {name: one for name, one in found.items()
                 if abs(math.log(one.value)) >= LEAST_MOVE}
        return dict(sorted(moved.items(), key=lambda one: -abs(math.log(one[1].value))))


def memory_spread(machine: Machine, learned: Correction) -> float:
    """Factor from the middle of a forecast's peak to the upper end of its interval."""
    usual = learned.usual_memory
    if usual and usual.value and usual.high:
        return usual.high / usual.value
    return memory.MEMORY_SPREAD.get(machine.kind, memory.MEMORY_SPREAD["gpu"])


def correction(machine: Machine, precision: str, pairs: Iterable[Pair],
               recipe: Recipe | None = None) -> Correction:
    """What runs of the same machine, accelerator and precision teach; where `recipe` is given, of
    its stack and version (one that is not said is any).

    Each measured run is compared with what today's physics says of it, not with what was promised
    then: a promise that was already corrected would be corrected twice.
    """
    times: list[lessons.Measured] = []
    peaks: list[lessons.Measured] = []
    newest: Run | None = None
    for plain, _, measured in itertools.islice(pairs, MOST_RUNS):
        run = rebuilt(plain)
        if run is None or not _same(run, machine, precision, recipe):
            continue
        if len(times) == TEACHING_RUNS:
            break
        methods = _methods(run.recipe)
        if ratio := _time_ratio(run, measured):
            times.append(lessons.Measured(
                math.log(ratio), time_slopes(run.model, run.recipe, run.machine), methods))
        if ratio := _memory_ratio(run, measured):
            newest = newest or run
            peaks.append(lessons.Measured(
                math.log(ratio), memory_slopes(run.model, run.recipe, run.machine.kind), methods))
    return Correction(lessons.learn(times, TIME), lessons.learn(peaks, MEMORY), newest)


def time_slopes(shape: ModelShape, recipe: Recipe, machine: Machine) -> dict[str, float]:
    """How log(seconds of a step) moves with the logarithm of each constant of `TIME`."""
    chip = rates.chip(machine, recipe.precision)
    if chip is None:
        return {}
    known = constants.of(machine, recipe)

    def seconds(factors: Mapping[str, float]) -> float:
        return float(step.parts(shape, recipe, chip, constants.scaled(known, factors)).total)

    return _slopes(TIME, seconds)


def memory_slopes(shape: ModelShape, recipe: Recipe, kind: str) -> dict[str, float]:
    """How log(peak bytes) moves with the logarithm of each constant of `MEMORY`."""
    known = memory_constants(recipe.stack, kind)
    beside = rules.held_bytes(shape, recipe, kind)["peak"] - memory.training(
        shape, recipe, kind)["peak"]

    def peak(factors: Mapping[str, float]) -> float:
        moved = replace(known, **{name: getattr(known, name) * by for name, by in factors.items()})
        return float(beside + memory.training(shape, recipe, kind, moved)["peak"])

    return _slopes(MEMORY, peak)


def _slopes(belief: Belief, predicted: Callable[[Mapping[str, float]], float]) -> dict[str, float]:
    base = predicted({})
    found = {name: math.log(predicted({name: math.exp(NUDGE)}) / base) / NUDGE
             for name in belief.spreads}
    return {name: slope for name, slope in found.items() if slope}


def _methods(recipe: Recipe) -> tuple[Any, ...]:
    return tuple(getattr(recipe, name) for name in METHODS)


def _estimate(what: str, lesson: Lesson | None, slopes: Mapping[str, float],
              recipe: Recipe) -> Estimate | None:
    if lesson is None:
        return None
    found, count, least = lesson.of(slopes, _methods(recipe)), len(lesson.runs), LEAST_SPREAD[what]
    own = any(one.methods == _methods(recipe) for one in lesson.runs)
    runs = f"{count} measured run{'s' if count > 1 else ''}{'' if own else ' by other methods'}"
    return Estimate(found.value, min(found.low, found.value / least),
                    max(found.high, found.value * least), "modelled", f"corrected by {runs}")


def corrected(estimate: Estimate, factor: Estimate | None) -> Estimate:
    """`estimate` times the factor, with the factor's interval in place of its own."""
    if factor is None or estimate.value is None or factor.value is None:
        return estimate
    assert factor.low is not None and factor.high is not None
    return Estimate(estimate.value * factor.value, estimate.value * factor.low,
                    estimate.value * factor.high, "modelled",
                    f"{estimate.source}, {factor.source}")


def rebuilt(plain: Mapping[str, Any]) -> Run | None:
    """The run of a plain dict; None for one that this version cannot read any more."""
    try:
        run: Run = codec.build(Run, codec.check(Run, plain))
    except (CurbcutError, TypeError, ValueError):
        return None
    return run


def _same(run: Run, machine: Machine, precision: str, recipe: Recipe | None) -> bool:
    return (run.machine.name == machine.name and run.machine.accelerator == machine.accelerator
            and run.machine.accelerators == machine.accelerators
            and run.recipe.precision == precision
            and (recipe is None or _same_software(run.recipe, recipe)))


def _same_software(one: Recipe, other: Recipe) -> bool:
    versions = {one.stack_version, other.stack_version} - {""}
    return one.stack == other.stack and len(versions) <= 1


def _time_ratio(run: Run, measured: Account) -> float | None:
    """Measured seconds of a step over predicted ones; None where either is not known."""
    seconds, tokens = measured.get("seconds", "steps"), measured.get("tokens", "trained")
    promised = time.step_seconds(run.model, run.recipe, run.machine).value
    if not (seconds and seconds.value and tokens and tokens.value and promised):
        return None
    return seconds.value / (promised * tokens.value / run.recipe.step_tokens)


def _memory_ratio(run: Run, measured: Account) -> float | None:
    peak = measured.get("memory_bytes", "peak")
    promised = rules.held_bytes(run.model, run.recipe, run.machine.kind)["peak"]
    return peak.value / promised if peak and peak.value else None
