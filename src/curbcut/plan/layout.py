"""A complete recipe for one shape on one machine: precision, ranks, batches, and what fits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from curbcut.errors import InputError
from curbcut.physics import memory
from curbcut.plan import rules
from curbcut.spec.nouns import Machine, ModelShape, Recipe


@dataclass(frozen=True)
class Layout:
    """A recipe and, for each field that the plan set, why."""

    recipe: Recipe
    reasons: Mapping[str, str]


@dataclass(frozen=True)
class Asked:
    """What does not fit."""

    shape: ModelShape
    recipe: Recipe
    machine: Machine
    batch: float
    """Sequences a step, as far as layouts divide it."""
    fixed: frozenset[str] = frozenset()
    """Fields of the recipe that somebody set."""
    memory_factor: float = 1.0


class DoesNotFit(InputError):
    """No recipe of the plain rules fits. `misfit.does_not_fit` says what would, by a search."""

    def __init__(self, asked: Asked) -> None:
        super().__init__(f"{asked.machine.name} has too little memory", where="recipe",
                         mend="plan with more accelerators, or a smaller model")
        self.asked = asked


def peak_bytes(shape: ModelShape, recipe: Recipe, machine: Machine, factor: float = 1.0) -> float:
    """Bytes that the fullest rank holds, times a factor learned from measured runs."""
    return float(factor * memory.training(shape, recipe, machine.kind)["peak"])


def lay_out(shape: ModelShape, machine: Machine, tokens: int, fixed: Mapping[str, Any],
            step_rates: Mapping[int, float] | None = None, memory_factor: float = 1.0) -> Layout:
    """The first recipe that fits, keeping every field in `fixed`: replicas, then shards, then
    recompute, which is from the fastest to the slowest here.

    The micro-batch is the measured fastest in `step_rates` (micro-batch to tokens/s) or the largest
    that fits. Raises DoesNotFit when nothing does.
    """
    base, reasons = base_recipe(shape, machine, fixed)
    if "compile" not in fixed:
        seconds = rules.rough_seconds(shape, base, machine, tokens)
        base = replace(base, compile=base.compile and rules.compiles(machine.kind, seconds)[0])
    placed = (_with_batches(shape, recipe, machine, tokens, fixed, step_rates, memory_factor)
              for recipe in _variants(base, machine, fixed))
    best = next((one for one in placed if one is not None), None)
    if best is None:
        wanted = fixed.get("global_batch") or (
            rules.batch_tokens(tokens, base.optimiser) / base.sequence_tokens)
        raise DoesNotFit(Asked(shape, base, machine, wanted, frozenset(fixed), memory_factor))
    rate = rules.learning_rate(shape, tokens)
    all_reasons = reasons | dict(best.reasons)
    recipe = best.recipe
    if "learning_rate" not in fixed:
        recipe = replace(recipe, learning_rate=rate)
        all_reasons["learning_rate"] = "Step Law (arXiv:2503.04715), within bounds"
    return Layout(recipe, {k: v for k, v in all_reasons.items() if k not in fixed})


def base_recipe(shape: ModelShape, machine: Machine,
                fixed: Mapping[str, Any]) -> tuple[Recipe, dict[str, str]]:
    """A recipe of `fixed` and the rules that need no search, one sequence a rank; and why."""
    precision, why = rules.precision(machine)
    optimiser, why_optimiser = rules.optimiser(machine)
    sequence = fixed.get("sequence_tokens") or rules.sequence_tokens(machine, shape)
    math = machine.kind == "cpu" and sequence <= rules.MATH_ATTENTION_TOKENS
    chosen: dict[str, Any] = {
        "precision": precision, "sequence_tokens": sequence,
        "attention": "math" if math else "fused", "optimiser": optimiser, "micro_batch": 1,
        "global_batch": machine.accelerators, "learning_rate": 1e-3,
        # `lay_out` and `resolve` take it back where the run is too short for it to pay back.
        "compile": machine.kind == "gpu" and fixed.get("stack", "torch") == "torch"
        and fixed.get("offload") != "activations",
    }
    reasons = {"precision": why, "sequence_tokens": "by machine and model size",
               "attention": "faster at this length on this kind of machine",
               "optimiser": why_optimiser}
    return Recipe(**(chosen | dict(fixed))), reasons


def _variants(base: Recipe, machine: Machine, fixed: Mapping[str, Any]) -> Iterator[Recipe]:
    """Ways to place the ranks, cheapest communication first; then the same with recompute."""
    ranks = max(1, machine.accelerators // (base.tp * base.pp * base.cp))
    node = min(ranks, machine.accelerators_per_node)
    shards = [fixed["dp_shard"]] if "dp_shard" in fixed else sorted(
        size for size in {1, node, ranks} if ranks % size == 0)
    if "dp_replicate" in fixed and "dp_shard" not in fixed:
        shards = [max(1, ranks // int(fixed["dp_replicate"]))]
    modes = [base.recompute] if "recompute" in fixed else ["none", "full"]
    if machine.kind == "cpu" and "recompute" not in fixed:
        modes = ["none"]
    for recompute in modes:
        for shard in shards:
            replicas = fixed.get("dp_replicate") or max(1, ranks // shard)
            yield replace(base, dp_shard=shard, dp_replicate=replicas,
                          recompute=recompute)  # type: ignore[arg-type]


def _with_batches(shape: ModelShape, recipe: Recipe, machine: Machine, tokens: int,
                  fixed: Mapping[str, Any], step_rates: Mapping[int, float] | None,
                  memory_factor: float) -> Layout | None:
    """`recipe` with the largest micro-batch that fits, and a whole global batch; None if none."""
    ranks = recipe.dp_replicate * recipe.dp_shard
    wanted = fixed.get("global_batch") or max(
        ranks, round(rules.batch_tokens(tokens, recipe.optimiser) / recipe.sequence_tokens))
    micro, why = _micro_batch(recipe, machine, wanted // ranks, fixed, step_rates)
    if "global_batch" in fixed and wanted % (micro * ranks) and "micro_batch" in fixed:
        raise InputError(f"global_batch {wanted} is no multiple of micro_batch {micro} x {ranks} "
                         "ranks", where="recipe.global_batch",
                         mend=f"set it to {-(-wanted // (micro * ranks)) * micro * ranks}")
    while True:
        unit = micro * ranks
        whole = wanted if "global_batch" in fixed else max(1, round(wanted / unit)) * unit
        sized = replace(recipe, micro_batch=micro, global_batch=whole)
        fits = peak_bytes(shape, sized, machine, memory_factor) <= memory.available(machine)
        if whole % unit == 0 and fits:
            break
        if micro == 1 or "micro_batch" in fixed:
            return None
        micro = micro - 1 if "global_batch" in fixed else max(1, micro // 2)
    return Layout(sized, {
        "micro_batch": why, "global_batch": "0.58 D^0.571 tokens (arXiv:2503.04715), whole ranks",
        "dp_replicate": "one rank an accelerator", "dp_shard": "as much sharing as memory asks for",
        "recompute": "only as much as memory asks for"})


def _micro_batch(recipe: Recipe, machine: Machine, most: int, fixed: Mapping[str, Any],
                 step_rates: Mapping[int, float] | None) -> tuple[int, str]:
    if "micro_batch" in fixed:
        return int(fixed["micro_batch"]), ""
    if step_rates:
        best = max(sorted(step_rates), key=lambda size: step_rates[size])
        return best, f"fastest of {len(step_rates)} measured just now"
    kind = machine.kind if machine.kind == "cpu" else "gpu"
    limit = max(1, min(most, rules.MICRO_BATCH_TOKENS[kind] // recipe.sequence_tokens))
    return 2 ** (limit.bit_length() - 1), "largest power of two that fits and is worth it"
