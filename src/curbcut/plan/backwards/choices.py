"""All choices of a question as arrays: what each costs a token, and what limits make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curbcut.plan import rules
from curbcut.plan.backwards.fleets import Fleet, slope
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

OF_ROWS = ("of_fleet", "of_machine", "of_column", "of_shape", "per_token", "roomy_per_token",
           "fixed", "rates", "life", "servers", "sequences", "sure", "worth")
"""Columns of `Choices`."""


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
    sure: NDArray[np.bool_]
    """Whether memory surely holds each."""
    worth: Floats
    """What a token teaches in the row's precision."""
    law: Law

    @property
    def unsure(self) -> Floats:
        """By how much slower a row counts for what its memory may not hold."""
        return np.where(self.sure, 1.0, rules.UNSURE_MEMORY)

    @property
    def least_tokens(self) -> float:
        """Tokens below which there is nothing to speak of: `LEAST_STEPS` of one sequence."""
        return float(rules.LEAST_STEPS * self.tables[0].recipe.sequence_tokens)

    def with_question(self, question: Question) -> Choices:
        """The same choices under other limits or text: no physics is done again."""
        return replace(self, question=question, law=Law(
            self.shapes, question, self.tables[0].recipe.optimiser))

    def of_shapes(self, places: Rows, question: Question) -> Choices:
        """The choices among some of the shapes (rising places), under a question of the same
        traffic: as if only they had been priced.
        """
        place_of = np.full(len(self.shapes), -1)
        place_of[places] = np.arange(len(places))
        rows = np.flatnonzero(place_of[self.of_shape] >= 0)
        shapes = tuple(self.shapes[int(i)] for i in places)
        known = {id(one): one.of_shapes(places) for one in self.tables}
        return replace(
            self, question=question, shapes=shapes, tables=tuple(known[id(one)]
                                                                 for one in self.tables),
            law=Law(shapes, question, self.tables[0].recipe.optimiser),
            **{name: getattr(self, name)[rows] for name in OF_ROWS}
            | {"of_shape": place_of[self.of_shape[rows]]})

    def bounds(self, per_token: Floats | None = None) -> Floats:
        """Tokens that each limit pays for [rows, costs and data]; negative where serving alone
        takes more than the limit.
        """
        return self._bounds(slice(None), self.per_token if per_token is None else per_token)

    def bounds_at(self, row: int) -> Floats:
        """`bounds` of one row [costs and data]."""
        only = slice(row, row + 1)
        return np.asarray(self._bounds(only, self.per_token[only])[0], np.float64)

    def _bounds(self, rows: slice, per_token: Floats) -> Floats:
        limits = np.array([self.question.planned(name) for name in COSTS])
        with np.errstate(invalid="ignore", divide="ignore"):
            seconds = (limits - self.life[rows]) / self.rates[rows]
            tokens = (seconds - self.fixed[rows, None]) / per_token[:, None]
        tokens = np.where(np.isfinite(per_token)[:, None], tokens, -np.inf)
        tokens = np.where(np.isnan(tokens), -np.inf, tokens)
        free = np.isinf(limits) & np.isfinite(per_token)[:, None]
        tokens = np.where(free, np.inf, tokens)
        return np.column_stack([tokens, self.law.most_tokens[self.of_shape[rows]]])

    def bits(self, tokens: Floats, rows: Rows | None = None) -> Floats:
        """Bits a byte after so many tokens of each row (or of those `rows`); infinite where the
        tokens are too few, or fewer than fill a step of the row's layout (`rules.batch_tokens`).
        """
        some: Any = slice(None) if rows is None else rows
        busy = self._busy(tokens, some)
        found = self.law.bits(np.where(busy, tokens, self.least_tokens), self.of_shape[some],
                              self.worth[some])
        return np.where(busy, found, np.inf)

    def scored(self, tokens: Floats, bits: Floats | None = None) -> Floats:
        """Bits a byte to rank rows by: of those that memory may not hold, with fewer tokens. `bits`
        are those of all the tokens, where they are known.
        """
        bits = self.bits(tokens) if bits is None else bits
        unsure = np.flatnonzero(~self.sure)
        fewer = self.bits(np.maximum(tokens[unsure] / rules.UNSURE_MEMORY, 0.0), unsure)
        found = bits.copy()
        found[unsure] = np.where(np.isfinite(fewer), fewer, bits[unsure])
        return found

    def most(self, per_token: Floats | None = None) -> tuple[Floats, Floats]:
        """The most tokens of each row within every limit, and the bits a byte they reach."""
        tokens = np.minimum(self.bounds(per_token).min(1), MOST_TOKENS)
        return tokens, self.bits(np.maximum(tokens, 0.0))

    def needed(self, bits: float) -> Floats:
        """Tokens of each row that reach so many bits a byte; infinite where none do."""
        low = np.full(len(self.of_shape), np.log(LEAST_TOKENS))
        high = np.log(np.minimum(MOST_TOKENS, np.maximum(
            self.law.most_tokens[self.of_shape], LEAST_TOKENS)))
        reachable = self.law.bits(np.exp(high), self.of_shape, self.worth) <= bits
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            enough = self.law.bits(np.exp(middle), self.of_shape, self.worth) <= bits
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        return np.where(reachable, np.maximum(np.exp(high), self.fewest()), np.inf)

    def fewest(self) -> Floats:
        """Tokens below which a row is no training: enough steps, and enough for its ranks."""
        low, high = np.full(len(self.per_token), 0.0), np.full(len(self.per_token), 40.0)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            enough = self._busy(np.exp(middle))
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        return np.asarray(np.exp(high), np.float64)

    def _busy(self, tokens: Floats, rows: Any = slice(None)) -> NDArray[np.bool_]:
        """Whether so many tokens are a training that fills a step of the row's layout."""
        recipe = self.tables[0].recipe
        batch = np.minimum(0.58 * np.maximum(tokens, 1.0) ** 0.571 * (
            rules.MUON_BATCH if recipe.optimiser == "muon" else 1), tokens / rules.LEAST_STEPS)
        return np.asarray((batch >= self.sequences[rows] * recipe.sequence_tokens)
                          & (tokens >= self.least_tokens))

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
            served: Sequence[Served] | None, shapes: Sequence[ModelShape]) -> Choices:
    """The rows of all fleets; `tables` and, where there is traffic, `served` are theirs."""
    rows = [_rows(question, fleet, table, served[i] if served else None)
            for i, (fleet, table) in enumerate(zip(fleets, tables, strict=True))]
    whole = {name: np.concatenate([one[name] for one in rows]) for name in rows[0]}
    of_fleet = np.repeat(np.arange(len(fleets)), [len(one["of_shape"]) for one in rows])
    return Choices(
        question=question, fleets=tuple(fleets), tables=tuple(tables), shapes=tuple(shapes),
        of_fleet=of_fleet, law=Law(shapes, question, tables[0].recipe.optimiser), **whole)


