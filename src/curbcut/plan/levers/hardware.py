"""Efficient hardware and competitive accelerators: the same work on other machines of the facts.

Never more accelerators than the run has, and the same global batch, so that the same is learnt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from curbcut.errors import InputError
from curbcut.facts import accelerators
from curbcut.facts.accelerators import Accelerator
from curbcut.plan import machines
from curbcut.plan.layout import lay_out
from curbcut.plan.levers.buying import cheapest_rent
from curbcut.plan.levers.case import (
    Aim,
    Case,
    Refusal,
    as_ruled,
    differences,
    step_seconds,
    valid,
)
from curbcut.plan.levers.partition import LAYOUT
from curbcut.plan.levers.software import variants
from curbcut.spec import checks
from curbcut.spec.nouns import Machine

FEWER = (2, 4, 8)
"""A machine is tried whole, and divided by these."""
BETTER_USED = 2.0
"""Another chip may reach this much more of its peak: one slower still is not laid out at all."""
CLOSEST = 3
"""Chips, the best at the run's own number, of which fewer are tried as well."""


def newer_chip(case: Case, aim: Aim) -> Case | Refusal:
    """The best of the same maker's later accelerators."""
    mine = _mine(case)
    if mine is None:
        return Refusal(f"{case.run.machine.accelerator} is no accelerator of the facts")
    return _best(case, aim, lambda one: one.vendor == mine.vendor and one.kind == mine.kind
                 and _later(one, mine), "no later accelerator")


def other_accelerator(case: Case, aim: Aim) -> Case | Refusal:
    """The best of all that is no later one of the same maker."""
    mine = _mine(case)
    if mine is None:
        return Refusal(f"{case.run.machine.accelerator} is no accelerator of the facts")
    found = _best(case, aim, lambda one: one.id != mine.id and one.kind != "cpu"
                  and not (one.vendor == mine.vendor and _later(one, mine)),
                  "no other accelerator")
    makers = _makers(case, aim, mine)
    return found if isinstance(found, Refusal) or not makers else replace(
        found, changed=(*found.changed, f"makers at the run's own number: {makers}"))


def _makers(case: Case, aim: Aim, mine: Accelerator) -> str:
    """What the best chip of each other maker comes to beside the run, one by one."""
    count, before = case.run.machine.accelerators, aim.price(case)
    least: dict[str, tuple[float, str]] = {}
    for chip in accelerators.accelerators():
        if chip.kind == "cpu" or chip.vendor == mine.vendor:
            continue
        moved = on(case, chip, count) if chip.peak_flops else None
        value = aim.price(moved) if moved else math.inf
        best = least.get(chip.vendor)
        if best is None or value < best[0]:
            least[chip.vendor] = (value, chip.id)
    known = sorted((value, name) for value, name in least.values() if math.isfinite(value))
    unknown = sorted(maker for maker, (value, _) in least.items() if math.isinf(value))
    said = [f"{name} {value / before:.2f} x" for value, name in known]
    if unknown:
        said.append(f"none of {', '.join(unknown)} is priced, fast and large enough")
    return ", ".join(said)


def fewer_accelerators(case: Case, aim: Aim) -> Case | Refusal:
    """Half, a quarter or an eighth of the machine."""
    mine = _mine(case)
    if case.run.machine.accelerators == 1 or mine is None:
        return Refusal("one accelerator is the least")
    found = aim.best(list(_fewer(case, mine)))
    return found or Refusal("fewer do not hold it, or take too long", fits=False)


def _mine(case: Case) -> Accelerator | None:
    try:
        return accelerators.accelerator(case.run.machine.accelerator)
    except InputError:
        return None


def _rate(flops: Mapping[str, float]) -> float:
    """The 16-bit rate, else the 32-bit one; 0 where none is stated."""
    return next((flops[name] for name in ("bf16", "fp16", "fp32") if flops.get(name)), 0.0)


def _later(one: Accelerator, mine: Accelerator) -> bool:
    return bool(one.release_date) and one.release_date > mine.release_date


