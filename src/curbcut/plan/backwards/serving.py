"""What serving a model costs over its life: whole servers, at the throughput of the physics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from curbcut.physics import serving, serving_traffic
from curbcut.physics.numbers import Columns, columns
from curbcut.physics.serving_passes import Engine
from curbcut.physics.serving_traffic import Traffic as Load
from curbcut.plan.backwards.question import Traffic
from curbcut.spec import checks
from curbcut.spec.nouns import Machine, ModelShape, Precision

Floats = NDArray[np.float64]

RANKS = (1, 2, 4, 8)
"""Accelerators of one server that are tried, within a node."""
LOADS = tuple(2.0 ** power for power in range(11))
"""Requests in flight at one server that are tried."""


@dataclass(frozen=True, eq=False)
class Served:
    """Of each shape: the servers that the traffic needs. Infinite where none can serve it."""

    ranks: Floats
    """Accelerators of a server."""
    replicas: Floats
    """Whole servers."""
    busy: Floats
    """Share of the time that they work, 0 to 1."""

    @property
    def accelerators(self) -> Floats:
        """Accelerators of all servers."""
        return self.ranks * self.replicas


def served(shapes: Sequence[ModelShape], machine: Machine, precision: Precision,
           traffic: Traffic) -> Served:
    """The cheapest cut of each shape on accelerators of the kind of `machine`, one way of tensor
    parallelism a server: fewest accelerators in all that hold the traffic within the objectives.
    """
    never = np.full(len(shapes), np.inf)
    nothing = Served(never, never, np.ones(len(shapes)))
    base = serving.server(shapes[0], machine, precision)
    if base is None:
        return nothing
    ranks = [one for one in RANKS if one <= machine.accelerators_per_node]
    wide = float(serving.element_bytes(precision))
    cuts = np.array(ranks, np.float64)[None, :, None]
    engine = replace(base.engine, tp=cuts, moe_tp=cuts, dense_bytes=wide, expert_bytes=wide,
                     cache_bytes=wide)
    shape = _upright(columns(shapes))
    chip = base.chip
    if machine.kind == "cpu":
        rate = [serving.server(one, machine, precision) for one in shapes]
        found = np.array([one.chip.dense_flops for one in rate if one])[:, None, None]
        chip = replace(chip, dense_flops=found, expert_flops=found, attention_flops=found)
    most = _most(shape, engine, chip, base, traffic)
    fits = np.array([[checks.heads_split(one, size) for size in ranks] for one in shapes])
    fits &= _held(shapes, ranks, wide) <= machine.memory_bytes * base.constants.memory_share
    replicas = np.where(fits & (most > 0), np.ceil(
        traffic.tokens_per_second / np.maximum(most, 1e-9)), np.inf)
    needed = np.where(np.isfinite(replicas), replicas * cuts[0, :, 0], np.inf)
    best = np.argmin(needed, axis=1)
    rows = np.arange(len(shapes))
    chosen = replicas[rows, best]
    with np.errstate(invalid="ignore", divide="ignore"):
        busy = np.where(np.isfinite(chosen), traffic.tokens_per_second / (
            chosen * np.maximum(most[rows, best], 1e-9)), 1.0)
    return Served(np.array(ranks, np.float64)[best], chosen, busy)


def _upright(shape: Columns) -> Columns:
    """Columns along the first of three axes: shapes x ranks x loads."""
    found = {}
    for name, column in vars(shape).items():
        if isinstance(column, np.ndarray):
            found[name] = column[:, None, None]
        elif hasattr(column, "codes"):
            found[name] = replace(column, codes=column.codes[:, None, None])
        else:
            found[name] = column
    return Columns(**found)


def _most(shape: Columns, engine: Engine, chip: object, base: serving.Server,
          traffic: Traffic) -> Floats:
    """Tokens a second of one server at the best load within the objectives; 0 for none."""
    job = traffic.job
    load = Load(concurrency=np.array(LOADS)[None, None, :], prompt_tokens=job.prompt_tokens,
                output_tokens=job.output_tokens, prefix_hit_rate=job.prefix_hit_rate)
    met = serving_traffic.together(shape, engine, chip, base.constants, load)
    good = serving_traffic.within(met, job.ttft_seconds, job.tpot_seconds)
    return np.asarray(np.where(good, met.tokens_per_second, 0.0).max(-1), np.float64)


def _held(shapes: Sequence[ModelShape], ranks: Sequence[int], wide: float) -> Floats:
    parameters = np.array([one.parameters for one in shapes], np.float64)
    return 1.1 * wide * parameters[:, None] / np.array(ranks, np.float64)
