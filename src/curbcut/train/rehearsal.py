"""A minute of the same run, made small enough for it: the same file, code, launcher and layout.

What it measures goes to the ledger like any run's, so the plan of the real run is corrected before
it is begun. Layers are taken away first, then width: fewer of the same matmuls say more of a step
than narrower ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from curbcut.physics import memory, time
from curbcut.spec import Limits, ModelShape, Run

SUFFIX = "-rehearsal"
"""A run of this name looks only at a part of the held-out text at its end, too."""
SECONDS = 60.0
"""A rehearsal ends at the most after so long."""
STEPPING_SECONDS = 25.0
"""Planned for steps: starting, evaluation and saving take their own time, and forecasts err."""
LEAST_STEPS, MOST_STEPS = 20, 200
LEAST_LAYERS, LEAST_WIDTH = 2, 64


@dataclass(frozen=True)
class Rehearsal:
    """A run to be rehearsed."""

    run: Run
    shrunk: str
    """What is smaller than in the real run, in words."""


def is_rehearsal(run: Run) -> bool:
    """Whether `run` is the rehearsal of another."""
    return run.name.endswith(SUFFIX)


def of(run: Run) -> Rehearsal:
    """The rehearsal of `run`: every field of its recipe but batch counts of saves and looks stays.
    """
    shape = run.model
    while _too_slow(replace(run, model=shape)) and (less := _smaller(shape, run)) is not None:
        shape = less
    small = replace(run, model=shape)
    seconds = _step_seconds(small)
    steps = int(STEPPING_SECONDS / seconds) if seconds else MOST_STEPS
    steps = max(LEAST_STEPS, min(MOST_STEPS, steps, run.steps))
    recipe = replace(run.recipe, checkpoint_every_steps=max(1, steps // 2),
                     evaluate_every_steps=max(1, steps // 2))
    name = f"{run.name[:90]}{SUFFIX}"
    found = replace(small, name=name, recipe=recipe, limits=Limits(seconds=SECONDS),
                    train=replace(run.train, tokens=steps * recipe.step_tokens))
    return Rehearsal(found, _shrunk(run, found))


def _step_seconds(run: Run) -> float | None:
    return time.step_seconds(run.model, run.recipe, run.machine).value


def _too_slow(run: Run) -> bool:
    """Whether the least steps do not fit the time, or the model the memory."""
    seconds = _step_seconds(run)
    held = memory.training(run.model, run.recipe, run.machine.kind)["peak"]
    return bool(seconds and LEAST_STEPS * seconds > STEPPING_SECONDS) or (
        held > memory.available(run.machine))


def _smaller(shape: ModelShape, run: Run) -> ModelShape | None:
    """Half the layers while every pipeline stage keeps one; then half the heads and width."""
    stages = run.recipe.pp * run.recipe.virtual_stages
    if shape.layers // 2 >= max(LEAST_LAYERS, stages) and shape.layers // 2 % stages == 0:
        return replace(shape, preset="", layers=shape.layers // 2)
    parts = run.recipe.tp * (run.recipe.cp if run.recipe.context == "ulysses" else 1)
    halves = (shape.width // 2, shape.heads // 2, max(1, shape.kv_heads // 2), shape.ffn // 2)
    if (shape.width // 2 < LEAST_WIDTH or shape.heads % 2 or shape.ffn % 2 or shape.width % 2
            or halves[1] % halves[2] or any(size % parts for size in halves)):
        return None
    return replace(shape, preset="", width=halves[0], heads=halves[1], kv_heads=halves[2],
                   ffn=halves[3])


def _shrunk(run: Run, small: Run) -> str:
    parts = [f"{name} {getattr(run.model, name)} -> {getattr(small.model, name)}"
             for name in ("layers", "width", "heads", "ffn")
             if getattr(run.model, name) != getattr(small.model, name)]
    return ", ".join([*parts, f"{run.steps:,} steps -> {small.steps:,}"])
