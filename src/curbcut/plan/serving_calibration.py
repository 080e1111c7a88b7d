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
from curbcut.physics.serving_passes import accepted_tokens
from curbcut.plan import lessons
from curbcut.plan.calibration import Pair, rebuilt
from curbcut.plan.lessons import Belief, Factor, Lesson
from curbcut.plan.serving import engine, traffic
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
HALVINGS = 40
NINETY = 1.645
"""Standard deviations from the middle to the end of a 90% interval."""


@dataclass(frozen=True)
class ServingLesson:
    """What sessions of one machine taught."""

    lesson: Lesson
    sessions: int
    accepted: Estimate | None = None
    """Chance that a drafted token is accepted, as it was counted; None where none was drafted."""

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

    def accepting(self, run: Run) -> Run:
        """The run with the acceptance that was counted, where it was."""
        if self.accepted is None or self.accepted.value is None:
            return run
        return replace(run, serve=replace(run.serve, acceptance=self.accepted.value))

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
    counts: list[tuple[int, float, float]] = []
    sessions = 0
    for plain, _, measured in itertools.islice(pairs, MOST_SESSIONS):
        run = rebuilt(plain)
        if run is None or not _same(run, machine, precision) or len(rows) >= TEACHING:
            continue
        drafts = list(_drafts(run, measured))
        if own := _acceptance(drafts):
            assert own.value is not None
            run = replace(run, serve=replace(run.serve, acceptance=own.value))
        found = list(_rows(run, measured))
        rows, counts = rows + found, counts + drafts
        sessions += bool(found)
    lesson = lessons.learn(rows, BELIEF)
    return None if lesson is None else ServingLesson(lesson, sessions, _acceptance(counts))


def _drafts(run: Run, measured: Account) -> Iterable[tuple[int, float, float]]:
    """Tokens drafted a step, steps of an answer and tokens accepted of a session that drafted.

    An answer's tokens are one a step and those that were accepted, so that a step for which
    nothing could be drafted counts as one that had nothing accepted.
    """
    found = {kind: measured.get("tokens", kind) for kind in ("answer", "drafted", "accepted")}
    answer, drafted, accepted = (one.value if one else None for one in found.values())
    if run.serve.drafted_tokens and drafted and answer and accepted is not None:
        yield run.serve.drafted_tokens, max(1.0, answer - accepted), accepted


def _acceptance(counts: Sequence[tuple[int, float, float]]) -> Estimate | None:
    """The chance by which all those steps would have accepted as many (Leviathan et al.,
    arXiv:2211.17192, equation 1), found by halving; its interval is that of a share of so many.
    """
    if not counts:
        return None
    steps, accepted = sum(one[1] for one in counts), sum(one[2] for one in counts)
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        yielded = sum(many * (float(accepted_tokens(drafted, middle)) - 1)
                      for drafted, many, _ in counts)
        low, high = (middle, high) if yielded < accepted else (low, middle)
    width = NINETY * math.sqrt(max(low * (1 - low), 1 / steps) / steps)
    return Estimate(low, max(0.0, low - width), min(1.0, low + width), "measured",
                    f"{accepted:,.0f} drafted tokens accepted in {steps:,.0f} steps")


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
    moved = Server(found.engine, found.chip, replace(found.constants, **{
        name: getattr(found.constants, name) * by for name, by in factors.items()}))
    met = serving.latency(run.model, moved, traffic(run, together * run.serve.attention_parallel))
    return float(met.ttft_seconds if kind == "ttft" else met.tpot_seconds)


def _methods(run: Run, kind: str) -> Sequence[Any]:
    """What sessions share that no constant explains."""
    job = run.serve
    return (kind, job.weight_precision, job.cache_precision, bool(job.drafted_tokens),
            bool(job.drafter_parameters), job.tensor_parallel, job.expert_parallel,
            bool(job.prefill_replicas))
