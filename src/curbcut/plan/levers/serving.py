"""Levers of serving: the price of a million answer tokens of servers that are kept full within
their objectives (`run.serve`), by the physics of serving.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from curbcut.accounts.carbon import carbon
from curbcut.accounts.energy import energy
from curbcut.accounts.money import money
from curbcut.accounts.sheet import Sheet
from curbcut.errors import InputError
from curbcut.physics import serving
from curbcut.plan.levers.case import Aim, Case, Lever, Refusal
from curbcut.plan.levers.price import Priced, start_of
from curbcut.plan.levers.result import Unit, Waterfall
from curbcut.plan.levers.waterfall import blank, descend
from curbcut.plan.served import under_load
from curbcut.plan.serving import engine
from curbcut.spec import checks
from curbcut.spec.account import UNIT_OF
from curbcut.spec.estimate import modelled
from curbcut.spec.nouns import Machine, Run

TOKENS = 1e6
"""Answer tokens that are priced."""
BATCHES = tuple(2 ** power for power in range(13))
DRAFTED = 3
"""Tokens drafted a step; accepted with the run's own chance (serve.acceptance)."""
SHARED = 0.5
"""Share of a prompt that others began with: an assumption, which only the traffic can tell."""
CHUNK_TOKENS = 2048
KV_GROUPS = 8


def batching(case: Case, aim: Aim) -> Case | Refusal:
    """As many answers together as the memory holds and the objectives allow."""
    tried = [_with(case, max_batch=size) for size in BATCHES]
    best = aim.best([one for one in tried if _fits(one.run)])
    if best is None:
        return Refusal("no batch fits into memory", fits=False)
    if best.run.serve.max_batch <= case.run.serve.max_batch:
        return Refusal(f"already on: {case.run.serve.max_batch} together")
    return best


def weights(precision: Literal["fp8", "int4"]) -> object:
    """The lever of weights stored in a narrower format."""
    def apply(case: Case, _: Aim) -> Case | Refusal:
        if case.run.serve.weight_precision != "same":
            return Refusal(f"already in {case.run.serve.weight_precision}")
        return _with(case, weight_precision=precision)
    return apply


def quantised_cache(case: Case, _: Aim) -> Case | Refusal:
    """Keys and values in 8 bits."""
    if case.run.serve.cache_precision != "same":
        return Refusal("already on")
    return _with(case, cache_precision="fp8")


def chunked_prefill(case: Case, _: Aim) -> Case | Refusal:
    """Long prompts a chunk at a time between decoding steps."""
    if case.run.serve.chunk_tokens:
        return Refusal("already on")
    return _with(case, chunk_tokens=CHUNK_TOKENS)


def prefix_cache(case: Case, _: Aim) -> Case | Refusal:
    """Beginnings of prompts that are not read again."""
    if case.run.serve.prefix_hit_rate:
        return Refusal(f"already on: {case.run.serve.prefix_hit_rate:.0%}")
    return _with(case, prefix_hit_rate=SHARED)


def speculation(case: Case, _: Aim) -> Case | Refusal:
    """A few tokens drafted and checked in one pass; the draft itself is not priced."""
    if case.run.serve.drafted_tokens:
        return Refusal("already on")
    return _with(case, drafted_tokens=DRAFTED)


def tensor_parallel(case: Case, aim: Aim) -> Case | Refusal:
    """The best number of accelerators that share one server."""
    machine, job = case.run.machine, case.run.serve
    tried = [_with(case, tensor_parallel=n, replicas=1) for n in (1, 2, 4, 8)
             if n <= machine.accelerators_per_node and case.run.model.heads % n == 0
             and n % job.expert_parallel == 0]
    best = aim.best([one for one in tried if _fits(one.run)])
    if best is None or best.run.serve.tensor_parallel == job.tensor_parallel:
        return Refusal(f"already on: {job.tensor_parallel} accelerators a server")
    return best


def grouped(case: Case, _: Aim) -> Case | Refusal:
    """Eight key and value heads, decided before training."""
    model = case.run.model
    if model.attention == "mla" or model.kv_heads <= KV_GROUPS or model.heads % KV_GROUPS:
        return Refusal(f"already on: {model.kv_heads} key and value heads" if model.attention
                       != "mla" else "keys and values are a latent already")
    return case.with_run(replace(case.run, model=replace(model, preset="", kv_heads=KV_GROUPS)))


