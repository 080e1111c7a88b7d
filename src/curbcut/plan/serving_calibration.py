"""What measured sessions teach the next forecast of serving on one machine.

The ledger's pairs of the steps "serve" and "bench" say with which traffic each was measured and
what its users met. As for training (`calibration`), constants are not kept but learned anew from
the newest sessions whenever a plan asks, compared with what today's physics says, and a way of
serving moves as far as its seconds hang on the constants that moved (`lessons`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curbcut.errors import InputError
from curbcut.physics import serving
from curbcut.physics.serving import Server
from curbcut.physics.serving_traffic import Traffic
from curbcut.plan import lessons
from curbcut.plan.calibration import Pair, rebuilt
from curbcut.plan.lessons import Belief, Factor, Lesson
from curbcut.plan.serving import engine
from curbcut.spec.account import Account
from curbcut.spec.estimate import Estimate
from curbcut.spec.nouns import Machine, Run

BELIEF = Belief({"bandwidth_share": 0.4, "matmul_share": 0.4, "kernel_seconds": 0.5,
                 "elementwise_bytes": 0.4, "step_seconds": 0.7, "first_seconds": 0.7,
                 "cache_share": 0.3}, noise=0.1, apart=0.2)
"""Together about the factor of 2 either way by which a server is off on a CPU that was never
measured (`physics.serving.SPREAD`): assumptions, as wide as that."""
KINDS = ("ttft", "tpot")
MOST_SESSIONS = 40
"""Newest sessions looked at; the ledger gives them newest first."""
TEACHING = 16
"""Newest figures that teach."""
LEAST_SPREAD = 1.1
"""Factor either way that is always left."""
NUDGE = 0.03


@dataclass(frozen=True)
class ServingLesson:
    """What sessions of one machine taught."""

    lesson: Lesson
    sessions: int

    def of(self, run: Run, together: float, kind: str) -> Factor:
        """The factor on `kind` (ttft or tpot) where so many answers are made together."""
        found = self.lesson.of(_slopes(run, together, kind), _methods(run, kind))
        return Factor(found.value, min(found.low, found.value / LEAST_SPREAD),
                      max(found.high, found.value * LEAST_SPREAD))

    def middle(self, run: Run, loads: NDArray[np.float64], kind: str) -> NDArray[np.float64]:
        """The middle of the factor at each load: exact at three of them, between them straight in
        the logarithm.
        """
        at = sorted({float(loads[0]), float(loads[len(loads) // 2]), float(loads[-1])})
        known = [math.log(self.of(run, load, kind).value) for load in at]
        return np.exp(np.interp(np.log(loads), np.log(at), known))

    def around(self, run: Run, together: float, kind: str, value: float) -> Estimate:
        """`value`, which the middle has moved already, with the interval that is left; of a "rate"
        that of the time of a token.
        """
        factor = self.of(run, together, kind if kind in KINDS else "tpot")
        return Estimate(value, value * factor.low / factor.value,
                        value * factor.high / factor.value, "modelled", self.source)

    def corrected(self, estimate: Estimate, run: Run, together: float, kind: str) -> Estimate:
        """A forecast that knew of no session, corrected."""
        if estimate.value is None:
            return estimate
        factor = self.of(run, together, kind)
        return Estimate(estimate.value * factor.value, estimate.value * factor.low,
                        estimate.value * factor.high, "modelled",
                        f"{estimate.source}, {self.source}")

    @property
    def source(self) -> str:
        """Where the correction comes from."""
        return (f"corrected by {self.sessions} measured session"
                f"{'s' if self.sessions > 1 else ''}")

    def constants(self) -> dict[str, Factor]:
        """The factors of the named constants that sessions moved, those that moved most first."""
        found = {name: self.lesson.constant(name) for name in BELIEF.spreads}
        moved = {name: one for name, one in found.items() if abs(math.log(one.value)) >= 0.01}
        return dict(sorted(moved.items(), key=lambda one: -abs(math.log(one[1].value))))


def learned(machine: Machine, precision: str, pairs: Iterable[Pair]) -> ServingLesson | None:
    """What sessions on the same machine, accelerator and precision teach; None without any."""
    rows: list[lessons.Measured] = []
    sessions = 0
    for plain, _, measured in itertools.islice(pairs, MOST_SESSIONS):
        run = rebuilt(plain)
        if run is None or not _same(run, machine, precision) or len(rows) >= TEACHING:
            continue
        found = list(_rows(run, measured))
        rows += found
        sessions += bool(found)
    lesson = lessons.learn(rows, BELIEF)
    return None if lesson is None else ServingLesson(lesson, sessions)


def taught(account: Account, run: Run, lesson: ServingLesson | None) -> Account:
    """A forecast of serving `run`, moved by what sessions taught: ttft and tpot at the load that it
    is of, and the answer tokens a second that go with them.
    """
    together = _together(run, account)
    if lesson is None or together is None:
        return account
    seconds, speeds = dict(account.seconds), dict(account.tokens_per_second)
    for kind in KINDS:
        if (known := seconds.get(kind)) is not None:
            seconds[kind] = lesson.corrected(known, run, together, kind)
    slower = lesson.of(run, together, "tpot")
    for kind in ("decode", "most", "answers"):
        known = speeds.get(kind)
        if known is not None and known.value is not None and known.basis == "modelled":
            speeds[kind] = Estimate(known.value / slower.value, known.value / slower.high,
                                    known.value / slower.low, "modelled",
                                    f"{known.source}, {lesson.source}")
    return replace(account, seconds=seconds, tokens_per_second=speeds)


def _same(run: Run, machine: Machine, precision: str) -> bool:
    return (run.machine.name == machine.name and run.machine.accelerator == machine.accelerator
            and run.machine.accelerators == machine.accelerators
            and run.recipe.precision == precision)


def _rows(run: Run, measured: Account) -> Iterable[lessons.Measured]:
    """What one session says of ttft and tpot: measured over today's physics at its own load."""
    together = _together(run, measured)
    if together is None:
        return
    for kind in KINDS:
        seconds = measured.get("seconds", kind)
        if not (seconds and seconds.value):
            continue
        if kind == "ttft" and measured.get("tokens_per_second", "answers") is None:
            continue  # a session's own first passes are no traffic's
        promised = _seconds(run, together, kind, {})
        if promised:
            yield lessons.Measured(math.log(seconds.value / promised),
                                   _slopes(run, together, kind), _methods(run, kind))


