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
from curbcut.spec.nouns import Machine, Run

Pair = tuple[Mapping[str, Any], Account, Account]
"""A run as a plain dict, what was promised, what was measured."""

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


def correction(machine: Machine, precision: str, pairs: Iterable[Pair]) -> Correction:
    """Factors learned from runs of the same machine, accelerator and precision.

    Each measured run is compared with what today's physics says of it, not with what was promised
    then: a promise that was already corrected would be corrected twice.
    """
    times: list[float] = []
    bytes_: list[float] = []
    for plain, _, measured in itertools.islice(pairs, MOST_RUNS):
        run = rebuilt(plain)
        if run is None or not _same(run, machine, precision):
            continue
        times += _time_ratio(run, measured)
        bytes_ += _memory_ratio(run, measured)
    return Correction(_factor("time", times), _factor("memory", bytes_))


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
