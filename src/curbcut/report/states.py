"""Where each run stands, from the ledger alone: what the pages and `curbcut top` list.

A run is **planned** until a process of it starts, then **training** while that process gives signs
of life. Every line of its record is one; when it has nothing else to say it leaves a `beat`, whose
body tells the `period_seconds` of such signs. A process that falls silent for longer, without
having said that it ended, has **crashed**: no lock file is asked, and none is left behind.
One that ended is **stopped** (at a checkpoint, to go on later) or **done**.

A line of a step may tell `usd`, `kwh` (both of the whole run so far, at the facility) and `mfu`;
without them they are worked out from the promise and the clock, and called modelled.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from curbcut import units
from curbcut.errors import CurbcutError
from curbcut.spec import ModelShape
from curbcut.spec import codec as spec_codec
from curbcut.train import lines

if TYPE_CHECKING:
    import sqlalchemy as sa

    from curbcut.ledger.store import Ledger

State = Literal["planned", "training", "stopped", "done", "crashed"]

PERIOD_SECONDS = 300.0
"""Between signs of life of a process that tells no period: of records from before there were beats,
in which an evaluation or a checkpoint could take minutes."""
MISSED = 3.0
"""Periods without a sign after which a process has crashed."""
SLACK_SECONDS = 5.0
"""On top: clocks of two machines, and what a shared disk takes to show a line."""

_FIGURES = ("seconds.total", "tokens.trained", "tokens_per_second.steps", "mfu.run", "usd.total",
            "kwh.facility", "kwh_modelled.facility", "loss.bits_per_byte")
_AN_EVENT = """(SELECT e.{column} FROM events e WHERE e.run = named.name AND e.kind = '{kind}'
    ORDER BY e.time DESC LIMIT 1) AS {kind}_{column}"""
_EVENTS = """
WITH named AS MATERIALIZED (
    SELECT name, (SELECT e.process FROM events e WHERE e.run = n.name AND e.kind = 'start'
                  ORDER BY e.time DESC LIMIT 1) AS process
    FROM (SELECT DISTINCT name FROM runs WHERE :everyone = 1 OR name IN :names) n
)
SELECT named.name, named.process,
    (SELECT MIN(e.time) FROM events e WHERE e.run = named.name AND e.kind = 'start') AS began,
    (SELECT e.time FROM events e WHERE e.run = named.name AND e.process = named.process
     ORDER BY e.sequence DESC LIMIT 1) AS sign, """ + ",\n    ".join(
    _AN_EVENT.format(kind=kind, column=column) for kind, column in (
        ("start", "time"), ("start", "body"), ("step", "time"), ("step", "body"),
        ("evaluation", "time"), ("evaluation", "body"), ("beat", "body"),
        ("end", "process"), ("end", "time"), ("end", "body"))) + " FROM named"
"""Each by one look into an index: a long record is not walked. In the SQL that SQLite and
PostgreSQL share."""
_RUNS = """
SELECT name, digest, machine, recorded, id FROM (
    SELECT runs.*, ROW_NUMBER() OVER (PARTITION BY name ORDER BY recorded DESC, id DESC) AS place
    FROM runs WHERE :everyone = 1 OR name IN :names) newest
WHERE place = 1"""
_ACCOUNTS = """
SELECT newest.run, newest.kind, newest.finished, newest.recorded, figures.section,
       figures.figure, figures.value, figures.low, figures.high, figures.basis
FROM (SELECT accounts.*, ROW_NUMBER() OVER (PARTITION BY run, kind
                                            ORDER BY recorded DESC, id DESC) AS place
      FROM accounts WHERE step = 'train' AND run IN :ids) newest