def _together(run: Run, measured: Account) -> float | None:
    """Answers that were made together on average: rate x time of each (Little's law); of no more
    than the batch.
    """
    tpot = measured.get("seconds", "tpot")
    rate = (measured.get("tokens_per_second", "answers")
            or measured.get("tokens_per_second", "decode"))
    if not (tpot and tpot.value and rate and rate.value):
        return None
    job = run.serve
    each = tpot.value * rate.value / (job.replicas * job.attention_parallel)
    return min(max(1.0, each), float(job.max_batch))


def _slopes(run: Run, together: float, kind: str) -> dict[str, float]:
    """How log(seconds) moves with the logarithm of each constant."""
    base = _seconds(run, together, kind, {})
    if not base:
        return {}
    found: dict[str, float] = {}
    for name in BELIEF.spreads:
        moved = _seconds(run, together, kind, {name: math.exp(NUDGE)})
        assert moved
        slope = math.log(moved / base) / NUDGE
        if slope:
            found[name] = slope
    return found


def _seconds(run: Run, together: float, kind: str, factors: Mapping[str, float]) -> float | None:
    """Mean seconds by today's physics, some constants moved; None where nothing is known."""
    try:
        found = serving.server(run.model, run.machine, run.recipe.precision, engine(run))
    except InputError:  # a machine that has become smaller since
        return None
    if found is None:
        return None
    job = run.serve
    moved = Server(found.engine, found.chip, replace(found.constants, **{
        name: getattr(found.constants, name) * by for name, by in factors.items()}))
    met = serving.latency(run.model, moved, Traffic(
        concurrency=together * job.attention_parallel, prompt_tokens=job.prompt_tokens,
        output_tokens=job.output_tokens, prefix_hit_rate=job.prefix_hit_rate,
        drafted=job.drafted_tokens, acceptance=job.acceptance))
    return float(met.ttft_seconds if kind == "ttft" else met.tpot_seconds)


def _methods(run: Run, kind: str) -> Sequence[Any]:
    """What sessions share that no constant explains."""
    job = run.serve
    return (kind, job.weight_precision, job.cache_precision, bool(job.drafted_tokens),
            job.tensor_parallel, job.expert_parallel, bool(job.prefill_replicas))