def _best(case: Case, aim: Aim, holds: Callable[[Accelerator], bool], none: str) -> Case | Refusal:
    """The best chip at the run's number, then fewer of the closest ones."""
    count = case.run.machine.accelerators
    least = _rate(case.run.machine.peak_flops) / aim.most_slower / BETTER_USED
    tried = [(chip, found) for chip in accelerators.accelerators()
             if holds(chip) and _rate(chip.peak_flops) >= least
             and (found := on(case, chip, count)) is not None]
    if not tried:
        return Refusal(f"{none} of the facts holds it", fits=False)
    ranked = sorted(tried, key=lambda pair: aim.price(pair[1]))[:CLOSEST]
    found = aim.best([whole for _, whole in ranked]
                     + [one for chip, _ in ranked for one in _fewer(case, chip)])
    if found is not None and "partitioning" in case.taken:
        found = _as_cut(case, found)
    return found or Refusal(f"{none} of the facts is priced, or fast enough")


def _as_cut(case: Case, moved: Case) -> Case:
    """A case on other accelerators, cut as the search cut the run, with as many copies as there are
    accelerators for, and the fastest recompute mode and micro-batch; as it was where that is no
    faster. (A search of every chip would take minutes on a large machine.)
    """
    old, run = case.run.recipe, moved.run
    within = case.run.machine.accelerators // max(1, old.dp_replicate * old.dp_shard)
    ranks = max(1, run.machine.accelerators // within)
    shard = math.gcd(ranks, old.dp_shard)
    kept = {name: getattr(old, name) for name in LAYOUT}
    cut = replace(run.recipe, **kept | {"dp_shard": shard, "dp_replicate": ranks // shard})
    able = [one for one in (run.recipe, *(variants(cut) if old.global_batch % ranks == 0 else ()))
            if valid(run.model, one, run.machine) and case.fits(replace(run, recipe=one))]
    best = min(able, key=lambda one: step_seconds(replace(run, recipe=one)), default=run.recipe)
    found = moved.with_run(as_ruled(run, replace(run, recipe=best)))
    return replace(found, changed=differences(case.run, found.run))


def _fewer(case: Case, chip: Accelerator) -> Iterator[Case]:
    for part in FEWER:
        if case.run.machine.accelerators % part == 0:
            found = on(case, chip, case.run.machine.accelerators // part)
            if found is not None:
                yield found


def on(case: Case, chip: Accelerator, count: int) -> Case | None:
    """The case on so many of a chip, laid out by the plan's rules; None where it does not fit."""
    try:
        machine = machines.build(machines.from_facts(f"{count}x{chip.id}"))
    except InputError:
        return None
    run = case.run
    kept = {name: getattr(run.recipe, name) for name in (
        "sequence_tokens", "global_batch", "attention", "optimiser", "learning_rate", "schedule",
        "compile", "chunked_loss", "outer_steps", "power_limit", "warmup_fraction",
        "decay_fraction", "checkpoint_every_steps", "evaluate_every_steps")}
    kept["precision"] = _precision(run.recipe.precision, machine)
    if kept["outer_steps"] > 1:
        kept["outer_steps"] = 1
    try:
        recipe = lay_out(run.model, machine, run.train.tokens, kept,
                         memory_factor=case.memory_factor).recipe
    except InputError:
        return None
    place = run.place
    if place.usd_per_accelerator_hour:
        rate = cheapest_rent(machine) if "cheapest-provider" in case.taken else None
        place = replace(place, usd_per_accelerator_hour=rate or 0.0)
    moved = replace(run, machine=machine, recipe=recipe, place=place)
    return case.with_run(as_ruled(run, moved))


def _precision(wanted: str, machine: Machine) -> str:
    """The run's precision where the machine has it, else the next wider one."""
    known = checks.precisions(machine)
    for name in (wanted, "bf16", "fp16", "fp32"):
        if name in known:
            return name
    return "fp32"
