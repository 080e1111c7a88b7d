"""All choices of a question as arrays: what each costs a token, and what limits make of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from curbcut.plan import rules
from curbcut.plan.backwards.fleets import Fleet
from curbcut.plan.backwards.law import Law
from curbcut.plan.backwards.layouts import MICRO_BATCHES
from curbcut.plan.backwards.question import COSTS, Question
from curbcut.plan.backwards.serving import Served
from curbcut.plan.backwards.table import Table
from curbcut.spec.nouns import Machine, ModelShape, Place

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

MOST_TOKENS = 1e17
LEAST_TOKENS = 1e4
HALVINGS = 60
"""Halvings of the tokens' range, as logarithms, that find a target loss."""


@dataclass(frozen=True, eq=False)
class Choices:
    """A row is one shape on one count of one fleet; the fastest layout of it was taken."""

    question: Question
    fleets: tuple[Fleet, ...]
    tables: tuple[Table, ...]
    """Of each fleet."""
    shapes: tuple[ModelShape, ...]
    of_fleet: Rows
    of_machine: Rows
    of_column: Rows
    """Of the fleet's table."""
    of_shape: Rows
    per_token: Floats
    """Seconds a token; infinite where nothing fits."""
    roomy_per_token: Floats
    fixed: Floats
    """Seconds beside tokens."""
    rates: Floats
    """What a second costs [rows, costs], by `COSTS`."""
    life: Floats
    """What serving costs [rows, costs]."""
    servers: Floats
    """Accelerators of a server, and servers [rows, 2]; 0 without traffic."""
    sequences: Floats
    law: Law

    @property
    def least_tokens(self) -> float:
        """Tokens below which there is nothing to speak of: `LEAST_STEPS` of one sequence."""
        return float(rules.LEAST_STEPS * self.tables[0].recipe.sequence_tokens)

    def with_question(self, question: Question) -> Choices:
        """The same choices under other limits or text: no physics is done again."""
        return replace(self, question=question, law=Law(
            self.shapes, question, self.tables[0].recipe.optimiser))

    def bounds(self, per_token: Floats | None = None) -> Floats:
        """Tokens that each limit pays for [rows, costs and data]; negative where serving alone
        takes more than the limit.
        """
        per_token = self.per_token if per_token is None else per_token
        limits = np.array([self.question.planned(name) for name in COSTS])
        with np.errstate(invalid="ignore", divide="ignore"):
            seconds = (limits - self.life) / self.rates
            tokens = (seconds - self.fixed[:, None]) / per_token[:, None]
        tokens = np.where(np.isfinite(per_token)[:, None], tokens, -np.inf)
        tokens = np.where(np.isnan(tokens), -np.inf, tokens)
        free = np.isinf(limits) & np.isfinite(per_token)[:, None]
        tokens = np.where(free, np.inf, tokens)
        return np.column_stack([tokens, self.law.most_tokens[self.of_shape]])

    def bits(self, tokens: Floats) -> Floats:
        """Bits a byte after so many tokens of each row; infinite where the tokens are too few, or
        fewer than fill a step of the row's layout (`rules.batch_tokens`).
        """
        recipe = self.tables[0].recipe
        batch = np.minimum(0.58 * np.maximum(tokens, 1.0) ** 0.571 * (
            rules.MUON_BATCH if recipe.optimiser == "muon" else 1), tokens / rules.LEAST_STEPS)
        busy = (batch >= self.sequences * recipe.sequence_tokens) & (tokens >= self.least_tokens)
        found = self.law.bits(np.where(busy, tokens, self.least_tokens), self.of_shape)
        return np.where(busy, found, np.inf)

    def most(self, per_token: Floats | None = None) -> tuple[Floats, Floats]:
        """The most tokens of each row within every limit, and the bits a byte they reach."""
        tokens = np.minimum(self.bounds(per_token).min(1), MOST_TOKENS)
        return tokens, self.bits(np.maximum(tokens, 0.0))

    def needed(self, bits: float) -> Floats:
        """Tokens of each row that reach so many bits a byte; infinite where none do."""
        low = np.full(len(self.of_shape), np.log(LEAST_TOKENS))
        high = np.log(np.minimum(MOST_TOKENS, np.maximum(
            self.law.most_tokens[self.of_shape], LEAST_TOKENS)))
        reachable = self.law.bits(np.exp(high), self.of_shape) <= bits
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            enough = self.law.bits(np.exp(middle), self.of_shape) <= bits
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        return np.where(reachable, np.maximum(np.exp(high), self.least_tokens), np.inf)

    def costs(self, tokens: Floats) -> Floats:
        """What training on so many tokens and serving cost [rows, costs]."""
        with np.errstate(invalid="ignore"):
            seconds = tokens * self.per_token + self.fixed
            return self.life + self.rates * seconds[:, None]

    def machine(self, row: int) -> Machine:
        """The machine of a row."""
        return self.fleets[int(self.of_fleet[row])].machines[int(self.of_machine[row])]

    def place(self, row: int) -> Place:
        """Where it stands."""
        return self.fleets[int(self.of_fleet[row])].place

    def shape(self, row: int) -> ModelShape:
        """The model of a row."""
        return self.shapes[int(self.of_shape[row])]


