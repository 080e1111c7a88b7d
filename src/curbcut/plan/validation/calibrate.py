"""A user's own measured rows become constants of their stack, in their own overlay of the facts."""

from __future__ import annotations

import csv
import datetime
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from curbcut.errors import InputError, UnknownName
from curbcut.facts import physics, table
from curbcut.files import write_whole
from curbcut.physics import constants as physics_constants
from curbcut.physics.constants import TrainingConstants
from curbcut.plan import calibrate as learning
from curbcut.plan import fit
from curbcut.plan.validation import rows as rows_of
from curbcut.plan.validation import score, throughput
from curbcut.plan.validation.rows import Row
from curbcut.plan.validation.score import Score
from curbcut.spec.estimate import Z90

FILE = physics_constants.FILE
KEY = ("name", "accelerator", "stack", "version", "without")
"""Columns that tell one constant of the facts from another."""
ENOUGH_ROWS = 10
"""With fewer, a constant stays near its prior and is marked unsupported."""
MOST_FOLDS = 5
LEAST_MOVE, TOLD = 0.02, 0.97
"""Rows tell something of a factor whose logarithm moves by more than the one, or whose interval
shrinks to less than the other's share."""


@dataclass(frozen=True)
class Fitted:
    """One constant as measured rows have it, beside what it was thought to be."""

    name: str
    unit: str
    accelerator: str
    """The family that it holds for; "" for any."""
    version: str
    """The version that it holds for; "" for any."""
    prior: float
    """The constant where nothing is known of the stack (mean over the rows)."""
    factor: float
    """What it is multiplied by for this stack, as the facts keep it."""
    low: float
    """Low end of the factor's 90% interval."""
    high: float
    """High end of it."""

    @property
    def value(self) -> float:
        """The constant as fitted."""
        return self.prior * self.factor


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Constants of one stack fitted to measured rows, and what that does to the error."""

    stack: str
    version: str
    rows: int
    sources: int
    constants: Sequence[Fitted]
    before: Score
    """Errors of constants that never saw the stack."""
    after: Score | None
    """Errors of each fold with constants fitted on the others; None with too few rows."""
    origin: str
    """Where the rows come from: the file's name."""