JOIN figures ON figures.account = newest.id
WHERE place = 1 AND figures.section IN :sections"""


@dataclass(frozen=True)
class Spent:
    """What is used of money or energy beside what was promised; None where it is not known."""

    now: float | None = None
    promised: float | None = None
    low: float | None = None
    high: float | None = None
    basis: str = ""
    """Of `now`: measured or modelled; "" where it is not known."""


@dataclass(frozen=True)
class RunState:
    """One run as it stands. Times are seconds since 1970; what is not known is None or ""."""

    name: str
    state: State
    model: str
    """Preset or size: "Llama-3.1-8B", "124M"."""
    machine: str
    step: int | None
    steps: int | None
    tokens: int | None
    loss: float | None
    """Of the newest recorded step, nats a token."""
    bits_per_byte: float | None
    """Of the newest evaluation of held-out text."""
    tokens_per_second: float | None
    """Of the newest recorded step; of all steps once the run has ended."""
    mfu: float | None
    seconds: float | None
    """Wall clock of all attempts so far."""
    usd: Spent
    kwh: Spent
    """At the facility."""
    began: float | None
    updated: float | None
    """When it last gave a sign of life, or was recorded."""
    age_seconds: float | None
    """How long ago that was."""
    reason: str
    """Why it ended or is taken for dead; "" while it trains."""

    @property
    def progress(self) -> float | None:
        """Share of its steps that are done."""
        return self.step / self.steps if self.step is not None and self.steps else None


def plain(state: RunState) -> dict[str, Any]:
    """A state as JSON-ready data, its progress too; what is not known is None."""
    return asdict(state) | {"progress": state.progress}


def states(ledger: Ledger, now: float, names: Collection[str] | None = None) -> list[RunState]:
    """All runs of the ledger (or those of `names`), the last to give a sign first.

    `now` is seconds since 1970. What is in inboxes must have been imported before.
    """
    # A list is never empty: PostgreSQL would not know of what it is.
    wanted = {"everyone": int(names is None), "names": ["", *(names or ())]}
    with ledger.reading() as connection:
        runs = _rows(connection, _RUNS, wanted)
        events = {row["name"]: row for row in _rows(connection, _EVENTS, wanted)}
        accounts = _accounts(connection, [-1, *(row["id"] for row in runs)])
        _name_models(connection, runs)
    found = [_state(row, events[row["name"]], accounts.get(row["id"], {}), now) for row in runs]
    return sorted(found, key=lambda one: (-(one.updated or 0.0), one.name))


@dataclass(frozen=True)
class _Sums:
    """The figures of an account that a list shows, by "section.kind"."""

    recorded: float
    finished: bool
    figures: dict[str, Spent]

    def value(self, key: str) -> float | None:
        """One of them; None where it is not known."""
        found = self.figures.get(key)
        return found.now if found else None


_NOTHING = _Sums(0.0, False, {})


def _rows(connection: sa.Connection, query: str,
          values: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    import sqlalchemy as sa

    text = sa.text(query)
    for key, value in values.items():
        if isinstance(value, list):
            text = text.bindparams(sa.bindparam(key, expanding=True))
    return [dict(row) for row in connection.execute(text, values).mappings()]


def _accounts(connection: sa.Connection, ids: list[int]) -> dict[int, dict[str, _Sums]]:
    """The newest forecast and measurement of training, by run and kind."""
    sections = sorted({key.split(".")[0] for key in _FIGURES})
    found: dict[int, dict[str, _Sums]] = {}
    for row in _rows(connection, _ACCOUNTS, {"ids": ids, "sections": sections}):
        of_run = found.setdefault(row["run"], {})
        sums = of_run.setdefault(row["kind"], _Sums(row["recorded"], bool(row["finished"]), {}))
        key = f"{row['section']}.{row['figure']}"
        if key in _FIGURES:
            sums.figures[key] = Spent(row["value"], row["value"], row["low"], row["high"],
                                      row["basis"])
    return found


def _state(run: Mapping[str, Any], seen: Mapping[str, Any], accounts: Mapping[str, _Sums],
           now: float) -> RunState:
    start, step = _body(seen["start_body"]), _body(seen["step_body"])
    ended = seen["process"] is not None and seen["end_process"] == seen["process"]
    end = _body(seen["end_body"]) if ended else {}
    promised, measured = accounts.get("forecast", _NOTHING), accounts.get("measured", _NOTHING)
    state, reason = _standing(seen, start, end, measured, now)
    # What an attempt measured is no longer all of it once a later one is under way.
    settled = state in ("done", "stopped") and measured.recorded >= (seen["start_time"] or 0.0)
    total = measured if settled else _NOTHING
    newer = (seen["start_time"] or 0.0) > (seen["step_time"] or 0.0)
    at = end.get("step", start.get("step") if newer else step.get("step", start.get("step")))
    told = lines.figures("step", step)
    seconds = _or(total.value("seconds.total"), told.get("seconds"))
    speed = _or(total.value("tokens_per_second.steps"), told.get("tokens_per_second"))
    updated = max((t for t in (seen["sign"], measured.recorded, run["recorded"]) if t),
                  default=None)
    if state in ("training", "crashed"):
        updated = seen["sign"]
    tokens = _or(total.value("tokens.trained"), told.get("tokens"))
    return RunState(
        name=run["name"], state=state, model=_models.get(run["digest"], ""), machine=run["machine"],
        step=at if isinstance(at, int) else None, steps=start.get("steps"),
        tokens=None if tokens is None else int(tokens), loss=told.get("loss"),
        bits_per_byte=_or(total.value("loss.bits_per_byte"),
                          lines.number(_body(seen["evaluation_body"]).get("bits_per_byte"))),
        tokens_per_second=speed,
        mfu=_or(total.value("mfu.run"), _or(told.get("mfu"), _scaled(
            promised.value("mfu.run"), speed, promised.value("tokens_per_second.steps")))),
        seconds=seconds,
        usd=_spent(promised, total, ("usd.total",), told.get("usd"), seconds, ""),
        kwh=_spent(promised, total, ("kwh.facility", "kwh_modelled.facility"), told.get("kwh"),
                   seconds, "modelled" if step.get("joules") is None else "measured"),
        began=seen["began"], updated=updated,
        age_seconds=None if updated is None else max(0.0, now - updated), reason=reason)


def _standing(seen: Mapping[str, Any], start: Mapping[str, Any], end: Mapping[str, Any],
              measured: _Sums, now: float) -> tuple[State, str]:
    """What the newest process of a run is doing, and why it no longer trains."""
    if seen["process"] is None:
        return ("done", "") if measured.finished else ("planned", "")
    if end:
        return "stopped" if end.get("resumable") else "done", str(end.get("reason", ""))
    beat = _body(seen["beat_body"])
    period = lines.number(beat.get("period_seconds", start.get("period_seconds"))) or PERIOD_SECONDS
    silent = now - seen["sign"]
    if silent <= MISSED * period + SLACK_SECONDS:
        return "training", ""
    last = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seen["sign"]))
    return "crashed", f"no sign of life since {last}"


def _spent(promised: _Sums, total: _Sums, keys: Iterable[str], running: float | None,
           seconds: float | None, basis: str) -> Spent:
    """The first known of: the measured account, the newest step's own word, the promise by time."""
    figures = [total.figures[key] for key in keys if total.value(key) is not None]
    promise = next((promised.figures[key] for key in keys if key in promised.figures), Spent())
    now = running
    if figures:
        now, basis = figures[0].now, figures[0].basis
    elif now is None:
        now = _scaled(promise.now, seconds, promised.value("seconds.total"))
        basis = "modelled"
    return Spent(now, promise.promised, promise.low, promise.high,
                 "" if now is None else basis or "modelled")


