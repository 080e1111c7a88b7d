"""What the plan promises of a load, beside what was measured, and both into the ledger.

A bench asks for another traffic than the run's own. So it is kept with the run as it was served:
the same name, `serve` with the lengths, the rate and the batch that were asked for. Whoever reads
the pairs of step "bench" has with each forecast and measurement the traffic that both are of; how
many requests were under way follows from rate, TTFT and TPOT (Little's law).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from curbcut.accounts.convert import inverse
from curbcut.accounts.energy import JOULES_PER_KWH, energy
from curbcut.meter.energy import EnergyMeter
from curbcut.meter.sensors import open_sensors
from curbcut.physics import serving
from curbcut.plan.calibration import Pair
from curbcut.plan.served import under_load
from curbcut.plan.serving import busy, engine, traffic
from curbcut.plan.serving_calibration import ServingLesson, learned
from curbcut.serve.bench.drive import Metered
from curbcut.serve.bench.lengths import Asking
from curbcut.serve.bench.load import Closed, Load, Open
from curbcut.serve.bench.result import Result
from curbcut.serve.measure import modelled_kwh
from curbcut.spec.account import Account
from curbcut.spec.estimate import Estimate, measured, unknown
from curbcut.spec.nouns import Machine, Place, Run

if TYPE_CHECKING:
    from curbcut.ledger.store import Ledger

STEP = "bench"
"""Name of the step in the ledger."""
CLOCK, SENSORS = "the bench's clock", "energy sensors"


def as_asked(run: Run, asking: Asking, load: Load) -> Run:
    """The run with the traffic that a bench asks of it; a closed loop says no rate: it keeps the
    run's own.
    """
    prompt, output = asking.mean_tokens
    job = replace(run.serve, prompt_tokens=max(1, round(prompt)),
                  output_tokens=max(1, round(output)), prefix_hit_rate=min(asking.shared, 0.99))
    if isinstance(load, Open):
        job = replace(job, requests_per_second=(load.rate + (load.to or load.rate)) / 2)
    return replace(run, serve=job)


def forecast(run: Run, load: Load, pairs: Iterable[Pair] = ()) -> Account:
    """Mean TTFT and TPOT, and tokens a second, that the plan has for this load of `run` (which has
    the traffic already: `as_asked`); `pairs` of earlier sessions and benches correct it.
    """
    lesson = learned(run.machine, run.recipe.precision, pairs)
    if lesson is not None:
        run = lesson.accepting(run)
    if isinstance(load, Closed):
        return _of_users(run, load, lesson)
    found = under_load(run)
    seconds = dict(found.seconds)
    if lesson is not None:
        rate = float(run.serve.requests_per_second * run.serve.output_tokens)
        together = max(1.0, rate * (found.seconds["tpot"].value or 0.0))
        seconds = {kind: lesson.corrected(one, run, together, kind)
                   for kind, one in seconds.items()}
    return Account(seconds=seconds,
                   tokens_per_second={"answers": found.tokens_per_second["answers"]},
                   joules_per_token={"answer": found.joules_per_token["answer"]})


def _of_users(run: Run, load: Closed, lesson: ServingLesson | None) -> Account:
    """So many users who each wait. Beyond the batch they queue: then each waits for the answers
    of those before, and all together get no more than a full batch gives.
    """
    job = run.serve
    found = serving.server(run.model, run.machine, run.recipe.precision, engine(run))
    if found is None:
        why = unknown(f"no {run.recipe.precision} matmul rate of {run.machine.accelerator}",
                      "modelled")
        return Account(seconds={"ttft": why, "tpot": why}, tokens_per_second={"answers": why})
    users = (load.users + load.most) / 2
    inside = min(users, float(job.max_batch))
    met = serving.latency(run.model, found, traffic(run, inside))
    seconds = {kind: serving.estimate(run.machine, run.recipe.precision, float(value),
                                      job.weight_precision)
               for kind, value in (("ttft", met.ttft_seconds), ("tpot", met.tpot_seconds))}
    if lesson is not None:
        seconds = {kind: lesson.corrected(one, run, inside, kind) for kind, one in seconds.items()}
    answer = seconds["tpot"].scaled(job.output_tokens)
    each = seconds["ttft"].plus(answer)
    if users > inside:
        queued = each.scaled(users / inside - 1)
        seconds["ttft"] = seconds["ttft"].plus(queued, seconds["ttft"].source)
    speed = _over(inside * job.output_tokens, each)
    shares = busy(run, traffic(run, inside), float(met.batch), speed.value or 0.0, 1.0)
    kwh = energy(run.machine, run.place, inverse(speed), shares=shares)["facility"]
    return Account(seconds=seconds, tokens_per_second={"answers": speed},
                   joules_per_token={"answer": kwh.scaled(JOULES_PER_KWH)})


def _over(amount: float, seconds: Estimate) -> Estimate:
    assert seconds.value and seconds.low and seconds.high
    return Estimate(amount / seconds.value, amount / seconds.high, amount / seconds.low,
                    "modelled", seconds.source)


def account(found: Result) -> Account:
    """What was measured, in the kinds that `forecast` has, and what was asked and answered."""
    none = unknown("nothing was answered")
    return Account(
        seconds={"total": measured(found.seconds, CLOCK),
                 "ttft": measured(found.ttft.mean, CLOCK) if found.ttft else none,
                 "tpot": measured(found.tpot.mean, CLOCK) if found.tpot else none},
        tokens={"prompt": measured(found.prompt_tokens, found.counted),
                "answer": measured(found.answer_tokens, found.counted)},
        tokens_per_second={"answers": measured(found.output_per_second, CLOCK)},
        joules_per_token={"answer": found.joules_per_token})


def record(ledger: Ledger, run: Run, promised: Sequence[tuple[Run, Account]],
           results: Sequence[Result]) -> None:
    """Into the ledger: each load's run as it was asked, its forecast and its measurement. `run`
    itself is the newest of its name again afterwards, whatever happens.
    """
    known = ledger.resolved(run.name)
    if known is None:
        return
    try:
        for (asked, forecast_), found in zip(promised, results, strict=False):
            rate = replace(asked, serve=replace(asked.serve, requests_per_second=max(
                1e-6, round(found.requests_per_second, 3))))
            ledger.record_run(replace(known, run=rate))
            ledger.record_account(run.name, STEP, "forecast", forecast_)
            ledger.record_account(run.name, STEP, "measured", account(found))
    finally:
        ledger.record_run(known)


def metering(machine: Machine, place: Place) -> Metered:
    """Begins to count joules of this computer; without sensors, its modelled watts over the clock,
    which the estimate says.
    """
    meter = EnergyMeter(open_sensors())
    meter.start()

    def stop(busy_seconds: float) -> Estimate:
        meter.lap()
        lap = meter.total()
        meter.stop()
        if lap.joules is not None:
            return measured(lap.joules, f"{SENSORS}: {', '.join(lap.by_boundary)}")
        kwh = modelled_kwh(machine, place, busy_seconds, max(0.0, lap.seconds - busy_seconds))
        joules = kwh["facility"].scaled(JOULES_PER_KWH)
        return replace(joules, source=f"modelled watts ({lap.reason}): {joules.source}")
    return stop
