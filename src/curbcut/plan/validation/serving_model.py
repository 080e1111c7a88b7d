"""Predicts many serving rows at once, and fits the constants of serving to rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curbcut.physics.numbers import Columns, columns, taken
from curbcut.physics.serving_constants import NAMES, UNFITTED
from curbcut.physics.serving_traffic import (
    Latency,
    apart,
    batch_that_fits,
    prefill_workers,
    together,
)
from curbcut.plan.descent import Descent, Pace, descend, normal
from curbcut.plan.validation.serving_rows import ServingRow

Array = NDArray[np.float64]
QUANTITIES = ("ttft", "tpot", "throughput")
MOST_WORKERS = 16.0
OPEN_WEIGHT = 0.1
"""Weight in a fit of a row whose degrees or workers were filled in."""
SCALE = {"ttft": 0.25, "tpot": 0.15, "throughput": 0.15}
"""Relative error beyond which a row's pull on the fit fades (Cauchy's loss)."""
WEIGHT = {"ttft": 0.6, "tpot": 1.0, "throughput": 1.0}
PACE = Pace(damping=1.0, more=4.0, least=1e-3, tries=5, longest=0.7, enough=0.2)
NUDGE = 0.02
"""Step of the numeric derivative, in the logarithm of a constant."""
CELL_ROWS = 20.0
"""Rows of one stack, chip and model that pull as they are; more pull as the square root."""
PRIOR: Mapping[str, tuple[float, float]] = {
    "bandwidth_share": (0.75, 0.15), "cache_share": (0.6, 0.4), "matmul_share": (0.75, 0.06),
    "expert_share": (0.6, 0.2), "feed_flops_per_byte": (600.0, 0.4),
    "attention_share": (0.5, 0.2), "decode_attention_share": (0.4, 0.3),
    "elementwise_bytes": (2.0, 0.02), "kernel_seconds": (2.5e-6, 0.5),
    "launch_seconds": (6e-6, 0.7), "compiled_launches": (0.35, 0.3),
    "reduce_seconds": (4e-6, 0.6), "link_share": (0.7, 0.15), "exchange_seconds": (30e-6, 0.3),
    "exchange_share": (0.4, 0.5), "network_latency": (3.0, 0.5), "step_seconds": (1e-3, 0.7),
    "first_seconds": (30e-3, 0.8), "waves": (2.0, 0.5), "steps": (1.0, 0.5),
    "burst": (0.1, 0.7), "interference": (1.0, 0.12), "memory_share": (0.88, 0.05),
    "handover_seconds": (60e-3, 0.7), "apart_waves": (2.0, 0.5), "apart_burst": (0.1, 0.7),
    "queue_share": (0.8, 0.3)}
"""Where a fit starts from, and how far (as a logarithm) it may go: from vendors' and engines'
documents, wide where they say little."""


@dataclass(frozen=True)
class Table:
    """Rows of one way of serving, as columns."""

    rows: Sequence[ServingRow]
    places: Sequence[int]
    """Where each row stood among all."""
    shape: Columns
    chip: Columns
    engine: Columns
    prefill: Columns | None
    traffic: Columns
    prefill_workers: Array
    decode_workers: Array
    open: NDArray[np.bool_]
    """Rows that do not say how many workers they have."""


def tables(rows: Sequence[ServingRow]) -> list[Table]:
    """Rows with prefill and decoding together, and rows with both apart."""
    found = []
    for is_apart in (False, True):
        places = [i for i, row in enumerate(rows) if (row.prefill is not None) == is_apart]
        if places:
            found.append(_table([rows[i] for i in places], places, is_apart))
    return found


def _table(rows: Sequence[ServingRow], places: Sequence[int], is_apart: bool) -> Table:
    return Table(
        rows, places, _columns_once([row.shape for row in rows]),
        columns([row.chip for row in rows]), columns([row.engine for row in rows]),
        columns([row.prefill for row in rows]) if is_apart else None,
        columns([row.traffic for row in rows]),
        np.array([row.prefill_workers for row in rows]),
        np.array([row.decode_workers for row in rows]), np.array([row.open for row in rows]))


def _columns_once(nouns: Sequence[Any]) -> Columns:
    """Columns of nouns of which few differ: each is read once."""
    kinds = {id(noun): noun for noun in nouns}
    by_value = {repr(noun): noun for noun in kinds.values()}
    values = list(by_value)
    place = {key: values.index(repr(noun)) for key, noun in kinds.items()}
    rows = np.array([place[id(noun)] for noun in nouns])
    few = columns(list(by_value.values()))
    return Columns(**{name: taken(column, rows) for name, column in vars(few).items()})


def latency(table: Table, constants: Any) -> Latency:
    """What the physics says of all rows of a table. Where a row does not say how many workers it
    has, decode workers hold all its requests, and prefill workers keep up with them.
    """
    if table.prefill is None:
        return together(table.shape, table.engine, table.chip, constants, table.traffic)
    each = (table.chip, constants, table.traffic)
    fitting = batch_that_fits(table.shape, table.engine, table.chip, constants,
                              table.traffic.prompt_tokens + table.traffic.output_tokens)
    enough = np.where(table.open, np.ceil(table.traffic.concurrency / fitting), 1.0)
    decoders = np.maximum(table.decode_workers, enough)
    needed = prefill_workers(table.shape, table.prefill, table.engine, decoders, *each)
    workers = np.where(table.prefill_workers > 0, table.prefill_workers,
                       np.clip(np.ceil(needed), 1.0, MOST_WORKERS))
    return apart(table.shape, table.prefill, table.engine, workers, decoders, *each)


def predicted(rows: Sequence[ServingRow], all_tables: Sequence[Table],
              constants: Any) -> Mapping[str, Array]:
    """`ttft`, `tpot` and `throughput` of each row; NaN nowhere."""
    found = {name: np.empty(len(rows)) for name in QUANTITIES}
    for table in all_tables:
        got = latency(table, constants)
        per = np.array([row.per for row in table.rows])
        for name, values in (("ttft", got.ttft_seconds), ("tpot", got.tpot_seconds),
                             ("throughput", got.tokens_per_second / per)):
            found[name][table.places] = values
    return found


class Constants(dict[str, float]):
    """Constants by name, as attributes."""

    def __getattr__(self, name: str) -> float:
        """The constant of that name."""
        return self[name] if name in self else UNFITTED[name]


@dataclass(frozen=True)
class Fitted:
    """Constants, and how well the rows hold each."""

    values: Constants
    widths: Mapping[str, float]
    """Standard deviation of each constant's logarithm."""


