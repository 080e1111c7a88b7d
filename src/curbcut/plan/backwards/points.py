"""Rows of a solution as people read them: what it is, what it takes and gives, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from curbcut.accounts.sheet import Sheet
from curbcut.physics import time
from curbcut.plan import loss
from curbcut.plan.backwards import table
from curbcut.plan.backwards.choices import Choices
from curbcut.plan.backwards.question import COSTS
from curbcut.spec.estimate import Estimate, given, modelled
from curbcut.spec.nouns import Machine, ModelShape, Place, Recipe


@dataclass(frozen=True, eq=False)
class Point:
    """One choice at so many tokens."""

    row: int
    machine: Machine
    place: Place
    shape: ModelShape
    tokens: float
    costs: Mapping[str, Estimate]
    """By `COSTS`: training and serving."""
    bits: Estimate
    """Expected bits a byte."""
    precision: str
    """Of matmuls."""
    why: str = ""
    """Why a runner-up lost."""
    chance: float | None = None
    """Of a runner-up: the share of draws in which it is better than the best after all."""


def point(choices: Choices, row: int, tokens: float, why: str = "") -> Point:
    """The point of a row. Money, energy and carbon carry the spread of the time and of their rates.
    """
    machine, shape = choices.machine(row), choices.shape(row)
    seconds = float(tokens * choices.per_token[row] + choices.fixed[row])
    spread = time.spread90(shape, recipe(choices, row), machine)
    training = modelled(seconds, spread, "the coarse table's fastest layout")
    rates = choices.fleets[choices.of_fleet[row]].rates[choices.of_machine[row]]
    costs = {}
    for i, name in enumerate(COSTS):
        usual = rates[name].value
        rate = rates[name].scaled(float(choices.rates[row, i]) / usual) if usual else rates[name]
        one = rate.times(training, rate.source)
        life = float(choices.life[row, i])
        costs[name] = one.plus(given(life, "serving"), one.source) if life else one
    return Point(row, machine, choices.place(row), shape, tokens, costs,
                 expected(choices, row, tokens), recipe(choices, row).precision, why)


def expected(choices: Choices, row: int, tokens: float) -> Estimate:
    """Expected bits a byte, with the law's interval."""
    sheet = Sheet()
    loss.write(sheet, choices.shape(row), tokens, asked(choices, row))
    return sheet.estimates()["loss.bits_per_byte"]


def asked(choices: Choices, row: int) -> loss.Asked:
    """What the loss of a row is asked of."""
    question = choices.question
    return loss.Asked(
        text=question.text, token_worth=question.token_worth * float(choices.worth[row]),
        pairs=question.pairs,
        unique_tokens=choices.law.unique_tokens(int(choices.of_shape[row])),
        optimiser=choices.tables[int(choices.of_fleet[row])].recipe.optimiser)


def recipe(choices: Choices, row: int) -> Recipe:
    """The recipe that the table priced a row with."""
    mine = choices.tables[int(choices.of_fleet[row])]
    one = mine.layout_of(int(choices.of_shape[row]), int(choices.of_column[row]))
    unit = one.data_ranks * one.micro_batch
    batch = float(table.batch_sequences([choices.shape(row)], mine.recipe)[0])
    changes: dict[str, Any] = {
        "dp_shard": one.dp_shard, "dp_replicate": one.data_ranks // one.dp_shard, "tp": one.tp,
        "pp": one.pp, "micro_batch": one.micro_batch, "recompute": one.recompute,
        "sequence_parallel": one.tp > 1, "global_batch": max(1, int(batch // unit)) * unit}
    return replace(mine.recipe, **changes)
