"""Serving becomes an account, of the kinds that a server measures of itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from curbcut.accounts.carbon import carbon
from curbcut.accounts.convert import inverse
from curbcut.accounts.energy import JOULES_PER_KWH, device_watts, energy
from curbcut.accounts.money import money
from curbcut.accounts.water import litres
from curbcut.errors import InputError
from curbcut.physics import cache, memory, power, serving
from curbcut.physics.numbers import Number
from curbcut.physics.serving_passes import HEAD_BYTES, Engine, accepted_tokens
from curbcut.physics.serving_traffic import Traffic
from curbcut.spec.account import Account
from curbcut.spec.checks import near
from curbcut.spec.estimate import Estimate, given, modelled, unknown
from curbcut.spec.nouns import Run

TOTALS = ("tokens", "kwh", "kwh_modelled", "usd", "kgco2e", "litres")
"""Sections that depend on how much is asked; of `seconds`, all but the latencies."""
LATENCIES = ("ttft", "tpot")
FIRST_PASS_SECONDS = 0.01
"""What the first pass of a fresh engine takes more than others (kernels chosen, threads started):
4 to 19 ms where it was seen, x4 either way."""
OWN_BYTES: Mapping[str, float] = {"int8": 1.0, "int8-dynamic": 1.0, "int4": 0.5 + 4 / 32}
"""Bytes a weight in our own engine: one scale an output; a bf16 scale and zero for 32 inputs."""
ANSWER_SECONDS = 0.005
"""HTTP, tokens and text of one answer beside the model's passes: an assumption, x4 either way."""


