"""`StepMeter`: what each request takes of the machine's joules, seconds and money.

The engine's thread only leaves records in a queue. A thread of the meter's own reads the energy
counter each second, shares out what the steps took, and each minute hands on the lines of where it
all went. Whoever settles a request takes its share.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType

from curbcut.ledger.meterings import Metering, MeteringKind
from curbcut.meter.energy import Lap
from curbcut.meter.sensors import EnergySensor
from curbcut.serve.engine.interface import OnStep, StepRecord
from curbcut.serve.metering import work
from curbcut.serve.metering.counter import Counter
from curbcut.serve.metering.rates import Rates
from curbcut.serve.metering.shares import Known, Share, Sum, Where
from curbcut.serve.metering.split import Live, Part, Split
from curbcut.serve.metering.work import StepWork

_log = logging.getLogger(__name__)
READ_SECONDS = 1.0
"""Between two readings of the counter: ten of the updates that GPUs' counters have."""
FLUSH_SECONDS = 60.0
"""Between two sets of lines."""
LOST_SECONDS = 900.0
"""A request without a step for so long will not be settled any more."""
Record = Callable[[Sequence[Metering]], None]
_MILLI = 1000
_KG_DIGITS = 12
"""Digits of a kg that count: a nanogram."""


@dataclass(frozen=True)
class Metered:
    """A model whose work is done on this machine."""

    work: StepWork = field(default_factory=work.plain)
    company: float = 1.0
    """Requests that share a reading of the weights, where the engine tells of no steps."""


