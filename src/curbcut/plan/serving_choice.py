"""The cheapest way to serve a run within latency objectives and a bar of quality.

Each way is a weight precision, a cache precision and a precision of computing (drafting too, where
the run says how often drafts are accepted). The physics prices it at every number of answers
together; the best of those within the objectives is its batch. Ways are ranked by the price of a
million answer tokens of a server kept full. Ways are those of the engine that is meant for the run
(`serving_ways.meant`), so that what is chosen runs. A way whose loss of quality nobody measured is
shown, and chosen only where no bar of quality is set.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from curbcut.accounts.convert import inverse
from curbcut.accounts.energy import JOULES_PER_KWH, energy
from curbcut.accounts.money import money
from curbcut.errors import InputError
from curbcut.physics import serving
from curbcut.plan import serving as served
from curbcut.plan import serving_quality, serving_ways
from curbcut.plan.serving import busy
from curbcut.plan.serving_calibration import ServingLesson
from curbcut.plan.serving_ways import Engine
from curbcut.spec.estimate import Estimate, unknown
from curbcut.spec.nouns import Machine, Precision, Run, ServeJob

LOADS = np.unique(np.round(2.0 ** np.arange(0, 10.01, 0.25)))
"""Answers together that are tried: 1 to 1,024."""
WORTH = 0.03
"""A way must be cheaper by this share to be taken before one with wider weights."""
KNEE = 0.95
"""Share of the most tokens a second that the batch must give: more answers together would make
each slower for little."""
TOKENS = 1e6


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What is asked of a server."""

    ttft_seconds: float
    """Mean time to the first token, at most."""
    tpot_seconds: float
    """Mean time of each further token, at most."""
    requests_per_second: float
    """Rate that must be kept up with."""
    most_loss: float = 0.01
    """Share of bits a byte that may be lost; math.inf takes losses that nobody measured."""

    @classmethod
    def of(cls, job: ServeJob) -> Objective:
        """The objectives that a job states."""
        return cls(ttft_seconds=job.ttft_seconds, tpot_seconds=job.tpot_seconds,
                   requests_per_second=job.requests_per_second)


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to serve, at its best batch."""

    run: Run
    """With the way's `serve` and precision."""
    ttft: Estimate
    tpot: Estimate
    tokens_per_second: Estimate
    """Answer tokens of all servers, kept full."""
    joules: Estimate
    """J an answer token at the facility, kept full."""
    usd: Estimate
    """USD a million answer tokens, kept full."""
    memory_bytes: float
    """Peak of an accelerator."""
    loss: Estimate
    """Share of bits a byte."""
    refused: str = ""
    """Why it is not chosen; empty where it may be."""

    @property
    def name(self) -> str:
        """Weights, cache, computing and drafts in a few words."""
        job = self.run.serve
        parts: list[str] = [self.run.recipe.precision]
        if job.weight_precision != "same":
            parts.append(f"{job.weight_precision} weights")
        if job.cache_precision != "same":
            parts.append(f"{job.cache_precision} cache")
        if job.drafted_tokens:
            parts.append(f"{job.drafted_tokens} drafted")
        return ", ".join(parts)


@dataclass(frozen=True)
class Choice:
    """What is served, and why."""

    run: Run
    """The run as it is to be served; `run.serve` is the job."""
    chosen: Way | None
    """None where no way meets what is asked: `run` is then as it was."""
    ways: tuple[Way, ...]
    """All, cheapest first."""
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    """Narrower weights that save nothing here."""
    engine: Engine = "own"
    """The engine whose ways these are."""

    @property
    def job(self) -> ServeJob:
        """How to serve."""
        return self.run.serve


def choose(run: Run, objective: Objective | None = None, lesson: ServingLesson | None = None,
           engine: Engine | None = None) -> Choice:
    """The cheapest way of `engine` (where None, of the one that is meant for the run) within
    `objective` (the run's own where None); what measured sessions taught (`lesson`) moves each
    way's seconds and says how often drafts are accepted.

    Raises InputError for degrees that cannot be, or that the named engine does not run.
    """
    engine, why = _engine(run, engine)
    asked = objective or Objective.of(run.serve)
    if asked.tpot_seconds <= 0 or asked.ttft_seconds <= 0:
        raise InputError("an objective of no time at all is met by nobody", where="serve",
                         mend="give ttft and tpot in seconds above 0")
    if lesson is not None:
        run = lesson.accepting(run)
    found = [_priced(way, asked, lesson) for way in _ways(run, engine)]
    found.sort(key=lambda way: (bool(way.refused), _price(way), way.loss.value or 0.0))
    allowed = [way for way in found if not way.refused]
    if not allowed:
        return Choice(run, None, tuple(found), (f"no way meets what is asked: {_nearest(found)}",
                                                why), (), engine)
    best = _plainest(allowed)
    return Choice(best.run, best, tuple(found), (*_reasons(best, found, asked), why),
                  tuple(_warnings(found)), engine)


