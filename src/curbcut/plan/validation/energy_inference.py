"""Predicts measured energy of inference from its input columns alone.

Each row is predicted by constants that have seen no model of its architecture (the facts keep those
fitted with each left out); an architecture that the facts never met takes the general ones. Joules
an output token and watts are what accelerators draw, as the tables measure it: no host, no PUE.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from curbcut.errors import InputError
from curbcut.facts import physics
from curbcut.plan.validation import energy_model, energy_rows
from curbcut.plan.validation.cells import CannotExpress
from curbcut.plan.validation.energy_rows import EnergyRow
from curbcut.plan.validation.outcome import Outcome, Part, Regime
from curbcut.plan.validation.score import Prediction, Unexpressed, quantile

Found = tuple[list[Prediction], list[Unexpressed]]
Spread = tuple[float, float, float, float]


def validate_inference(path: Path, regime: Regime) -> Outcome:
    """Scores a table of measured energy of inference: joules an output token, and "watts" where
    the table has them. Raises InputError for any other table, and for a calibrated regime.
    """
    if regime.calibrate or regime.folds:
        raise InputError("energy of inference has no calibrated regime: architectures are left "
                         "out one at a time", where="validate",
                         mend="leave out --calibrate and --folds")
    rows, left = energy_rows.read(path)
    found = predict(rows, left, known=regime.known)
    parts = {"" if name == "joules" else name: Part(predictions=own, unexpressed=without)
             for name, (own, without) in found.items()}
    return Outcome(kind="energy", table="inference", regime=regime, parts=parts,
                   more=factors(rows, found))


def predict(rows: Sequence[EnergyRow], left: Sequence[Unexpressed] = (), *,
            known: bool = False) -> Mapping[str, Found]:
    """Predictions and rows left out, by quantity; a prediction's source is the row's model. With
    `known`, by constants that have seen every row of their table.
    """
    found: dict[str, Found] = {}
    for name in energy_rows.MEASURED:
        own = [row for row in rows if name in row.measured]
        if own or name == "joules":
            found[name] = (_predictions(own, name, known=known), [*left, *(
                Unexpressed(row.id, row.name, f"no {energy_rows.MEASURED[name]}")
                for row in rows if name not in row.measured)])
    return found


def published(lines: Sequence[Mapping[str, str]]) -> Found:
    """Lines of published figures (name, hardware, quantity, energy in J an output token) by the
    same path, and those that cannot be expressed.
    """
    found: list[Prediction] = []
    left: list[Unexpressed] = []
    for line in lines:
        name = ", ".join(line.get(key) or "" for key in ("name", "hardware", "quantity"))
        source = (line.get("source") or "").strip()
        try:
            row = energy_rows.row(energy_rows.published(line), name)
            if "joules" not in row.measured:
                raise CannotExpress("energy is no number above 0")
            found += _predictions([row], "joules", source)
        except CannotExpress as problem:
            left.append(Unexpressed(name, source, str(problem)))
    return found, left


def _predictions(rows: Sequence[EnergyRow], name: str, source: str = "",
                 known: bool = False) -> list[Prediction]:
    """Each row by constants without its architecture, in the order of the rows."""
    told: dict[str, float] = {}
    for architecture in sorted({row.architecture for row in rows}):
        own = [row for row in rows if row.architecture == architecture]
        got = energy_model.predicted(energy_model.table(own),
                                     energy_model.values("" if known else architecture))
        told |= {row.id: float(value) for row, value in zip(own, getattr(got, name), strict=True)}
    low80, high80, low95, high95 = spread(name)
    return [Prediction(id=row.id, source=source or row.name, predicted=told[row.id],
                       low80=told[row.id] * low80, high80=told[row.id] * high80,
                       low95=told[row.id] * low95, high95=told[row.id] * high95,
                       measured=row.measured[name], assumed=row.assumed) for row in rows]


@functools.cache
def spread(name: str) -> Spread:
    """Measured over predicted, for an architecture never seen: ends of the 80% and of the 95%
    interval of "joules" or "watts".
    """
    found = {one.name: one for one in physics.constants(energy_model.FILE)}
    narrow, wide = found[f"{name}_spread80"], found[f"{name}_spread95"]
    return narrow.low, narrow.high, wide.low, wide.high


def factors(rows: Sequence[EnergyRow], found: Mapping[str, Found]) -> dict[str, Any]:
    """Typical error factor, exp(median |ln(predicted / measured)|), and its 90% quantile, of all
    rows and by GPU, precision, kind, batch and model, as JSON has them.
    """
    by_id = {row.id: row for row in rows}
    groups: Mapping[str, Callable[[EnergyRow], str]] = {
        "gpu": lambda row: row.family, "precision": lambda row: row.precision,
        "kind": lambda row: "experts" if row.shape.experts else "dense",
        "batch": lambda row: _size(row.batch), "model": lambda row: row.name}
    out: dict[str, Any] = {}
    for name, (predictions, _) in found.items():
        parts: dict[str, Any] = {"all": _factor(predictions)}
        for label, of in groups.items():
            kinds: dict[str, list[Prediction]] = {}
            for one in predictions:
                kinds.setdefault(of(by_id[one.id]), []).append(one)
            parts[f"by_{label}"] = {kind: _factor(own) for kind, own in sorted(kinds.items())}
        out[name] = parts
    return {"error_factors": out}


def _factor(predictions: Sequence[Prediction]) -> dict[str, float | int | None]:
    off = sorted(abs(math.log(one.predicted / one.measured)) for one in predictions)
    if not off:
        return {"rows": 0, "typical": None, "p90": None}
    return {"rows": len(off), "typical": math.exp(quantile(off, 0.5)),
            "p90": math.exp(quantile(off, 0.9))}


def _size(batch: float) -> str:
    """The range of a batch, in powers of 4."""
    low = 4 ** int(math.log(max(batch, 1.0)) / math.log(4) + 1e-6)
    return f"{low} to {4 * low}"
