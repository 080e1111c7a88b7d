"""Predicts joules an output token of many rows at once, and fits the constants to rows.

A server that is kept full makes a token for each of its answers a cycle: a decode step, the host's
work on each answer, and the share of the prompts that are read meanwhile. What is done in a cycle
over how long it takes is what accelerators are kept busy with; that gives watts (`physics.power`),
and watts over tokens a second joules a token.

Time is that of `physics.serving_passes` under vLLM's constants, some of which are fitted to the
series of measurements itself (one release, one harness), with what only the series knows: lengths
of prompts by task, the host's work, and kernels of experts stored in fp8 by blocks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curbcut.facts import physics
from curbcut.physics import power, serving_work
from curbcut.physics.numbers import Columns, columns
from curbcut.physics.operations import layer_matmuls
from curbcut.physics.serving_constants import NAMES, UNFITTED, serving_constants
from curbcut.physics.serving_passes import (
    ROUTED,
    decode_seconds,
    experts_touched,
    prefill_seconds,
)
from curbcut.plan.descent import Descent, Pace, descend, normal
from curbcut.plan.validation.energy_rows import IMAGE, TASKS, VIDEO, EnergyRow

Array = NDArray[np.float64]
Key = tuple[str, str]
"""A constant's name, and the family that it is for ("" for any)."""
FILE = "energy_series"
STACK = "vLLM"
PROMPT, READ = "prompt_tokens_", "reading_seconds_"
"""Before a task's name: tokens of its prompts; seconds of the host and the eye for each prompt."""
_V = serving_constants(STACK)
PRIOR: Mapping[Key, tuple[float, float]] = {
    ("bandwidth_share", ""): (0.86, 0.04), ("bandwidth_share", "b200"): (0.8, 0.1),
    ("cache_share", ""): (_V.cache_share, 0.3), ("expert_share", ""): (_V.expert_share, 0.4),
    ("expert_bandwidth", ""): (0.7, 0.2), ("kernel_seconds", ""): (_V.kernel_seconds, 0.4),
    ("step_seconds", ""): (1e-3, 1.0), ("launch_seconds", ""): (_V.launch_seconds, 0.5),
    ("reduce_seconds", ""): (_V.reduce_seconds, 0.6), ("request_seconds", ""): (1e-5, 1.0),
    ("block_floor", ""): (0.4, 0.5), ("block_rows", ""): (32.0, 0.5),
    ("block_seconds", ""): (3e-5, 0.7),
    (PROMPT + TASKS[0], ""): (300.0, 0.7), (PROMPT + TASKS[1], ""): (300.0, 0.5),
    (PROMPT + TASKS[2], ""): (2000.0, 0.7), (PROMPT + IMAGE, ""): (1000.0, 0.7),
    (PROMPT + VIDEO, ""): (3000.0, 0.7), (READ + IMAGE, ""): (1e-2, 1.0),
    (READ + VIDEO, ""): (3e-2, 1.0),
    ("idle", ""): (0.13, 0.2), ("idle", "b200"): (0.18, 0.3), ("compute", ""): (2.2, 0.4),
    ("memory", ""): (0.85, 0.3), ("memory", "b200"): (1.1, 0.3), ("top", ""): (0.97, 0.03),
    ("knee", ""): (4.0, 0.4)}
"""Where a fit starts from, and how far (as a logarithm) it may go."""
LINK = 0.1
LINK_NOTE = "an assumption: no row keeps links busy enough to tell; unsupported"
"""Links at their peak, of the rated power: not fitted."""
SCALE = {"joules": 0.15, "watts": 0.08, "rate": 0.15}
"""Logarithmic error beyond which a row's pull on the fit fades (Cauchy's loss)."""
WEIGHT = {"joules": 1.0, "watts": 0.3, "rate": 0.7}
MODEL_ROWS = 20.0
"""Rows of one model that pull as they are; more pull as the square root."""
PACE = Pace(damping=1.0, more=4.0, least=1e-3, tries=5, longest=0.7, enough=0.2)
NUDGE = 0.02


@dataclass(frozen=True)
class Table:
    """Rows as columns."""

    rows: Sequence[EnergyRow]
    shape: Columns
    engine: Columns
    chip: Columns
    accelerators: Array
    tdp_watts: Array
    batch: Array
    output_tokens: Array
    blocked: NDArray[np.bool_]


def table(rows: Sequence[EnergyRow]) -> Table:
    """The columns of at least one row."""
    def column(name: str) -> Array:
        return np.array([getattr(row, name) for row in rows], float)

    return Table(rows, columns([row.shape for row in rows]), columns([row.engine for row in rows]),
                 columns([row.chip for row in rows]), column("accelerators"), column("tdp_watts"),
                 column("batch"), column("output_tokens"),
                 np.array([row.blocked for row in rows]))


@dataclass(frozen=True)
class Found:
    """What is predicted of each row."""

    joules: Array
    """An output token, all accelerators together."""
    watts: Array
    """Of all accelerators."""
    tokens_per_second: Array
    busy: power.Busy


class Values(dict[Key, float]):
    """Constants by name and family."""

    def column(self, name: str, rows: Sequence[EnergyRow]) -> Array:
        """One constant for each row: of its family, else of any."""
        return np.array([self.get((name, row.family), self[name, ""]) for row in rows])


def values(without: str = "") -> Values:
    """The constants of the facts; with `without` naming an architecture that they were fitted to,
    those fitted with all its rows left out.
    """
    found = Values()
    for file in (FILE, power.FILE):
        for one in physics.constants(file):
            if one.without in ("", without):
                found.setdefault((one.name, one.accelerator), one.value)
        for one in physics.constants(file):
            if without and one.without == without:
                found[one.name, one.accelerator] = one.value
    return found