def fit(rows: Sequence[ServingRow], prior: Mapping[str, tuple[float, float]] = PRIOR,
        rounds: int = 12) -> Fitted:
    """The likeliest constants by `rows`, around `prior` (value, and spread of its logarithm).

    Gauss-Newton with Levenberg's damping on relative errors under Cauchy's loss: rows far off pull
    little. Rows measured once but listed twice, and crowded cells, are weighed down.
    """
    everything = tables(rows)
    middle = np.log([prior[name][0] for name in NAMES])
    width = np.array([prior[name][1] for name in NAMES])
    names, places, measured, weight, scale = _targets(rows)

    def errors(at: Array) -> Array:
        got = predicted(rows, everything, Constants(zip(NAMES, np.exp(at), strict=True)))
        told = np.array([got[name][place] for name, place in zip(names, places, strict=True)])
        return np.clip(told / measured - 1, -1.0, 20.0) / scale

    def loss(off: Array, at: Array) -> float:
        return float(np.sum(2 * weight * np.log1p(off ** 2 / 2))
                     + np.sum(((at - middle) / width) ** 2))

    found = _descend(errors, loss, weight, middle, width, rounds)
    return Fitted(Constants(zip(NAMES, np.exp(found.point).tolist(), strict=True)),
                  dict(zip(NAMES, found.deviations().tolist(), strict=True)))


def _descend(errors: Callable[[Array], Array], loss: Callable[[Array, Array], float],
             weight: Array, middle: Array, width: Array, rounds: int) -> Descent:
    """Where the loss is least."""
    def objective(at: Array) -> tuple[float, Array]:
        off = errors(at)
        return loss(off, at), off

    def local(at: Array, off: Array) -> tuple[Array, Array]:
        slopes = np.stack([(errors(at + NUDGE * one) - off) / NUDGE
                           for one in np.eye(len(at))], axis=1)
        return normal(slopes, weight / (1 + off ** 2 / 2), -off, at - middle, width)

    return descend(objective, local, middle, PACE, rounds)


def _targets(rows: Sequence[ServingRow]) -> tuple[list[str], list[int], Array, Array, Array]:
    """Quantity, row, measured value, weight and scale of each measurement."""
    listed: dict[tuple[tuple[str, float], ...], int] = {}
    crowd: dict[tuple[str, str, str], float] = {}
    marks = [tuple(sorted(row.measured.items())) for row in rows]
    for mark in marks:
        listed[mark] = listed.get(mark, 0) + 1
    for row, mark in zip(rows, marks, strict=True):
        cell = (row.stack, row.accelerator, row.shape.preset)
        crowd[cell] = crowd.get(cell, 0.0) + 1 / listed[mark]
    found: list[tuple[str, int, float, float, float]] = []
    for place, (row, mark) in enumerate(zip(rows, marks, strict=True)):
        cell = (row.stack, row.accelerator, row.shape.preset)
        weight = (listed[mark] ** -0.5 * (CELL_ROWS / max(crowd[cell], CELL_ROWS / 4)) ** 0.5
                  * (OPEN_WEIGHT if row.open else 1.0))
        for name, value in row.measured.items():
            found.append((name, place, value, weight * WEIGHT[name], SCALE[name]))
    names, places, values, weights, scales = zip(*found, strict=True)
    return list(names), list(places), np.array(values), np.array(weights), np.array(scales)
