"""Model partitioning: the best of all valid recipes, and replicas that rarely meet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from curbcut.errors import InputError
from curbcut.plan.levers.case import (
    Aim,
    Case,
    Refusal,
    as_ruled,
    published,
    step_seconds,
    valid,
)
from curbcut.spec import checks
from curbcut.spec.nouns import Run

OUTER_STEPS = 500
"""Steps that replicas take apart: those of arXiv 2311.08105."""
KEPT = frozenset({"precision", "optimiser", "offload"})
"""Fields that the search of degrees leaves as they are: levers of their own, or learning."""
LAYOUT = ("dp_replicate", "dp_shard", "tp", "pp", "cp", "ep", "micro_batch", "virtual_stages",
          "sequence_parallel", "recompute", "shard", "pipeline", "context")
"""Fields that it sets."""
_UNCUT: dict[str, Any] = {
    "dp_replicate": 1, "tp": 1, "pp": 1, "cp": 1, "ep": 1, "virtual_stages": 1,
    "sequence_parallel": False, "recompute": "none", "shard": "parameters", "pipeline": "1f1b",
    "context": "ring"}
_found: dict[object, Run | None] = {}
"""Searches of this process, by what they depend on."""


def partitioning(case: Case, _: Aim) -> Case | Refusal:
    """The fastest of all valid recipes at the same precision, optimiser and batch, by the search
    that `curbcut plan --search` uses.
    """
    run = case.run
    best = fastest_run(case)
    if best is None:
        return Refusal("no valid recipe fits", fits=False)
    if step_seconds(best) >= step_seconds(run) and case.fits():
        return Refusal("already the fastest of all valid recipes")
    return case.with_run(as_ruled(run, replace(run, recipe=best.recipe)))


def fastest_run(case: Case) -> Run | None:
    """The run with the fastest recipe that fits; None where none does.

    Searched in 16 bits once a model and machine, whatever the levers before set, so that one search
    serves all of them; at the run's own precision where that layout does not fit it.
    """
    run = case.run
    known = checks.precisions(run.machine)
    plain = replace(run.recipe, precision="bf16" if "bf16" in known else run.recipe.precision,
                    compile=False, power_limit=1.0, micro_batch=1, checkpoint_every_steps=1,
                    evaluate_every_steps=1, **_UNCUT, dp_shard=run.machine.accelerators)
    found = _once(replace(case, run=replace(run, recipe=plain)))
    if found is not None:
        laid = {name: getattr(found.recipe, name) for name in LAYOUT}
        best = replace(run, recipe=replace(run.recipe, **laid))
        if valid(run.model, best.recipe, run.machine) and case.fits(best):
            return best
    return _once(case)


def _once(case: Case) -> Run | None:
    """A search of this process."""
    run = case.run
    key = (run.model, repr(run.machine), run.recipe, case.memory_factor)
    if key not in _found:
        _found[key] = _searched(case)
    return _found[key]


def _searched(case: Case) -> Run | None:
    from curbcut.plan import space
    from curbcut.plan.offers import offer
    from curbcut.plan.recipes import fastest

    run = case.run
    whole = space.Space(run.model, run.machine, run.recipe, KEPT)
    try:
        found = fastest(offer(whole, run.place, case.memory_factor))
    except InputError:
        return None
    return replace(run, recipe=found.recipe)


def diloco(case: Case, _: Aim) -> Case | Refusal:
    """Nodes that train apart and meet every 500 steps: traffic by the physics, quality by the
    literature.
    """
    run = case.run
    if run.recipe.outer_steps > 1:
        return Refusal("already on")
    if run.machine.nodes == 1:
        return Refusal("one node: there is no network to spare")
    recipe = run.recipe
    if recipe.dp_replicate == 1:
        data = recipe.dp_shard
        shard = data // run.machine.nodes if data % run.machine.nodes == 0 else data
        recipe = replace(recipe, dp_replicate=data // shard, dp_shard=shard)
    changed = case.with_run(replace(run, recipe=replace(recipe, outer_steps=OUTER_STEPS)))
    if recipe.dp_replicate == 1 or not valid(run.model, changed.run.recipe, run.machine):
        return Refusal("no replicas that could be apart")
    if not changed.fits():
        return Refusal("a node's own copy does not fit", fits=False)
    return changed.with_factor(published("diloco"))