def forecast_serving(run: Run, requests: int, prompt_tokens: int, output_tokens: int) -> Account:
    """Prices `requests` (at least 1) that are asked at once of a server that has just started.

    Each has a prompt of `prompt_tokens` and an answer of `output_tokens` (both at least 1);
    each server decodes `run.serve.max_batch` of them together. `ttft` and `tpot` are the mean
    seconds to an answer's first token and of each token after it; they are no part of the total.
    """
    job, cut = run.serve, engine(run)
    each = -(-requests // job.replicas)
    batch = min(job.max_batch, each)
    how = (run.model, run.machine, run.recipe.precision)
    prefill = serving.prefill_seconds(*how, prompt_tokens, cut,
                                      job.prefix_hit_rate * prompt_tokens)
    if job.drafted_tokens:  # the small model reads prompts too
        prefill = prefill.scaled(1 + drafter(run))
    step = serving.decode_seconds(*how, batch, prompt_tokens + output_tokens // 2, cut,
                                  job.drafted_tokens, drafter(run))
    if job.drafted_tokens:
        step = step.scaled(1 / accepted_tokens(job.drafted_tokens, job.acceptance))
    seconds = _seconds(prefill, step, each, batch, output_tokens,
                       job.prefill_replicas / job.replicas)
    answers = requests * output_tokens
    asked = replace(traffic(run), prompt_tokens=prompt_tokens, output_tokens=output_tokens)
    shares = busy(run, asked, batch, answers, seconds["total"].value)
    kwh = energy(run.machine, run.place, seconds["total"], shares=shares)
    return Account(
        seconds=seconds,
        tokens={"prompt": given(requests * prompt_tokens, "requests x prompt"),
                "answer": given(answers, "requests x longest answer")},
        tokens_per_second={"prefill": inverse(seconds["prefill"]).scaled(requests * prompt_tokens),
                           "decode": inverse(step).scaled(batch * job.replicas)},
        memory_bytes=_memory(run),
        watts={"device": device_watts(run.machine, shares=shares)},
        kwh=kwh, kwh_modelled=kwh,
        joules_per_token={"answer": kwh["facility"].scaled(JOULES_PER_KWH / answers)},
        usd=money(run.machine, run.place, seconds["total"], kwh["facility"]),
        kgco2e=carbon(run.machine, run.place, seconds["total"], kwh["facility"]),
        litres=litres(run.place, kwh["facility"]),
    )


def traffic(run: Run, concurrency: Number = 1.0) -> Traffic:
    """So many requests in flight (a number, or a column of them) of those that the job asks for."""
    job = run.serve
    return Traffic(concurrency=concurrency, prompt_tokens=job.prompt_tokens,
                   output_tokens=job.output_tokens, prefix_hit_rate=job.prefix_hit_rate,
                   drafted=job.drafted_tokens, acceptance=job.acceptance, drafter=drafter(run))


def drafter(run: Run) -> float:
    """Parameters of the model that drafts over those of the run's; 0 where none does."""
    return run.serve.drafter_parameters / run.model.parameters


def held_bytes(run: Run, batch: int, row_tokens: int) -> Mapping[str, float]:
    """Bytes by kind of an accelerator that serves `batch` rows of so many tokens; the model that
    drafts is there with its weights and a cache of its own.
    """
    parts = dict(serving.held_bytes(run.model, run.machine, run.recipe.precision, batch, row_tokens,
                                    engine(run)))
    if run.serve.drafted_tokens:
        for kind in ("parameters", "cache"):
            more = parts[kind] * drafter(run)
            parts[kind] += more
            parts["peak"] += more
    return parts


def busy(run: Run, asked: Traffic, batch: float, answer_tokens: float,
         seconds: float | None) -> power.Busy | None:
    """What the run's accelerators, all of the machine's, are kept busy with on average while its
    servers, each decoding `batch` answers together, give so many tokens in so many seconds; None
    where accelerators draw by no such model (CPUs, TPUs) or no rate is known.
    """
    job, cut = run.serve, engine(run)
    found = serving.server(run.model, run.machine, run.recipe.precision, cut)
    if run.machine.kind != "gpu" or found is None or not seconds:
        return None
    rate = answer_tokens / seconds / job.replicas
    one = serving.busy(run.model, found, asked, max(1.0, batch / found.engine.dp), rate)
    return one.over(float(found.engine.ranks * job.replicas) / run.machine.accelerators)


def forecast_session(run: Run) -> Account:
    """What a server promises before anyone has asked: latency and speed of one answer at a time
    with the mean lengths of `run.serve`, memory and power.

    How much will be asked is not known, so totals have no value; each says so.
    """
    job = run.serve
    one = forecast_serving(run, 1, job.prompt_tokens, job.output_tokens)
    why = unknown("how much will be asked is not known beforehand (priced: answers of "
                  f"{job.prompt_tokens} + {job.output_tokens} tokens)", "modelled")
    seconds = {kind: estimate if kind in LATENCIES else why
               for kind, estimate in one.seconds.items()}
    return replace(one, seconds=seconds, **{
        section: dict.fromkeys(getattr(one, section), why) for section in TOTALS})


def engine(run: Run) -> Engine | None:
    """How `run.serve` cuts and stores the model; None for one accelerator and weights as they are
    computed in. Raises InputError for degrees that do not go with the machine or each other.
    """
    job, machine = run.serve, run.machine
    ranks = job.tensor_parallel * job.attention_parallel
    needed = ranks * (job.replicas + job.prefill_replicas)
    if needed > machine.accelerators:
        raise InputError(
            f"asks for {needed} accelerators (tensor_parallel x attention_parallel x servers) of "
            f"{machine.accelerators}", where="serve", mend="lower a degree, or take more machines")
    if ranks % job.expert_parallel:
        raise _refuse("expert_parallel", job.expert_parallel, f"the {ranks} accelerators of a "
                      "server", ranks)
    if run.model.heads % job.tensor_parallel:
        raise _refuse("tensor_parallel", job.tensor_parallel,
                      f"the model's {run.model.heads} heads", run.model.heads)
    if job.prefix_hit_rate >= 1:
        raise InputError(f"prefix_hit_rate = {job.prefix_hit_rate:g} is no share below 1: each "
                         "prompt has a token of its own", where="serve", mend="nearest: 0.99")
    if job.acceptance > 1:
        raise InputError(f"acceptance = {job.acceptance:g} is no share of at most 1",
                         where="serve", mend="nearest: 1")
    plain = (ranks, job.weight_precision, job.cache_precision, job.chunk_tokens)
    if plain == (1, "same", "same", 0):
        return None
    wide = float(serving.element_bytes(run.recipe.precision))
    stored, head = wide, HEAD_BYTES
    if job.weight_precision != "same":
        name = job.weight_precision.removesuffix("-dynamic")
        stored = cache.ELEMENT_BYTES[name] + cache.SCALE_BYTES[name]
    kept = wide if job.cache_precision == "same" else 1.0
    if machine.kind == "cpu":  # our own engine: the head is a byte a weight, four bits in 32s
        kept += 2 / run.model.head_size if job.cache_precision == "int8" else 0.0
        stored = OWN_BYTES.get(job.weight_precision, stored)
        head = 1.0 if job.weight_precision in OWN_BYTES else wide
    return Engine(tp=job.tensor_parallel, dp=job.attention_parallel, ep=job.expert_parallel,
                  moe_tp=ranks // job.expert_parallel, dense_bytes=stored, expert_bytes=stored,
                  cache_bytes=kept,
                  head_bytes=head, weights=job.weight_precision,
                  chunk_tokens=job.chunk_tokens or math.inf)


def _refuse(name: str, value: int, what: str, whole: int) -> InputError:
    """The error for a degree that does not divide `whole`."""
    nearest = " or ".join(str(n) for n in near(value, whole, lambda n: whole % n == 0))
    return InputError(f"{name} = {value} does not divide {what}", where="serve",
                      mend=f"nearest: {nearest}")


def _seconds(prefill: Estimate, step: Estimate, requests: int, batch: int, output_tokens: int,
             readers: float) -> Mapping[str, Estimate]:
    """Seconds by kind. Prompts are read one by one, each between two decoding steps; or by
    `readers` servers of their own for each that decodes, all but the first batch meanwhile.
    """
    start = modelled(FIRST_PASS_SECONDS, 4.0, "first pass of a fresh engine")
    seen, prefill = (batch, prefill.scaled(1 / readers)) if readers else (requests, prefill)
    reading = prefill.scaled(seen).plus(start, prefill.source)
    steps = step.scaled(requests * (output_tokens - 1) / batch)
    around = modelled(requests * ANSWER_SECONDS, 4.0, "HTTP and text an answer: assumed")
    waves = requests / batch
    answer = step.scaled(output_tokens - 1)
    if not readers:
        answer = answer.plus(prefill.scaled(batch))
    first = (prefill.scaled((batch + 1) / 2).plus(step.scaled((batch - 1) / 2))
             .plus(answer.scaled((waves - 1) / 2)).plus(start, prefill.source))
    # While a batch fills, the answers that run wait for the prompts that are read between.
    between = 0.0 if readers else (batch - 1) / 2 / max(1, output_tokens - 1)
    waiting = prefill.scaled(between)
    return {"prefill": reading, "decode": steps, "idle": around,
            "total": reading.plus(steps).plus(around, step.source),
            "ttft": first, "tpot": step.plus(waiting)}


def _memory(run: Run) -> Mapping[str, Estimate]:
    """Bytes an accelerator by kind: weights, and a cache of `max_batch` rows as long as the model's
    context.
    """
    parts = held_bytes(run, run.serve.max_batch, run.model.context_tokens)
    spread = memory.MEMORY_SPREAD.get(run.machine.kind, memory.MEMORY_SPREAD["gpu"])
    exact = {kind: given(parts[kind], source) for kind, source in (
        ("parameters", "bytes a parameter x parameters"), ("cache", "max_batch x context"))}
    return exact | {"overhead": modelled(parts["overhead"], spread ** 2, "closed form"),
                    "peak": modelled(parts["peak"], spread, "sum of the kinds")}
