"""What a run recorded, as columns of numbers; the last used are kept, in bounded memory.

A column holds NaN where a line lacks its figure, and infinity where it recorded one that is not
finite: a loss that broke must be seen as broken.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import sqlalchemy as sa

    from curbcut.ledger.store import Ledger

Column = np.ndarray[tuple[int], np.dtype[np.float64]]

FIELDS: Mapping[str, tuple[str, ...]] = {
    "step": ("step", "tokens", "loss", "gradient_norm", "learning_rate", "step_seconds", "joules",
             "usd", "kwh", "mfu", "memory_bytes", "busiest_expert"),
    "evaluation": ("step", "bits_per_byte", "nats_per_token"),
}
"""The figures that are read of each kind of line; of steps the sum of `seconds`, too."""
_PLAIN = {int, float, type(None)}
MOST_BYTES = 48 << 20
"""Of columns in memory: some 25 runs of the longest record, or 300 of 2,000 lines."""
CHUNK = 500
"""Lines that are text at a time: the text of a long record is large."""

_LAST = "SELECT process, MAX(sequence) FROM events WHERE run = :run GROUP BY process"
_NEW = """SELECT kind, time, body FROM events WHERE run = :run AND process = :process
AND sequence > :known AND sequence <= :last AND kind IN ('step', 'evaluation') ORDER BY sequence"""


@dataclass(frozen=True)
class Frame:
    """Lines of one kind in the order of time: `[lines]` each."""

    columns: Mapping[str, Column]

    def __len__(self) -> int:
        return len(self.columns["time"])

    def __getitem__(self, name: str) -> Column:
        return self.columns[name]


@dataclass(frozen=True)
class Recorded:
    """What one run recorded, as far as it was read."""

    frames: Mapping[str, Frame]
    """By kind of line."""
    known: Mapping[str, int]
    """The last sequence number that was read of each process."""
    generation: int
    """Lines only come behind those before them; where that fails, the generation is another."""
    change: int
    """Number of the run's change with which this was read."""

    @property
    def bytes(self) -> int:
        """In memory, about."""
        return sum(column.nbytes for frame in self.frames.values()
                   for column in frame.columns.values())


@dataclass
class Columns:
    """The columns of the runs that were asked for last."""

    most_bytes: int = MOST_BYTES
    _kept: OrderedDict[str, Recorded] = field(default_factory=OrderedDict)
    _ends: dict[str, tuple[int, int, float]] = field(default_factory=dict)
    """Of each run that was ever read: generation, lines of steps, and the last one's time."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, ledger: Ledger, run: str, change: int) -> Recorded:
        """What `run` recorded; read anew only where its number of changes is another one."""
        with self._lock:
            kept = self._kept.get(run)
            if kept is not None and kept.change == change:
                self._kept.move_to_end(run)
                return kept
            found = _read(ledger, run, kept, change)
            found = replace(found, generation=self._generation(run, found))
            self._kept[run] = found
            self._kept.move_to_end(run)
            while self.bytes > self.most_bytes and len(self._kept) > 1:
                self._kept.popitem(last=False)
            return found

    @property
    def bytes(self) -> int:
        """In memory, about."""
        return sum(one.bytes for one in list(self._kept.values()))

    @property
    def half_full(self) -> bool:
        """Whether what is read ahead would soon push out what was asked for."""
        return 2 * self.bytes > self.most_bytes

    def _generation(self, run: str, found: Recorded) -> int:
        """The same as long as what was read before is what it begins with."""
        generation, lines, last = self._ends.get(run, (0, 0, 0.0))
        times = found.frames["step"]["time"]
        if lines and (len(times) < lines or times[lines - 1] != last):
            generation += 1
        self._ends[run] = generation, len(times), float(times[-1]) if len(times) else 0.0
        return generation


def ends(connection: sa.Connection, run: str) -> dict[str, int]:
    """The last sequence number of each process of a run."""
    import sqlalchemy as sa

    return {process: int(last) for process, last in connection.execute(
        sa.text(_LAST), {"run": run})}


def _read(ledger: Ledger, run: str, kept: Recorded | None, change: int) -> Recorded:
    import sqlalchemy as sa

    known = dict(kept.known) if kept else {}
    parts: dict[str, list[Frame]] = {kind: [kept.frames[kind]] if kept else [] for kind in FIELDS}
    with ledger.reading() as connection:
        for process, last in ends(connection, run).items():
            if last > known.get(process, -1):
                new: Any = connection.execution_options(stream_results=True).execute(
                    sa.text(_NEW), {"run": run, "process": process, "last": last,
                                    "known": known.get(process, -1)})
                for kind, frame in _frames(new):
                    parts[kind].append(frame)
                known[process] = last
    frames = {kind: _joined(kind, found) for kind, found in parts.items()}
    return Recorded(frames, known, 0, change)


def _frames(rows: Any) -> Iterable[tuple[str, Frame]]:
    """Each chunk of lines as a frame of each kind that it has."""
    for chunk in rows.partitions(CHUNK):
        for kind in FIELDS:
            mine = [row for row in chunk if row[0] == kind]
            if mine:
                yield kind, _frame(kind, [row[1] for row in mine],
                                   json.loads(f"[{','.join([row[2] for row in mine])}]"))


def _frame(kind: str, times: list[float], bodies: list[dict[str, Any]]) -> Frame:
    fields = FIELDS[kind]
    columns = {"time": np.array(times, dtype=np.float64)}
    values = [tuple(map(body.get, fields)) for body in bodies]
    columns |= dict(zip(fields, table(values, len(fields)), strict=True))
    if kind == "step":
        columns["seconds"] = column([_sum(body.get("seconds")) for body in bodies])
    return Frame(columns)


def _joined(kind: str, parts: Sequence[Frame]) -> Frame:
    """All parts as one, in the order of time."""
    if not parts:
        return _frame(kind, [], [])
    if len(parts) == 1:
        return parts[0]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0].columns}
    times = columns["time"]
    if np.any(times[1:] < times[:-1]):
        order = np.argsort(times, kind="stable")
        columns = {name: values[order] for name, values in columns.items()}
    return Frame(columns)


def table(rows: Sequence[tuple[Any, ...]], width: int) -> Sequence[Column]:
    """The columns of `rows` [lines, width], as `column` makes each."""
    if rows and set(map(type, chain.from_iterable(rows))) <= _PLAIN:
        with contextlib.suppress(OverflowError):  # a number that no float holds
            # Each column in one piece of its own: a view would keep all of them in memory.
            return list(np.ascontiguousarray(np.array(rows, dtype=np.float64).T))
    return [column([row[i] for row in rows]) for i in range(width)]


def column(values: Sequence[Any]) -> Column:
    """Numbers as they are, None as NaN, and what was recorded as not finite as infinity."""
    return np.array([_number(value) for value in values], dtype=np.float64)


def _number(value: Any) -> float:
    if type(value) is float and math.isfinite(value):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return math.nan if isinstance(value, str) else math.inf
    return number if math.isfinite(number) else math.inf


def _sum(parts: Any) -> float | None:
    try:
        return float(sum(parts.values()))
    except (AttributeError, TypeError, ValueError, OverflowError):
        return None
