"""Published training runs priced from parameters, tokens and machine: accelerator-hours.

A run's table says seldom how it was laid out. A named model gets its preset's shape, any other a
usual shape of its size; where degrees are not given, the fastest layout that fits is taken, for
such runs are well tuned. What was filled in is said, and widens the interval.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from curbcut.errors import InputError
from curbcut.facts import constants
from curbcut.physics import memory
from curbcut.plan.validation import cells as cells_of
from curbcut.plan.validation import machines, recipes, shapes, stacks, throughput, timing
from curbcut.plan.validation.cells import CannotExpress, Cells
from curbcut.plan.validation.rows import Row
from curbcut.plan.validation.score import Prediction, Unexpressed
from curbcut.spec.nouns import Machine, ModelShape, Recipe

VOCAB = 50_304
TOP_K = 8
USUAL_SECONDS = 60 * 86_400
"""A large run takes about two months: the count of accelerators where none is given."""
LAYOUT_SPREAD = 0.65
"""Log spread for what a run's table leaves open (layout, hours that count restarts, trials and
further stages): such that four of five of 22 published runs lie within the 80% interval."""
MOST_STEP = 2.0
"""Steps larger than so many times the usual are not taken where a smaller one can be."""
SMALL = 1e9
"""Parameters below which sequences are short and micro-batches large."""
MICRO = (1, 2, 4, 8, 16, 32)
FILLED = 0.92
"""Share of memory that a layout may fill."""
_SEQUENCES = (("2023", 2048), ("2024-04", 4096))
"""Usual sequence length until a date."""
_SEQUENCE = 8192
"""Usual sequence length since."""


def predict(path: Path) -> tuple[list[Prediction], list[Unexpressed]]:
    """Accelerator-hours of each run, and the runs that cannot be priced.

    Raises InputError for a file without the columns of a table of runs.
    """
    header, lines = cells_of.read(path)
    missing = {"model", "tokens", "gpu", "params_total"} - set(header)
    if missing:
        raise InputError(f"has no column {', '.join(sorted(missing))}", where=str(path),
                         mend="give the columns of a table of published runs")
    found: list[Prediction] = []
    left: list[Unexpressed] = []
    for line in lines:
        one = Cells(line)
        name = one.text("model") or "?"
        try:
            found.append(_prediction(one, name))
        except (CannotExpress, InputError) as error:
            left.append(Unexpressed(name, "published runs", str(error).partition("\n")[0]))
    return found, left


@dataclass(frozen=True, kw_only=True)
class Priced:
    """A run as it would have gone on the fastest layout that fits."""

    row: Row
    """Its shape, machine and recipe; "seconds" of a step stand where a measurement would."""
    hours: float
    """Accelerator-hours, of restarts too."""
    log_spread: float
    """Standard deviation of log(published / predicted) hours."""


def priced(cells: Cells, name: str, tokens: float) -> Priced:
    """A published run from its parameters, tokens and machine. Raises CannotExpress."""
    row, spread = _best(cells, name, tokens)
    goodput = constants.constant("goodput")
    hours = tokens / row.recipe.step_tokens * row.measured["seconds"] / 3600
    hours *= row.machine.accelerators / goodput.value
    wait = math.log(goodput.high / goodput.low) / (2 * throughput.Z95)
    return Priced(row=row, hours=hours,
                  log_spread=math.sqrt(spread**2 + LAYOUT_SPREAD**2 + wait**2))


def _prediction(cells: Cells, name: str) -> Prediction:
    measured = measured_hours(cells)
    tokens = cells.positive("tokens")
    if tokens is None:
        raise CannotExpress("tokens not published")
    found = priced(cells, name, tokens)

    def at(z: float) -> float:
        return found.hours * math.exp(z * found.log_spread)

    return Prediction(id=name, source="published runs", predicted=found.hours,
                      low80=at(-throughput.Z80), high80=at(throughput.Z80),
                      low95=at(-throughput.Z95), high95=at(throughput.Z95), measured=measured,
                      assumed=tuple(cells.assumed))


def measured_hours(cells: Cells) -> float:
    """Accelerator-hours as published, or wall-clock hours x accelerators; raises CannotExpress."""
    hours = cells.positive("gpu_hours")
    if hours is None:
        wall, count = cells.positive("wall_hours"), cells.positive("n_gpus")
        hours = wall * count if wall and count else None
    if hours is None:
        raise CannotExpress("accelerator-hours not published")
    return hours


def _best(cells: Cells, name: str, tokens: float) -> tuple[Row, float]:
    """The fastest layout that fits, its step time as if it were measured, and the spread."""
    one = machines.accelerator(cells, cells.text("gpu"))
    shape = _shape(cells, name)
    count = cells.whole("n_gpus") or _usual_count(cells, shape, one, tokens)
    machine = machines.machine(cells, count)
    date = stacks.month(cells.text("date"))
    options = [Row(id=name, source="published runs", software="", stack="", version="",
                   date=date, shape=shape, recipe=recipe, machine=machine, measured={})
               for recipe in _recipes(cells, shape, machine)]
    fitting = _fitting(options, cells)
    found = timing.unseen(fitting)
    timed = [(seconds / row.recipe.step_tokens, place)
             for place, (row, seconds) in enumerate(zip(fitting, found.seconds, strict=True))
             if math.isfinite(seconds)]
    if not timed:
        raise CannotExpress(f"no rate of {machine.accelerator} is known")
    place = min(timed)[1]
    chosen = fitting[place]
    recipe = chosen.recipe
    cells.assume(f"tp {recipe.tp} pp {recipe.pp} x {recipe.virtual_stages} ep {recipe.ep} dp "
                 f"{recipe.dp_shard} ({recipe.shard}), micro-batch {recipe.micro_batch}, "
                 f"{recipe.recompute} recompute, {recipe.precision}, "
                 f"{recipe.global_batch} sequences of {recipe.sequence_tokens}")
    seconds = {"seconds": float(found.seconds[place])}
    return dataclasses.replace(chosen, measured=seconds), float(found.spread[place])


def _fitting(options: Sequence[Row], cells: Cells) -> Sequence[Row]:
    """Layouts whose peak stays within `FILLED` of memory; the smallest one where none does."""
    if not options:
        raise CannotExpress("no layout that we know divides its accelerators")
    shares = [memory.training(row.shape, row.recipe, row.machine.kind)["peak"]
              / row.machine.memory_bytes for row in options]
    fitting = [row for row, share in zip(options, shares, strict=True) if share <= FILLED]
    if not fitting:
        cells.assume("the smallest layout, which by our count does not fit")
        fitting = [options[shares.index(min(shares))]]
    return fitting


def _shape(cells: Cells, name: str) -> ModelShape:
    """The preset's shape where the name is known and its size agrees, else a usual one."""
    total = cells.positive("params_total")
    if total is None:
        raise CannotExpress("parameters not published")
    active = min(cells.positive("params_active") or total, total)
    known = shapes.preset(name)
    if known:
        shape = ModelShape(**{key: value for key, value in known.items() if key != "preset"})
        if abs(math.log(shape.parameters / total)) < 0.25:
            return shape
    return usual_shape(cells, total, active)