_models: dict[str, str] = {}
"""What `_model` said of each run's digest: resolved runs are long, and never change."""


def _name_models(connection: sa.Connection, runs: list[Mapping[str, Any]]) -> None:
    """Fills `_models` for `runs`."""
    ids = [run["id"] for run in runs if run["digest"] not in _models]
    for row in _rows(connection, "SELECT digest, resolved FROM runs WHERE id IN :ids",
                     {"ids": ids}) if ids else ():
        _models[row["digest"]] = _model(row["resolved"])


def _model(resolved: str | None) -> str:
    """Preset or size of a run's model; "" where that is not recorded, or not known here."""
    try:
        values = json.loads(resolved or "")["model"]
        if values.get("preset"):
            return str(values["preset"])
        shape: ModelShape = spec_codec.build(ModelShape, spec_codec.check(ModelShape, values))
        return units.show(shape.parameters, "count")
    except (CurbcutError, ValueError, KeyError, TypeError, AttributeError):
        return ""


def _body(text: str | None) -> Mapping[str, Any]:
    found = json.loads(text) if text else {}
    return found if isinstance(found, dict) else {}


def _scaled(value: float | None, part: float | None, whole: float | None) -> float | None:
    return value * part / whole if value is not None and part is not None and whole else None


def _or(first: float | None, second: float | None) -> float | None:
    return second if first is None else first