class StepMeter:
    """Threads may share it; use it in a `with`.

    `models` by name; the joules of one that is not here are not known. `record` is handed the
    lines each minute and at the end, on the meter's thread. Where nobody settles (`settles`
    False), a request's work is its own a while after its last step.
    """

    def __init__(self, models: Mapping[str, Metered], rates: Rates, *,
                 idle_watts: float | None = None, sensors: Sequence[EnergySensor] = (),
                 server: str = "", record: Record | None = None, settles: bool = True,
                 clock: Callable[[], float] = time.perf_counter) -> None:
        self.server = server
        """Id that the lines bear."""
        self.rates, self._models, self._record, self._clock = rates, dict(models), record, clock
        self._unsettled: tuple[MeteringKind, float] = (
            ("lost", LOST_SECONDS) if settles else ("requests", FLUSH_SECONDS))
        self._counter = Counter(sensors)
        self._started = clock()
        self._split = Split(self._started, idle_watts)
        self._told: deque[tuple[str, StepRecord, float]] = deque()
        self._lock, self._reading = threading.Lock(), threading.Lock()
        known = self._counter.there or (idle_watts is not None and all(
            one.work.watts is not None for one in models.values()))
        self._zero = Sum(0 if known else None, rates.nanousd(0.0 if known else None, 0.0),
                         0.0 if known else None, 0.0)
        self._ended: dict[tuple[str, MeteringKind], Sum] = {}
        self._before: dict[tuple[str, MeteringKind], Sum] = {}
        self._uncounted = 0
        self._since = time.time()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> StepMeter:
        self._thread = threading.Thread(target=self._run, name="curbcut-metering", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def on_step(self, model: str, record: StepRecord) -> None:
        """A step of the model's engine has just ended. Returns at once."""
        self._told.append((model, record, self._clock()))

    def listener(self, model: str) -> OnStep:
        """What the model's engine calls after each step."""
        return lambda record: self.on_step(model, record)

    def take(self, model: str, tickets: Sequence[int], *, prompt_tokens: int = 0,
             cached_tokens: int = 0, output_tokens: int = 0, seconds: float = 0.0) -> Share:
        """Ends a request: its tickets' share of everything so far, once.

        Tokens and the seconds that it took serve where the engine tells of no steps: the share is
        modelled from them.
        """
        base = model.partition(":")[0]
        with self._lock:
            self._drain()
            found = [one for ticket in tickets if (one := self._split.take((base, ticket)))]
            if not found and base in self._models and prompt_tokens + output_tokens:
                found = [self._whole(base, prompt_tokens - cached_tokens, output_tokens, seconds)]
            return self._share(base, found)

    def read(self) -> None:
        """Reads the counter, unless that was done just now. The meter's thread does it each second.
        """
        if self._clock() - self._split.newest < READ_SECONDS / 2:
            return
        with self._reading:  # a sensor may take milliseconds, in which no request is held up
            joules, now = self._counter.read(), self._clock()
            with self._lock:
                self._drain()
                self._split.reading(now, joules)

    def flush(self) -> Sequence[Metering]:
        """The lines since the last flush, handed to `record` too; and gives up what is lost."""
        with self._lock:
            self._drain()
            self._lose(self._clock() - self._unsettled[1])
            lines = self._lines()
        if self._record is not None and lines:
            try:
                self._record(lines)
            except Exception:  # a ledger that cannot be written must not end the meter
                _log.exception("%d lines of metering were not recorded", len(lines))
        return lines

    def close(self) -> None:
        """Shares out all that is left and hands the last lines on. May be called twice."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        with self._reading, self._lock:
            self._drain()
            self._split.finish(self._clock(), self._counter.read())
            self._lose(math.inf)
        self.flush()

    def where(self) -> Where:
        """Where joules, money, carbon and seconds went since the start."""
        with self._lock:
            self._drain()
            return self._where()

    def joules(self) -> Mapping[str, float | None]:
        """What sensors counted since the start, by boundary and to the second; None where one was
        lost.
        """
        self.read()
        return self._counter.totals()

    def total(self) -> Lap:
        """All that sensors counted from the start to the newest reading, as one stretch."""
        found = self.joules()
        return Lap(self._clock() - self._started, found, self._counter.reason)

    # -- below: under the lock -----------------------------------------------------------------

    def _drain(self) -> None:
        while self._told:
            model, record, end = self._told.popleft()
            metered = self._models.get(model)
            if metered is None:
                continue
            live = self._split.live
            tickets = {*record.prefill, *record.decode}
            seen = {ticket: one.seen for ticket in tickets if (one := live.get((model, ticket)))}
            watts = metered.work.watts
            self._split.step(model, metered.work.shares(record, seen), end, record.seconds,
                             1.0 if watts is None else watts.during(record))
            for ticket in tickets:
                live[model, ticket].seen += (record.prefill.get(ticket, 0)
                                             + record.decode.get(ticket, 0))

    def _whole(self, model: str, fresh: int, output: int, wall_seconds: float
               ) -> tuple[Live, Part]:
        """A request of which no step was told, as one step that ended now: modelled."""
        metered, ticket = self._models[model], -1
        one = metered.work.seconds
        answer = one.token + one.row + one.position * (fresh + output / 2)
        seconds = (fresh * one.token + output * answer
                   + (1 + output) * (one.every + one.experts) / metered.company)
        if metered.work.shape is None:  # then these are no seconds, but shares
            seconds = wall_seconds / metered.company
        seconds = min(seconds, wall_seconds) if wall_seconds else seconds
        watts = metered.work.watts
        self._split.step(model, {ticket: 1.0}, self._clock(), seconds,
                         1.0 if watts is None else watts.typical)
        found = self._split.take((model, ticket))
        assert found is not None
        found[0].measured = False
        return found

    def _share(self, model: str, found: Sequence[tuple[Live, Part]]) -> Share:
        if not found:
            return Share()
        joules = sum(part.joules for _, part in found)
        seconds = sum(part.seconds for _, part in found)
        one = self._sum(joules, seconds)
        key: tuple[str, MeteringKind] = (model, "requests")
        self._ended[key] = self._ended.get(key, self._zero).plus(one)
        counted = self._counter.there and all(live.measured for live, _ in found)
        basis: Known = "" if one.millijoules is None else "measured" if counted else "modelled"
        return Share(one.millijoules, basis, one.nanousd,
                     sum(live.engine_seconds for live, _ in found))

    def _lose(self, before: float) -> None:
        for who in self._split.old(before):
            found = self._split.take(who)
            assert found is not None
            key = (who[0], self._unsettled[0])
            self._ended[key] = self._ended.get(key, self._zero).plus(
                self._sum(found[1].joules, found[1].seconds))

    def _where(self) -> Where:
        counted = self._sum_of(self._split.counted)
        under_way = self._sum_of(self._split.under_way())
        idle = self._sum_of(self._split.idle)
        rest = counted.less(under_way).less(idle)
        for one in self._ended.values():
            rest = rest.less(one)
        if rest.kgco2e is not None:  # of floats: what is left of no rest is none
            rest = replace(rest, kgco2e=round(rest.kgco2e, _KG_DIGITS))
        basis: Known = ("" if counted.millijoules is None else "measured"
                        if self._counter.there and not self._split.uncounted else "modelled")
        return Where({**self._ended, ("", "idle"): idle, ("", "correction"): rest}, counted,
                     under_way, basis)

    def _lines(self) -> list[Metering]:
        now, where = time.time(), self._where()
        lost = self._split.uncounted - self._uncounted
        known = where.counted.millijoules is not None
        basis = "" if not known else "measured" if self._counter.there and not lost else "modelled"
        lines = []
        for (model, kind), one in where.sums.items():
            more = one.less(self._before.get((model, kind), self._zero))
            if more.seconds or more.millijoules or more.nanousd:
                lines.append(Metering(
                    server=self.server, model=model, kind=kind, start=self._since, end=now,
                    seconds=more.seconds, millijoules=more.millijoules, cost_nanousd=more.nanousd,
                    kgco2e=more.kgco2e, basis=basis, source=self._source()))
        self._before, self._since = dict(where.sums), now
        self._uncounted = self._split.uncounted
        return lines

    def _source(self) -> str:
        told = (f"counter of {' and '.join(sorted(self._counter.boundaries))}"
                if self._counter.there else "modelled watts, no energy sensor")
        return f"{told}; {self.rates.source}"

    def _sum(self, joules: float, seconds: float) -> Sum:
        known = joules if self._zero.millijoules is not None else None
        return Sum(None if known is None else round(known * _MILLI),
                   self.rates.nanousd(known, seconds), self.rates.kgco2e(known, seconds), seconds)

    def _sum_of(self, part: Part) -> Sum:
        return self._sum(part.joules, part.seconds)

    def _run(self) -> None:
        flushed = self._clock()
        while not self._stopped.wait(READ_SECONDS):
            try:
                self.read()
                if self._clock() - flushed >= FLUSH_SECONDS:
                    flushed = self._clock()
                    self.flush()
            except Exception:  # a reading that fails is one stretch more that is modelled
                _log.exception("a reading of the energy meter failed")