def usual_shape(cells: Cells, total: float, active: float) -> ModelShape:
    """A decoder of about so many parameters; with experts where few of them are active."""
    layers, width = shapes.usual_sizes(active)
    head = shapes.ASPECT
    shape = ModelShape(layers=layers, width=width, heads=width // head, kv_heads=width // head,
                       head_size=head, ffn=64 * round(8 * width / 3 / 64), vocab=VOCAB)
    cells.assume(f"{layers} layers of width {width}")
    if active > 0.8 * total:
        return shape
    attention, three = 4.0 * width**2 * layers, 3.0 * width * layers
    routed = max(active - VOCAB * width - attention, active / 4)
    expert_ffn = max(64, 64 * round(routed / (three * TOP_K) / 64))
    experts = max(TOP_K + 1, round((total - attention - VOCAB * width) / (three * expert_ffn)))
    cells.assume(f"{experts} experts of {expert_ffn}, {TOP_K} a token")
    return dataclasses.replace(shape, experts=experts, experts_per_token=TOP_K,
                               expert_ffn=expert_ffn)


def _usual_count(cells: Cells, shape: ModelShape, one: Machine, tokens: float) -> int:
    """Accelerators, a power of two, with which the run takes about two months at 40% MFU."""
    peak = max(one.peak_flops.values(), default=1e14)
    needed = 6 * shape.active_parameters * tokens / (0.4 * peak * USUAL_SECONDS)
    count = 2 ** min(14, max(3, round(math.log2(max(needed, 1.0)))))
    cells.assume(f"{count} accelerators")
    return int(count)


