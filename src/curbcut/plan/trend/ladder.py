"""Cost against size today: the cheapest way to train each size of a ladder of shapes.

Every shape at its training-optimal tokens is priced on every machine that the facts have a rent
for, in all its layouts, by the same physics that prices one run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from curbcut.accounts.energy import energy
from curbcut.accounts.money import money
from curbcut.errors import InputError
from curbcut.facts import accelerators, prices
from curbcut.physics import time
from curbcut.plan import machines, rules
from curbcut.plan.backwards.family import family
from curbcut.plan.backwards.table import Table, batch_sequences, priced
from curbcut.plan.trend.hardware import day_of
from curbcut.plan.trend.line import year_of
from curbcut.spec.estimate import Estimate, given, modelled, unknown
from curbcut.spec.nouns import Machine, ModelShape, Place, Recipe

COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536,
          131072)
"""Accelerators of a machine that are tried; whole nodes of 8 from 8 on."""
NODE = 8
CLUSTER_LINK = 100e9
"""Bytes a second to its neighbours below which an accelerator is not rented in several nodes: such
cards stand alone in their servers, mostly on market places, without a network between them."""
LONGEST_SECONDS = 180 * 86400.0
"""A training that takes longer counts as out of reach: half a year, an assumption of the map."""
BEYOND = ((32768, 192), (40960, 224))
"""Width and layers of the ladder's last rungs, where the family of shapes ends."""
PLACE = Place(tenure="rent")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rung:
    """The cheapest way to train one size."""

    shape: ModelShape
    machine: Machine
    recipe: Recipe
    tokens: float
    seconds: Estimate
    usd: Estimate

    @property
    def flops(self) -> float:
        """By the rule of thumb, 6 a parameter and token: what compute tables count."""
        return 6.0 * self.shape.parameters * self.tokens


@dataclass(frozen=True)
class Ladder:
    """Cost against size at today's prices, from small to large."""

    rungs: tuple[Rung, ...]
    year: float
    """Of the newest price."""
    priced: int
    """Rows of the physics behind it."""
    machines: int
    left_out: tuple[str, ...]
    """Accelerators with a rent whose rate is not known."""

    @property
    def log_cost(self) -> Floats:
        """log10 of US dollars, increasing."""
        return np.array([math.log10(known(rung.usd)) for rung in self.rungs])

    @property
    def log_size(self) -> Floats:
        """log10 of parameters, increasing."""
        return np.array([math.log10(rung.shape.parameters) for rung in self.rungs])

    def size(self, usd: float) -> float | None:
        """Parameters that so much buys, between the rungs on a log scale; the last rung's from
        its cost on. None where not even the first is paid for.
        """
        cost = math.log10(usd)
        if cost < self.log_cost[0]:
            return None
        return float(10 ** np.interp(cost, self.log_cost, self.log_size))

    def rung(self, usd: float) -> Rung | None:
        """The largest that so much pays for."""
        below = [rung for rung in self.rungs if known(rung.usd) <= usd]
        return below[-1] if below else None

    def usd(self, flops: float) -> Estimate:
        """What a training-optimal model of so much arithmetic costs today; unknown off the ladder.
        """
        logs = np.array([math.log10(rung.flops) for rung in self.rungs])
        wanted = math.log10(flops)
        if not logs[0] <= wanted <= logs[-1]:
            return unknown("off the ladder of shapes", "modelled")
        value = float(10 ** np.interp(wanted, logs, self.log_cost))
        near = self.rungs[int(np.argmin(np.abs(logs - wanted)))]
        return near.usd.scaled(value / known(near.usd), f"on {near.machine.name}")


@dataclass(frozen=True, eq=False)
class Priced:
    """One accelerator's table, and what each of its places costs."""

    cost: Floats
    """US dollars [shapes, machines]; infinite where it does not fit or takes too long."""
    table: Table
    usd: Estimate
    """A second of one accelerator."""

    @property
    def dearest(self) -> float:
        """The dearest rent over the middle one."""
        return (self.usd.high or known(self.usd)) / known(self.usd)