def _rows(question: Question, fleet: Fleet, table: Table,
          served: Served | None) -> dict[str, NDArray[Any]]:
    """The rows of one fleet, by field of `Choices`."""
    shape, column = np.nonzero(np.isfinite(table.roomy_seconds_per_token))
    machine = column // len(MICRO_BATCHES)
    rates = np.array([[_value(each[name].value) for name in COSTS] for each in fleet.rates])
    first = fleet.machines[0]
    counts = np.array([each.accelerators for each in fleet.machines], np.float64)
    slopes = counts[:, None] / first.accelerators * np.array(slope(first, fleet.place))
    more = table.busier[shape, column] - 1.0
    nothing = np.zeros((len(shape), len(COSTS)))
    return {
        "of_machine": machine, "of_column": column, "of_shape": shape,
        "per_token": table.seconds_per_token[shape, column],
        "roomy_per_token": table.roomy_seconds_per_token[shape, column],
        "fixed": table.fixed_seconds[shape, column],
        "sequences": table.sequences[shape, column], "sure": table.sure[shape, column],
        "rates": rates[machine] + more[:, None] * slopes[machine],
        "worth": np.full(len(shape), fleet.worth.value),
        "servers": nothing[:, :2] if served is None else np.column_stack(
            [served.ranks, served.replicas])[shape],
        "life": nothing if served is None else _life(question, fleet, served)[shape]}


def _value(value: float | None) -> float:
    """A rate that nobody knows can be within no limit."""
    return float("inf") if value is None else value


def _life(question: Question, fleet: Fleet, served: Served) -> Floats:
    """Costs of serving each shape for its months [shapes, costs]. Servers are paid for around the
    clock; power and what follows from it is counted while they work.
    """
    assert question.traffic is not None
    first = fleet.rates[0]
    each = np.array([_value(first[name].value) for name in COSTS])
    each = each / fleet.machines[0].accelerators * question.traffic.seconds
    around_the_clock = np.array([1.0, 0.0, 0.0, 0.0])
    share = np.where(around_the_clock > 0, 1.0, served.busy[:, None])
    found = served.accelerators[:, None] * each * share
    found[:, COSTS.index("seconds")] = 0.0
    return np.asarray(np.where(np.isnan(found), np.inf, found), np.float64)
