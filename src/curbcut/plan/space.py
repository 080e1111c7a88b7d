"""Every valid recipe of one shape on one machine, as blocks of arrays.

A block has the attributes of a `Recipe`, so the formulas of the physics price it as they price one:
shard, pipeline and context are plain names; degrees, micro-batch, virtual stages and
sequence-parallel are columns [rows]; precision, recompute, offload and optimiser lie on axes of
their own before the rows, so that what does not depend on them is computed once for all of them.
Rows of one layout of the ranks stand together.

A name that changes nothing is not repeated: `shard` where nothing is shared, `pipeline` of one
stage, `context` of one rank, `sequence_parallel` of one. What is valid, `spec.checks` says; on the
machine at hand a recipe is also one that training runs (`plan.running`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from curbcut.errors import InputError
from curbcut.physics.numbers import Choice, Columns
from curbcut.plan import machines, running
from curbcut.spec import checks, codec
from curbcut.spec.nouns import Machine, ModelShape, Recipe

Floats = NDArray[np.float64]

NUMBERS = ("dp_replicate", "dp_shard", "tp", "pp", "cp", "ep", "micro_batch", "virtual_stages",
           "sequence_parallel")
"""Fields of a recipe that are columns of a block."""
FREE_NAMES = ("precision", "recompute", "offload", "optimiser")
"""Names that any row may have: each an axis of a block. The optimiser stays as it is unless it is
asked to vary: it changes what a token teaches."""
ROW_NAMES = ("shard", "pipeline", "context")
"""Names that decide which rows are valid: one of each a block."""
FIELDS = (*NUMBERS, *FREE_NAMES, *ROW_NAMES)
BLOCK_ROWS = 8192
"""Rows priced at once, each under every free name: columns of a formula stay in a core's cache."""
MOST_MICRO_BATCH_TOKENS = 2**17
"""Tokens that a rank computes at once, at most: matmuls are wide long before."""
LEAST_PIECE_TOKENS = 256
"""Tokens of a sequence that a context-parallel rank holds, at least: below, every matmul is thin.
A sequence that is shorter stays whole."""


@dataclass(frozen=True)
class Space:
    """What is searched: everything free around `base`, whose other fields stay."""

    shape: ModelShape
    machine: Machine
    base: Recipe
    """Its sequence, global batch and learning are kept; a field in `fixed` too."""
    fixed: frozenset[str] = frozenset()
    also: frozenset[str] = frozenset()
    """Fields to vary that are left alone unless asked: "optimiser"."""
    only: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    """Values that a free name is held to."""

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """All recipes, always in the same order. Of the machine at hand those alone that training
        runs, if any.
        """
        found = tuple(_blocks(self))
        if not machines.is_here(self.machine.name):
            return found
        held = (block.trained(self.shape, self.machine) for block in found)
        return tuple(block for block in held if block.count) or found

    def choices(self, name: str) -> tuple[str, ...]:
        """The names tried for one field, in the order of its type."""
        found = self._tried(name)
        return tuple(one for one in found if one in self.only.get(name, found)) or found

    def _tried(self, name: str) -> tuple[str, ...]:
        mine: str = getattr(self.base, name)
        if name in self.fixed or (name == "optimiser" and name not in self.also):
            return (mine,)
        if name == "precision":
            return checks.precisions(self.machine) or (mine,)
        if name == "offload" and self.machine.kind == "cpu":
            return ("none",)
        return tuple(get_args(codec.hints(Recipe)[name]))

    @property
    def count(self) -> int:
        """Recipes in the space."""
        return sum(block.count for block in self.blocks)