def calibrate(path: Path, stack: str = "", version: str = "") -> Calibration:
    """Fits the constants of `stack` (the file's only one where "") to the rows of a table.

    Raises InputError for a file without measured rows of it, UnknownName for a stack that the file
    does not have.
    """
    kind, rows, _ = rows_of.read(path)
    if kind == "memory":
        raise InputError("is a memory table: step times are calibrated", where=str(path),
                         mend="give a table with measured step times or tokens a second")
    name, chosen = _chosen([row for row in rows if row.status == "ok"], stack, version, path)
    folds = min(MOST_FOLDS, len(chosen) // 2)
    after = throughput.folded(chosen, folds, seed=0).predictions if folds >= 2 else []
    return Calibration(
        stack=name, version=version, rows=len(chosen),
        sources=len({row.source for row in chosen}), constants=fitted(chosen),
        before=score.score(throughput.predict(chosen).predictions),
        after=score.score(after) if after else None, origin=path.name)


def _chosen(rows: Sequence[Row], stack: str, version: str,
            path: Path) -> tuple[str, list[Row]]:
    known = sorted({row.stack for row in rows})
    if not known:
        raise InputError("has no measured row that can be read", where=str(path),
                         mend="see `curbcut validate throughput` for the reasons")
    folded = {name.casefold(): name for name in known}
    if stack and stack.casefold() not in folded:
        raise UnknownName("stack", stack, known, where=str(path))
    if not stack and len(known) > 1:
        raise InputError(f"has rows of {len(known)} stacks", where=str(path),
                         mend=f"say which: --stack {' or '.join(repr(name) for name in known)}")
    name = folded[stack.casefold()] if stack else known[0]
    of = [row for row in rows if row.stack == name]
    versions = sorted({row.version for row in of})
    if version and version not in versions:
        raise UnknownName("version", version, versions, where=f"{path}, {name}")
    return name, [row for row in of if not version or row.version == version]


def fitted(measured: Sequence[Row]) -> Sequence[Fitted]:
    """The factors of the constants of one stack that measured rows of it make likeliest, around
    what all stacks together say: those that the rows tell something about, and those that the
    facts have of this stack already.
    """
    of = fit.cases([row.shape for row in measured], [row.recipe for row in measured],
                   [row.machine for row in measured], [row.measured["seconds"] for row in measured])
    general = _general(measured)
    learned = learning.learn(of, general)
    widths = fit.deviations(of, general, learning.LEVELS, learned.factors,
                            noise=np.full(len(of), learned.spread),
                            believed=fit.calibration_priors())
    stack = measured[0].stack
    spreads = fit.terms(of, learning.LEVELS, fit.calibration_priors())
    stated = {(one.name, one.accelerator, one.version)
              for one in physics.constants(FILE) if one.stack == stack}
    found = []
    for term, value in learned.factors.items():
        width = widths[term]
        family = term.name if term.level == "accelerator" else ""
        version = term.name.removeprefix(stack).strip() if term.level == "version" else ""
        told = width < TOLD * spreads[term] or abs(value) > LEAST_MOVE
        if told or (term.constant, family, version) in stated:
            found.append(Fitted(
                term.constant, fit.priors()[term.constant].unit, family, version,
                float(np.mean(getattr(general, term.constant))), math.exp(value),
                math.exp(value - Z90 * width), math.exp(value + Z90 * width)))
    return found


def _general(rows: Sequence[Row]) -> TrainingConstants:
    """The facts' constants of each row's family with no factor of its stack, but with what the
    stack is known to do.
    """
    families = [physics_constants.machine_family(row.machine) for row in rows]
    plain = [replace(physics_constants.training_constants(family), **physics_constants.features(
        row.stack, row.version or "9999", family))
        for row, family in zip(rows, families, strict=True)]
    return TrainingConstants(**{name: np.array([getattr(one, name) for one in plain], float)
                                for name in vars(plain[0])})


def overlay_path() -> Path:
    """The user's own file of training constants, whether or not it is there."""
    return table.overlay_folder() / f"{FILE}.csv"


def write(found: Calibration) -> Path:
    """Puts the constants into the user's overlay, over those of the same key; returns the file.

    Raises InputError where it cannot be written.
    """
    path = overlay_path()
    kept: dict[tuple[str, ...], Mapping[str, str]] = {}
    if path.is_file():
        kept = {_key(line): line for line in csv.DictReader(
            io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""))}
    kept |= {_key(line): line for line in lines(found)}
    out = io.StringIO()
    columns = list(dict.fromkeys(column for line in kept.values() for column in line))
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(kept.values())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, out.getvalue())
    except OSError as error:
        raise InputError(f"cannot be written ({error.strerror})", where=str(path),
                         mend="set CURBCUT_FACTS to a folder that you may write to") from None
    return path


def lines(found: Calibration) -> list[dict[str, str]]:
    """The constants as lines of the facts' file."""
    few = "" if found.rows >= ENOUGH_ROWS else f"unsupported: fewer than {ENOUGH_ROWS} rows; "
    return [{
        "name": one.name, "accelerator": one.accelerator, "stack": found.stack,
        "version": one.version, "without": "", "value": f"{one.factor:.6g}",
        "low": f"{one.low:.6g}", "high": f"{one.high:.6g}", "unit": "factor",
        "rows": str(found.rows), "sources": str(found.sources),
        "note": f"{few}on a general value of {one.prior:.4g} {one.unit}".rstrip(),
        "source": f"curbcut calibrate {found.origin}",
        "date": datetime.date.today().isoformat(),
    } for one in found.constants]


def _key(line: Mapping[str, str]) -> tuple[str, ...]:
    return tuple((line.get(column) or "").casefold() for column in KEY)


def plain(found: Calibration) -> dict[str, Any]:
    """The calibration as JSON has it."""
    return {"stack": found.stack, "version": found.version, "rows": found.rows,
            "sources": found.sources,
            "constants": [asdict(one) | {"value": one.value} for one in found.constants],
            "before": score.as_plain(found.before, []),
            "after": None if found.after is None else score.as_plain(found.after, [])}
