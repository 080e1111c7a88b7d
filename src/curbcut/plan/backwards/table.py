"""Seconds a token and bytes of every shape on every count of one accelerator, as columns.

The table knows no limits: what a budget buys is read off it, and re-reading it with one per cent
more of a limit gives that limit's shadow price without new physics.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curbcut.accounts import energy
from curbcut.physics import constants, goodput, memory, power, power_cap, rates
from curbcut.physics import step as steps
from curbcut.physics.numbers import Choice, Columns, columns, larger, taken
from curbcut.plan import rules
from curbcut.plan.backwards.layouts import MICRO_BATCHES, Layout, layouts
from curbcut.spec import checks
from curbcut.spec.nouns import Machine, ModelShape, Recipe

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Table:
    """One accelerator: arrays [shapes, columns] of the fastest layout that fits; a column is a
    machine with one of `MICRO_BATCHES`, for few tokens want small batches.
    """

    machines: tuple[Machine, ...]
    shapes: tuple[ModelShape, ...]
    recipe: Recipe
    """What all rows share: precision, sequence, optimiser."""
    seconds_per_token: Floats
    """Steps, evaluation on the way, data and faults; infinite where nothing fits."""
    fixed_seconds: Floats
    """What a run takes whatever its tokens: start, last evaluation, last checkpoint."""
    roomy_seconds_per_token: Floats
    """The same if memory had no end: what memory costs."""
    sequences: Floats
    """Sequences that the fastest needs in a step at least."""
    layout: NDArray[np.int64]
    """Place of the fastest in `layouts`, -1 for none."""
    layouts: tuple[Layout, ...]
    rows_of: Rows
    """Rows of the physics behind each shape."""
    sure: NDArray[np.bool_]
    """Whether memory holds the fastest at the upper end of its peak's interval too."""
    busier: Floats
    """What it draws over what training draws in general (`accounts.energy.busier`); 1 where that
    is not known."""

    @property
    def priced(self) -> int:
        """Rows of the physics behind it."""
        return int(self.rows_of.sum())

    def of_shapes(self, places: Rows) -> Table:
        """The table of some of the shapes, as if only they had been priced."""
        return replace(
            self, shapes=tuple(self.shapes[int(i)] for i in places), rows_of=self.rows_of[places],
            **{name: getattr(self, name)[places] for name in (
                "seconds_per_token", "fixed_seconds", "roomy_seconds_per_token", "sequences",
                "layout", "sure", "busier")})

    def layout_of(self, shape: int, column: int) -> Layout:
        """The layout that won."""
        return self.layouts[int(self.layout[shape, column])]


def priced(machines: Sequence[Machine], shapes: Sequence[ModelShape], recipe: Recipe,
           time_factor: float = 1.0, memory_factor: float = 1.0,
           memory_spread: float = memory.MEMORY_SPREAD["gpu"]) -> Table | None:
    """The table of `machines`, one accelerator in several counts; None if no rate is known. Factors
    are what measured runs teach, `memory_spread` what is left to doubt either way.
    """
    if rates.chip(machines[0], recipe.precision) is None:
        return None
    placed = [(i, each) for i, machine in enumerate(machines)
              for each in layouts(machine.accelerators, machine.accelerators_per_node)]
    of_shape, of_layout = _valid(shapes, [each for _, each in placed], recipe)
    of_machine = np.array([i for i, _ in placed])[of_layout]
    every = tuple(each for _, each in placed)
    recipes = _recipes(shapes, every, of_shape, of_layout, recipe)
    shape = _taken(_columns(tuple(shapes)), of_shape)
    chip, values = _chip(machines, of_machine, recipe), constants.of(machines[0], recipe)
    parts = steps.parts(shape, recipes, chip, values)
    step = parts.total
    peak = memory_factor * _peak(shape, recipes, machines[0].kind)
    slower = time_factor * float(power_cap.seconds_factor(recipe, machines[0]))
    per_token, fixed = _whole(shape, recipes, slower * step, machines, of_machine)
    fits = peak <= memory.available(machines[0])
    sure = peak <= rules.sure_bytes(machines[0], memory_spread)
    micro = np.array([MICRO_BATCHES.index(each.micro_batch) for each in every])[of_layout]
    size = (len(shapes), len(machines) * len(MICRO_BATCHES))
    spot = of_shape * size[1] + of_machine * len(MICRO_BATCHES) + micro
    unsure = np.where(sure, 1.0, rules.UNSURE_MEMORY)
    best = _least(np.where(fits, unsure * per_token, np.inf), spot, size)
    roomy = _least(per_token, spot, size)
    return Table(tuple(machines), tuple(shapes), recipe, _at(per_token, best, np.inf),
                 _at(fixed, best, 0.0), _at(per_token, roomy, np.inf),
                 _at(_sequences(every)[of_layout], best, 1.0),
                 np.where(best >= 0, of_layout[best], -1), every,
                 np.bincount(of_shape, minlength=len(shapes)),
                 (best >= 0) & sure[best], _busier(best, parts, shape, recipes, chip, values,
                                                   machines[0]))


def _busier(best: Rows, parts: steps.Parts, shape: Columns, recipes: Columns, chip: rates.Chip,
            values: constants.TrainingConstants, machine: Machine) -> Floats:
    """What each winner draws over the usual draw. Under a power limit all draw alike."""
    found = np.ones(best.shape)
    rows = best[best >= 0]
    if machine.kind != "gpu" or not energy.drawn_by_work(machine) or recipes.power_limit < 1:
        return found

    def some(whole: Any) -> dict[str, Any]:
        return {name: taken(column, rows) for name, column in vars(whole).items()}

    busy = power.of_parts(steps.Parts(**some(parts)), Columns(**some(shape)),
                          Columns(**some(recipes)), rates.Chip(**some(chip)), values)
    found[best >= 0] = energy.busier(busy, machine)
    return found