@dataclass(frozen=True, eq=False)
class Block:
    """Recipes of one shard, pipeline and context: free names x rows."""

    base: Recipe
    names: Mapping[str, str]
    """By `ROW_NAMES`."""
    free: Mapping[str, tuple[str, ...]]
    """By `FREE_NAMES`: the names along each axis."""
    columns: Mapping[str, Floats]
    """By `NUMBERS`, and `accumulation` and `ranks`."""
    starts: NDArray[np.int64]
    """The first row of each layout of the ranks (degrees and virtual stages); rows of a layout
    differ by micro-batch and sequence-parallel."""
    open: NDArray[np.bool_] | None = None
    """Which places count, where not all do."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes: the free names, then rows."""
        return (*(len(self.free[name]) for name in FREE_NAMES), len(self.columns["tp"]))

    @property
    def count(self) -> int:
        """Recipes in the block."""
        return math.prod(self.shape) if self.open is None else int(np.count_nonzero(self.open))

    def trained(self, shape: ModelShape, machine: Machine) -> Block:
        """The same with only those places open whose recipes training runs."""
        flags = np.asarray(running.trained(shape, self.recipes, machine), bool)
        return self if flags.all() else replace(self, open=np.broadcast_to(flags, self.shape))

    def shut(self, values: Floats) -> Floats:
        """The values, infinite wherever a place does not count."""
        return values if self.open is None else np.where(self.open, values, np.inf)

    @property
    def recipes(self) -> Columns:
        """The block with a recipe's attributes, `ranks`, `accumulation` and `step_tokens` too."""
        kept = {name: value for name, value in vars(self.base).items() if name not in FIELDS}
        axes = {name: self.axis(name, self.free[name]) for name in FREE_NAMES}
        return Columns(**(kept | axes | dict(self.names) | dict(self.columns)
                          | {"step_tokens": self.base.step_tokens}))

    def axis(self, name: str, values: tuple[str, ...]) -> str | Choice:
        """Values of one free name along its axis; the value itself where there is one."""
        if len(values) == 1:
            return values[0]
        sizes = [1] * (len(FREE_NAMES) + 1)
        sizes[FREE_NAMES.index(name)] = len(values)
        return Choice(np.arange(len(values), dtype=np.int8).reshape(sizes), values)

    def part(self, free: tuple[int, ...], first: int, last: int) -> Block:
        """Some rows under one of each free name."""
        names = {name: (self.free[name][i],) for name, i in zip(FREE_NAMES, free, strict=True)}
        columns = {name: column[first:last] for name, column in self.columns.items()}
        held = None if self.open is None else self.open[
            (*(slice(i, i + 1) for i in free), slice(first, last))]
        return replace(self, free=names, columns=columns, starts=np.zeros(1, np.int64), open=held)

    def recipe(self, place: tuple[int, ...]) -> Recipe:
        """The recipe at a place in `shape`."""
        row = place[-1]
        numbers: dict[str, Any] = {name: int(self.columns[name][row]) for name in NUMBERS}
        numbers["sequence_parallel"] = bool(numbers["sequence_parallel"])
        names: dict[str, Any] = dict(self.names)
        names |= {name: self.free[name][place[i]] for i, name in enumerate(FREE_NAMES)}
        return replace(self.base, **numbers, **names)


def whole_batch(wanted: float, accelerators: int) -> int:
    """A global batch near `wanted` sequences that many layouts divide: a multiple of the
    accelerators where it is a few of them, else of a power of two within an eighth of it.
    """
    if wanted < 2 * accelerators:
        unit: int = 2 ** max(0, math.floor(math.log2(max(1.0, wanted) / 4)))
        return max(1, round(wanted / unit)) * unit
    unit = accelerators
    while unit <= wanted / 16:
        unit *= 2
    return round(wanted / unit) * unit


