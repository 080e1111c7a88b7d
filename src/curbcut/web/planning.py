"""The planner's answers, in a process of their own: the pages' server stays small and quick while a
plan is priced.

`python -m curbcut.web.planning RUNS` reads questions, a line of JSON each, and writes as many
answers. Machines are priced once, when it starts; a question then reads off what it needs.
"""

from __future__ import annotations

import gc
import json
import select
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from curbcut.accounts.development import ledger_ratio
from curbcut.errors import CurbcutError, InputError, UnknownName
from curbcut.facts import table
from curbcut.ledger import FILE_NAME, kept_pairs
from curbcut.plan.backwards.answer import Answer, backwards
from curbcut.plan.backwards.kept import Kept
from curbcut.plan.calibration import Pair, correction
from curbcut.plan.forecast import forecast
from curbcut.report import backwards as report
from curbcut.spec import codec
from curbcut.spec.nouns import Machine
from curbcut.web.asked import Asked, read

if TYPE_CHECKING:
    from curbcut.plan.levers.result import LeverResult, Waterfall
    from curbcut.plan.trend.barrier import Reach

FIRST = {"money": "500 EUR"}
"""Asked at the start, so that what all questions share is priced before the first person asks."""
SHOWN = ("usd.total", "seconds.total", "kwh.facility", "kgco2e.total", "litres.water",
         "tokens_per_second.steps", "mfu.run", "memory_bytes.peak", "loss.bits_per_byte")
"""Figures of the forecast that the page shows, where they are known."""


class _Stopped(Exception):
    """Another question waits."""


class Planner:
    """Answers one question at a time."""

    def __init__(self, runs: Path, waits: Callable[[], bool] = lambda: False) -> None:
        """`waits` says whether another question waits: levers then end unsaid."""
        self._runs, self._kept, self._waits = runs, Kept(), waits
        self._last: tuple[Mapping[str, str], Answer] | None = None
        self._here: Machine | None = None
        self._read: tuple[object, list[Pair]] | None = None
        self._does: Mapping[str, Callable[[Mapping[str, str]], dict[str, Any]]] = {
            "answer": self.answer, "levers": self.levers, "map": barrier_map,
            "choices": choices}

    def do(self, what: str, asked: Mapping[str, str]) -> dict[str, Any]:
        """One of answer, levers, map and choices. Raises InputError, UnknownName."""
        if what not in self._does:
            raise UnknownName("question", what, self._does, where="planner")
        return self._does[what](asked)

    def answer(self, asked: Mapping[str, str]) -> dict[str, Any]:
        """What a budget buys: as `curbcut plan --json` has it, with what the page needs beside."""
        started = time.perf_counter()
        question, found = self._answered(asked)
        run = found.best.resolved.run
        account = forecast(run, self._pairs(), project=ledger_ratio(self._runs / FILE_NAME),
                           seed=run.seed)
        limits = report.limits(found)
        lines = {f"{section}.{kind}": estimate for section, kind, estimate in account.lines()}
        return {
            "backwards": report.as_plain(found), "command": question.command,
            "forecast": {key: codec.plain(lines[key]) for key in SHOWN if key in lines},
            "limits": {"columns": [one.title for one in limits.columns], "notes": limits.notes,
                       "rows": [[_cell(one) for one in row] for row in limits.rows]},
            "run": {"model": run.model.preset or "", "layers": run.model.layers,
                    "width": run.model.width, "experts": run.model.experts,
                    "parameters": run.model.parameters, "tokens": run.train.tokens,
                    "active_parameters": run.model.active_parameters,
                    "machine": run.machine.name, "accelerators": run.machine.accelerators,
                    "accelerator": run.machine.accelerator, "zone": run.place.zone,
                    "contract": run.place.contract, "tenure": run.place.tenure,
                    "currency": run.place.currency, "precision": run.recipe.precision,
                    "memory_bytes": run.machine.memory_bytes},
            "took_seconds": time.perf_counter() - started}

    def levers(self, asked: Mapping[str, str]) -> dict[str, Any]:
        """The waterfall of the run that the same question was answered with, in `unit`; or that it
        was stopped, because another question waits.
        """
        from curbcut.plan.levers import catalogue, price
        from curbcut.plan.levers.case import Taught
        from curbcut.plan.levers.waterfall import waterfall

        started = time.perf_counter()
        asked = dict(asked)
        unit = asked.pop("unit", "") or "usd"
        _, found = self._answered(asked)
        run, pairs = found.best.resolved.run, self._pairs()
        taught = Taught(run.machine, correction(run.machine, run.recipe.precision, pairs),
                        ledger_ratio(self._runs / FILE_NAME))
        try:
            fall = waterfall(run, catalogue.TRAINING, price.unit(unit), taught=taught,
                             before=self._go_on)
        except _Stopped:
            return {"stopped": True}
        return _plain_waterfall(fall) | {"took_seconds": time.perf_counter() - started}

    def _go_on(self) -> None:
        if self._waits():
            raise _Stopped

    def _answered(self, asked: Mapping[str, str]) -> tuple[Asked, Answer]:
        question = read(asked, self._runs)
        if self._last is not None and self._last[0] == dict(asked):
            return question, self._last[1]
        here = self._machine(question) if question.here else None
        found = backwards(question.draft, question.wish, here=here, pairs=self._pairs(),
                          kept=self._kept)
        self._last = dict(asked), found
        return question, found

    def _pairs(self) -> list[Pair]:
        """Measured runs of the ledger, read again when it has changed."""
        path = self._runs / FILE_NAME
        try:
            stamp: object = tuple(
                (one.stat().st_mtime_ns, one.stat().st_size)
                for one in (path, path.with_name(f"{FILE_NAME}-wal")) if one.exists())
        except OSError:
            stamp = None
        if self._read is None or stamp is None or self._read[0] != stamp:
            self._read = stamp, list(kept_pairs(path))
            self._last = None
        return self._read[1]

    def _machine(self, question: Asked) -> Machine:
        """The machine at hand, as `curbcut plan --on here` finds it."""
        if self._here is None:
            from curbcut.meter import detect, here, probe

            detected = detect.machine()
            self._here = here.machine(detected, probe.load(detected))
        if any(name != "here" for name in question.here):
            raise InputError("only the whole of this machine is planned here", where="on",
                             mend='write "here"')
        return self._here


