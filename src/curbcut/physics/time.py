"""Seconds of one training step of a run, with their interval: the entry that plans use.

The formulas stand in `step`; here a machine becomes a chip, its family and the recipe's stack
become constants, and the parts become an estimate. Probed rates go before the vendor's.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from curbcut.physics import constants, rates, spread, step
from curbcut.physics.constants import TrainingConstants
from curbcut.physics.numbers import Number
from curbcut.spec.estimate import Z90, Estimate, modelled
from curbcut.spec.nouns import Machine, ModelShape, Recipe

PROBED_SPREAD = 1.6
"""Factor either way of the 90% interval at probed rates: our own stack on a machine at hand."""
COLLECTIVES = ("tensor", "experts", "context", "stages", "data")


def step_parts(shape: ModelShape, recipe: Recipe, machine: Machine, *,
               unseen: bool = False) -> step.Parts | None:
    """Seconds of an optimiser step in parts; None if no matmul rate is known. With `unseen`, as if
    nobody had measured the recipe's stack.
    """
    chip = rates.chip(machine, recipe.precision)
    if chip is None:
        return None
    return step.parts(shape, recipe, chip, constants.of(machine, recipe, unseen=unseen))


def step_groups(shape: ModelShape, recipe: Recipe, machine: Machine) -> Mapping[str, float]:
    """Seconds of an optimiser step by group; they add up to the step. Collectives are those that
    compute does not hide. Empty if no matmul rate is known.
    """
    found = step_parts(shape, recipe, machine)
    if found is None:
        return {}
    plain = {field.name: float(getattr(found, field.name)) for field in dataclasses.fields(found)}
    exposed = sum(plain.pop(name) for name in COLLECTIVES)
    return {**plain, "collectives": exposed}


def collective_seconds(shape: ModelShape, recipe: Recipe, machine: Machine) -> float:
    """Seconds of a step's collectives, nothing hidden; 0 in a world of one."""
    chip = rates.chip(machine, recipe.precision)
    if chip is None:
        return 0.0
    flow = step.flow(shape, recipe, chip, constants.of(machine, recipe))
    kinds = (flow.tensor, flow.experts, flow.context, flow.stages, flow.data, flow.tied)
    return float(sum(kinds))


def log_spread(shape: ModelShape, recipe: Recipe, machine: Machine, *,
               unseen: bool = False) -> float:
    """Standard deviation of log(measured / predicted) of a step: less for a stack with measured
    rows, more where none of them had this family or precision; infinite if no rate is known.
    """
    found = step_parts(shape, recipe, machine, unseen=unseen)
    if found is None:
        return math.inf
    return _log_spread(found, shape, recipe, machine, unseen)


def spread90(shape: ModelShape, recipe: Recipe, machine: Machine) -> float:
    """Factor either way of the 90% interval of a step's seconds, from `log_spread`."""
    return math.exp(Z90 * log_spread(shape, recipe, machine))


def _log_spread(parts: step.Parts, shape: ModelShape, recipe: Recipe, machine: Machine,
                unseen: bool = False) -> float:
    values = constants.of(machine, recipe, unseen=unseen)
    known = constants.known_stack(recipe.stack) and not unseen
    found = spread.log_spread(parts, shape, recipe, values) * (values.spread_known if known else 1)
    family = constants.machine_family(machine)
    stack = recipe.stack if known else ""
    if not (constants.seen(family, stack) and constants.seen(recipe.precision, stack)):
        found = math.hypot(found, values.spread_novel)
    return float(found)


def step_seconds(shape: ModelShape, recipe: Recipe, machine: Machine) -> Estimate:
    """Seconds of one optimiser step. No value where the machine's rates are not known."""
    found = step_parts(shape, recipe, machine)
    if found is None:
        return Estimate(None, basis="modelled",
                        source=f"no {recipe.precision} matmul rate of {machine.accelerator}")
    total = float(found.total)
    if rates.matmul_peak(machine, recipe.precision).basis == "measured":
        return modelled(total, PROBED_SPREAD, "operations at probed rates")
    stack = (f"constants of {recipe.stack}" if constants.known_stack(recipe.stack)
             else "constants of stacks in general")
    return modelled(total, math.exp(Z90 * _log_spread(found, shape, recipe, machine)),
                    f"operations at the vendor's rates, {stack}")


def tokens_per_second(shape: ModelShape, recipe: Recipe, machine: Machine) -> Estimate:
    """Tokens a second over all ranks while stepping."""
    seconds = step_seconds(shape, recipe, machine)
    if seconds.value is None:
        return seconds
    assert seconds.low is not None and seconds.high is not None
    tokens = recipe.step_tokens
    return Estimate(tokens / seconds.value, tokens / seconds.high, tokens / seconds.low,
                    seconds.basis, seconds.source)


def step_columns(shape: Number, recipe: Number, chip: rates.Chip,
                 values: TrainingConstants) -> Number:
    """Seconds of a step of many recipes at once (see `numbers`)."""
    return step.parts(shape, recipe, chip, values).total