def divisors(number: int) -> list[int]:
    """All divisors, rising."""
    low = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return sorted({*low, *(number // n for n in low)})


def _blocks(space: Space) -> Iterator[Block]:
    layouts = _layouts(space)
    for shard, pipeline, context in itertools.product(
            *(space.choices(name) for name in ("shard", "pipeline", "context"))):
        first = (shard == space.choices("shard")[-1], pipeline == _plain_pipeline(space),
                 context == space.choices("context")[0])
        mine = layouts[_meant(layouts, *first)]
        mine = mine[_context_fits(space, mine, context)]
        yield from _cut(space, _staged(space, mine, pipeline),
                        {"shard": shard, "pipeline": pipeline, "context": context})


def _plain_pipeline(space: Space) -> str:
    """The schedule under which layouts of one stage stand."""
    tried = space.choices("pipeline")
    return "1f1b" if "1f1b" in tried else tried[0]


def _meant(layouts: NDArray[np.int64], sharded: bool, plain: bool,
           ring: bool) -> NDArray[np.bool_]:
    """Layouts for which the names say something, or that stand under the first of them."""
    _, dp_shard, _, pp, cp, _ = layouts.T
    return np.asarray(((dp_shard > 1) | sharded) & ((pp > 1) | plain) & ((cp > 1) | ring), bool)


def _context_fits(space: Space, layouts: NDArray[np.int64], context: str) -> NDArray[np.bool_]:
    if context != "ulysses":
        return np.ones(len(layouts), bool)
    pairs = {(tp, cp): checks.ulysses_valid(space.shape, int(tp), int(cp))
             for tp, cp in set(map(tuple, layouts[:, [2, 4]].tolist()))}
    return np.array([pairs[tp, cp] for tp, cp in map(tuple, layouts[:, [2, 4]].tolist())], bool)


def _layouts(space: Space) -> NDArray[np.int64]:
    """Degrees [layouts, 6] (dp_replicate, dp_shard, tp, pp, cp, ep) that multiply to the machine.
    """
    shape, base, total = space.shape, space.base, space.machine.accelerators
    fixed = {name: getattr(base, name) for name in space.fixed if name in checks.DEGREES}
    rows: list[tuple[int, ...]] = []
    experts = divisors(shape.experts) if shape.experts else [1]
    if "ep" in space.fixed:
        experts = [base.ep]
    for tp in _degrees(total, fixed.get("tp"), lambda n: checks.tp_valid(shape, n)):
        for pp in _degrees(total // tp, fixed.get("pp"), lambda n: n <= shape.layers):
            for cp in _degrees(total // tp // pp, fixed.get("cp"), lambda n: _cuts(base, n)):
                data = total // tp // pp // cp
                for shard in _degrees(data, fixed.get("dp_shard"), lambda _: True):
                    if data // shard == fixed.get("dp_replicate", data // shard) and (
                            base.global_batch % data == 0):
                        rows += [(data // shard, shard, tp, pp, cp, ep)
                                 for ep in experts if data * cp % ep == 0]
    return np.array(rows, np.int64).reshape(-1, 6)


def _degrees(total: int, fixed: int | None, holds: Any) -> Sequence[int]:
    found = divisors(total) if fixed is None else [fixed] if total % fixed == 0 else []
    return [n for n in found if holds(n)]


def _cuts(base: Recipe, cp: int) -> bool:
    tokens = base.sequence_tokens
    return tokens % cp == 0 and (cp == 1 or tokens // cp >= LEAST_PIECE_TOKENS)


def _staged(space: Space, layouts: NDArray[np.int64], pipeline: str) -> NDArray[np.int64]:
    """Layouts with a seventh column, the virtual stages."""
    layers, base = space.shape.layers, space.base
    if pipeline != "interleaved":
        keep = (layouts[:, 3] * 2 <= layers) if pipeline == "dualpipev" else layouts[:, 3] > 0
        keep |= layouts[:, 3] == 1
        if "virtual_stages" in space.fixed and base.virtual_stages > 1:
            keep &= False
        return np.column_stack([layouts[keep], np.ones(int(keep.sum()), np.int64)])
    pieces = [np.zeros((0, 7), np.int64)]
    for pp in np.unique(layouts[:, 3]):
        virtual = [n for n in divisors(layers // int(pp))[1:]
                   if "virtual_stages" not in space.fixed or n == base.virtual_stages]
        if pp == 1 or layers % pp or not virtual:
            continue
        mine = layouts[layouts[:, 3] == pp]
        pieces.append(np.column_stack([np.repeat(mine, len(virtual), 0),
                                       np.tile(virtual, len(mine))]))
    return np.concatenate(pieces)


def _cut(space: Space, layouts: NDArray[np.int64], names: Mapping[str, str]) -> Iterator[Block]:
    """Layouts with every micro-batch, cut where a layout begins."""
    micros = _micro_batches(space)
    held = _held(space, layouts, micros, names["pipeline"])
    counts = held.sum((1, 2))
    layouts, held, counts = layouts[counts > 0], held[counts > 0], counts[counts > 0]
    ends = np.cumsum(counts)
    pieces = -(-int(ends[-1]) // BLOCK_ROWS) if len(ends) else 0
    cuts = np.searchsorted(ends, np.arange(1, pieces) * ends[-1] / pieces) if pieces else []
    for first, last in itertools.pairwise(np.unique([0, *cuts, len(layouts)])):
        yield _block(space, layouts[first:last], micros, held[first:last], names)


def _micro_batches(space: Space) -> NDArray[np.int64]:
    """Micro-batches that some layout may have."""
    base = space.base
    if "micro_batch" in space.fixed:
        return np.array([base.micro_batch], np.int64)
    return np.array(divisors(base.global_batch), np.int64)


def _held(space: Space, layouts: NDArray[np.int64], micros: NDArray[np.int64],
          pipeline: str) -> NDArray[np.bool_]:
    """Flags [layouts, 2, micro-batches]: valid without, and with, sequence-parallel."""
    base = space.base
    replicas, shards, tp, pp, cp = layouts.T[:5, :, None, None]
    flag, micro = np.array([False, True])[:, None], micros
    local = base.global_batch // (replicas * shards)
    waves, piece = local // micro, base.sequence_tokens // cp
    held = local % micro == 0
    if "micro_batch" not in space.fixed:
        held &= (micro == 1) | (micro * piece <= MOST_MICRO_BATCH_TOKENS)
    if pipeline == "interleaved":
        held &= (pp == 1) | (waves % pp == 0)
    if pipeline == "dualpipev":
        held &= (pp == 1) | (waves >= 2 * pp)
    flags = ~flag | ((tp > 1) & (piece % tp == 0))
    if "sequence_parallel" in space.fixed:
        flags = flags & ((flag == base.sequence_parallel) | (tp == 1))
    return np.asarray(held & flags, bool)


def _block(space: Space, layouts: NDArray[np.int64], micros: NDArray[np.int64],
           held: NDArray[np.bool_], names: Mapping[str, str]) -> Block:
    place, flag, micro = np.nonzero(held)
    table = np.ascontiguousarray(layouts.T[:, place], np.float64)
    columns: dict[str, Any] = dict(zip(
        ("dp_replicate", "dp_shard", "tp", "pp", "cp", "ep", "virtual_stages"), table,
        strict=True))
    data = columns["dp_replicate"] * columns["dp_shard"]
    columns["micro_batch"] = micros[micro].astype(np.float64)
    columns["sequence_parallel"] = flag.astype(bool)
    columns["accumulation"] = space.base.global_batch / (columns["micro_batch"] * data)
    columns["ranks"] = data * columns["tp"] * columns["pp"] * columns["cp"]
    starts = np.searchsorted(place, np.arange(len(layouts)))
    free = {name: space.choices(name) for name in FREE_NAMES}
    return Block(space.base, names, free, columns, starts.astype(np.int64))


def nothing_valid(space: Space) -> InputError:
    """The error for a space without any recipe."""
    machine, base = space.machine, space.base
    return InputError(
        f"no recipe for {machine.accelerators} accelerators divides a global batch of "
        f"{base.global_batch} sequences and the model's heads and layers",
        where="recipe", mend=f"set recipe.global_batch = "
        f"{whole_batch(2.0 * machine.accelerators, machine.accelerators)}, or free a degree")
