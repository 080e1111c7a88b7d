"""Supercomputing optimisation: kernels, recompute and offload, checkpoints, the power limit."""

from __future__ import annotations

from dataclasses import replace

from curbcut.plan.levers.case import Aim, Case, Refusal, daly_steps, step_seconds, valid
from curbcut.plan.space import divisors
from curbcut.spec.nouns import Recipe

CAPS = (0.9, 0.8, 0.7, 0.6, 0.5)
"""Shares of the rated power that are tried."""
MOST_MICRO_TOKENS = 2**17
RECOMPUTE = ("none", "selective", "full")


def compiled(case: Case, _: Aim) -> Case | Refusal:
    """torch.compile of each block."""
    if case.run.recipe.compile:
        return Refusal("already on")
    if case.run.machine.kind == "cpu":
        return Refusal("not priced on a CPU, where the first step alone took 63 to 77 s")
    return case.with_recipe(compile=True)


def fused_attention(case: Case, _: Aim) -> Case | Refusal:
    """Attention without the scores in memory."""
    if case.run.recipe.attention == "fused":
        return Refusal("already on")
    changed = case.with_recipe(attention="fused")
    if not changed.fits():
        return Refusal("does not fit into memory", fits=False)
    return changed


def recompute(case: Case, _: Aim) -> Case | Refusal:
    """The fastest recompute mode and micro-batch that fit, with the degrees as they are.

    Recompute makes room for wider micro-batches; which of the two is worth more, the physics says.
    """
    run = case.run
    tried = [one for one in variants(run.recipe)
             if valid(run.model, one, run.machine) and case.fits(replace(run, recipe=one))]
    if not tried:
        return Refusal("nothing that fits differs", fits=False)
    best = min(tried, key=lambda one: step_seconds(replace(run, recipe=one)))
    if best == run.recipe:
        return Refusal("already the fastest")
    return case.with_run(replace(run, recipe=best))


def variants(recipe: Recipe) -> list[Recipe]:
    """A recipe in all recompute modes and micro-batches; itself first, to win among equals."""
    data = recipe.dp_replicate * recipe.dp_shard
    micros = [one for one in divisors(recipe.global_batch // data)
              if one == 1 or one * recipe.sequence_tokens // recipe.cp <= MOST_MICRO_TOKENS]
    return [recipe, *(replace(recipe, recompute=mode, micro_batch=micro)  # type: ignore[arg-type]
                      for mode in RECOMPUTE for micro in micros)]


def no_offload(case: Case, _: Aim) -> Case | Refusal:
    """What rests in host memory comes back, where it fits."""
    if case.run.recipe.offload == "none":
        return Refusal("nothing is offloaded")
    changed = case.with_recipe(offload="none")
    if not changed.fits():
        return Refusal("does not fit without", fits=False)
    return changed


def checkpoint_interval(case: Case, _: Aim) -> Case | Refusal:
    """Checkpoints by Daly's interval."""
    every = daly_steps(case.run)
    if every == case.run.recipe.checkpoint_every_steps:
        return Refusal("already on: Daly's interval")
    return case.with_recipe(checkpoint_every_steps=every)


def power_cap(case: Case, aim: Aim) -> Case | Refusal:
    """The best power limit for what is counted: a cap that saves energy costs rented time."""
    run = case.run
    if run.recipe.power_limit < 1.0:
        return Refusal(f"already on: {run.recipe.power_limit:.0%} of the rated power")
    if run.machine.kind == "cpu" or not run.machine.watts.get("max"):
        return Refusal(f"no power limit of {run.machine.accelerator} is known")
    best = aim.best([case.with_recipe(power_limit=cap) for cap in CAPS])
    return best or Refusal("no cap is priced")
