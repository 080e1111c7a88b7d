"""One validation from file to scores: which table it is, in which regime, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from curbcut.errors import InputError, UnknownName
from curbcut.plan.validation import rows as rows_of
from curbcut.plan.validation import score, throughput
from curbcut.plan.validation.rows import Row
from curbcut.plan.validation.score import Prediction, Score, Unexpressed

KINDS = ("throughput", "memory", "serving", "runs", "energy", "cost")
_UNITS = {"GiB": "", "GB": "gb_or_gib", "percent": "percent"}
_TABLES = {"throughput": ("throughput", "sweep", "vtrain_single"), "memory": ("memory", "sweep")}


@dataclass(frozen=True, kw_only=True)
class Regime:
    """What the constants may know of a row's stack: nothing, some of its rows, or the others."""

    calibrate: int = 0
    """Rows of each source that calibrate; 0 for none."""
    folds: int = 0
    """Parts within each stack; 0 for none."""
    known: bool = False
    """Whether constants that the facts have of a row's own stack are used."""
    seed: int = 0

    def name(self) -> str:
        """In words."""
        if self.calibrate:
            return f"after {self.calibrate} rows of each source calibrate its stack"
        if self.known:
            return "known stack, the facts' constants"
        return f"known stack, {self.folds} folds" if self.folds else "stack never seen"


@dataclass(frozen=True, kw_only=True)
class Part:
    """What is scored together: predictions of one quantity, and the rows left out."""

    predictions: Sequence[Prediction]
    unexpressed: Sequence[Unexpressed]

    @property
    def score(self) -> Score:
        """Errors, bias and coverage."""
        return score.score(self.predictions)

    def plain(self) -> dict[str, Any]:
        """The part as JSON has it."""
        return score.as_plain(self.score, self.unexpressed)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A validation's result."""

    kind: str
    table: str
    """Which of the tables that we know the file is."""
    regime: Regime
    parts: Mapping[str, Part]
    """By quantity; the one named "" is the file's own."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Feasibility, regret and the like, as JSON has them; "lines" are rows worth showing one by
    one: id, reported, unit, reproduced (by the source's own method), modelled, low, high, ratio.
    """

    def plain(self) -> dict[str, Any]:
        """All of it as JSON has it."""
        own = self.parts[""].plain() if "" in self.parts else {}
        return own | {name: part.plain() for name, part in self.parts.items() if name} | {
            "kind": self.kind, "table": self.table, "regime": self.regime.name()} | dict(self.more)


def validate(kind: str, path: Path, regime: Regime) -> Outcome:
    """Predicts and scores the rows of `path`.

    Raises UnknownName for the kind, InputError for a file or a regime that does not go with it.
    """
    if kind not in KINDS:
        raise UnknownName("kind", kind, KINDS, where="validate")
    other = regime.calibrate or regime.folds or regime.known
    if other and kind not in ("throughput", "serving", "energy"):
        raise InputError(f"{kind} has no calibrated regime", where="validate",
                         mend="leave out --calibrate, --folds and --known")
    if kind == "serving":
        return _serving(path, regime)
    if kind == "energy":
        from curbcut.plan.validation.energy import validate_energy

        return validate_energy(path, regime)
    if kind == "cost":
        from curbcut.plan.validation.cost import validate_cost

        return validate_cost(path, regime)
    if kind == "runs":
        from curbcut.plan.validation import runs

        found, left = runs.predict(path)
        return Outcome(kind=kind, table="runs", regime=regime,
                       parts={"": Part(predictions=found, unexpressed=left)})
    table, rows, left = rows_of.read(path)
    if table not in _TABLES[kind]:
        raise InputError(f"is a {table} table, not one for {kind}", where=str(path),
                         mend=f"curbcut validate {'memory' if table == 'memory' else 'throughput'} "
                              f"{path}")
    if kind == "memory":
        return _memory(table, rows, left, regime)
    return _throughput(table, rows, left, regime)


def _throughput(table: str, rows: Sequence[Row], left: Sequence[Unexpressed],
                regime: Regime) -> Outcome:
    measure = throughput.tokens_per_second if table == "sweep" else throughput.seconds
    if regime.calibrate:
        found = throughput.calibrated(rows, regime.calibrate, regime.seed, measure)
    elif regime.folds:
        found = throughput.folded(rows, regime.folds, regime.seed, measure)
    else:
        found = throughput.predict(rows, measure, known=regime.known)
    part = Part(predictions=found.predictions, unexpressed=[*left, *found.unexpressed])
    more: dict[str, Any] = {}
    if found.calibrated_on:
        more["calibrated_on"] = found.calibrated_on
    if table == "sweep":
        more |= feasibility(rows) | _regret(rows, found.predictions) | _step_time(found.predictions)
    return Outcome(kind="throughput", table=table, regime=regime, parts={"": part}, more=more)


def _step_time(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """The same rows scored by step time: a run that stalled is at most 100% off by that, and may
    be thousands by its tokens a second.
    """
    own = score.score([score.inverse(one) for one in predictions])
    return {"step_time": score.as_plain(own, ())}


def feasibility(rows: Sequence[Row]) -> dict[str, Any]:
    """How well predicted peaks tell the rows that ran from those that failed."""
    from curbcut.plan.validation import memory

    shares = [memory.share_of_memory(row) for row in rows]
    return {"feasibility": asdict(score.feasibility(shares, [row.status == "ok" for row in rows]))}


def _regret(rows: Sequence[Row], predictions: Sequence[Prediction]) -> dict[str, Any]:
    """What the recipe that we would choose loses, by model and nodes, among those measured."""
    by_id = {row.id: row for row in rows}
    cells: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for one in predictions:
        row = by_id[one.id]
        cells.setdefault((row.shape.parameters, row.machine.accelerators), []).append(
            (one.predicted, one.measured))
    return dict(score.regret(cells))


def _memory(table: str, rows: Sequence[Row], left: Sequence[Unexpressed],
            regime: Regime) -> Outcome:
    """Rows in percent, and rows in GB that may be GiB, are scored apart from rows in GiB."""
    from curbcut.plan.validation import memory

    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.measured:
            groups.setdefault(_UNITS[row.unit], []).append(row)
    only = next(iter(groups)) if len(groups) == 1 else ""
    parts = {}
    for name, own in sorted(groups.items()):
        found, not_found = memory.predict(own)
        parts["" if name == only else name] = Part(
            predictions=found, unexpressed=[*(left if name == only else ()), *not_found])
    if "" not in parts:
        parts[""] = Part(predictions=[], unexpressed=left)
    more = feasibility(rows) if table == "sweep" else {}
    return Outcome(kind="memory", table=table, regime=regime, parts=parts, more=more)


def _serving(path: Path, regime: Regime) -> Outcome:
    from curbcut.plan.validation import serving

    if regime.known:
        raise InputError("serving has no such regime", where="--known",
                         mend="leave it out, or use --calibrate or --folds")
    found = serving.judge(path, calibrate=regime.calibrate, folds=regime.folds,
                          seed=regime.seed)
    parts = {name: Part(predictions=own, unexpressed=left)
             for name, (own, left) in found.by_quantity.items()}
    more = {"calibrated_on": found.calibrated_on} if regime.calibrate else {}
    return Outcome(kind="serving", table="serving", regime=regime, parts=parts, more=more)