def latent(case: Case, _: Aim) -> Case | Refusal:
    """Keys and values as a latent of four heads' width and half a head for the position
    (DeepSeek-V2, arXiv:2405.04434, section 2.1), decided before training.
    """
    model = case.run.model
    if model.attention == "mla":
        return Refusal("already on")
    changed = replace(model, preset="", attention="mla", window_tokens=0, full_every=0,
                      kv_heads=model.heads, kv_rank=4 * model.head_size,
                      rope_size=model.head_size // 2, value_size=model.head_size)
    return case.with_run(replace(case.run, model=changed))


SERVING: tuple[Lever, ...] = (
    Lever("continuous-batching", "serving", batching),
    Lever("tensor-parallel", "serving", tensor_parallel),
    Lever("fp8-weights", "serving", weights("fp8"), excludes="weights"),  # type: ignore[arg-type]
    Lever("int4-weights", "serving", weights("int4"), excludes="weights"),  # type: ignore[arg-type]
    Lever("quantised-cache", "serving", quantised_cache),
    Lever("chunked-prefill", "serving", chunked_prefill),
    Lever("speculation", "serving", speculation),
    Lever("prefix-cache", "serving", prefix_cache, kind="what-if"),
    Lever("grouped-query-attention", "serving", grouped, excludes="attention", kind="instead"),
    Lever("latent-attention", "serving", latent, excludes="attention", kind="instead"),
)


def _with(case: Case, **values: object) -> Case:
    return case.with_run(replace(case.run, serve=replace(case.run.serve, **values)))  # type: ignore[arg-type]


def _fits(run: Run) -> bool:
    try:
        held = serving.held_bytes(run.model, run.machine, run.recipe.precision,
                                  run.serve.max_batch, _row_tokens(run), engine(run))["peak"]
    except InputError:
        return False
    return held <= run.machine.memory_bytes


def _row_tokens(run: Run) -> int:
    """Tokens of a cache's row: the traffic's, as pages hold no more."""
    return run.serve.prompt_tokens + run.serve.output_tokens


def price(case: Case, unit: Unit) -> Priced:
    """A million answer tokens of servers at the most they give within the objectives."""
    sheet, run = Sheet(), case.run
    checks.shape(run.model)
    most = under_load(run).tokens_per_second["most"] if _fits(run) else None
    if most is None or most.value is None:
        return Priced(case, sheet, unit)
    machine = _servers(run)
    seconds = modelled(TOKENS / most.value, (most.high or most.value) / most.value,
                       "a million tokens at the most within the objectives")
    kwh = energy(machine, run.place, seconds)
    lines = {"seconds": {"total": seconds}, "kwh": kwh,
             "usd": money(machine, run.place, seconds, kwh["facility"]),
             "kgco2e": carbon(machine, run.place, seconds, kwh["facility"])}
    for section, kinds in lines.items():
        for kind, estimate in kinds.items():
            sheet.leaf(f"{section}.{kind}", estimate, UNIT_OF[section])
    return Priced(case, sheet, unit)


def _servers(run: Run) -> Machine:
    """The accelerators that serve."""
    job = run.serve
    used = job.tensor_parallel * job.attention_parallel * (job.replicas + job.prefill_replicas)
    each = min(used, run.machine.accelerators_per_node)
    return replace(run.machine, accelerators_per_node=each, nodes=-(-used // each))


def serving_waterfall(run: Run, unit: Unit, levers: Sequence[Lever] = SERVING, *,
                      what_if: bool = False) -> Waterfall:
    """All levers of serving on `run`. Raises InputError where its traffic cannot be served."""
    first = start_of(price(Case(run), unit), "not even one request can be served within the "
                     "objectives (serve.ttft_seconds, serve.tpot_seconds)")
    what = ("a million answer tokens of servers kept full within the objectives: prompts of "
            f"{run.serve.prompt_tokens}, answers of {run.serve.output_tokens}")
    return descend(first, levers, lambda case: price(case, unit), math.inf,
                   blank(run, "serving", what, first), what_if=what_if)
