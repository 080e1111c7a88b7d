"""Epoch's published costs, row by row: their results, inputs, later output and development costs.

Results and inputs are reproduced, not predicted: a row counts as reproduced within `TOLERANCE`.
Their later output is of other inputs, and of dollars whose year it does not say: near, not the
same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from datetime import date
from typing import Any

from curbcut.accounts import epoch as approaches
from curbcut.accounts import staff
from curbcut.accounts.epoch import WAYS, Costs
from curbcut.errors import InputError, UnknownName
from curbcut.facts import epoch
from curbcut.plan.validation.cells import CannotExpress, Cells
from curbcut.plan.validation.outcome import Outcome, Part, Regime
from curbcut.plan.validation.score import Prediction, Unexpressed

TOLERANCE = 1e-9
"""Relative error within which a published value counts as reproduced."""
_RESULTS = {"amortised": "capex_energy_usd", "acquisition": "hardware_acquisition_usd",
            "cloud": "cloud_usd"}
_RESULTS_2023 = {"amortised, 2023 USD": "capex_energy_2023usd",
                 "acquisition, 2023 USD": "hardware_acquisition_2023usd",
                 "cloud, 2023 USD": "cloud_2023usd"}
_COMPONENTS = {"rd_staff_incl_equity": "staff", "ai_accelerator_chips": "chips",
               "other_server_components": "server", "cluster_interconnect": "network",
               "energy": "energy", "total_of_medians": "total"}
"""Components of development costs as Epoch names them, and as `accounts.staff` does."""
_LATER = {"amortised": "Hardware_Capex_Energy_Cost",
          "acquisition": "Hardware_Acquisition_Cost", "cloud": "Cloud_Cost"}
_SOURCE = "Epoch AI"


def outcome(columns: Set[str], rows: Sequence[Cells], regime: Regime) -> Outcome | None:
    """The scores of one of Epoch's tables; None where the columns are of none."""
    if {"system", *_RESULTS.values()} <= columns:
        return _reproduced("epoch results", regime, _result_parts(rows))
    if {"Model", *_LATER.values()} <= columns:
        return _reproduced("later epoch results", regime, {
            name: _way_part(rows, "Model", column, name, _usd_2023)
            for name, column in _LATER.items()})
    if {"System", "Publication date", "Training hardware"} <= columns:
        return _reproduced("epoch inputs", regime, _input_parts(rows))
    if {"system", "component", "median_2023usd"} <= columns:
        return Outcome(kind="cost", table="epoch development", regime=regime,
                       parts=_development_parts(rows))
    return None


def _reproduced(table: str, regime: Regime, parts: Mapping[str, Part]) -> Outcome:
    """An outcome that says, besides errors, how many rows came out the same."""
    more: dict[str, Any] = {}
    for name, part in parts.items():
        off = [abs(one.error) for one in part.predictions]
        more[name] = {"rows": len(off), "reproduced": sum(one <= TOLERANCE for one in off),
                      "max_relative_error": max(off, default=None)}
    return Outcome(kind="cost", table=table, regime=regime, parts=parts,
                   more={"reproduced": more})


def _result_parts(rows: Sequence[Cells]) -> dict[str, Part]:
    """Nominal and 2023 dollars of the three approaches."""
    parts = {name: _way_part(rows, "system", column, name, _usd)
             for name, column in _RESULTS.items()}
    more = {name: _way_part(rows, "system", column, name.partition(",")[0], _usd_2023)
            for name, column in _RESULTS_2023.items() if column in rows[0].cells}
    return parts | more


def _usd(costs: Costs, way: str) -> float | None:
    found = costs.way(way)
    return found.usd if found else None


def _usd_2023(costs: Costs, way: str) -> float | None:
    found = costs.way(way)
    return found.usd_2023 if found else None


def _way_part(rows: Sequence[Cells], names: str, column: str, way: str,
              of: Callable[[Costs, str], float | None]) -> Part:
    """One approach over the rows that state a value for it."""
    found: list[Prediction] = []
    left: list[Unexpressed] = []
    for row in rows:
        name = row.text(names) or "?"
        try:
            stated = row.positive(column)
            if stated is None:
                continue
            costs = approaches.three(name)
            ours = of(costs, way)
            if ours is None:
                raise CannotExpress(costs.missing[way])
            found.append(_exact(name, ours, stated, _basis(costs, way)))
        except (CannotExpress, InputError) as error:
            left.append(Unexpressed(name, _SOURCE, str(error).partition("\n")[0]))
    return Part(predictions=found, unexpressed=left)


def _basis(costs: Costs, way: str) -> str:
    found = costs.way(way)
    return found.basis if found else ""