def _engine(run: Run, engine: Engine | None) -> tuple[Engine, str]:
    """The engine, and why in words."""
    meant, because = serving_ways.meant(run)
    known = serving_ways.NAMES[engine or meant]
    if engine is None:
        return meant, f"by {known} ({because})"
    ways = serving_ways.RUN[engine]
    usual = {name: values for name, values in ways.items() if not name.endswith("precision")}
    for name, values in usual.items():
        if (value := getattr(run.serve, name)) not in values:
            raise InputError(f"{known} does not run serve.{name} = {value}", where="serve",
                             mend=f"set serve.{name} = {values[0]}, or take another engine")
    return engine, f"by {known} (asked for)"


def _ways(run: Run, engine: Engine) -> Iterator[Run]:
    """The run in each way that the engine may serve it."""
    drafts, known = {0, run.serve.drafted_tokens}, serving_ways.RUN[engine]
    for precision in _precisions(run.machine, run.recipe.precision):
        for weights in known["weight_precision"]:
            for stored in known["cache_precision"]:
                for drafted in sorted(drafts):
                    yield replace(
                        run, recipe=replace(run.recipe, precision=precision),
                        serve=replace(run.serve, weight_precision=weights,
                                      cache_precision=stored, drafted_tokens=drafted))


def _precisions(machine: Machine, own: Precision) -> list[Precision]:
    """The run's own precision of computing, and bf16 or fp32 beside it where their rates are known.

    Which of them is faster depends on the CPU; on an accelerator 16 bits always are.
    """
    known = machine.measured_flops or machine.peak_flops
    found: list[Precision] = [own if own in ("bf16", "fp16", "fp32") else "bf16"]
    others: tuple[Precision, ...] = ("bf16", "fp32") if machine.kind == "cpu" else ("bf16",)
    return found + [one for one in others if one in known and one not in found]


def _priced(run: Run, asked: Objective, lesson: ServingLesson | None) -> Way:
    """The way at the smallest batch that gives about the most tokens within the objectives."""
    job, cut = run.serve, served.engine(run)
    loss = serving_quality.expected(run.model, job)
    row = job.prompt_tokens + job.output_tokens
    held = _held(run, 1, row)
    found = serving.server(run.model, run.machine, run.recipe.precision, cut)
    if found is None:
        why = unknown(f"no {run.recipe.precision} matmul rate of {run.machine.accelerator}",
                      "modelled")
        return Way(run=run, ttft=why, tpot=why, tokens_per_second=why, joules=why, usd=why,
                   memory_bytes=held, loss=loss, refused="no rate is known")
    servers = job.replicas * job.attention_parallel
    met = serving.latency(run.model, found, served.traffic(run, LOADS * job.attention_parallel))
    first, each = (np.asarray(value) * (lesson.middle(run, LOADS, kind) if lesson else 1.0)
                   for kind, value in (("ttft", met.ttft_seconds), ("tpot", met.tpot_seconds)))
    rate = LOADS * servers * job.output_tokens / (first + job.output_tokens * each)
    fits = np.array([_held(run, int(load), row) <= run.machine.memory_bytes for load in LOADS])
    good = fits & (first <= asked.ttft_seconds) & (each <= asked.tpot_seconds)
    within = np.where(good, rate, 0.0)
    at = int(np.argmax(within >= KNEE * within.max()))
    run = replace(run, serve=replace(
        job, max_batch=int(LOADS[at]), ttft_seconds=asked.ttft_seconds,
        tpot_seconds=asked.tpot_seconds, requests_per_second=asked.requests_per_second))
    return _way(run, float(first[at]), float(each[at]), float(rate[at]),
                _held(run, int(LOADS[at]), row), loss, asked, bool(good.any()), lesson)


