"""What measured runs teach the next forecast: a ratio for time and one for memory, with spread."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from curbcut.errors import CurbcutError
from curbcut.physics import memory, time
from curbcut.plan import rules
from curbcut.spec import codec
from curbcut.spec.account import Account
from curbcut.spec.estimate import Estimate
from curbcut.spec.nouns import Machine, Recipe, Run

Pair = tuple[Mapping[str, Any], Account, Account]
"""A run as a plain dict, what was promised, what was measured."""

METHODS = ("compile", "recompute", "offload", "attention", "chunked_loss", "optimiser", "pp", "tp",
           "cp", "ep", "dp_replicate", "dp_shard", "micro_batch")
"""Fields of a recipe whose runs teach each other less than those of the same values."""
OTHER_METHODS_SPREAD = 1.2
"""Factor either way that is added where only runs by other methods were measured."""
MOST_RUNS = 30
"""Newest runs looked at; the ledger gives them newest first."""
ONE_RUN_SPREAD = {"time": 1.3, "memory": 1.15}
"""Factor either way that is left when a single run has been measured."""
LEAST_SPREAD = {"time": 1.08, "memory": 1.05}
FEW_RUNS = 10


@dataclass(frozen=True)
class Correction:
    """Factors on what the physics says; 1 with no interval where nothing was measured."""

    time: Estimate | None = None
    memory: Estimate | None = None

    @property
    def memory_factor(self) -> float:
        """The middle of the memory factor."""
        return self.memory.value if self.memory and self.memory.value else 1.0


def memory_spread(machine: Machine, learned: Correction) -> float:
    """Factor from the middle of a forecast's peak to the upper end of its interval."""
    if learned.memory and learned.memory.value and learned.memory.high:
        return learned.memory.high / learned.memory.value
    return memory.MEMORY_SPREAD.get(machine.kind, memory.MEMORY_SPREAD["gpu"])


def correction(machine: Machine, precision: str, pairs: Iterable[Pair],
               recipe: Recipe | None = None) -> Correction:
    """Factors learned from runs of the same machine, accelerator and precision; where `recipe` is
    given, from those by its own methods first.

    Each measured run is compared with what today's physics says of it, not with what was promised
    then: a promise that was already corrected would be corrected twice.
    """
    times: dict[bool, list[float]] = {True: [], False: []}
    bytes_: dict[bool, list[float]] = {True: [], False: []}
    for plain, _, measured in itertools.islice(pairs, MOST_RUNS):
        run = rebuilt(plain)
        if run is None or not _same(run, machine, precision):
            continue
        alike = recipe is None or _alike(run.recipe, recipe)
        times[alike] += _time_ratio(run, measured)
        bytes_[alike] += _memory_ratio(run, measured)
    return Correction(_of_alike("time", times), _of_alike("memory", bytes_))


def _alike(one: Recipe, other: Recipe) -> bool:
    """Whether two recipes use the same methods, so that what one was off by the other is too."""
    return all(getattr(one, name) == getattr(other, name) for name in METHODS)


def _of_alike(what: str, ratios: Mapping[bool, list[float]]) -> Estimate | None:
    """The factor of runs by the same methods; without any, that of the others, believed less: a
    compiled run says little of what a plain one is off by.
    """
    if ratios[True]:
        return _factor(what, ratios[True])
    found = _factor(what, ratios[False])
    if found is None or found.value is None or found.low is None or found.high is None:
        return found
    return Estimate(found.value, found.low / OTHER_METHODS_SPREAD,
                    found.high * OTHER_METHODS_SPREAD, "modelled",
                    f"{found.source} by other methods")


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


def _same(run: Run, machine: Machine, precision: str) -> bool:
    return (run.machine.name == machine.name and run.machine.accelerator == machine.accelerator
            and run.machine.accelerators == machine.accelerators
            and run.recipe.precision == precision)


def _time_ratio(run: Run, measured: Account) -> list[float]:
    seconds, tokens = measured.get("seconds", "steps"), measured.get("tokens", "trained")
    promised = time.step_seconds(run.model, run.recipe, run.machine).value
    if not (seconds and seconds.value and tokens and tokens.value and promised):
        return []
    return [seconds.value / (promised * tokens.value / run.recipe.step_tokens)]


def _memory_ratio(run: Run, measured: Account) -> list[float]:
    peak = measured.get("memory_bytes", "peak")
    promised = rules.held_bytes(run.model, run.recipe, run.machine.kind)["peak"]
    return [peak.value / promised] if peak and peak.value else []


def _factor(what: str, ratios: list[float]) -> Estimate | None:
    """Median ratio; its interval from the spread of the logs, wider for few runs."""
    if not ratios:
        return None
    middle, count = statistics.median(ratios), len(ratios)
    if count == 1:
        spread = ONE_RUN_SPREAD[what]
    else:
        deviation = statistics.stdev(math.log(ratio) for ratio in ratios)
        reach = 1.645 if count >= FEW_RUNS else 2.5
        spread = max(LEAST_SPREAD[what], math.exp(reach * deviation * math.sqrt(1 + 1 / count)))
    runs = f"{count} measured run{'s' if count > 1 else ''}"
    return Estimate(middle, middle / spread, middle * spread, "modelled", f"corrected by {runs}")
