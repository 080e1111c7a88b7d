"""A serving session as a measured `Account`, of the kinds that `plan.serving` forecasts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from curbcut.accounts.carbon import carbon
from curbcut.accounts.energy import JOULES_PER_KWH, energy, idle
from curbcut.accounts.money import money
from curbcut.accounts.water import litres
from curbcut.serve.engine.interface import Stats
from curbcut.spec.account import Account
from curbcut.spec.estimate import Estimate, measured, unknown
from curbcut.spec.nouns import Machine, Place, Run

CLOCK, COUNTER = "the engine's clock", "the engine's counter"


def account(stats: Stats, seconds: float, *, run: Run | None = None,
            peak_bytes: int | None = None, peak_source: str = "",
            joules: float | None = None, energy_source: str = "") -> Account:
    """What a session of `seconds` took and gave.

    `joules` is what sensors counted over the session, None without one; then the energy is
    unknown, never 0, and `energy_source` says why; where `peak_bytes` is None, `peak_source` does.
    A rate over no time at all is unknown too. With the served `run`, modelled energy, money and
    carbon are there, and energy a token of the time in which it worked; nobody is asked for prices
    of a model without one.
    """
    busy = min(seconds, stats.prefill_seconds + stats.decode_seconds)
    kwh = _sensed(joules, energy_source)
    found = Account(
        seconds=_seconds(stats, seconds),
        tokens=_tokens(stats),
        tokens_per_second={"prefill": _ratio(stats.prompt_tokens - stats.cached_tokens,
                                             stats.prefill_seconds),
                           "decode": _ratio(stats.decode_tokens, stats.decode_seconds)},
        memory_bytes=_memory(stats, peak_bytes, peak_source),
        watts={"device": unknown(energy_source or "no energy sensor") if joules is None
               else _ratio(joules, seconds, "energy sensors over the clock")},
        kwh=kwh, joules_per_token=_sensed_joules(stats, joules, energy_source))
    if run is None:
        return found
    modelled = modelled_kwh(run.machine, run.place, busy, seconds - busy)
    total = found.seconds["total"]
    answered = stats.answer_tokens
    worked = modelled_kwh(run.machine, run.place, busy, 0.0)["facility"]  # as the plan has it
    joules_each = (worked.scaled(JOULES_PER_KWH / answered) if answered
                   else unknown("no token was answered"))
    return replace(found, kwh_modelled=modelled,
                   joules_per_token={"answer": joules_each, **found.joules_per_token},
                   usd=money(run.machine, run.place, total, modelled["facility"]),
                   kgco2e=carbon(run.machine, run.place, total, modelled["facility"]),
                   litres=litres(run.place, modelled["facility"]))


def modelled_kwh(machine: Machine, place: Place, busy_seconds: float,
                 idle_seconds: float) -> Mapping[str, Estimate]:
    """Watts x time at each boundary: while busy those of work, else the machine's idle ones."""
    busy = energy(machine, place, measured(busy_seconds, CLOCK))
    rest = idle(machine, place, measured(idle_seconds, CLOCK))
    return {kind: busy[kind].plus(rest[kind], f"{busy[kind].source}; idle at rest")
            for kind in busy}


def _tokens(stats: Stats) -> Mapping[str, Estimate]:
    """Tokens of prompts and answers; those that were remembered, guessed ahead and agreed to where
    there were any.
    """
    found = {"prompt": stats.prompt_tokens, "answer": stats.answer_tokens}
    found |= {kind: count for kind, count in (
        ("cached", stats.cached_tokens), ("drafted", stats.drafted_tokens),
        ("accepted", stats.accepted_tokens)) if count or (kind == "accepted"
                                                          and stats.drafted_tokens)}
    return {kind: measured(count, COUNTER) for kind, count in found.items()}


def _sensed_joules(stats: Stats, joules: float | None, source: str) -> Mapping[str, Estimate]:
    """All that sensors counted, idle time included, for each answer token; no line without one."""
    if joules is None or not stats.answer_tokens:
        return {}
    return {"device": measured(joules / stats.answer_tokens, source or "energy sensors")}


def _seconds(stats: Stats, seconds: float) -> Mapping[str, Estimate]:
    busy = stats.prefill_seconds + stats.decode_seconds
    return {"prefill": measured(stats.prefill_seconds, CLOCK),
            "decode": measured(stats.decode_seconds, CLOCK),
            "idle": measured(max(0.0, seconds - busy), CLOCK),
            "total": measured(seconds, CLOCK),
            "ttft": _ratio(stats.first_token_seconds, stats.first_tokens, "mean over answers"),
            "tpot": _ratio(stats.next_token_seconds, stats.decode_tokens, "mean over tokens")}


def _memory(stats: Stats, peak_bytes: int | None, peak_source: str) -> Mapping[str, Estimate]:
    """Sizes of the tensors that the engine holds, and the peak; the rest is not told apart."""
    held = {kind: measured(size, "size of its tensors") if size else unknown("no engine told")
            for kind, size in (("parameters", stats.weights_bytes), ("cache", stats.cache_bytes))}
    return {**held, "overhead": unknown("not told apart from the peak"),
            "peak": unknown(peak_source or "memory was not read") if peak_bytes is None
            else measured(peak_bytes, peak_source or "the operating system's peak")}


def _sensed(joules: float | None, source: str) -> Mapping[str, Estimate]:
    """Energy from sensors; without one, no value at any boundary."""
    if joules is None:
        missing = unknown(source or "no energy sensor")
        return {"device": missing, "node": missing, "facility": missing}
    beyond = unknown("sensors see the device only")
    return {"device": measured(joules / JOULES_PER_KWH, source or "energy sensors"),
            "node": beyond, "facility": beyond}


def _ratio(amount: float, over: float, source: str = f"{COUNTER} over its clock") -> Estimate:
    return measured(amount / over, source) if over > 0 else unknown("nothing ran")
