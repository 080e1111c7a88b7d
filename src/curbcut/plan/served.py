"""What users of a run's server meet under the traffic that is asked of it (`run.serve`).

Requests come at a rate; Little's law says how many are in flight at once, and the physics of
serving what each of them meets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from curbcut.accounts.convert import inverse
from curbcut.accounts.energy import JOULES_PER_KWH, device_watts, energy
from curbcut.physics import serving, serving_traffic
from curbcut.physics.serving import MOST_REQUESTS, Server
from curbcut.physics.serving_traffic import Latency
from curbcut.plan.serving import busy, engine, held_bytes, traffic
from curbcut.spec.account import Account
from curbcut.spec.estimate import Estimate, given, unknown
from curbcut.spec.nouns import Machine, Precision, Run

HALVINGS = 40
"""Halvings of the range of loads, as logarithms: to a 2^-36th of it."""
SECTIONS = ("seconds", "tokens_per_second", "memory_bytes", "watts", "joules_per_token")
"""Of an account, those in which a server has kinds of its own."""
ROUNDING = 1e-6
"""Share of a rate that those halvings may miss."""


def with_service(plan: Account, run: Run) -> Account:
    """`plan` with what users of the server meet, as further kinds: seconds ttft and tpot, tokens a
    second that are asked for (`answers`) and that are given within the objectives (`most`),
    joules an answer token at either rate (`answer`, `most`) and watts of all accelerators at the
    rate asked for (`server`), and bytes of an accelerator that serves (`server`). Raises InputError
    for degrees that cannot be.
    """
    found = under_load(run)
    return replace(plan, **{section: getattr(plan, section) | getattr(found, section)
                            for section in SECTIONS})


def under_load(run: Run) -> Account:
    """The kinds that `with_service` adds, alone."""
    cut = engine(run)
    found = serving.server(run.model, run.machine, run.recipe.precision, cut)
    held = held_bytes(run, run.serve.max_batch, run.model.context_tokens)["peak"]
    full = held > run.machine.memory_bytes
    memory = {"server": Estimate(held, held / 1.2, held * 1.2, "modelled",
                                 "weights, and a cache of max_batch x context: "
                                 + ("does not fit" if full else "fits"))}
    if found is None:
        why = unknown(f"no {run.recipe.precision} matmul rate of {run.machine.accelerator}",
                      "modelled")
        return Account(seconds={"ttft": why, "tpot": why},
                       tokens_per_second={"answers": why, "most": why}, memory_bytes=memory,
                       watts={"server": why}, joules_per_token={"answer": why, "most": why})
    asked = run.serve.requests_per_second * run.serve.output_tokens
    meet = _meeting(run, found)
    inside = float(run.serve.max_batch * run.serve.replicas * run.serve.attention_parallel)
    load = _largest(lambda requests: float(meet(requests).tokens_per_second) <= asked, inside)
    met, best = meet(load), meet(_largest(lambda requests: _within(run, meet(requests)), inside))
    speeds = _speeds(run, met, best, asked)
    watts, joules = _power(run, met, speeds["answers"])
    return Account(seconds=_latencies(run, met, asked), memory_bytes=memory,
                   tokens_per_second=speeds, watts={"server": watts},
                   joules_per_token={"answer": joules,
                                     "most": _power(run, best, speeds["most"])[1]})


def _power(run: Run, met: Latency, rate: Estimate) -> tuple[Estimate, Estimate]:
    """Watts of all accelerators of the machine, and joules a token at the facility, at a rate of
    output tokens: what is not busy draws its idle power.
    """
    if rate.value is None:
        return rate, rate
    shares = busy(run, traffic(run), float(met.batch) * run.serve.attention_parallel,
                  rate.value, 1.0)
    kwh = energy(run.machine, run.place, inverse(rate), shares=shares)
    return (device_watts(run.machine, shares=shares),
            kwh["facility"].scaled(JOULES_PER_KWH, kwh["facility"].source))


def _meeting(run: Run, found: Server) -> Callable[[float], Latency]:
    """What so many requests in flight meet on all servers of the run."""
    job, one = run.serve, traffic(run)

    def together(requests: float) -> Latency:
        each = serving.latency(run.model, found, replace(
            one, concurrency=max(requests / job.replicas, 1.0)))
        return replace(each, tokens_per_second=each.tokens_per_second * job.replicas)

    def apart(requests: float) -> Latency:
        return serving_traffic.apart(
            run.model, found.engine, found.engine, job.prefill_replicas, job.replicas, found.chip,
            found.constants, replace(one, concurrency=requests))
    return apart if job.prefill_replicas else together


def _largest(holds: Callable[[float], bool], most: float) -> float:
    """The most requests, from 1 to `most`, up to which `holds` is true; 1 if it never is."""
    low, high = 1.0, max(min(most, MOST_REQUESTS), 1.0)
    if holds(high):
        return high
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _within(run: Run, met: Latency) -> bool:
    return bool(serving_traffic.within(met, run.serve.ttft_seconds, run.serve.tpot_seconds))


def _latencies(run: Run, met: Latency, asked: float) -> Mapping[str, Estimate]:
    """Mean latencies at the rate that is asked for; none where that is more than is given."""
    if not _keeps_up(met, asked):
        why = unknown(f"{run.serve.requests_per_second:g} requests a second are more than are "
                      "answered: they queue without end", "modelled")
        return {"ttft": why, "tpot": why}
    first, next_one = (serving.estimate(*_how(run), float(value), run.serve.weight_precision)
                       for value in (met.ttft_seconds, met.tpot_seconds))
    return {"ttft": first, "tpot": next_one}


def _how(run: Run) -> tuple[Machine, Precision]:
    return run.machine, run.recipe.precision


def _keeps_up(met: Latency, asked: float) -> bool:
    return float(met.tokens_per_second) >= asked * (1 - ROUNDING)


def _speeds(run: Run, met: Latency, best: Latency, asked: float) -> Mapping[str, Estimate]:
    def estimate(rate: Latency) -> Estimate:
        return serving.estimate(*_how(run), float(rate.tokens_per_second),
                                run.serve.weight_precision)

    answers = (given(asked, "requests a second x answer") if _keeps_up(met, asked)
               else estimate(met))
    if _within(run, best):
        return {"answers": answers, "most": estimate(best)}
    return {"answers": answers, "most": unknown(
        f"not even one request meets {run.serve.ttft_seconds:g} s and "
        f"{run.serve.tpot_seconds:g} s a token", "modelled")}
