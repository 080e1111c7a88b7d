"""One clear error where memory ran out: what the plan said, and what would need less."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from curbcut import units
from curbcut.errors import InputError
from curbcut.plan import rules
from curbcut.spec import Run

MOST_LEVERS = 3
_SAYS = ("can't allocate memory", "out of memory", "not enough memory", "Cannot allocate memory")


@contextmanager
def or_levers(run: Run) -> Iterator[None]:
    """Turns every kind of "out of memory" in the block into one InputError with three levers."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not _is_about_memory(error):
            raise
        peak = rules.held_bytes(run.model, run.recipe, run.machine.kind)["peak"]
        raise InputError(f"memory ran out; the plan is {units.show(peak, 'bytes')} a rank at its "
                         "peak", where="recipe", mend="; or ".join(levers(run))) from None


def _is_about_memory(error: BaseException) -> bool:
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        text in str(error) for text in _SAYS)


def levers(run: Run) -> list[str]:
    """The changes of the recipe that need least memory, least first, with what each would need."""
    recipe, kind = run.recipe, run.machine.kind
    changes: list[dict[str, Any]] = [
        {"micro_batch": max(1, recipe.micro_batch // 2)}, {"recompute": "full"},
        {"recompute": "selective"}, {"chunked_loss": True}, {"attention": "fused"},
        {"optimiser": "adamw8"}, {"offload": "activations"}]
    now = rules.held_bytes(run.model, recipe, kind)["peak"]
    found = []
    for change in changes:
        peak = rules.held_bytes(run.model, replace(recipe, **change), kind)["peak"]
        if peak < now:
            found.append((peak, change))
    found.sort(key=lambda one: one[0])
    said = [f"recipe.{name} = {value!r} ({units.show(peak, 'bytes')})"
            for peak, change in found for name, value in change.items()]
    return [*said, "a smaller model", "a shorter sequence", "a machine with more memory"][
        :MOST_LEVERS]