def predicted(of: Table, found: Values) -> Found:
    """Joules, watts and rate of each row."""
    rows = of.rows
    prompt = np.array([found[PROMPT + row.task, ""] for row in rows])
    reading = np.array([found.get((READ + row.task, ""), 0.0) for row in rows])
    engine, more, extra = _blocks(of, found)
    times = Columns(**{name: found.column(name, rows) if (name, "") in found
                       else getattr(_V, name) for name in (*NAMES, *UNFITTED)})
    each = of.batch / of.engine.dp
    slowed = engine.with_columns(expert_bytes=engine.expert_bytes / found["expert_bandwidth", ""])
    step = (decode_seconds(of.shape, slowed, of.chip, times, each, prompt + of.output_tokens / 2)
            + more + found["request_seconds", ""] * of.batch)
    ending = each / of.output_tokens
    together = np.maximum(np.minimum(of.engine.chunk_tokens / prompt, ending), 1.0)
    read = prefill_seconds(of.shape, slowed, of.chip, times, prompt, together) / together
    cycle = step + ending * read + of.batch / of.output_tokens * reading
    work = serving_work.step_work(
        of.shape, engine, of.chip, _V.elementwise_bytes, batch=each, prompt_tokens=prompt,
        output_tokens=of.output_tokens)
    work = dataclasses.replace(work, peak_seconds=work.peak_seconds + extra)
    busy = power.of_work(work, of.chip, cycle)
    constants = power.PowerConstants(**{name: found.column(name, rows) for name in power.NAMES})
    watts = power.accelerator_watts(busy, of.tdp_watts, constants) * of.accelerators
    rate = of.batch / cycle
    return Found(watts / rate, watts, rate, busy)


def _blocks(of: Table, found: Values) -> tuple[Columns, Array, Array]:
    """What kernels of experts in fp8 by blocks do beside: the engine with bytes as if more experts
    were met, further seconds of a step, and further seconds of multiplying at the peak.

    A share of the experts that no token meets is read too, an expert that meets fewer than
    `block_rows` tokens multiplies as many, and each layer takes some further time.
    """
    met = np.maximum(experts_touched(of.shape, of.batch), 1e-9)
    floor = found["block_floor", ""]
    read = np.where(of.blocked, floor + (1 - floor) * met, met) / met
    engine = of.engine.with_columns(expert_bytes=of.engine.expert_bytes * read)
    share = of.batch * of.shape.experts_per_token / np.maximum(of.shape.experts, 1)
    missing = np.where(of.blocked, np.maximum(found["block_rows", ""] - share, 0.0), 0.0)
    weights = sum((one.weights for one in layer_matmuls(of.shape, 1.0, of.engine.moe_tp,
                                                        of.engine.ep)
                   if one.name in ROUTED), np.zeros(len(of.rows)))
    peak = missing * 2.0 * weights / of.chip.expert_flops
    layers = np.where(of.blocked, of.shape.expert_layers, 0) * found["block_seconds", ""]
    return engine, peak / found["expert_share", ""] + layers, peak


@dataclass(frozen=True)
class Fitted:
    """Constants, and how well the rows hold each."""

    values: Values
    widths: Mapping[Key, float]
    """Standard deviation of each constant's logarithm."""


def fit(rows: Sequence[EnergyRow], rates: Sequence[float], start: Values | None = None,
        rounds: int = 15) -> Fitted:
    """The likeliest constants by measured joules and watts, and by `rates`, the tokens a second of
    each row, which only the fit knows.
    """
    of, keys = table(rows), list(PRIOR)
    middle = np.log([PRIOR[key][0] for key in keys])
    width = np.array([PRIOR[key][1] for key in keys])
    told = np.concatenate([np.log([row.measured["joules"] for row in rows]),
                           np.log([row.measured["watts"] for row in rows]), np.log(rates)])
    scale = np.repeat([SCALE[name] for name in SCALE], len(rows))
    weight = np.concatenate([WEIGHT[name] * _weights(rows) for name in SCALE])

    def errors(at: Array) -> Array:
        got = predicted(of, _values(keys, at))
        logs = np.log(np.concatenate([got.joules, got.watts, got.tokens_per_second]))
        off: Array = (logs - told) / scale
        return off

    begin = middle if start is None else np.log([start[key] for key in keys])
    found = _descend(errors, weight, begin, middle, width, rounds)
    return Fitted(_values(keys, found.point), dict(zip(keys, found.deviations().tolist(),
                                                       strict=True)))


def _values(keys: Sequence[Key], at: Array) -> Values:
    return Values({("link", ""): LINK, **dict(zip(keys, np.exp(at).tolist(), strict=True))})


def _descend(errors: Any, weight: Array, begin: Array, middle: Array, width: Array,
             rounds: int) -> Descent:
    """Where Cauchy's loss of the errors and the prior's are least."""
    def objective(at: Array) -> tuple[float, Array]:
        off = errors(at)
        return float(np.sum(2 * weight * np.log1p(off ** 2 / 2))
                     + np.sum(((at - middle) / width) ** 2)), off

    def local(at: Array, off: Array) -> tuple[Array, Array]:
        slopes = np.stack([(errors(at + NUDGE * one) - off) / NUDGE
                           for one in np.eye(len(at))], axis=1)
        return normal(slopes, weight / (1 + off ** 2 / 2), -off, at - middle, width)

    return descend(objective, local, begin, PACE, rounds)


def _weights(rows: Sequence[EnergyRow]) -> Array:
    """How much each row pulls: those of a model with many, less."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.name] = counts.get(row.name, 0) + 1
    crowd = np.array([max(counts[row.name], MODEL_ROWS / 4) for row in rows])
    pull: Array = np.sqrt(MODEL_ROWS / crowd)
    return pull