def choices(question: Question, fleets: Sequence[Fleet], tables: Sequence[Table],
            served: Mapping[str, Served], shapes: Sequence[ModelShape]) -> Choices:
    """The rows of all fleets; `tables` and `served` (by accelerator) are theirs."""
    places: dict[str, list[Rows]] = {name: [] for name in ("fleet", "column", "shape")}
    parts: dict[str, list[Floats]] = {name: [] for name in (
        "per_token", "roomy", "fixed", "rates", "life", "sequences",
        "servers")}
    for i, (fleet, table) in enumerate(zip(fleets, tables, strict=True)):
        shape, column = np.nonzero(np.isfinite(table.roomy_seconds_per_token))
        rates = np.array([[_value(each[name].value) for name in COSTS] for each in fleet.rates])
        places["fleet"].append(np.full(len(shape), i))
        places["column"].append(column)
        places["shape"].append(shape)
        parts["per_token"].append(table.seconds_per_token[shape, column])
        parts["roomy"].append(table.roomy_seconds_per_token[shape, column])
        parts["fixed"].append(table.fixed_seconds[shape, column])
        parts["sequences"].append(table.sequences[shape, column])
        parts["rates"].append(rates[column // len(MICRO_BATCHES)])
        mine = served.get(fleet.accelerator)
        parts["servers"].append(np.zeros((len(shape), 2)) if mine is None else np.column_stack(
            [mine.ranks, mine.replicas])[shape])
        parts["life"].append(_life(question, fleet, mine)[shape]
                             if question.traffic else np.zeros((len(shape), len(COSTS))))
    whole = {name: np.concatenate(pieces) for name, pieces in parts.items()}
    of = {name: np.concatenate(pieces) for name, pieces in places.items()}
    return Choices(
        question, tuple(fleets), tuple(tables), tuple(shapes), of["fleet"],
        of["column"] // len(MICRO_BATCHES), of["column"], of["shape"], whole["per_token"],
        whole["roomy"], whole["fixed"], whole["rates"], whole["life"], whole["servers"],
        whole["sequences"], Law(shapes, question, tables[0].recipe.optimiser))


def _value(value: float | None) -> float:
    """A rate that nobody knows can be within no limit."""
    return float("inf") if value is None else value


def _life(question: Question, fleet: Fleet, served: Served | None) -> Floats:
    """Costs of serving each shape for its months [shapes, costs]. Servers are paid for around the
    clock; power and what follows from it is counted while they work.
    """
    assert question.traffic is not None and served is not None
    first = fleet.rates[0]
    each = np.array([_value(first[name].value) for name in COSTS])
    each = each / fleet.machines[0].accelerators * question.traffic.seconds
    around_the_clock = np.array([1.0, 0.0, 0.0, 0.0])
    share = np.where(around_the_clock > 0, 1.0, served.busy[:, None])
    found = served.accelerators[:, None] * each * share
    found[:, COSTS.index("seconds")] = 0.0
    return np.asarray(np.where(np.isnan(found), np.inf, found), np.float64)