def _way(run: Run, first: float, each: float, rate: float, held: float, loss: Estimate,
         asked: Objective, good: bool, lesson: ServingLesson | None) -> Way:
    job = run.serve

    def estimate(value: float, kind: str) -> Estimate:
        if lesson is not None:
            return lesson.around(run, job.max_batch, kind, value)
        return serving.estimate(run.machine, run.recipe.precision, value, job.weight_precision)

    speed = estimate(rate, "rate")
    shares = busy(run, served.traffic(run), job.max_batch * job.attention_parallel, rate, 1.0)
    seconds = inverse(speed)
    kwh = energy(run.machine, run.place, seconds, shares=shares)["facility"]
    usd = money(run.machine, run.place, seconds, kwh)["total"].scaled(TOKENS)
    refused = ""
    if held > run.machine.memory_bytes:
        refused = "does not fit into memory"
    elif not good:
        refused = (f"one answer alone takes {first:.3g} s to its first token and {each:.3g} s a "
                   "token")
    elif rate < asked.requests_per_second * job.output_tokens:
        refused = f"keeps up with {rate / job.output_tokens:.3g} requests a second"
    elif loss.value is None and asked.most_loss < math.inf:
        refused = "its loss of quality was never measured"
    elif (loss.high or 0.0) > asked.most_loss:  # what is not known well enough is not promised
        refused = f"may lose {loss.high:.1%} of quality"
    return Way(run=run, ttft=estimate(first, "ttft"), tpot=estimate(each, "tpot"),
               tokens_per_second=speed, joules=kwh.scaled(JOULES_PER_KWH), usd=usd,
               memory_bytes=held, loss=loss, refused=refused)


def _held(run: Run, batch: int, row_tokens: int) -> float:
    return served.held_bytes(run, batch, row_tokens)["peak"]


def _price(way: Way) -> float:
    """What ways are ranked by: money, or joules where nothing is to be paid for."""
    if way.usd.value:
        return way.usd.value
    return way.joules.value if way.joules.value is not None else math.inf


def _plainest(allowed: list[Way]) -> Way:
    """The cheapest, or one as cheap that changes less of the weights as they were trained."""
    cheap = [way for way in allowed if _price(way) * (1 - WORTH) <= _price(allowed[0])]
    return min(cheap, key=lambda way: (way.loss.value or 0.0, bool(way.run.serve.drafted_tokens),
                                       _price(way)))


def _reasons(best: Way, found: list[Way], asked: Objective) -> Iterator[str]:
    yield (f"{best.name}, {best.run.serve.max_batch} answers together: the cheapest of "
           f"{len(found)} ways within {asked.ttft_seconds:g} s to the first token, "
           f"{asked.tpot_seconds:g} s a token and {asked.most_loss:.1%} of quality")
    plain = next((way for way in found if way.loss.basis == "given" and not way.refused
                  and way.run.recipe.precision == best.run.recipe.precision
                  and way.run.serve.weight_precision == "same"
                  and way.run.serve.cache_precision == "same"), None)
    if plain is not None and plain is not best and _price(best) > 0:
        yield f"costs {_price(best) / _price(plain):.2f} of the same with weights as trained"
    if best.loss.value:
        yield (f"loses {best.loss.value:.2%} of bits a byte, {best.loss.high:.2%} at most "
               f"({best.loss.source})")
    if best.loss.value is None:
        yield f"{best.name}: {best.loss.source}, and no bar of quality is set"
    for name, way in _cheaper(best, found):
        yield f"{name} would be cheaper, but {way.refused}"


def _cheaper(best: Way, found: list[Way]) -> list[tuple[str, Way]]:
    """At most two refused ways that would cost less."""
    less = [way for way in found if way.refused and _price(way) < _price(best) * (1 - WORTH)]
    return [(way.name, way) for way in sorted(less, key=_price)[:2]]


def _warnings(found: list[Way]) -> Iterator[str]:
    """Narrower weights that cost as much as those they replace, or more."""
    for way in found:
        job = way.run.serve
        if job.weight_precision == "same" or job.cache_precision != "same" or job.drafted_tokens:
            continue
        plain = next((one for one in found if one.run.recipe == way.run.recipe
                      and replace(one.run.serve, max_batch=0) == replace(
                          job, weight_precision="same", max_batch=0)), None)
        if plain is None or not _price(plain) or _price(way) < _price(plain) * (1 - WORTH):
            continue
        if not math.isfinite(_price(way)):
            continue
        yield (f"{way.name} saves nothing here: {_price(way) / _price(plain):.2f} of the price of "
               f"{plain.name}, at {job.max_batch} answers together, where reading weights is a "
               "small part of the work")


def _nearest(found: list[Way]) -> str:
    fits = [way for way in found if way.tpot.value is not None] or found
    way = min(fits, key=lambda one: one.tpot.value or math.inf)
    return f"the quickest, {way.name}, {way.refused}"