@functools.cache
def _columns(shapes: tuple[ModelShape, ...]) -> Columns:
    return columns(shapes)


def _taken(whole: Columns, places: Rows) -> Columns:
    return Columns(**{name: taken(column, places) for name, column in vars(whole).items()})


def _valid(shapes: Sequence[ModelShape], every: Sequence[Layout],
           recipe: Recipe) -> tuple[Rows, Rows]:
    """Shape and layout of each row: degrees divide the shape, and the batch is large enough."""
    held = {tp: np.array([checks.tp_valid(one, tp) for one in shapes])
            for tp in {each.tp for each in every}}
    layers = np.array([one.layers for one in shapes])
    batch = batch_sequences(shapes, recipe)
    flags = np.column_stack([
        held[each.tp] & (layers >= 2 * each.pp * (each.pp > 1))
        & (least <= batch) for each, least in zip(every, _sequences(every), strict=True)])
    of_shape, of_layout = np.nonzero(flags)
    return of_shape, of_layout


def _sequences(every: Sequence[Layout]) -> Floats:
    """Sequences that a step of each layout has at least: a micro-batch a rank, and twice as many
    as stages where there is a pipeline to fill.
    """
    return np.array([each.data_ranks * each.micro_batch * (2 * each.pp if each.pp > 1 else 1)
                     for each in every], np.float64)


def batch_sequences(shapes: Sequence[ModelShape], recipe: Recipe) -> Floats:
    """Sequences a step that still teach as much each, at the training-optimal tokens: more ranks
    than these cannot be kept busy without wasting tokens (`rules.batch_tokens`).
    """
    tokens = [rules.TOKENS_PER_PARAMETER * one.active_parameters for one in shapes]
    return np.array([max(1.0, rules.batch_tokens(each, recipe.optimiser)
                         / recipe.sequence_tokens) for each in tokens])


def _recipes(shapes: Sequence[ModelShape], every: Sequence[Layout], of_shape: Rows,
             of_layout: Rows, recipe: Recipe) -> Columns:
    def column(name: str) -> Floats:
        return np.array([getattr(each, name) for each in every], np.float64)[of_layout]

    shared = {"dp_shard": column("dp_shard"), "tp": column("tp"), "pp": column("pp"),
              "micro_batch": column("micro_batch")}
    data = column("data_ranks")
    unit = data * shared["micro_batch"]
    batch = unit * np.maximum(1.0, np.floor(batch_sequences(shapes, recipe)[of_shape] / unit))
    modes = Choice.of([each.recompute for each in every])
    return Columns(**(vars(recipe) | shared | {
        "dp_replicate": data / shared["dp_shard"], "global_batch": batch,
        "recompute": taken(modes, of_layout), "sequence_parallel": shared["tp"] > 1,
        "accumulation": batch / unit, "ranks": column("accelerators"),
        "step_tokens": batch * recipe.sequence_tokens}))


def _chip(machines: Sequence[Machine], of_machine: Rows, recipe: Recipe) -> rates.Chip:
    """The chip with its nodes by row; all else is the same accelerator's."""
    found = rates.chips(machines, [recipe.precision] * len(machines))
    values = {name: column[of_machine] if np.ptp(column) else float(column[0])
              for name, column in vars(found).items()}
    return rates.Chip(**values)


def _peak(shape: Columns, recipes: Columns, kind: str) -> Floats:
    first, last = (memory.stage(shape, recipes, kind, end)["peak"] for end in (False, True))
    extra = rules.RUN_BYTES if kind == "cpu" else 0
    return np.asarray(larger(first, last), np.float64) + extra


def _whole(shape: Columns, recipes: Columns, step: Floats, machines: Sequence[Machine],
           of_machine: Rows) -> tuple[Floats, Floats]:
    """Seconds a token with what faults and checkpoints take, and seconds that no token adds."""
    counts = np.array([one.accelerators for one in machines], np.float64)[of_machine]
    nodes = np.array([one.nodes for one in machines])[of_machine]
    writers = recipes.dp_shard * recipes.tp * recipes.pp
    saving = rules.SAVE_SECONDS + 12 * shape.parameters / writers / rules.DISK_BYTES_PER_SECOND
    apart = np.minimum(rules.LONG_CHECKPOINT_SECONDS,
                       goodput.daly(saving, goodput.interruption_seconds(counts)))
    shares = goodput.goodput(saving, counts, apart)
    lost = np.where(nodes > 1, (shares.lost + shares.restarts) / shares.productive, 0.0)
    each = step / recipes.step_tokens
    per_token = (each * (1 + saving / apart + lost)
                 + rules.BATCH_SECONDS_PER_TOKEN / counts)
    looked_at = (rules.LAST_PASSES * rules.HELD_OUT_TOKENS
                 + (rules.EVALUATIONS - 1) * rules.GLANCE_TOKENS)
    return per_token, (rules.START_SECONDS + saving + rules.FORWARD_SHARE * looked_at * each)


def _least(values: Floats, spot: Rows, size: tuple[int, int]) -> Rows:
    """The row with the least value of each spot, -1 for a spot without a finite one."""
    order = np.lexsort((values, spot))
    first = order[np.unique(spot[order], return_index=True)[1]]
    first = first[np.isfinite(values[first])]
    best = np.full(size, -1, np.intp)
    best.reshape(-1)[spot[first]] = first
    return best


def _at(values: Floats, rows: Rows, missing: float) -> Floats:
    """`values` of the winning rows."""
    return np.where(rows >= 0, values[rows], missing)