def ladder() -> Ladder:
    """Prices every shape on every rented machine of the facts."""
    shapes = _shapes()
    tokens = np.array([rules.TOKENS_PER_PARAMETER * one.parameters for one in shapes])
    found: list[Priced] = []
    left_out, tried, rows = [], 0, 0
    for name in _rented():
        table = _table(name, shapes)
        if table is None:
            left_out.append(name)
            continue
        usd = usd_per_second(table.machines[0])
        seconds = table.fixed_seconds + table.seconds_per_token * tokens[:, None]
        counts = np.array([_machine(table, column).accelerators
                           for column in range(seconds.shape[1])], np.float64)
        cost = np.where(seconds <= LONGEST_SECONDS, seconds * counts * known(usd), np.inf)
        found.append(Priced(cost, table, usd))
        tried, rows = tried + len(table.machines), rows + table.priced
    if not found:
        raise InputError("no accelerator with a known rent has a known rate",
                         where="rent_prices.csv",
                         mend="add rows of accelerators that accelerators.csv has")
    return Ladder(tuple(_rungs(shapes, tokens, found)), newest_price(), rows, tried,
                  tuple(left_out))


def _shapes() -> tuple[ModelShape, ...]:
    dense = family(experts=False)
    last = dense[-1]
    longer = [replace(last, width=width, layers=layers, heads=width // last.head_size,
                      ffn=256 * round(8 * width / 3 / 256)) for width, layers in BEYOND]
    return (*dense, *longer)


def _rented() -> list[str]:
    return [one.id for one in accelerators.accelerators()
            if one.kind != "cpu" and prices.rents(one.id, "on-demand")]


def newest_price() -> float:
    """The year of the newest rent in the facts: the map's today."""
    return max(year_of(day_of(rent.date)) for name in _rented()
               for rent in prices.rents(name, "on-demand"))


def _table(name: str, shapes: Sequence[ModelShape]) -> Table | None:
    link = accelerators.accelerator(name).link_bytes_per_second or 0.0
    most = COUNTS[-1] if link >= CLUSTER_LINK else NODE
    fleet = [machines.build(machines.from_facts(f"{count}x{name}")) for count in COUNTS
             if count <= most]
    recipe = Recipe(sequence_tokens=rules.SEQUENCE, micro_batch=1, global_batch=1,
                    precision=rules.precision(fleet[0])[0],
                    learning_rate=rules.LEAST_LEARNING_RATE)
    return priced(fleet, shapes, recipe)


def _machine(table: Table, column: int) -> Machine:
    """The machine of a column: each has as many, side by side."""
    each = table.seconds_per_token.shape[1] // len(table.machines)
    return table.machines[int(column // each)]


def usd_per_second(one: Machine) -> Estimate:
    """What one accelerator costs a second where it is rented."""
    single = replace(one, accelerators_per_node=1, nodes=1)
    second = given(1.0, "a second")
    return money(single, PLACE, second, energy(single, PLACE, second)["facility"])["total"]


def _rungs(shapes: Sequence[ModelShape], tokens: Floats,
           found: Sequence[Priced]) -> Iterator[Rung]:
    """From small to large, those that no larger one undercuts."""
    cheapest = math.inf
    kept = []
    for i in sorted(range(len(shapes)), key=lambda i: -shapes[i].parameters):
        best = min(found, key=lambda one: one.cost[i].min())
        least = float(best.cost[i].min())
        if least < cheapest:
            cheapest = least
            # Who is asked the dearest price of one accelerator rents another.
            other = min(float(one.cost[i].min()) * one.dearest for one in found)
            kept.append(_rung(shapes[i], float(tokens[i]), best, i, other / least))
    return reversed(kept)


def _rung(shape: ModelShape, tokens: float, best: Priced, row: int, most: float) -> Rung:
    """One size on its cheapest machine, whose rent is at most `most` times the middle."""
    table, place = best.table, int(best.cost[row].argmin())
    machine, layout = _machine(table, place), table.layout_of(row, place)
    unit = layout.data_ranks * layout.micro_batch
    batch = float(batch_sequences([shape], table.recipe)[0])
    recipe = replace(table.recipe, dp_shard=layout.dp_shard,
                     dp_replicate=layout.data_ranks // layout.dp_shard, tp=layout.tp,
                     pp=layout.pp, micro_batch=layout.micro_batch,
                     global_batch=max(1, int(batch // unit)) * unit,
                     sequence_parallel=layout.tp > 1,
                     recompute="full" if layout.recompute == "full" else "none")
    seconds = float(table.fixed_seconds[row, place]
                    + table.seconds_per_token[row, place] * tokens)
    wide = time.spread90(shape, recipe, machine)
    estimate = modelled(seconds, wide, "operations at the vendor's rates")
    rate = replace(best.usd, high=known(best.usd) * most).scaled(machine.accelerators)
    return Rung(shape, machine, recipe, tokens, estimate, rate.times(
        estimate, f"{best.usd.source}; {machine.name}"))


def known(estimate: Estimate) -> float:
    """The middle of a figure that is known; raises ValueError for another."""
    if estimate.value is None:
        raise ValueError(f"not known: {estimate.source}")
    return estimate.value