def _cell(value: Any) -> Any:
    """A table's cell as its text, or its plain value where it is none."""
    return getattr(value, "text", value)


def _plain_waterfall(found: Waterfall) -> dict[str, Any]:
    low, high = found.factor_ends
    return {
        "of": found.of, "what": found.what, "unit": found.unit.dimension,
        "currency": found.unit.currency, "start": codec.plain(found.start),
        "end": codec.plain(found.end), "factor": _finite(found.factor),
        "factor_low": _finite(low), "factor_high": _finite(high),
        "steps": [_lever(one) for one in found.steps],
        "others": [_lever(one) for one in found.results if one.order is None]}


def _lever(one: LeverResult) -> dict[str, Any]:
    return {"name": one.name, "what": one.what, "group": one.group, "status": one.status,
            "reason": one.reason, "before": one.before, "after": one.after,
            "saved": codec.plain(one.marginal) if one.marginal else None,
            "alone_share": codec.plain(one.alone_share) if one.alone_share else None,
            "changed": list(one.changed), "uncertain": one.uncertain,
            "evidence": [{"quote": row.quote, "source": row.source} for row in one.evidence]}


def _finite(value: float) -> float | None:
    """JSON has no endless number."""
    return value if abs(value) < float("inf") else None


def barrier_map(_asked: Mapping[str, str]) -> dict[str, Any]:
    """Who can train what: the largest training-optimal model by budget and year."""
    from curbcut.plan.trend.outlook import outlook

    found = outlook()
    return {
        "year": found.year, "curves": [[_reach(one) for one in row] for row in found.curves],
        "published": [{"name": one.name, "year": one.published.year, "usd": one.owned_usd,
                       "parameters": one.parameters} for one in found.again]}


def _reach(one: Reach) -> dict[str, Any]:
    return {"usd": one.budget_usd, "year": one.year, "basis": one.basis,
            "parameters": codec.plain(one.parameters), "rule_of_thumb": one.rule_of_thumb,
            "bits_per_byte": codec.plain(one.bits_per_byte)}


def choices(_asked: Mapping[str, str]) -> dict[str, Any]:
    """What may be chosen: zones by kind, machines with a price, currencies with a rate, contracts.
    """
    from curbcut.facts import accelerators, currency, grid, prices
    from curbcut.plan.contracts import ANY, CONTRACTS

    zones: dict[str, dict[str, str]] = {}
    for one in grid.zones():
        zones.setdefault(one.kind, {})[one.zone] = one.name
    priced = {row.accelerator for row in prices.book()}
    return {
        "zones": [{"kind": kind, "zones": sorted(found.items(), key=lambda item: item[1])}
                  for kind, found in zones.items()],
        "accelerators": [one.id for one in accelerators.accelerators()
                         if one.kind != "cpu" and one.peak_flops and one.id in priced],
        "currencies": {code: currency.usd_per(code).value for code in currency.codes()},
        "contracts": [*CONTRACTS, ANY]}


def serve(planner: Planner, questions: TextIO, answers: TextIO) -> None:
    """Answers until there are no more questions; bad input is an answer too. An empty line is no
    question: it tells who still pulls levers that somebody waits.
    """
    for line in questions:
        if not line.strip():  # it only said that somebody waits
            continue
        try:
            asked = json.loads(line)
            told: dict[str, Any] = {"found": planner.do(asked["do"], asked["asked"])}
        except CurbcutError as error:
            told = {"error": {"what": error.what, "where": error.where, "mend": error.mend},
                    "exit_code": error.exit_code}
        answers.write(json.dumps(told, separators=(",", ":")) + "\n")
        answers.flush()


def main() -> None:
    """Prices what all questions share, then answers."""
    table.settle()
    # One question at a time is under way, so nothing of the next one is in Python's own buffer.
    planner = Planner(Path(sys.argv[1]), lambda: bool(select.select([sys.stdin], [], [], 0)[0]))
    planner.do("answer", FIRST)
    # What was priced stays: there is nothing in it to collect.
    gc.collect()
    gc.freeze()
    serve(planner, sys.stdin, sys.stdout)


if __name__ == "__main__":
    main()