def _recipes(cells: Cells, shape: ModelShape, machine: Machine) -> Sequence[Recipe]:
    """Layouts to choose from, with what the table gives kept: of steps that are not too large,
    where there are such.
    """
    found = list(_layouts(cells, shape, machine))
    most = MOST_STEP * _step_tokens(shape)
    return [one for one in found if one.step_tokens <= most] or found


def _step_tokens(shape: ModelShape) -> float:
    """Tokens of a usual step: 4 million at 7 billion parameters, more for more."""
    return float(min(16e6, max(0.5e6, 4e6 * (shape.active_parameters / 7e9) ** 0.4)))


def _layouts(cells: Cells, shape: ModelShape, machine: Machine) -> Iterator[Recipe]:
    text, date = cells.text("layout").casefold(), stacks.month(cells.text("date"))
    ranks, tokens = machine.accelerators, _step_tokens(shape)
    sequence = min(next((length for until, length in _SEQUENCES if date < until), _SEQUENCE),
                   max(shape.context_tokens, 1024))
    if shape.active_parameters < SMALL:
        sequence = min(sequence, 2048)
    precision = recipes.precision(Cells({"precision": _named_precision(text, machine)}), date)
    for tp, pp, ep, pieces, micro, shard, recompute in product(
            *_choices(text, shape), (1, 4), MICRO, ("parameters", "optimiser"), ("none", "full")):
        dp = ranks // (tp * pp)
        if dp * tp * pp != ranks or shape.heads % tp or dp % ep or (pieces > 1 and pp == 1):
            continue
        if pp * pieces > shape.layers + recipes.ENDS:
            continue
        rounds = max(pp, round(tokens / (sequence * micro * dp)))
        chosen: dict[str, Any] = {"shard": shard, "recompute": recompute, "virtual_stages": pieces,
                                  "pipeline": "interleaved" if pieces > 1 else "1f1b"}
        yield Recipe(
            **chosen, tp=tp, pp=pp, ep=ep, dp_shard=dp, sequence_tokens=sequence,
            micro_batch=micro, global_batch=rounds * micro * dp, precision=precision,
            learning_rate=recipes.LEARNING_RATE, chunked_loss=False,
            sequence_parallel=tp > 1 and date >= "2022-06",
            attention="fused" if date >= "2022-06" else "math")


def _choices(text: str,
             shape: ModelShape) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    """Tensor, pipeline and expert degrees: the layout's own, else the usual ones."""
    tp, pp, ep = (_named(text, degree) for degree in ("tp", "pp", "ep"))
    return ((tp,) if tp else (1,) if "no tp" in text else (1, 2, 4, 8),
            (pp,) if pp else (1, 2, 4, 8, 16),
            (1,) if not shape.experts else (ep,) if ep else (8, 64, 256))


def _named(text: str, degree: str) -> int:
    found = re.search(rf"\b{degree}\s*=?\s*(\d+)", text)
    return int(found[1]) if found else 0


def _named_precision(text: str, machine: Machine) -> str:
    if "fp8" in text:
        return "fp8"
    return "fp16" if machine.accelerator.startswith("v100") else "bf16"