def _exact(name: str, ours: float, stated: float, basis: str) -> Prediction:
    low, high = ours * (1 - TOLERANCE), ours * (1 + TOLERANCE)
    return Prediction(id=name, source=_SOURCE, predicted=ours, low80=low, high80=high, low95=low,
                      high95=high, measured=stated, assumed=(basis,))


def _input_parts(rows: Sequence[Cells]) -> dict[str, Part]:
    """The file's own inputs, priced, beside the published results of the same models."""
    priced: list[Costs] = []
    left: list[Unexpressed] = []
    for row in rows:
        try:
            priced.append(approaches.three(_model(row)))
        except (CannotExpress, InputError) as error:
            left.append(Unexpressed(row.text("System") or "?", _SOURCE,
                                    str(error).partition("\n")[0]))
    known = epoch.results()
    parts: dict[str, Part] = {}
    for way in WAYS:
        found: list[Prediction] = []
        missed = list(left)
        for costs in priced:
            name = costs.model.name
            stated, ours = known[name].usd[way] if name in known else None, _usd(costs, way)
            if ours is None:
                missed.append(Unexpressed(name, _SOURCE, costs.missing[way]))
            elif stated is None:
                missed.append(Unexpressed(name, _SOURCE, "no published result of this model"))
            else:
                found.append(_exact(name, ours, stated, _basis(costs, way)))
        parts[way] = Part(predictions=found, unexpressed=missed)
    return parts


def _development_parts(rows: Sequence[Cells]) -> dict[str, Part]:
    """Medians and intervals of development costs by component: theirs and ours differ in how
    equity is drawn, and in whose energy it is (`accounts.staff`).
    """
    found: dict[str, list[Prediction]] = {name: [] for name in _COMPONENTS}
    left: dict[str, list[Unexpressed]] = {name: [] for name in _COMPONENTS}
    drawn: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        model, component = row.text("system") or "?", row.text("component")
        if component not in _COMPONENTS:
            left[next(iter(_COMPONENTS))].append(Unexpressed(
                model, _SOURCE, f"component {component!r}, which is none of "
                f"{', '.join(_COMPONENTS)}"))
            continue
        try:
            stated = row.positive("median_2023usd")
            if stated is None:
                raise CannotExpress("no median published")
            if model not in drawn:
                drawn[model] = staff.development(model)
            found[component].append(_drawn(model, drawn[model][_COMPONENTS[component]], stated))
        except (CannotExpress, InputError) as error:
            left[component].append(Unexpressed(model, _SOURCE, str(error).partition("\n")[0]))
    return {name: Part(predictions=found[name], unexpressed=left[name]) for name in _COMPONENTS}


def _drawn(model: str, draws: Any, stated: float) -> Prediction:
    import numpy as np

    low95, low80, middle, high80, high95 = np.quantile(draws, (0.025, 0.1, 0.5, 0.9, 0.975))
    return Prediction(id=model, source=_SOURCE, predicted=float(middle), low80=float(low80),
                      high80=float(high80), low95=float(low95), high95=float(high95),
                      measured=stated, assumed=("equity drawn for every sample",))


def _model(row: Cells) -> epoch.Model:
    """One row of the inputs; days of training that the table leaves out are the facts'."""
    name = row.text("System")
    try:
        known: epoch.Model | None = epoch.model(name)
    except UnknownName:
        known = None
    try:
        published = date.fromisoformat(row.text("Publication date"))
    except ValueError:
        raise CannotExpress(f"Publication date is {row.text('Publication date')!r}") from None
    return epoch.Model(
        name=name, published=published, organisations=_many(row, "Organization"),
        domains=_many(row, "Domain"), parameters=row.positive("Parameters"),
        compute_flops=_compute(row), data_points=row.positive("Training dataset size (datapoints)"),
        epochs=row.positive("Epochs"), training_start=known.training_start if known else None,
        training_end=known.training_end if known else None,
        hours=row.positive("Training time (hours)"), hardware=_many(row, "Training hardware"),
        quantity=row.positive("Hardware quantity"),
        utilisation=row.positive("Hardware utilization"),
        chip_hours=row.positive("Training chip-hours"), base_model=row.text("Base model"),
        confidence=row.text("Confidence"), rank=None, source=_SOURCE)


def _compute(row: Cells) -> float | None:
    """FLOPs, which are beyond the largest number that other cells may hold."""
    text = row.text("Training compute (FLOP)")
    try:
        value = float(text) if text else 0.0
    except ValueError:
        raise CannotExpress(f"Training compute is {text!r}, which is no number") from None
    if not 0 <= value < 1e40:
        raise CannotExpress(f"Training compute is {text!r}, beyond anything trained")
    return value or None


def _many(row: Cells, column: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in row.text(column).split(",") if part.strip())
